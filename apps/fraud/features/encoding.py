"""Histories as bytes: the blocks of a changelog's records, and snapshots.

A block holds up to EVENTS events of one key, each three little-endian int64 words as in `kernels.py`. A snapshot is
a line that names the format, the length of a MessagePack head (8 bytes, little-endian), the head, the counts of the
keys' events, the events, and the SHA-256 of all before.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from struct import Struct

import msgspec
import numpy as np

from featherweight.apps.fraud.features.kernels import EVENTS
from featherweight.core.arrays import Words
from featherweight.core.errors import DataError

_HEAD = Struct("<BBHI")
"""The head of a record's value: version; place of the first event in its block << 4 | events; how far that event is
from the key's oldest; CRC-32 of the events, begun with the two before. Forgetting rewrites no block: the distance tells
it."""
_VERSION = 1
_EVENT_BYTES = 24
MAGIC = b"featherweight histories 1\n"
"""The first line of a snapshot."""


def encode_block(start: int, past: int, words: Words) -> bytes:
    """A record's value. start: place of the first event in its block; past: how far it is from the key's oldest; words:
    int64 [3 * events]."""
    content, place = words.astype("<i8", copy=False).tobytes(), start << 4 | len(words) // 3
    return _HEAD.pack(_VERSION, place, past, zlib.crc32(content, past << 8 | place)) + content


def check_block(value: bytes) -> None:
    """Raise DataError for what `encode_block` did not make."""
    if len(value) < _HEAD.size:
        raise DataError(f"a changelog record of {len(value)} bytes is too short; the changelog is damaged")
    version, place, past, crc = _HEAD.unpack_from(value)
    if version != _VERSION:
        raise DataError(f"a changelog record of version {version}, expected {_VERSION}; update featherweight")
    start, count = place >> 4, place & 15
    sound = 1 <= count <= EVENTS - start and len(value) == _HEAD.size + _EVENT_BYTES * count
    if not sound or zlib.crc32(value[_HEAD.size :], past << 8 | place) != crc:
        raise DataError(f"a changelog record of {len(value)} bytes does not match its header; the changelog is damaged")


def join_blocks(order: list[int], values: list[bytes]) -> tuple[int, int, bytes]:
    """(ordinal of the oldest event, events, the events) of a history's blocks. Raises DataError when one is missing."""
    heads = [_HEAD.unpack_from(value) for value in values]
    starts, sizes = [head[1] >> 4 for head in heads], [head[1] & 15 for head in heads]
    ordinals = [EVENTS * block + start for block, start in zip(order, starts, strict=True)]
    first = max(ordinal - head[2] for ordinal, head in zip(ordinals, heads, strict=True))
    forgotten, count = first - ordinals[0], sum(sizes) - (first - ordinals[0])
    full = all(start + size == EVENTS for start, size in zip(starts[:-1], sizes[:-1], strict=True))
    if order[-1] - order[0] + 1 != len(order) or not full or any(starts[1:]) or forgotten < 0 or count < 1:
        raise DataError(
            f"the changelog's records of a history do not fit together (blocks {order[0]} to {order[-1]}, {len(order)} "
            "records); it is damaged, or its topic is not compacted as one"
        )
    return first, count, b"".join(value[_HEAD.size :] for value in values)[_EVENT_BYTES * forgotten :]


def parse_snapshot(content: bytes, kind: bytes, path: Path) -> tuple[list[str], list[int], Words]:
    """(keys, events of each, events int64 [T, 3])."""
    body, digest = content[:-32], content[-32:]
    if not content.startswith(MAGIC):
        raise DataError(f"{path}: not a snapshot of histories, or one of another version")
    if hashlib.sha256(body).digest() != digest:
        raise DataError(f"{path}: damaged (its bytes differ from its digest); use an earlier one or start without")
    start = len(MAGIC) + 8
    size = int.from_bytes(body[len(MAGIC) : start], "little")
    try:
        found, names, total = msgspec.msgpack.decode(body[start : start + size], type=tuple[bytes, list[str], int])
        counts = np.frombuffer(body, "<i8", len(names), start + size)
        events = np.frombuffer(body, "<i8", 3 * total, start + size + counts.nbytes).reshape(-1, 3)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a snapshot of histories ({error})") from error
    if found != kind:
        raise DataError(f"{path}: a snapshot of histories of the kind {str(found)[1:]}, expected {str(kind)[1:]}")
    fits = sum(counts.tolist()) == total and min(counts.tolist(), default=1) > 0  # sums of int64 wrap around
    if len(set(names)) != len(names) or not fits:
        raise DataError(f"{path}: the snapshot's keys and events do not fit together")
    return names, counts.tolist(), events
