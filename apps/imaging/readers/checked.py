"""Damage within PNG and TIFF that Pillow decodes without a word: their checksums are there, and it does not look."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.apps.imaging.readers.strict_jpeg import check_jpeg

_COMPRESSION, _TABLES, _FILL_ORDER = 259, 347, 266
_PARTS = ((273, 279), (324, 325))
"""The tags of the places and lengths of strips, and of tiles."""
_DEFLATE, _JPEG = (8, 32946), 7


_MAX_PIXEL_BYTES = 17
"""Maximum bytes per pixel of a picture before it is packed: four values of 32 bits and, in a picture of one column, the
byte that begins a row."""


def check_png(content: bytes, pixels: int) -> None:
    """Raise RefusedError where a chunk of the picture's data is not the one that was written (its CRC is wrong) and the
    data as a whole are not either (so is their Adler-32)."""
    at, parts, sound = 8, [], True
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if content.startswith(b"IDAT", at + 4) and end + 4 <= len(content):
            parts.append((at + 8, end))
            sound = sound and zlib.crc32(memoryview(content)[at + 4 : end]) == int.from_bytes(content[end : end + 4])
        elif content.startswith(b"IEND", at + 4):
            break
        at = end + 4
    if not sound and not _is_whole(b"".join(content[begin:end] for begin, end in parts), pixels * _MAX_PIXEL_BYTES):
        raise RefusedError(
            "corrupt", "the checksums of the PNG do not agree with its data: something in it was changed"
        )


def _is_whole(deflated: bytes, most: int) -> bool:
    """Inflated a little at a time: nothing of it is kept. One that holds more than `most` bytes is not judged."""
    stream, rest, size = zlib.decompressobj(), deflated, 0
    try:
        while not stream.eof and size <= most and (rest or size):
            piece = stream.decompress(rest, 1 << 20)
            if not piece and not stream.unconsumed_tail and not stream.eof:
                return False  # all is read, and there is no end
            rest, size = stream.unconsumed_tail, size + len(piece)
    except zlib.error:
        return False
    return stream.eof or size > most


def check_tiff_page(image: Image.Image, content: bytes) -> None:
    """Raise RefusedError where a strip or tile of the current page was deflated, or is a JPEG, and is damaged. One that
    is neither has no checksum."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    compression = tags.get(_COMPRESSION)
    if compression not in (*_DEFLATE, _JPEG) or tags.get(_FILL_ORDER, 1) != 1:
        return
    tables = tags.get(_TABLES)
    begins = tables[:-2] if isinstance(tables, bytes) and tables.endswith(b"\xff\xd9") else b""
    for part in _parts(tags, content):
        if compression == _JPEG:
            check_jpeg(begins + part[2:] if begins else part)
        elif not _is_whole(part, image.width * image.height * _MAX_PIXEL_BYTES):
            raise RefusedError(
                "corrupt",
                "the checksum of a part of the TIFF does not agree with its data: something in it was changed",
            )


def _parts(tags: Mapping[int, Any], content: bytes) -> Iterator[bytes]:
    """None where they overlap: a few bytes would be looked at again and again."""
    for offsets, sizes in _PARTS:
        places = list(zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False))
        if sum(size for _, size in places) <= len(content):
            for begin, size in places:
                yield content[begin : begin + size]
