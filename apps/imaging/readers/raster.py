"""JPEG, PNG and TIFF by Pillow, to grey levels in 0..1.

Colour becomes BT.601 luma; transparency is ignored; EXIF orientation is honoured; 8 bits are divided by 255 and 16 by
65535 (a 12-bit image in a 16-bit file is dark: no tag says so); floats and 32-bit integers, which have no agreed white,
are stretched from their smallest to their largest value. Every page of a TIFF is a frame.

A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size when that leaves at least twice the network's side (Pillow's
draft, the scaling inside the JPEG transform); against averaging the full-size image this differs by at most
`REDUCED_MEAN_TOLERANCE` on average over the image.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from apps.imaging.frames import FrameId, Rejected
from apps.imaging.pixels import Greyscale, Window, finish, render, resize
from apps.imaging.readers.base import Limits, Pixels, RefusedError, check_size
from apps.imaging.settings import Preprocess

REDUCED_MEAN_TOLERANCE = 0.004
"""Mean absolute difference of an image decoded at reduced size from one decoded in full; 1/255 is 0.0039."""

_PHOTOMETRIC_TAG = 262
_ORIENTATION_TAG = 0x0112

# What Pillow is known to raise on damaged files: UnidentifiedImageError and truncation are OSError, broken PNG chunks
# SyntaxError, broken tags and strips the others. MemoryError is not here: the caller names it.
_PILLOW_ERRORS = (
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


def decode_file(content: bytes, source: str, preprocess: Preprocess, limits: Limits) -> Iterator[Pixels | Rejected]:
    """The frames of a JPEG, PNG or TIFF; a TIFF's damaged page ends it with a Rejected for that page."""
    index = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels decide
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "TIFF")) as image:
                pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
                samples = 0
                for index in range(pages):
                    if index:
                        image.seek(index)
                    samples += image.width * image.height * len(image.getbands())
                    check_size(image.height, image.width, len(image.getbands()), pages if index == 0 else 1, limits)
                    check_size(samples, 1, 1, 1, limits)  # pages differ in size, so their sum is checked as well
                    yield Pixels(FrameId(source, index), decode_image(image, preprocess.side))
    except RefusedError as error:
        if index == 0:
            raise
        yield Rejected(FrameId(source, index), error.reason, f"{error} (this page and those after it)")
    except Image.DecompressionBombError:
        raise RefusedError("too-large", "the header names more pixels than Pillow decodes") from None
    except FloatingPointError:
        yield Rejected(FrameId(source, index), "bad-values", f"page {index} has pixel values that are not all finite")
    except _PILLOW_ERRORS as error:
        yield Rejected(
            FrameId(source, index),
            "corrupt",
            f"page {index} cannot be decoded ({type(error).__name__}); is the file truncated?",
        )


def decode_image(image: Image.Image, side: int, *, reduced: bool = True) -> npt.NDArray[np.float32]:
    """float32 [side, side] in 0..1. reduced: a JPEG may be decoded at a fraction of its size."""
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        # Pillow picks the smallest scale that is not below the size asked for; grey is then the JPEG's own luma.
        image.draft("L", (2 * side, 2 * side) if reduced else image.size)
    inverted = image.format == "TIFF" and image.mode.startswith("I;16") and _is_white_zero(image)
    image.load()
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)  # after loading: Pillow has turned a TIFF by then
    if image.mode.startswith("I;16"):
        grey = _sixteen_bits(image, side)
    elif image.mode in ("I", "F"):
        grey = render(np.asarray(image), Greyscale(), side)
    else:
        level = np.asarray(image if image.mode == "L" else image.convert("L"), dtype=np.uint8)
        grey = finish(resize(level.astype(np.float32), side) / 255, False)
    if orientation in range(2, 9):
        grey = _orient(grey, orientation)
    return 1 - grey if inverted else grey


def _sixteen_bits(image: Image.Image, side: int) -> npt.NDArray[np.float32]:
    stored = np.asarray(image).astype(np.uint16, copy=False)
    return render(stored, Greyscale(voi=Window(65535 / 2, 65535, "LINEAR_EXACT")), side)


def _is_white_zero(image: Image.Image) -> bool:
    """TIFF's WhiteIsZero, which Pillow undoes for 8 bits and not for 16."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_PHOTOMETRIC_TAG) == 0)


def _orient(grey: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """EXIF 2.32, 4.6.4: the image is square by now, so turning it after the resize is the same and cheaper."""
    turned = Image.fromarray(grey)
    turned.getexif()[_ORIENTATION_TAG] = orientation
    return np.array(ImageOps.exif_transpose(turned), dtype=np.float32)
