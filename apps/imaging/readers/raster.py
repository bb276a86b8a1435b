"""JPEG, PNG and TIFF by Pillow, to grey levels in 0..1.

Colour becomes BT.601 luma; transparency is ignored; EXIF orientation is honoured; 8 bits are divided by 255, 12 by 4095
and 16 by 65535 (a 12-bit image in a file of 16 bits is dark, and noted: no tag says so); floats, signed and 32-bit
integers, which have no agreed white, are stretched from their smallest to their largest value. Every page of a TIFF is
a frame.

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
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from featherweight.apps.imaging.frames import Decoded, Frame, FrameId, RejectedFrame
from featherweight.apps.imaging.pixels import DARK_NOTE, Greyscale, render, render_unsigned
from featherweight.apps.imaging.readers.base import (
    Limits,
    RefusedError,
    check_memory,
    check_results,
    check_size,
)
from featherweight.apps.imaging.readers.checked import check_png, check_tiff_page
from featherweight.apps.imaging.readers.codestreams import parse_jpeg
from featherweight.apps.imaging.readers.strict_jpeg import check_jpeg, decode_grey
from featherweight.apps.imaging.sealed import Preprocess
from featherweight.core.arrays import GreyImage, StoredPixels

REDUCED_MEAN_TOLERANCE = 0.004
"""Mean absolute difference of an image decoded at reduced size from one decoded in full; 1/255 is 0.0039."""

_DARK = 4095.5 / 65535

_BITS_TAG = 258
_PHOTOMETRIC_TAG = 262
_SAMPLE_FORMAT_TAG = 339
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


def decode_file(content: bytes, source: str, preprocess: Preprocess, limits: Limits) -> Iterator[Decoded]:
    """The frame of a JPEG or PNG, or a row for each page of a TIFF: those after a damaged one are tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels decide
        try:
            image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "TIFF"))
        except Image.DecompressionBombError:
            raise RefusedError("too-large", "the header names more pixels than Pillow decodes") from None
        except _PILLOW_ERRORS as error:
            yield RejectedFrame(FrameId(source, 0), "corrupt", _unreadable(content, 0, error))
            return
        with image:
            pages = count_tiff_pages(content, limits) if image.format == "TIFF" else 1
            check_results(pages, preprocess.side, limits)
            check_size(image.height, image.width, len(image.getbands()), pages, limits)
            samples = 0
            for page in range(pages):
                found = _decode_page(image, page, samples, content, preprocess.side, limits)
                samples += image.width * image.height * len(image.getbands())
                yield replace(found, id=FrameId(source, page))


def _decode_page(image: Image.Image, page: int, samples: int, content: bytes, side: int, limits: Limits) -> Decoded:
    """samples: of the pages before: pages differ in size, so their sum is bounded as well."""
    here = FrameId("", page)
    try:
        image.seek(page)
        bands = len(image.getbands())
        check_size(image.height, image.width, bands, 1, limits)
        _check_samples(samples + image.width * image.height * bands, limits)
        check_memory(_needed_bytes(image, content), limits)
        if image.format == "PNG":
            check_png(content, image.width * image.height)
        elif image.format == "TIFF":
            check_tiff_page(image, content)
        grey = _decode_jpeg(image, content, side)
        grey = decode_image(image, side) if grey is None else grey
        return Frame(here, grey, notes="; ".join(_notes(image, grey)))
    except RefusedError as error:
        return RejectedFrame(here, error.reason, str(error))
    except Image.DecompressionBombError:
        return RejectedFrame(here, "too-large", "the header names more pixels than Pillow decodes")
    except FloatingPointError:
        return RejectedFrame(here, "bad-values", f"page {page} has pixel values that are not all finite")
    except MemoryError:
        return RejectedFrame(here, "out-of-memory", "the page is too large for this process' memory")
    except _PILLOW_ERRORS as error:
        return RejectedFrame(here, "corrupt", _unreadable(content, page, error))


def _unreadable(content: bytes, page: int, error: BaseException) -> str:
    jpeg = parse_jpeg(content) if content.startswith(b"\xff\xd8") else None
    if jpeg and jpeg.bits != 8:
        return f"a JPEG of {jpeg.bits} bits; outside of DICOM those of 8 bits are read"
    if isinstance(error, UnidentifiedImageError):
        return f"page {page} is of a kind that is not read (bits, samples or coding), or its header is damaged"
    return f"page {page} cannot be decoded ({type(error).__name__}); is the file truncated?"


def _notes(image: Image.Image, grey: GreyImage) -> tuple[str, ...]:
    # A TIFF's pages are all read. Counting them here would read every directory.
    pictures = 1 if image.format == "TIFF" else getattr(image, "n_frames", 1)
    notes = [f"the file holds {pictures} pictures: the first is read"] if pictures > 1 else []
    if image.mode.startswith("I;16") and 0 < grey.max() <= _DARK:
        notes.append(DARK_NOTE)
    return tuple(notes)


def _decode_jpeg(image: Image.Image, content: bytes, side: int) -> GreyImage | None:
    """What `decode_image` would give for a JPEG, by a decoder that refuses damaged data; None for any other image."""
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        stored = decode_grey(content, 2 * side)
        if stored is not None:
            return _turned(render_unsigned(stored, 255, side), image)
    elif image.format in ("JPEG", "MPO"):
        check_jpeg(content)
    return None


def decode_image(image: Image.Image, side: int, *, reduced: bool = True) -> GreyImage:
    """float32 [side, side] in 0..1. reduced: a JPEG may be decoded at a fraction of its size."""
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        # Pillow picks the smallest scale that is not below the size asked for; grey is then the JPEG's own luma.
        image.draft("L", (2 * side, 2 * side) if reduced else image.size)
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    sample_format = tags.get(_SAMPLE_FORMAT_TAG, (1,))[0]
    # TIFF's WhiteIsZero, which Pillow undoes for 8 bits and not for more.
    inverted = tags.get(_PHOTOMETRIC_TAG) == 0 and (image.mode.startswith("I") or image.mode == "F")
    image.load()
    if image.mode.startswith("I;16"):
        white = (1 << min(16, tags.get(_BITS_TAG, (16,))[0])) - 1
        grey = render_unsigned(_ImageRows(image, np.dtype(np.uint16)), white, side)
    elif image.mode in ("I", "F"):
        whole = np.uint32 if tags.get(_BITS_TAG) == (32,) and sample_format == 1 else np.int32
        grey = render(_ImageRows(image, np.dtype(whole if image.mode == "I" else np.float32)), Greyscale(), side)
    elif image.mode == "L" and sample_format == 2:
        grey = render(_ImageRows(image, np.dtype(np.int8)), Greyscale(), side)
    else:
        grey = render_unsigned(_ImageRows(image, np.dtype(np.uint8)), 255, side)
    grey = _turned(grey, image)  # after loading: Pillow has turned a TIFF by then
    return 1 - grey if inverted else grey


_SMALL_PIXELS = 1 << 21
"""Up to here one copy costs less than many bands."""


class _ImageRows:
    """A decoded image as `Rows`: numpy gets a few rows at a time, never a second copy of a large image."""

    def __init__(self, image: Image.Image, dtype: np.dtype[Any]) -> None:
        self._image, self.dtype = image, dtype
        self.shape = (image.height, image.width)
        self._whole = self._rows(0, image.height) if image.height * image.width <= _SMALL_PIXELS else None

    def __getitem__(self, rows: slice) -> StoredPixels:
        if self._whole is not None:
            return self._whole[rows]
        first, last, _ = rows.indices(self._image.height)
        return self._rows(first, last)

    def _rows(self, first: int, last: int) -> StoredPixels:
        band = self._image.crop((0, first, self._image.width, last))
        if self.dtype == np.uint8 and band.mode != "L":
            band = band.convert("L")
        stored = np.asarray(band)
        # Pillow has no mode for signed bytes and unsigned words of 32 bits: it gives their bits under another name.
        same_size = stored.dtype.itemsize == self.dtype.itemsize and stored.dtype.kind != self.dtype.kind
        return stored.view(self.dtype) if same_size else stored.astype(self.dtype, copy=False)


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


def _turned(grey: GreyImage, image: Image.Image) -> GreyImage:
    """EXIF 2.32, 4.6.4: the image is square by now, so turning it after the resize is the same and cheaper."""
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    if orientation not in range(2, 9):
        return grey
    turned = Image.fromarray(grey)
    turned.getexif()[_ORIENTATION_TAG] = orientation
    return np.array(ImageOps.exif_transpose(turned), dtype=np.float32)
