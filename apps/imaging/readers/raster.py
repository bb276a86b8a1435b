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
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from apps.imaging.frames import FrameId, Rejected
from apps.imaging.pixels import Greyscale, Stored, Window, finish, render, resize
from apps.imaging.readers.base import Limits, Pixels, RefusedError, check_memory, check_results, check_size
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
                pages = count_tiff_pages(content, limits) if image.format == "TIFF" else 1
                check_results(pages, preprocess.side, limits)
                samples = 0
                for index in range(pages):
                    if index:
                        image.seek(index)
                    samples += image.width * image.height * len(image.getbands())
                    check_size(image.height, image.width, len(image.getbands()), pages if index == 0 else 1, limits)
                    _check_samples(samples, limits)  # pages differ in size, so their sum is checked as well
                    check_memory(_needed_bytes(image, content), limits)
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
        grey = render(
            _ImageRows(image, np.dtype(np.uint16)), Greyscale(voi=Window(65535 / 2, 65535, "LINEAR_EXACT")), side
        )
    elif image.mode in ("I", "F"):
        grey = render(_ImageRows(image, np.dtype(np.int32 if image.mode == "I" else np.float32)), Greyscale(), side)
    else:
        grey = finish(resize(_ImageRows(image, np.dtype(np.uint8)), side) / 255, False)
    if orientation in range(2, 9):
        grey = _orient(grey, orientation)
    return 1 - grey if inverted else grey


_SMALL_PIXELS = 1 << 21
"""Up to here one copy costs less than many bands."""


class _ImageRows:
    """A decoded image as `Rows`: numpy gets a few rows at a time, never a second copy of a large image."""

    def __init__(self, image: Image.Image, dtype: np.dtype[Any]) -> None:
        self._image, self.dtype = image, dtype
        self.shape = (image.height, image.width)
        self._whole = self._rows(0, image.height) if image.height * image.width <= _SMALL_PIXELS else None

    def __getitem__(self, rows: slice) -> Stored:
        if self._whole is not None:
            return self._whole[rows]
        first, last, _ = rows.indices(self._image.height)
        return self._rows(first, last)

    def _rows(self, first: int, last: int) -> Stored:
        band = self._image.crop((0, first, self._image.width, last))
        if self.dtype == np.uint8 and band.mode != "L":
            band = band.convert("L")
        return np.asarray(band).astype(self.dtype, copy=False)


def _check_samples(samples: int, limits: Limits) -> None:
    if samples > limits.samples:
        raise RefusedError("too-large", f"found {samples} samples in all pages, at most {limits.samples} are read")


def _needed_bytes(image: Image.Image, content: bytes) -> int:
    """What decoding takes at most: the file, of a TIFF a copy of it; the image, once for itself and once for a TIFF's
    strip or tile; of a JPEG the coefficients, which a progressive one keeps until its end."""
    pixels, bands = image.width * image.height, len(image.getbands())
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    coefficients = 2 * bands if image.format == "JPEG" else 0
    return 2 * len(content) + pixels * (2 * stored + coefficients)


def count_tiff_pages(content: bytes, limits: Limits) -> int:
    """The directories of a TIFF or BigTIFF, counted without reading what they say, which Pillow takes a millisecond
    each for. Stops where the chain leaves the file or comes back to a directory; the last is then Pillow's to judge."""
    order = "<" if content[:2] == b"II" else ">"
    large = struct.unpack_from(f"{order}H", content, 2) == (43,)
    count_form, link_form, entry_bytes = (f"{order}Q", f"{order}Q", 20) if large else (f"{order}H", f"{order}I", 12)
    seen: set[int] = set()
    entries = 0
    (at,) = struct.unpack_from(link_form, content, 8 if large else 4)
    while at and at not in seen:
        seen.add(at)
        if at + struct.calcsize(count_form) > len(content):
            break
        (count,) = struct.unpack_from(count_form, content, at)
        entries += count
        if len(seen) > limits.frames:
            raise RefusedError("too-large", f"found more than {limits.frames} pages, which is the most that is read")
        if entries > limits.elements:
            raise RefusedError("too-large", f"its directories have more than {limits.elements} entries")
        link = at + struct.calcsize(count_form) + count * entry_bytes
        if link + struct.calcsize(link_form) > len(content):
            break
        (at,) = struct.unpack_from(link_form, content, link)
    return max(1, len(seen))


def _is_white_zero(image: Image.Image) -> bool:
    """TIFF's WhiteIsZero, which Pillow undoes for 8 bits and not for 16."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_PHOTOMETRIC_TAG) == 0)


def _orient(grey: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """EXIF 2.32, 4.6.4: the image is square by now, so turning it after the resize is the same and cheaper."""
    turned = Image.fromarray(grey)
    turned.getexif()[_ORIENTATION_TAG] = orientation
    return np.array(ImageOps.exif_transpose(turned), dtype=np.float32)
