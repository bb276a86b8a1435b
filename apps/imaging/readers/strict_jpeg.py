"""JPEG by libjpeg-turbo's own interface, whose decoder goes no further where the others fill up what lacks, skip what is
left over, and say so where nobody hears it.

A block of the disk that is lost within a JPEG leaves a picture that looks whole: shifted or grey from there on. The
pixels are those of Pillow and imagecodecs, which have the same decoder inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import simplejpeg

from apps.imaging.pixels import Stored
from apps.imaging.readers.base import RefusedError
from apps.imaging.readers.codestreams import parse_jpeg

_LOSSY = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_PROGRESSIVE = (0xC2, 0xCA)
_TABLES = (0xC4, 0xDA, 0xDB, 0xDD, 0xFE, *range(0xC0, 0xC3), *range(0xE0, 0xF0))
_SCALES = (8, 4, 2, 1)
_LOST = re.compile(r"premature end of data segment|bad (Huffman|arithmetic) code|instead of RST|Unsupported marker", re.IGNORECASE)
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_CUT = "Premature end of JPEG file"


def decode_grey(codestream: bytes, least: int | None = None) -> Stored | None:
    """Grey or luma [H, W] of a JPEG of 8 bits; None where another decoder has to judge: lossless ones, and what this one
    does not read. least: both sides stay at this or more, and the picture may be an eighth, quarter or half of its
    size. Raises RefusedError for data that are damaged."""
    jpeg = parse_jpeg(codestream)
    if jpeg is None or jpeg.bits != 8:
        return None
    rows, columns = jpeg.rows, jpeg.columns
    scale = 1 if least is None else next((n for n in _SCALES if min(rows, columns) // least >= n), 1)
    size = {"min_height": -(-rows // scale), "min_width": -(-columns // scale)}
    decoded = _strictly(codestream, lambda data: simplejpeg.decode_jpeg(data, "GRAY", **size))
    if decoded is None or decoded.shape[:2] != (size["min_height"], size["min_width"]):
        return None
    return decoded[..., 0]


def check_jpeg(codestream: bytes) -> None:
    """Raise RefusedError for a JPEG of any number of bits and colours whose data are damaged. At an eighth of its size:
    only what is coded is looked at. Lossless ones are not."""
    jpeg = parse_jpeg(codestream)
    if jpeg is None:
        return
    if jpeg.bits != 8:
        # The coding is the same for 12 bits; of the values nothing is taken.
        at = jpeg.begins + 4
        codestream = b"%b\x08%b" % (codestream[:at], codestream[at + 1 :])
    _strictly(codestream, lambda data: simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1))


def _strictly(codestream: bytes, decode: Callable[[bytes], Stored]) -> Stored | None:
    """None for what the decoder does not take although nothing is known to be lost."""
    jpeg = parse_jpeg(codestream)
    if jpeg is None or codestream[jpeg.begins + 1] not in _LOSSY or not _is_plain(codestream, jpeg.begins):
        return None
    try:
        try:
            return decode(codestream)
        except ValueError as error:
            if _CUT not in str(error):
                raise
            return decode(codestream + b"\xff\xd9")  # it may lack nothing but its end
    except ValueError as error:
        _judge(str(error), codestream, codestream[jpeg.begins + 1] in _PROGRESSIVE)
    return None


def _is_plain(codestream: bytes, begins: int) -> bool:
    """Whether nothing stands before the frame header but segments, so that the decoder must find the same one. A
    lossless frame, which only the decoder saw, would be written beyond the end of a reduced picture."""
    at = 2
    while at < begins:
        marker = codestream[at + 1]
        if codestream[at] != 0xFF or marker in (0x00, 0x01, *range(0xC0, 0xC4), *range(0xC5, 0xDB)):
            return False
        at += 1 if marker == 0xFF else 2 + int.from_bytes(codestream[at + 2 : at + 4], "big")
    return at == begins


def _judge(said: str, codestream: bytes, is_progressive: bool) -> None:
    """Raise RefusedError for what only damaged data make the decoder say."""
    if _LOST.search(said) or _CUT in said:
        raise RefusedError(
            "corrupt", "the JPEG data end or break off before the picture is complete; was the file copied in full?"
        )
    if left := _LEFT_OVER.search(said):
        count, marker = int(left[1]), int(left[2], 16)
        between = marker in _TABLES and not is_progressive  # a stray byte before the coded data begin harms nobody
        if not between and not _is_padding(codestream, count, marker):
            raise RefusedError(
                "corrupt",
                f"{count} bytes of the JPEG data are left over where a part of the picture is complete: something "
                "before them was lost or changed",
            )


def _is_padding(codestream: bytes, count: int, marker: int) -> bool:
    """Some encoders fill up with zeros before the end."""
    at = codestream.rfind(bytes((0xFF, marker)))
    return marker == 0xD9 and at >= count and not np.frombuffer(codestream, np.uint8, count, at - count).any()
