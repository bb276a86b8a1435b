"""Codestreams of every compressed transfer syntax: imagecodecs, and pylibjpeg-rle for RLE.

pydicom's own plugins are not asked: what a file becomes must not depend on what else is installed, and one of the
packages that they use is under the GPL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import rle.utils
from pydicom import uid

from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.apps.imaging.readers.codestreams import ends_in_zeros, has_hole, parse_jpeg, parse_jpeg2000
from featherweight.apps.imaging.readers.strict_jpeg import check_jpeg, check_zeros, decode_grey
from featherweight.core.arrays import StoredPixels

_LOSSY_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_LOSSY_JPEG2000 = (uid.JPEG2000, uid.HTJ2K)
_DECODERS = {
    **dict.fromkeys((*_LOSSY_JPEG, uid.JPEGLossless, uid.JPEGLosslessSV1), imagecodecs.jpeg8_decode),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), imagecodecs.jpegls_decode),
    # The high-throughput kind too: imagecodecs' own decoder for it lets light pixels of lossy images wrap to black.
    **dict.fromkeys(
        (uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, *_LOSSY_JPEG2000), imagecodecs.jpeg2k_decode
    ),
}

_JPEG = (*_LOSSY_JPEG, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless)
SYNTAXES = frozenset((*_DECODERS, uid.RLELossless))


@dataclass(frozen=True)
class Shape:
    """What the header says of a frame: the codestream must agree."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    photometric: str


@dataclass(frozen=True)
class Decoded:
    """samples: [rows, columns] or [rows, columns, 3] as the codec gave them; precision: bits of a sample in the
    codestream; photometric: what the samples are now."""

    samples: StoredPixels
    precision: int
    lossless: bool
    photometric: str


def decode_frame(codestream: bytes, syntax: uid.UID, shape: Shape) -> Decoded:
    """One frame. Raises RefusedError for a codestream of another size than the header says, and what the codecs raise
    (PYDICOM_ERRORS) for a damaged one."""
    if syntax == uid.RLELossless:
        return Decoded(_decode_rle(codestream, shape), shape.bits_allocated, True, shape.photometric)
    if syntax in _JPEG:
        return _decode_jpeg_frame(codestream, syntax, shape)
    if ends_in_zeros(codestream):
        raise RefusedError("corrupt", "the codestream has zeros in place of its end; was the file copied in full?")
    if has_hole(codestream):
        raise RefusedError("corrupt", "the codestream has a block of zeros within; was the file copied in full?")
    samples = _decode_samples(codestream, syntax, shape)
    header = parse_jpeg2000(codestream)
    precision = header.bits if header else 8 * samples.dtype.itemsize
    lossless = syntax not in _LOSSY_JPEG2000 or bool(header and header.reversible)
    # The decoder undoes the transform.
    photometric = "RGB" if shape.photometric in ("YBR_ICT", "YBR_RCT") else shape.photometric
    return Decoded(samples, precision, lossless, photometric)


def _decode_jpeg_frame(codestream: bytes, syntax: uid.UID, shape: Shape) -> Decoded:
    jpeg = parse_jpeg(codestream)
    if jpeg is None or codestream.rfind(b"\xff\xd9", jpeg.begins) < 0:
        # libjpeg makes up what lacks, in grey, and reports it only where no caller sees it.
        lacking = "header" if jpeg is None else "end"
        raise RefusedError("corrupt", f"the codestream has no {lacking}; is the file cut off?")
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        check_zeros(codestream)
    samples = _decode_strictly(codestream, shape) if syntax in _LOSSY_JPEG else None
    if samples is None:
        samples = _decode_samples(codestream, syntax, shape)
    photometric = jpeg.photometric(shape.photometric) if shape.samples == 3 else shape.photometric
    return Decoded(samples, jpeg.bits, syntax not in (*_LOSSY_JPEG, uid.JPEGLSNearLossless), photometric)


def _decode_strictly(codestream: bytes, shape: Shape) -> StoredPixels | None:
    """Samples of one component and 8 bits; None for others, of which only the data are checked. Raises RefusedError for
    damaged data."""
    found = decode_grey(codestream) if shape.samples == 1 else None
    if found is None:
        check_jpeg(codestream)
    return found if found is None or found.shape == (shape.rows, shape.columns) else None


def _decode_rle(codestream: bytes, shape: Shape) -> StoredPixels:
    """By pylibjpeg-rle: imagecodecs' is as fast and was seen to end the process on damaged data."""
    pixels, bits = shape.rows * shape.columns, shape.bits_allocated
    # Pixels of 1 bit: eight pixels a byte, the frame filled up to whole bytes (PS3.5 8.2.2).
    cells, cell_bits = (-(-pixels // 8), 8) if bits == 1 else (pixels, bits)
    try:
        frame = rle.utils.decode_pixel_data(codestream, version=2, rows=1, columns=cells, bits_allocated=cell_bits)
    except BaseException as error:
        # A panic of Rust code is safe, but comes as a BaseException of a type that cannot be imported.
        if type(error).__name__ == "PanicException":
            raise ValueError("RLE data is damaged") from None
        raise
    planes = np.frombuffer(frame, f"<u{cell_bits // 8}")
    if bits == 1:
        planes = np.unpackbits(planes, bitorder="little", count=pixels)
    if planes.size != pixels * shape.samples:
        found = planes.size // pixels
        raise RefusedError("corrupt", f"the codestream has {found} planes, the header says {shape.samples}")
    planes = planes.reshape(shape.samples, shape.rows, shape.columns)
    return planes[0] if shape.samples == 1 else planes.transpose(1, 2, 0)


def _decode_samples(codestream: bytes, syntax: uid.UID, shape: Shape) -> StoredPixels:
    options: dict[str, Any] = {}
    if shape.samples > 1 and syntax in _LOSSY_JPEG:
        # Colour stays as it is coded, whatever the decoder would guess: the photometric interpretation says what it is.
        options = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
    frame: np.ndarray = _DECODERS[syntax](codestream, **options)
    expected = (shape.rows, shape.columns, shape.samples)
    found = frame.shape if frame.ndim == 3 else (*frame.shape, 1)
    if found != expected or frame.dtype.kind not in "ui":
        sizes = " x ".join(map(str, found)), " x ".join(map(str, expected))
        raise RefusedError(
            "corrupt", f"the codestream holds {sizes[0]} samples of {frame.dtype}, the header says {sizes[1]}"
        )
    return frame.reshape(expected) if shape.samples > 1 else frame.reshape(expected[:2])
