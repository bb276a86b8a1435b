"""Kafka's codecs, with a bound on what they give: a megabyte of them can hold a gigabyte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np

from featherweight.core.errors import DataError

UNPACKED_BYTES = 16 << 20
"""The most that a record batch may hold: brokers take about 1 MB of it packed, and JSON packs ten to one."""
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
"""As in the lowest three bits of a batch's attributes."""
NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
_XERIAL = b"\x82SNAPPY\0"
"""How streams of Java's snappy begin: then two versions, then blocks behind their lengths. Others write one block."""
_XERIAL_HEAD = 16


def unpack(codec: int, content: bytes, limit: int = UNPACKED_BYTES) -> bytes:
    """What `content` holds, which may be `limit` bytes at most. Raises DataError, and never holds much more."""
    if codec == NONE:
        return content
    if codec not in NAMES:
        raise DataError(f"codec {codec} is not one of Kafka's")
    room = np.empty(limit, np.uint8)  # memory is taken only where something is written
    try:
        size = _INTO[codec](content, room)
    except cramjam.DecompressionError as error:
        if "failed to write whole buffer" in str(error):
            raise DataError(f"its {len(content)} bytes of {NAMES[codec]} hold more than {limit}") from None
        raise DataError(f"its {len(content)} bytes of {NAMES[codec]} cannot be unpacked: it is damaged") from None
    return room[:size].tobytes()


def _unpack_snappy(content: bytes, room: Any) -> int:
    if not content.startswith(_XERIAL):
        return _unpack_block(content, room)
    at, filled = _XERIAL_HEAD, 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        block = content[at + 4 : at + 4 + size]
        if len(block) < size or not size:
            raise cramjam.DecompressionError("a block ends early")
        filled += _unpack_block(block, room[filled:])
        at += 4 + size
    return filled


def _unpack_block(block: bytes, room: Any) -> int:
    if cramjam.snappy.decompress_raw_len(block) > len(room):
        raise cramjam.DecompressionError("failed to write whole buffer")
    return int(cramjam.snappy.decompress_raw_into(block, room))


_INTO: dict[int, Callable[[bytes, Any], int]] = {
    GZIP: cramjam.gzip.decompress_into,
    SNAPPY: _unpack_snappy,
    LZ4: cramjam.lz4.decompress_into,
    ZSTD: cramjam.zstd.decompress_into,
}
