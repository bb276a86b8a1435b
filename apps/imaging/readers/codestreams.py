"""What a JPEG or JPEG 2000 codestream says of itself, and JPEG 2000 at a fraction of its size."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from apps.imaging.pixels import Stored

JPEG2000_MEAN_TOLERANCE = 0.006
"""Mean absolute difference (grey levels in 0..1) between the reduced and the full decoding, both averaged to the
network's side. Radiographs gave 0.001 to 0.0055, most where the reduced image is little more than twice the side: a
wavelet's low band keeps edges (of burnt-in letters above all) a little sharper than an average over the area."""


def parse_jpeg_size(codestream: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) of the frame header (ITU-T T.81 B.2.2, T.87 C.2.2); None where there is none."""
    at = 2
    while at + 10 <= len(codestream):
        marker = codestream[at + 1]
        if codestream[at] != 0xFF or marker == 0xFF:
            at += 1
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns, components = struct.unpack_from(">HHB", codestream, at + 5)
            return max(rows, 1), columns, components  # 0 rows: told later by a DNL marker
        else:
            at += 2 + struct.unpack_from(">H", codestream, at + 2)[0]
    return None


@dataclass(frozen=True)
class Jpeg2000:
    """ITU-T T.800 A.5.1 (SIZ) and A.6.1 (COD). levels: how often the image can be halved; 0 when not known."""

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool
    levels: int


def parse_jpeg2000(codestream: bytes) -> Jpeg2000 | None:
    """The header of a codestream, also inside a JP2 file; None where there is none."""
    at = codestream.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(codestream) < at + 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", codestream, at + 8)
    components, depth = struct.unpack_from(">HB", codestream, at + 40)
    style = codestream.find(b"\xff\x52", at, at + 4096)
    levels = codestream[style + 9] if 0 <= style < len(codestream) - 9 else 0
    return Jpeg2000(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80), levels)


def decode_jpeg2000_reduced(codestream: bytes, header: Jpeg2000, least: int) -> Stored | None:
    """Unsigned samples [H, W] of a one-component codestream, halved while both sides stay at `least` or more.

    None when it cannot be halved even once, or is damaged: decoding it in full then says what is wrong.
    """
    halvings = 0
    while halvings < header.levels and min(header.rows, header.columns) >> (halvings + 1) >= least:
        halvings += 1
    if header.components != 1 or header.signed or not 8 <= header.bits <= 16:
        return None
    while halvings:
        samples = _decode_halved(codestream, header, halvings)
        if samples is not None:
            return samples
        halvings -= 1  # Pillow fails on some odd sizes at a quarter
    return None


def _decode_halved(codestream: bytes, header: Jpeg2000, halvings: int) -> Stored | None:
    try:
        with Image.open(io.BytesIO(codestream), formats=("JPEG2000",)) as image:
            image.reduce = halvings  # type: ignore[assignment, method-assign]  # the plugin's option, not the method
            image.load()
            samples: npt.NDArray[Any] = np.array(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return None
    expected = tuple(-(-size >> halvings) for size in (header.rows, header.columns))
    if samples.shape != expected or samples.dtype != (np.uint8 if header.bits == 8 else np.uint16):
        return None
    # Pillow scales 9 to 15 bits up to 16.
    return samples >> (16 - header.bits) if header.bits > 8 else samples
