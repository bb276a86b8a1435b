"""JPEG by libjpeg-turbo's own interface, which goes no further where other decoders fill up what lacks, skip what is
left over, and report it only where no caller sees it.

A block of the disk that is lost within a JPEG leaves a picture that looks whole: shifted or grey from there on. The
pixels are those of Pillow and imagecodecs, which have the same decoder inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import simplejpeg

from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.apps.imaging.readers.codestreams import HOLE_BYTES, has_zeros, parse_jpeg
from featherweight.core.arrays import StoredPixels

_LOSSY = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_PROGRESSIVE = (0xC2, 0xCA)
_TABLES = (0xC4, 0xDA, 0xDB, 0xDD, 0xFE, *range(0xC0, 0xC3), *range(0xE0, 0xF0))
_SCALES = (8, 4, 2, 1)
_LOST = re.compile(
    r"premature end of data segment|bad (Huffman|arithmetic) code|instead of RST|Unsupported marker", re.IGNORECASE
)
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_CUT = "Premature end of JPEG file"


def decode_grey(codestream: bytes, least: int | None = None) -> StoredPixels | None:
    """Grey or luma [H, W] of a JPEG of 8 bits; None where another decoder has to judge: lossless ones, and what this
    one does not read. least: both sides stay at this or more, and the picture may be an eighth, quarter or half of its
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


def _strictly(codestream: bytes, decode: Callable[[bytes], StoredPixels]) -> StoredPixels | None:
    """None for what the decoder does not take although nothing is known to be lost."""
    jpeg = parse_jpeg(codestream)
    if jpeg is None or codestream[jpeg.begins + 1] not in _LOSSY or not _is_plain(codestream, jpeg.begins):
        return None
    check_zeros(codestream)
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


def check_zeros(codestream: bytes) -> None:
    """Raise RefusedError where a block of zeros stands in the coded data of a JPEG whose tables make no picture of it.

    The first symbol of a table is what zeros mean (T.81 C.2). Of the AC coefficients it must be the end of a block:
    otherwise each block would have all its 63 at their lowest value. Of a lossless JPEG it is a difference to the pixel
    before: other than 0, it must not go on for longer than a row, or than there are values.
    """
    jpeg = parse_jpeg(codestream)
    scan = codestream.find(b"\xff\xda", 0 if jpeg is None else jpeg.begins)
    if jpeg is None or scan < 0 or not has_zeros(codestream, scan, codestream.rfind(b"\xff\xd9")):
        return
    kind, tables = codestream[jpeg.begins + 1], _first_codes(codestream[:scan])
    if kind == 0xC2:
        impossible = _has_hole_in_a_scan(codestream, scan)
    elif kind in (0xC0, 0xC1):
        impossible = any(is_ac and symbol != 0 for is_ac, symbol, _ in tables)
    elif kind == 0xC3 and codestream[scan + 4] == 1 and codestream[scan + 7] == 1:  # one component, the pixel before
        impossible = all(
            symbol
            and (
                (pixels := 8 * HOLE_BYTES // (length + symbol)) > jpeg.columns
                or pixels * ((1 << symbol) - 1) > 1 << jpeg.bits
            )
            for _, symbol, length in tables
        )
    else:
        return
    if impossible:
        raise RefusedError("corrupt", "the JPEG data have a block of zeros within; was the file copied in full?")


def _has_hole_in_a_scan(codestream: bytes, scan: int) -> bool:
    """Whether a scan of a progressive JPEG would hide a hole: each scan of AC coefficients has its table before it, and
    zeros must not mean that each coefficient is new in it."""
    before, end = scan, codestream.rfind(b"\xff\xd9")
    while 0 <= scan < end:
        after = codestream.find(b"\xff\xda", scan + 2, end)
        is_ac = codestream[scan + 5 + 2 * codestream[scan + 4]] > 0
        table = codestream.find(b"\xff\xc4", before, scan)
        if is_ac and table >= 0 and has_zeros(codestream, scan, after if after >= 0 else end):
            first = _first_codes(b"\xff\xd8" + codestream[table:scan])
            if any(kind and symbol & 15 for kind, symbol, _ in first):
                return True
        before, scan = scan, after
    return False


def _first_codes(header: bytes) -> list[tuple[bool, int, int]]:
    """For each Huffman table: whether it is of AC coefficients, and the symbol and length in bits of its first code."""
    found, at = [], 2
    while at + 4 <= len(header):
        if header[at] != 0xFF or header[at + 1] == 0xFF:
            at += 1
            continue
        end = at + 2 + int.from_bytes(header[at + 2 : at + 4], "big")
        table = at + 4
        while header[at + 1] == 0xC4 and table + 18 <= min(end, len(header)):
            counts = header[table + 1 : table + 17]
            if any(counts):
                length = next(bits for bits, count in enumerate(counts, start=1) if count)
                found.append((header[table] >> 4 == 1, header[table + 17], length))
            table += 17 + sum(counts)
        at = end
    return found


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
