"""DICOM files by pydicom: bytes -> data set -> stored values -> grey frames (the steps are in `apps.imaging.pixels`).

What is taken when a file says several things: functional groups of the frame before shared ones before the data set's
own (PS3.3 C.7.6.16); a modality LUT before rescale; a VOI LUT before a window; the first of several windows. A window
that the standard does not allow (width 0, say) is no window. Colour is BT.601 luma; of YBR_FULL it is Y as stored. The
Presentation LUT Shape is not applied: where the standard requires it, it repeats what MONOCHROME1 says.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from apps.imaging.frames import FrameId, Rejected
from apps.imaging.pixels import Floats, Greyscale, Lut, Rescale, Stored, Window, finish, grey_from_rgb, render, resize
from apps.imaging.readers import codecs
from apps.imaging.readers.base import (
    DEFAULT_LIMITS,
    Limits,
    Pixels,
    RefusedError,
    check_memory,
    check_results,
    check_size,
)
from apps.imaging.readers.bounded import BoundedReader, check_elements, inflate
from apps.imaging.readers.codestreams import decode_jpeg2000_reduced, parse_jpeg2000, parse_jpeg_size
from apps.imaging.settings import Preprocess

# What pydicom and its plugins are known to raise on damaged files. MemoryError is not here: the caller names it.
PYDICOM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,  # all plugins failed; RecursionError from sequences nested without end
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_COPIES = 3
"""How often the samples of a frame are in memory at once, at the worst moment of any codec but JPEG 2000."""

_JPEG2000_BYTES = 12
"""A sample while JPEG 2000 is decoded: OpenJPEG works in 32 bits."""

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class _Image:
    """A header that has been checked. decoder: pydicom's, with the faster codecs added."""

    dataset: Dataset
    decoder: Decoder
    photometric: str
    frames: int


def decode_file(content: bytes, source: str, preprocess: Preprocess, limits: Limits) -> Iterator[Pixels | Rejected]:
    """The frames of a DICOM file; the first that cannot be decoded ends it with a Rejected."""
    names = FrameId(source, 0)
    index = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every deviation; the pixels decide
            dataset = parse_dataset(content, limits)
            del content  # the pixel data has been copied out of it
            names = _names(source, dataset)
            image = _check_image(dataset, limits)
            check_results(image.frames, preprocess.side, limits)
            for index, (stored, photometric) in enumerate(_decode_small(image, preprocess.side, limits)):
                grey = _grey_frame(image, stored, photometric, index, preprocess.side)
                yield Pixels(_numbered(names, index), grey)
    except RefusedError as error:
        yield Rejected(_numbered(names, index), error.reason, str(error))
    except PYDICOM_ERRORS as error:
        yield Rejected(
            _numbered(names, index), "corrupt", f"cannot be decoded ({type(error).__name__}); is the file truncated?"
        )


def read_pixel_array(path: Path, limits: Limits = DEFAULT_LIMITS) -> npt.NDArray[Any]:
    """Stored values of all frames, exactly those of pydicom's `pixel_array`: [H, W], [H, W, 3], or with frames in
    front; YBR as RGB. Raises RefusedError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _check_image(parse_dataset(path.read_bytes(), limits), limits)
            frames = [stored for stored, _ in _decode(image, limits, raw=False)]
    except PYDICOM_ERRORS as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError("corrupt", f"{path}: cannot be decoded ({type(error).__name__})") from error
    # np.stack would turn big-endian values into native ones; pydicom keeps them.
    return frames[0] if len(frames) == 1 else np.stack(frames, dtype=frames[0].dtype, casting="no")


def parse_dataset(content: bytes, limits: Limits) -> Dataset:
    """The data set, with `file_meta`. Raises RefusedError for a deflated one that grows beyond `limits.file_bytes`, and
    what pydicom raises (PYDICOM_ERRORS)."""
    if DeflatedExplicitVRLittleEndian.encode() in content[:4096]:
        file = io.BytesIO(content)
        read_preamble(file, force=True)
        meta = FileMetaDataset(
            read_dataset(
                file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _size: tag >= 0x30000
            )
        )
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # pydicom inflates without a bound, and a kilobyte may hold a gigabyte.
            inflated = inflate(memoryview(content)[file.tell() :], limits)
            with inflated.telling():
                unpacked = read_dataset(inflated, is_implicit_VR=False, is_little_endian=True)
            unpacked.file_meta = meta
            return check_elements(unpacked)
    bounded = BoundedReader(content, limits)
    with bounded.telling():
        dataset = dcmread(bounded, force=True)
    dataset.buffer = None  # else it keeps the whole file, of which everything has been copied
    return check_elements(dataset)


def _names(source: str, dataset: Dataset) -> FrameId:
    found = (str(dataset.get(f"{level}InstanceUID", "")) for level in ("Study", "Series", "SOP"))
    # Anything that is not a UID could be a name or number of a patient.
    return FrameId(source, 0, *(value if re.fullmatch(r"[0-9.]{1,64}", value) else "" for value in found))


def _numbered(names: FrameId, frame: int) -> FrameId:
    return FrameId(names.source, frame, names.study_instance_uid, names.series_instance_uid, names.sop_instance_uid)


def _check_image(dataset: Dataset, limits: Limits) -> _Image:
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        raise RefusedError("no-pixel-data", "the DICOM file holds no image")
    decoder = _decoder(getattr(dataset, "file_meta", FileMetaDataset()).get("TransferSyntaxUID"))
    rows, columns = _positive(dataset, "Rows"), _positive(dataset, "Columns")
    samples = _positive(dataset, "SamplesPerPixel")
    frames = 1 if dataset.get("NumberOfFrames") in (None, "") else _positive(dataset, "NumberOfFrames")
    check_size(rows, columns, samples, frames, limits)
    if "PixelData" in dataset:
        _positive(dataset, "BitsAllocated")
        _positive(dataset, "BitsStored")
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    expected = 1 if photometric in (*_MONOCHROME, "PALETTE COLOR") else 3 if photometric in _COLOUR else 0
    if samples != expected:
        known = photometric if expected else "one that is not known"
        raise RefusedError(
            "unsupported-photometric", f"found {samples} samples per pixel with photometric interpretation {known}"
        )
    return _Image(dataset, decoder, photometric, frames)


def _positive(dataset: Dataset, keyword: str) -> int:
    value = dataset.get(keyword)
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise RefusedError("bad-header", f"{keyword} is missing or not a number") from None
    if number < 1:
        raise RefusedError("bad-header", f"{keyword} is {number}; expected 1 or more")
    return number


def _decoder(syntax: UID | None) -> Decoder:
    if not syntax:
        raise RefusedError("unsupported-transfer-syntax", "the file names no transfer syntax")
    shown = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "that is not a UID"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise RefusedError("unsupported-transfer-syntax", f"no decoder for transfer syntax {shown}") from None
    if decoder.is_encapsulated and not codecs.is_available(syntax):
        raise RefusedError("unsupported-transfer-syntax", f"no decoder for transfer syntax {shown}")
    if decoder.is_encapsulated and codecs.PLUGIN not in decoder.available_plugins:
        decoder.add_plugin(codecs.PLUGIN, ("apps.imaging.readers.codecs", "decode_frame"))
    return decoder


def _decode(image: _Image, limits: Limits, *, raw: bool) -> Iterator[tuple[Stored, str]]:
    """(stored values, their photometric interpretation) frame by frame. raw: YBR stays YBR."""
    dataset, decoder = image.dataset, image.decoder
    if decoder.is_encapsulated:
        _check_codestreams(image, limits)
    options: dict[str, Any] = {**as_pixel_options(dataset), "raw": raw, "allow_excess_frames": False}
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    check_memory(_needed_bytes(image, samples), limits)
    plugin = codecs.PLUGIN if decoder.is_encapsulated else ""
    options["view_only"] = raw and not decoder.is_encapsulated
    for stored, properties in decoder.iter_array(dataset, decoding_plugin=plugin, **options):
        yield stored, str(properties["photometric_interpretation"])


def _decode_small(image: _Image, side: int, limits: Limits) -> Iterator[tuple[Stored, str]]:
    """As `_decode`, but a single JPEG 2000 frame may come at a fraction of its size
    (`apps.imaging.readers.codestreams`).

    Only where that cannot move the grey scale: unsigned, with a window at least a quarter as wide as what the bits can
    hold. Without a window the darkest and the lightest pixel decide, and a smaller image no longer has them.
    """
    dataset = image.dataset
    if image.photometric in _MONOCHROME and image.frames == 1 and image.decoder.UID in JPEG2000TransferSyntaxes:
        grey = _greyscale(dataset, image.photometric, 0)
        bits, signed = int(dataset.BitsStored), dataset.get("PixelRepresentation") != 0
        if isinstance(grey.voi, Window) and isinstance(grey.modality, Rescale) and not signed:
            wide = grey.voi.width >= abs(grey.modality.slope) * (1 << bits) / 4
            frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
            header = parse_jpeg2000(frame)
            same = header and (header.rows, header.columns, header.bits) == (dataset.Rows, dataset.Columns, bits)
            if wide and header and same and (small := decode_jpeg2000_reduced(frame, header, 2 * side)) is not None:
                yield small, image.photometric
                return
    yield from _decode(image, limits, raw=True)


def _check_codestreams(image: _Image, limits: Limits) -> None:
    """A codestream has a size of its own, which decoders believe: it is bounded like the header's."""
    syntax = image.decoder.UID
    for frame in generate_frames(image.dataset.PixelData, number_of_frames=image.frames):
        size: tuple[int, int, int] | None = None
        if syntax in JPEG2000TransferSyntaxes:
            if header := parse_jpeg2000(frame):
                size = header.rows, header.columns, header.components
        elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
            size = parse_jpeg_size(frame)
        if size is not None:
            check_size(*size, 1, limits)
            check_memory(_needed_bytes(image, math.prod(size)), limits)


def _needed_bytes(image: _Image, samples: int) -> int:
    """What decoding a frame takes at most: the pixel data, as much again for a frame joined from its fragments (one
    frame may be all of it), and the samples as often as the decoder holds them."""
    dataset, decoder = image.dataset, image.decoder
    keyword = next(keyword for keyword in _PIXEL_KEYWORDS if keyword in dataset)
    size = len(dataset[keyword].value or b"")
    if decoder.UID in JPEG2000TransferSyntaxes:
        return 2 * size + samples * _JPEG2000_BYTES
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword) or int(dataset.BitsAllocated)
    return (2 if decoder.is_encapsulated else 1) * size + samples * _COPIES * max(1, bits // 8)


def _grey_frame(image: _Image, stored: Stored, photometric: str, index: int, side: int) -> npt.NDArray[np.float32]:
    dataset = image.dataset
    if image.photometric in _MONOCHROME:
        try:
            return render(stored, _greyscale(dataset, image.photometric, index), side)
        except FloatingPointError:
            raise RefusedError("bad-values", "pixel values are not all finite") from None
    if image.photometric == "PALETTE COLOR":
        table, lowest = _palette(stored.dtype, dataset)
        return finish(resize(stored, side, lambda rows: table[rows.astype(np.int64) - lowest]), False)
    white = np.float32((1 << int(dataset.BitsStored)) - 1)
    luma = _luma_as_stored if photometric.startswith("YBR") else grey_from_rgb
    return finish(resize(stored, side, luma) / white, False)


def _luma_as_stored(rows: Stored) -> Floats:
    return rows[..., 0].astype(np.float32)


def _palette(dtype: np.dtype[Any], dataset: Dataset) -> tuple[Floats, int]:
    """The grey level 0..1 of every value that can be stored, and the first of these values."""
    if dtype.itemsize > 2:
        raise RefusedError("bad-header", f"found a palette for values of {8 * dtype.itemsize} bits")
    native = dtype.newbyteorder("=")
    coloured = apply_color_lut(np.arange(np.iinfo(native).min, np.iinfo(native).max + 1).astype(native), dataset)
    levels = grey_from_rgb(coloured[..., :3]) / np.float32(np.iinfo(coloured.dtype).max)
    return levels, int(np.iinfo(native).min)


def _greyscale(dataset: Dataset, photometric: str, index: int) -> Greyscale:
    modality: Rescale | Lut = Rescale()
    rescale = _group(dataset, index, "PixelValueTransformationSequence")
    if tables := rescale.get("ModalityLUTSequence"):
        modality = _lut(tables[0])
    elif rescale.get("RescaleSlope") is not None:
        modality = Rescale(float(rescale.RescaleSlope), float(rescale.get("RescaleIntercept") or 0))
        if modality.slope == 0 or not np.isfinite([modality.slope, modality.intercept]).all():
            raise RefusedError("bad-header", f"RescaleSlope is {modality.slope}, RescaleIntercept {modality.intercept}")
    padding = None
    if (value := dataset.get("PixelPaddingValue")) is not None:
        padding = (float(value), float(dataset.get("PixelPaddingRangeLimit") or value))
    return Greyscale(modality, _voi(dataset, index), photometric == "MONOCHROME1", padding)


def _voi(dataset: Dataset, index: int) -> Window | Lut | None:
    group = _group(dataset, index, "FrameVOILUTSequence")
    if tables := group.get("VOILUTSequence"):
        return _lut(tables[0])
    center, width = _first(group.get("WindowCenter")), _first(group.get("WindowWidth"))
    if center is None or width is None:
        return None
    function = str(group.get("VOILUTFunction") or "LINEAR")
    window = Window(center, width, function if function in _FUNCTIONS else "LINEAR")  # type: ignore[arg-type]
    return window if window.is_usable else None


def _group(dataset: Dataset, index: int, keyword: str) -> Dataset:
    """The functional group `keyword` for a frame, or the data set itself where there is none."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for candidate in (*frames[index : index + 1], *shared[:1]):
        if items := candidate.get(keyword):
            group: Dataset = items[0]
            return group
    return dataset


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, bytes)) or not hasattr(value, "__getitem__"):
        return float(value)
    return float(value[0]) if len(value) else None


def _lut(item: Dataset) -> Lut:
    """PS3.3 C.11.1.1.1: the number of entries (0 means 65536), the first input, the bits of an entry."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    count = count or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if item.original_encoding[1] in (True, None) else ">"
        entries = np.frombuffer(data, dtype=np.uint8 if len(data) <= count + 1 and bits <= 8 else f"{order}u2")
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
    if len(entries) < count or not 1 <= bits <= 16:
        raise RefusedError(
            "bad-header", f"a look-up table has {len(entries)} entries of {bits} bits, its descriptor says {count}"
        )
    return Lut(first, entries[:count].astype(np.uint16), bits)
