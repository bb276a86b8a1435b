"""DICOM files: bytes -> data set (pydicom) -> header -> frames' stored values -> grey (`apps.imaging.pixels`).

Each step has its module beside this one. Colour is BT.601 luma; of YBR_FULL it is Y as stored. The Presentation LUT
Shape is not applied: where the standard requires it, it repeats what MONOCHROME1 says. Every declared frame gives one
row of its own number, whatever became of those before it; a file whose header cannot be understood gives one row, of
frame 0.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from featherweight.apps.imaging.frames import Decoded, Frame, FrameId, RejectedFrame
from featherweight.apps.imaging.pixels import Greyscale, Rescale, Window, finish, grey_from_rgb, render, resize
from featherweight.apps.imaging.readers.base import (
    DEFAULT_LIMITS,
    Limits,
    RefusedError,
    check_memory,
    check_results,
    check_size,
)
from featherweight.apps.imaging.readers.bounded import BoundedReader, check_elements, inflate
from featherweight.apps.imaging.readers.codecs import decode_frame
from featherweight.apps.imaging.readers.codestreams import decode_jpeg2000_reduced, parse_jpeg, parse_jpeg2000
from featherweight.apps.imaging.readers.elements import PYDICOM_ERRORS, describe, read_bytes
from featherweight.apps.imaging.readers.fragments import Encapsulated, find_frames
from featherweight.apps.imaging.readers.greyscale import read_greyscale, read_palette
from featherweight.apps.imaging.readers.header import MONOCHROME, Header, read_header
from featherweight.apps.imaging.readers.stored import agreed_cell, note_upper_bits, stored_values
from featherweight.apps.imaging.sealed import Preprocess
from featherweight.core.arrays import Array, GreyImage, StoredPixels

_COPIES = 3
"""How often the samples of a frame are in memory at once, at the worst moment of any codec but JPEG 2000."""

_JPEG2000_BYTES = 12
"""A sample while JPEG 2000 is decoded: OpenJPEG works in 32 bits."""


@dataclass(frozen=True)
class _Image:
    """content: the value of the element that holds the pixels; encapsulated: where in it the frames are; found: how
    many of the declared ones there are; notes: the header's, and what the pixel data themselves add."""

    dataset: Dataset
    header: Header
    content: bytes
    encapsulated: Encapsulated | None
    found: int
    notes: tuple[str, ...]
    _read: dict[int, tuple[Greyscale, list[str]]] = field(default_factory=dict)

    def greyscale(self, frame: int) -> tuple[Greyscale, list[str]]:
        """And its notes. Read once where no frame has its own. Raises RefusedError."""
        own = "PerFrameFunctionalGroupsSequence" in self.dataset
        if own or not self._read:
            notes: list[str] = []
            self._read[0] = read_greyscale(self.dataset, self.header, frame, notes), notes
        return self._read[0]


def decode_file(content: bytes, source: str, preprocess: Preprocess, limits: Limits) -> Iterator[Decoded]:
    """A row for each declared frame of a DICOM file, or one Rejected for a file that cannot be understood."""
    names = FrameId(source, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of every deviation; the pixels decide
        try:
            dataset, notes = _parse_file(content, limits)
            del content  # the pixel data has been copied out of it
            names = _names(source, dataset)
            image = _open_image(dataset, limits, notes)
            check_results(image.header.frames, preprocess.side, limits)
        except RefusedError as error:
            yield RejectedFrame(names, error.reason, str(error))
            return
        except PYDICOM_ERRORS as error:
            yield RejectedFrame(
                names, "corrupt", f"cannot be read as DICOM ({type(error).__name__}); is the file damaged?"
            )
            return
        for frame in range(image.header.frames):
            yield _decode_frame(image, frame, names, preprocess.side, limits)


def _decode_frame(image: _Image, frame: int, names: FrameId, side: int, limits: Limits) -> Decoded:
    """One row, whatever is wrong with the frame: the next one is tried after it."""
    numbered = FrameId(names.source, frame, names.study_instance_uid, names.series_instance_uid, names.sop_instance_uid)
    notes = list(image.notes)
    try:
        grey = _grey_frame(image, frame, side, limits, notes)
    except RefusedError as error:
        return RejectedFrame(numbered, error.reason, str(error))
    except FloatingPointError:
        return RejectedFrame(numbered, "bad-values", "pixel values are not all finite")
    except MemoryError:
        return RejectedFrame(numbered, "out-of-memory", "the frame is too large for this process' memory")
    except PYDICOM_ERRORS as error:
        return RejectedFrame(
            numbered, "corrupt", f"frame {frame} cannot be decoded ({type(error).__name__}); is it damaged?"
        )
    return Frame(numbered, grey, notes="; ".join(dict.fromkeys(notes)))


def read_pixel_array(path: Path, limits: Limits = DEFAULT_LIMITS) -> Array:
    """Stored values of all frames, those of pydicom's `pixel_array` where that is right: [H, W], [H, W, 3], or with
    frames in front; YBR as RGB. Raises RefusedError."""
    frames = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset, _ = _parse_file(path.read_bytes(), limits)
            image = _open_image(dataset, limits)
            for frame in range(image.header.frames):
                stored, photometric = _decode(image, frame, limits, [])
                if photometric in ("YBR_FULL", "YBR_FULL_422"):
                    stored = convert_color_space(stored, "YBR_FULL", "RGB")
                frames.append(stored)
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


def _parse_file(content: bytes, limits: Limits) -> tuple[Dataset, tuple[str, ...]]:
    """The data set, and a note where the file ends before its encapsulated pixel data do. pydicom keeps nothing of such
    a file, although all but its last frames may be there."""
    dataset = parse_dataset(content, limits)
    if len(dataset):
        return dataset, ()
    for kind in ("OB", "OW"):
        head = b"\xe0\x7f\x10\x00" + kind.encode() + b"\0\0\xff\xff\xff\xff"
        if (at := content.rfind(head)) >= 0:
            dataset = parse_dataset(content[:at], limits)
            dataset.add_new(0x7FE00010, kind, content[at + len(head) :])
            dataset["PixelData"].is_undefined_length = True
            return dataset, ("the file ends before its pixel data do",)
    raise RefusedError("corrupt", "the DICOM file ends within an element, or holds none; is it cut off?")


def _names(source: str, dataset: Dataset) -> FrameId:
    found = (_uid(dataset, f"{level}InstanceUID") for level in ("Study", "Series", "SOP"))
    return FrameId(source, 0, *found)


def _uid(dataset: Dataset, keyword: str) -> str:
    try:
        value = str(dataset.get(keyword, ""))
    except PYDICOM_ERRORS:
        return ""
    # Anything that is not a UID could be a name or number of a patient.
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""


def _open_image(dataset: Dataset, limits: Limits, noted: tuple[str, ...] = ()) -> _Image:
    """Raises RefusedError."""
    header = read_header(dataset, limits)
    content = read_bytes(dataset, header.keyword) or b""
    encapsulated, notes = None, [*header.notes, *noted]
    if header.is_encapsulated:
        table = read_bytes(dataset, "ExtendedOffsetTable")
        encapsulated = find_frames(content, header.frames, table, limits)
        found, more = len(encapsulated.frames), encapsulated.more
    else:
        header, frame_bits = _native_frame_bits(header, len(content), notes)
        held = 8 * len(content) // frame_bits
        found, more = min(held, header.frames), held > header.frames
    if more:
        notes.append(f"the file holds more frames than NumberOfFrames says: read are {header.frames}")
    return _Image(dataset, header, content, encapsulated, found, tuple(notes))


def _native_frame_bits(header: Header, size: int, notes: list[str]) -> tuple[Header, int]:
    """The bits of a frame. YBR_FULL_422 shares colours between two pixels, unless the data are too long for that."""
    shape = header.shape
    bits = header.samples * shape.bits_allocated
    if shape.photometric != "YBR_FULL_422":
        return header, bits
    if 8 * size < bits * header.frames:
        return header, bits // 3 * 2
    notes.append("the pixel data have a colour for every pixel: read as YBR_FULL, not YBR_FULL_422")
    return replace(header, shape=replace(shape, photometric="YBR_FULL")), bits


def _grey_frame(image: _Image, frame: int, side: int, limits: Limits, notes: list[str]) -> GreyImage:
    """Raises RefusedError, FloatingPointError for values that are not finite, and what codecs raise."""
    header = image.header
    if header.shape.photometric in MONOCHROME:
        greyscale, said = image.greyscale(frame)
        notes += said
        stored = _decode_reduced(image, frame, greyscale, side)
        if stored is None:
            stored, _ = _decode(image, frame, limits, notes)
        return render(stored, greyscale, side)
    stored, photometric = _decode(image, frame, limits, notes)
    if photometric == "PALETTE COLOR":
        table, lowest = read_palette(image.dataset, header)
        return finish(resize(stored, side, lambda rows: table[rows.astype(np.int64) - lowest]), False)
    white = np.float32((1 << header.cell.bits_stored) - 1)
    luma = _luma_as_stored if photometric.startswith("YBR") else grey_from_rgb
    return finish(resize(stored, side, luma) / white, False)


def _luma_as_stored(rows: StoredPixels) -> Array:
    return rows[..., 0].astype(np.float32)


def _decode(image: _Image, frame: int, limits: Limits, notes: list[str]) -> tuple[StoredPixels, str]:
    """The stored values of a frame and their photometric interpretation: YBR stays YBR."""
    header, shape = image.header, image.header.shape
    if frame >= image.found:
        _refuse_missing(image)
    check_memory(_needed_bytes(image, header.samples), limits)
    if image.encapsulated is None:
        samples, photometric = _native_samples(image, frame)
        if header.is_float:
            return samples, photometric
        cell = agreed_cell(samples, header.cell, notes)
        note_upper_bits(samples, cell, notes)
        return stored_values(samples, cell), photometric
    codestream = image.encapsulated.codestream(frame)
    _check_codestream(image, codestream, limits)
    decoded = decode_frame(codestream, header.syntax, shape)
    if decoded.precision < header.cell.bits_stored:
        notes.append(f"the codestream has {decoded.precision} bits, BitsStored says {header.cell.bits_stored}")
    cell = header.cell
    if decoded.precision > cell.bits_stored:  # else the codestream holds values, not cells
        cell = agreed_cell(decoded.samples, cell, notes)
        if decoded.lossless:
            note_upper_bits(decoded.samples, cell, notes)
    stored = stored_values(decoded.samples, cell, precision=decoded.precision, lossless=decoded.lossless)
    return stored, decoded.photometric


def _refuse_missing(image: _Image) -> NoReturn:
    declared = image.header.frames
    if declared > 1:
        raise RefusedError(
            "corrupt",
            f"{describe('NumberOfFrames')} is {declared}, the pixel data hold {image.found}; is the file cut off?",
        )
    found = f"{len(image.content)} bytes" if image.encapsulated is None else "no fragment"
    raise RefusedError(
        "corrupt", f"the pixel data have {found}, too few for the {image.header.samples} samples; is the file cut off?"
    )


def _native_samples(image: _Image, frame: int) -> tuple[StoredPixels, str]:
    """By pydicom, which knows big-endian bytes in words, colours of two pixels and planes. For anything simpler it
    takes longer than all the rest of a small frame, and it loses bits of a frame that begins within a byte."""
    header, shape = image.header, image.header.shape
    if shape.bits_allocated == 1:
        first, last = frame * header.samples, (frame + 1) * header.samples
        bits = np.unpackbits(np.frombuffer(image.content[first // 8 : -(-last // 8)], np.uint8), bitorder="little")
        return bits[first % 8 :][: header.samples].reshape(shape.rows, shape.columns), shape.photometric
    big = header.syntax == ExplicitVRBigEndian
    if shape.samples == 1 and shape.bits_allocated >= (16 if big else 8):
        kind = "f" if header.is_float else "u"
        cells = np.dtype(f"{'>' if big else '<'}{kind}{shape.bits_allocated // 8}")
        at = frame * header.samples * cells.itemsize
        samples = np.frombuffer(image.content, cells, header.samples, at)
        return samples.reshape(shape.rows, shape.columns), shape.photometric
    element: Any = image.dataset.get_item(header.keyword)
    found = get_decoder(header.syntax).iter_array(
        image.content,
        indices=[frame],
        raw=True,
        view_only=True,
        correct_unused_bits=False,  # `stored_values` does it for all codecs
        allow_excess_frames=False,
        pixel_keyword=header.keyword,
        pixel_vr=element.VR or "OW",
        rows=shape.rows,
        columns=shape.columns,
        samples_per_pixel=shape.samples,
        bits_allocated=shape.bits_allocated,
        bits_stored=header.cell.bits_stored,
        pixel_representation=int(header.cell.signed),
        photometric_interpretation=shape.photometric,
        planar_configuration=header.planar,
        number_of_frames=image.found,
    )
    samples, properties = next(iter(found))
    return samples, str(properties["photometric_interpretation"])


def _decode_reduced(image: _Image, frame: int, greyscale: Greyscale, side: int) -> StoredPixels | None:
    """A single JPEG 2000 frame at a fraction of its size (`apps.imaging.readers.codestreams`), or None.

    Only where that cannot move the grey scale: unsigned, with a window at least a quarter as wide as what the bits can
    hold. Without a window the darkest and the lightest pixel decide, and a smaller image no longer has them.
    """
    header, cell = image.header, image.header.cell
    if image.encapsulated is None or image.found != 1 or header.frames != 1 or cell.signed:
        return None
    if header.syntax not in JPEG2000TransferSyntaxes:
        return None
    if not isinstance(greyscale.voi, Window) or not isinstance(greyscale.modality, Rescale):
        return None
    if greyscale.voi.width < abs(greyscale.modality.slope) * (1 << cell.bits_stored) / 4:
        return None
    codestream = image.encapsulated.codestream(frame)
    found = parse_jpeg2000(codestream)
    expected = (header.shape.rows, header.shape.columns, cell.bits_stored)
    if found is None or (found.rows, found.columns, found.bits) != expected:
        return None
    return decode_jpeg2000_reduced(codestream, found, 2 * side)


def _check_codestream(image: _Image, codestream: bytes, limits: Limits) -> None:
    """A codestream has a size of its own, which decoders believe: it is bounded like the header's."""
    syntax = image.header.syntax
    size: tuple[int, int, int] | None = None
    if syntax in JPEG2000TransferSyntaxes:
        if header := parse_jpeg2000(codestream):
            size = header.rows, header.columns, header.components
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes) and (jpeg := parse_jpeg(codestream)):
        size = jpeg.rows, jpeg.columns, jpeg.components
    if size is not None:
        check_size(*size, 1, limits)
        check_memory(_needed_bytes(image, math.prod(size)), limits)


def _needed_bytes(image: _Image, samples: int) -> int:
    """What decoding a frame takes at most: the pixel data, as much again for a frame joined from its fragments (one
    frame may be all of it), and the samples as often as the decoder holds them."""
    header, size = image.header, len(image.content)
    if header.syntax in JPEG2000TransferSyntaxes:
        return 2 * size + samples * _JPEG2000_BYTES
    cell_bytes = max(1, header.shape.bits_allocated // 8)
    return (2 if header.is_encapsulated else 1) * size + samples * _COPIES * cell_bytes
