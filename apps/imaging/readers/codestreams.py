"""What a JPEG or JPEG 2000 codestream says of itself, and JPEG 2000 at a fraction of its size."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from featherweight.core.arrays import Array, StoredPixels

JPEG2000_MEAN_TOLERANCE = 0.006
"""Mean absolute difference (grey levels in 0..1) between the reduced and the full decoding, both averaged to the
network's side. Radiographs gave 0.001 to 0.0055, most where the reduced image is little more than twice the side: a
wavelet's low band keeps edges (of burnt-in letters above all) a little sharper than an average over the area."""


_CUT = bytes(64)
"""More zeros than a codestream ends with, its padding included."""


@dataclass(frozen=True)
class Jpeg:
    """The frame header (ITU-T T.81 B.2.2, T.87 C.2.2) and what tells the colours: the components' numbers, JFIF's
    marker before it, and the transform that Adobe's names (None where there is none). begins: where the header is."""

    rows: int
    columns: int
    components: int
    bits: int
    numbers: bytes
    jfif: bool
    adobe_transform: int | None
    begins: int

    def photometric(self, said: str) -> str:
        """What three components are, of which the header says `said`: a codestream that says it itself is right."""
        if self.numbers in (b"RGB", b"rgb") or (self.adobe_transform == 0 and not self.jfif):
            return "RGB"
        if not said.startswith("YBR") and (self.jfif or self.adobe_transform == 1):
            return "YBR_FULL"
        return said


def parse_jpeg(codestream: bytes) -> Jpeg | None:
    """None where there is no frame header."""
    at, jfif, adobe = 2, False, None
    while at + 10 <= len(codestream):
        marker = codestream[at + 1]
        if codestream[at] != 0xFF or marker == 0xFF:
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            bits, rows, columns, components = struct.unpack_from(">BHHB", codestream, at + 4)
            numbers = codestream[at + 10 : at + 10 + 3 * components : 3]
            # 0 rows: told later by a DNL marker
            return Jpeg(max(rows, 1), columns, components, bits, numbers, jfif, adobe, at)
        jfif = jfif or (marker == 0xE0 and codestream.startswith(b"JFIF", at + 4))
        if marker == 0xEE and codestream.startswith(b"Adobe", at + 4) and at + 16 <= len(codestream):
            adobe = codestream[at + 15]
        at += 2 + struct.unpack_from(">H", codestream, at + 2)[0]
    return None


@dataclass(frozen=True)
class Jpeg2000:
    """ITU-T T.800 A.5.1 (SIZ) and A.6.1 (COD). levels: how often the image can be halved; 0 when not known; reversible:
    by the wavelet that loses nothing."""

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool
    levels: int
    reversible: bool


def parse_jpeg2000(codestream: bytes) -> Jpeg2000 | None:
    """The header of a codestream, also inside a JP2 file; None where there is none."""
    at = codestream.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(codestream) < at + 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", codestream, at + 8)
    components, depth = struct.unpack_from(">HB", codestream, at + 40)
    style = codestream.find(b"\xff\x52", at, at + 4096)
    known = 0 <= style < len(codestream) - 13
    levels, reversible = (codestream[style + 9], codestream[style + 13] == 1) if known else (0, False)
    return Jpeg2000(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80), levels, reversible)


def ends_in_zeros(codestream: bytes) -> bool:
    """Whether a JPEG 2000 codestream has no end (EOC, T.800 A.4.4) and zeros in its place, as a copy that was cut short
    leaves them in a file of full length. OpenJPEG takes them for details that are not there. One that lacks nothing but
    its end is whole."""
    return codestream.rfind(b"\xff\xd9") < 0 and codestream.endswith(_CUT)


HOLE_BYTES = 512
"""The smallest block of a disk."""
_STEP_BYTES = 32


def has_hole(codestream: bytes) -> bool:
    """Whether a block of zeros stands within the coded data of a JPEG 2000 codestream, where no coder writes one:
    arithmetic coding never does, and an empty packet is one byte (T.800 B.9, C). Only where that is certain: with fewer
    packets than that, and without coding that passes bits on as they are."""
    begin, end = codestream.find(b"\xff\x90"), codestream.rfind(b"\xff\xd9")
    return has_zeros(codestream, begin, end) and _most_empty_packets(codestream) < HOLE_BYTES


def has_zeros(codestream: bytes, begin: int, end: int) -> bool:
    """Whether a block of zeros stands between these places, and not only before the end, which some writers pad."""
    # Looked for in every 32nd byte: a whole search would take longer than one hundredth of the decoding.
    sample, seen = codestream[begin:end:_STEP_BYTES] if 0 <= begin < end else b"", -1
    while (seen := sample.find(bytes(HOLE_BYTES // _STEP_BYTES - 1), seen + 1)) >= 0:
        first = last = begin + seen * _STEP_BYTES
        while codestream[first - 1] == 0:
            first -= 1
        while codestream[last] == 0:
            last += 1
        if last - first >= HOLE_BYTES and last < end:
            return True
        seen = (last - begin) // _STEP_BYTES
    return False


def _most_empty_packets(codestream: bytes) -> int:
    """That may follow each other; more than a hole has bytes where it cannot be told."""
    style = codestream.find(b"\xff\x52", 0, codestream.find(b"\xff\x90"))
    header = parse_jpeg2000(codestream)
    if style < 0 or header is None or codestream[style + 12] & 0x41:
        return HOLE_BYTES
    (layers,) = struct.unpack_from(">H", codestream, style + 6)
    sizes = codestream[style + 14 : style + 15 + header.levels] if codestream[style + 4] & 1 else b""
    precincts = 0
    for level in range(header.levels + 1):
        exponents = sizes[level] if level < len(sizes) else 0xFF
        halvings = header.levels - level
        across, down = (header.columns >> halvings) >> (exponents & 15), (header.rows >> halvings) >> (exponents >> 4)
        precincts += (across + 2) * (down + 2)
    return int(layers) * precincts * header.components


def decode_jpeg2000_reduced(codestream: bytes, header: Jpeg2000, least: int) -> StoredPixels | None:
    """Unsigned samples [H, W] of a one-component codestream, halved while both sides stay at `least` or more.

    None when it cannot be halved even once, or is damaged: decoding it in full then says what is wrong.
    """
    halvings = 0
    while halvings < header.levels and min(header.rows, header.columns) >> (halvings + 1) >= least:
        halvings += 1
    if header.components != 1 or header.signed or not 8 <= header.bits <= 16 or ends_in_zeros(codestream):
        return None
    if has_hole(codestream):
        return None
    while halvings:
        samples = _decode_halved(codestream, header, halvings)
        if samples is not None:
            return samples
        halvings -= 1  # Pillow fails on some odd sizes at a quarter
    return None


def _decode_halved(codestream: bytes, header: Jpeg2000, halvings: int) -> StoredPixels | None:
    try:
        with Image.open(io.BytesIO(codestream), formats=("JPEG2000",)) as image:
            image.reduce = halvings  # type: ignore[assignment, method-assign]  # the plugin's option, not the method
            image.load()
            samples: Array = np.array(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return None
    expected = tuple(-(-size >> halvings) for size in (header.rows, header.columns))
    if samples.shape != expected or samples.dtype != (np.uint8 if header.bits == 8 else np.uint16):
        return None
    # Pillow scales 9 to 15 bits up to 16.
    return samples >> (16 - header.bits) if header.bits > 8 else samples
