"""The decoding plugin for pydicom that reads every compressed transfer syntax: imagecodecs, and pylibjpeg-rle for RLE.

pydicom's own plugins are not asked: what a file becomes must not depend on what else is installed, and one of the
packages that they use is under the GPL. pydicom calls the three names below:
https://pydicom.github.io/pydicom/stable/guides/decoding/decoder_plugins.html
"""

from __future__ import annotations

from typing import Any, cast

import imagecodecs
import numpy as np
import rle.utils
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner

PLUGIN = "featherweight"

_LOSSY_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_DECODERS = {
    **dict.fromkeys((*_LOSSY_JPEG, uid.JPEGLossless, uid.JPEGLosslessSV1), imagecodecs.jpeg8_decode),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), imagecodecs.jpegls_decode),
    # Of the high-throughput kind too: imagecodecs' own decoder for it lets light pixels of lossy images wrap to black.
    **dict.fromkeys(
        (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
        imagecodecs.jpeg2k_decode,
    ),
}

DECODER_DEPENDENCIES = dict.fromkeys((*_DECODERS, uid.RLELossless), ("imagecodecs", "pylibjpeg-rle"))


def is_available(syntax: str) -> bool:
    return syntax in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray | memoryview:
    """The frame's samples, writeable: pydicom corrects signs in place. Raises ValueError when the codestream is of
    another size than the header says."""
    if runner.transfer_syntax == uid.RLELossless:
        return _decode_rle(src, runner)
    return np.ascontiguousarray(_decode_jpeg(src, runner)).data.cast("B")


def _decode_rle(src: bytes, runner: DecodeRunner) -> bytearray:
    """By pylibjpeg-rle: imagecodecs' is as fast and was seen to end the process on damaged data."""
    try:
        frame = cast(bytearray, rle.utils.decode_pixel_data(src, version=2, **runner.options))
    except BaseException as error:
        # A panic of Rust code is safe, but comes as a BaseException of a type that cannot be imported.
        if type(error).__name__ == "PanicException":
            raise ValueError("RLE data is damaged") from None
        raise
    runner.set_option("planar_configuration", 1)
    return frame


def _decode_jpeg(src: bytes, runner: DecodeRunner) -> np.ndarray:
    options: dict[str, Any] = {}
    if runner.samples_per_pixel > 1 and runner.transfer_syntax in _LOSSY_JPEG:
        # Colour stays as it is coded, whatever the decoder would guess: pydicom turns it, by the photometric
        # interpretation.
        options = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
    frame: np.ndarray = _DECODERS[runner.transfer_syntax](src, **options)
    expected = (runner.rows, runner.columns, runner.samples_per_pixel)
    found = frame.shape if frame.ndim == 3 else (*frame.shape, 1)
    if found != expected or frame.dtype.kind not in "ui":
        raise ValueError(f"codestream of {found} {frame.dtype}, header says {expected}")
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")  # the decoder undoes the transform
    runner.set_option("bits_allocated", frame.dtype.itemsize * 8)
    return frame
