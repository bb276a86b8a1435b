"""A decoding plugin for pydicom: the lossless codecs of imagecodecs, which give the same values sooner, and RLE.

Only where any conforming decoder must give identical values: lossless JPEG, JPEG-LS and JPEG 2000. (Lossy JPEG may
differ by one grey level between decoders, so it stays with pydicom's own plugins.) pydicom calls the three names below:
https://pydicom.github.io/pydicom/stable/guides/decoding/decoder_plugins.html
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import rle.utils
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner

PLUGIN = "featherweight"

_DECODERS = {
    uid.JPEGLossless: imagecodecs.jpeg8_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
}

DECODER_DEPENDENCIES = dict.fromkeys((*_DECODERS, uid.RLELossless), ("imagecodecs", "pylibjpeg-rle"))


def is_available(syntax: str) -> bool:
    return syntax in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """The frame's samples. Raises ValueError when the codestream is of another size than the header says (pydicom then
    tries its own plugins)."""
    if runner.transfer_syntax == uid.RLELossless:
        return _decode_rle(src, runner)
    return bytearray(_decode_jpeg(src, runner).tobytes())  # writeable: pydicom corrects signs in place


def _decode_rle(src: bytes, runner: DecodeRunner) -> bytearray:
    """By pylibjpeg-rle: imagecodecs' is as fast and was seen to end the process on damaged data."""
    try:
        frame = bytearray(rle.utils.decode_pixel_data(src, version=2, **runner.options))
    except BaseException as error:
        # A panic of Rust code is safe, but comes as a BaseException of a type that cannot be imported.
        if type(error).__name__ == "PanicException":
            raise ValueError("RLE data is damaged") from None
        raise
    runner.set_option("planar_configuration", 1)
    return frame


def _decode_jpeg(src: bytes, runner: DecodeRunner) -> np.ndarray:
    frame: np.ndarray = _DECODERS[runner.transfer_syntax](src)
    expected = (runner.rows, runner.columns, runner.samples_per_pixel)
    found = frame.shape if frame.ndim == 3 else (*frame.shape, 1)
    if found != expected or frame.dtype.kind not in "ui":
        raise ValueError(f"codestream of {found} {frame.dtype}, header says {expected}")
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")  # OpenJPEG undoes the transform
    runner.set_option("bits_allocated", frame.dtype.itemsize * 8)
    return frame
