"""A decoding plugin for pydicom: the lossless codecs of imagecodecs, which give the same values sooner.

Only where any conforming decoder must give identical values: lossless JPEG, JPEG-LS, JPEG 2000 and RLE. (Lossy JPEG may
differ by one grey level between decoders, so it stays with pydicom's own plugins.) pydicom calls the three names below:
https://pydicom.github.io/pydicom/stable/guides/decoding/decoder_plugins.html
"""

from __future__ import annotations

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner

PLUGIN = "imagecodecs"

_DECODERS = {
    uid.JPEGLossless: imagecodecs.jpeg8_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
}

DECODER_DEPENDENCIES = dict.fromkeys((*_DECODERS, uid.RLELossless), ("imagecodecs",))


def is_available(syntax: str) -> bool:
    return syntax in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """The frame's samples. Raises ValueError when the codestream is of another size than the header says (pydicom then
    tries its own plugins)."""
    frame = _decode_rle(src, runner) if runner.transfer_syntax == uid.RLELossless else _decode_jpeg(src, runner)
    return bytearray(frame.tobytes())  # writeable: pydicom corrects signs in place


def _decode_rle(src: bytes, runner: DecodeRunner) -> np.ndarray:
    if runner.bits_allocated not in (8, 16, 32, 64):
        raise ValueError(f"RLE of {runner.bits_allocated} bits")
    dtype = f"<u{runner.bits_allocated // 8}"
    frame = np.frombuffer(imagecodecs.dicomrle_decode(src, dtype), dtype)
    expected = runner.rows * runner.columns * runner.samples_per_pixel
    if frame.size != expected:
        raise ValueError(f"RLE of {frame.size} samples, header says {expected}")
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
