"""What a DICOM header says of its pixels, checked before any are decoded, and what it leaves out.

Every deviation that is understood becomes a note of the row; every other is a refusal that names the element.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NoReturn

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from featherweight.apps.imaging.readers import codecs
from featherweight.apps.imaging.readers.base import Limits, RefusedError, check_size
from featherweight.apps.imaging.readers.codecs import Shape
from featherweight.apps.imaging.readers.elements import (
    describe,
    is_undefined_length,
    read_code,
    read_number,
    read_whole,
)
from featherweight.apps.imaging.readers.stored import Cell
from featherweight.core.terminal import counted

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_BITS = {"PixelData": (1, 8, 16, 32, 64), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
_NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


@dataclass(frozen=True)
class Header:
    """keyword: of the element that holds the pixels; frames: as declared; planar: native colour comes plane by plane;
    notes: how it was understood where it deviates from the standard."""

    syntax: UID
    keyword: str
    frames: int
    shape: Shape
    cell: Cell
    planar: int
    notes: tuple[str, ...]

    @property
    def is_encapsulated(self) -> bool:
        """Whether the pixels are compressed."""
        return self.syntax not in _NATIVE

    @property
    def is_float(self) -> bool:
        """Whether the pixels are Float or Double Float Pixel Data."""
        return self.keyword != "PixelData"

    @property
    def samples(self) -> int:
        """Number of samples of one frame."""
        return self.shape.rows * self.shape.columns * self.shape.samples


def read_header(dataset: Dataset, limits: Limits) -> Header:
    """Raises RefusedError."""
    notes: list[str] = []
    keyword = _pixel_keyword(dataset)
    syntax = _transfer_syntax(dataset, keyword, notes)
    photometric = read_code(dataset, "PhotometricInterpretation")
    rows, columns = read_whole(dataset, "Rows"), read_whole(dataset, "Columns")
    samples = _samples(dataset, photometric, notes)
    frames = read_whole(dataset, "NumberOfFrames", default=1)
    check_size(rows, columns, samples, frames, limits)
    bits_allocated, cell = _bits(dataset, keyword, notes)
    planar = 0
    if cell.signed and photometric in _COLOUR:
        notes.append(f"PixelRepresentation is 1 with {photometric}, whose values have no sign: read as 0, unsigned")
        cell = replace(cell, signed=False)
    if samples > 1:
        planar = read_whole(dataset, "PlanarConfiguration", default=0, least=0)
        if planar > 1:
            raise RefusedError("bad-header", f"{describe('PlanarConfiguration')} is {planar}; expected 0 or 1")
    _note_presentation(dataset, photometric, notes)
    shape = Shape(rows, columns, samples, bits_allocated, photometric)
    return Header(syntax, keyword, frames, shape, cell, planar, tuple(notes))


def _pixel_keyword(dataset: Dataset) -> str:
    found = [keyword for keyword in _BITS if keyword in dataset]
    if not found:
        _refuse_without_pixels(dataset)
    if len(found) > 1:
        raise RefusedError("bad-header", f"found {' and '.join(found)}; expected one of them")
    return found[0]


def _refuse_without_pixels(dataset: Dataset) -> NoReturn:
    """Says of what kind the object is: of an image, the pixels should be there."""
    named = UID(read_code(dataset, "SOPClassUID"))
    kind = named.name if named.type == "SOP Class" else ""
    if "Rows" in dataset or "Image Storage" in kind:
        raise RefusedError(
            "no-pixel-data", f"the file is of {kind or 'an image'} and has no pixel data; is it cut off?"
        )
    raise RefusedError("no-pixel-data", "the DICOM file holds no image" + (f": it is of {kind}" if kind else ""))


def _transfer_syntax(dataset: Dataset, keyword: str, notes: list[str]) -> UID:
    named = UID(read_code(getattr(dataset, "file_meta", FileMetaDataset()), "TransferSyntaxUID"))
    if not named:
        # PS3.5 10.1: what was agreed on by nobody is implicit VR little endian; pydicom has seen if it is not.
        implicit, little = dataset.original_encoding
        if is_undefined_length(dataset, keyword):
            raise RefusedError(
                "unsupported-transfer-syntax",
                "the file names no transfer syntax (0002,0010), and its pixel data are compressed",
            )
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        notes.append(f"the file names no transfer syntax: read as {syntax.name}")
        return syntax
    if named not in _NATIVE and named not in codecs.SYNTAXES:
        shown = named if re.fullmatch(r"[0-9.]{1,64}", named) else "that is not a UID"
        raise RefusedError("unsupported-transfer-syntax", f"no decoder for transfer syntax {shown}")
    if named in _NATIVE and is_undefined_length(dataset, keyword):
        raise RefusedError(
            "bad-header", f"the pixel data are compressed, transfer syntax {named} says that they are not"
        )
    return named


def _samples(dataset: Dataset, photometric: str, notes: list[str]) -> int:
    expected = 1 if photometric in (*MONOCHROME, "PALETTE COLOR") else 3 if photometric in _COLOUR else 0
    samples = read_whole(dataset, "SamplesPerPixel", default=expected or None)
    if samples != expected:
        known = photometric if expected else "that is missing or not known"
        raise RefusedError(
            "unsupported-photometric",
            f"found {counted(samples, 'samples')} per pixel with photometric interpretation {known}",
        )
    if read_number(dataset, "SamplesPerPixel", []) is None:
        notes.append(f"SamplesPerPixel is missing: read as {samples}, by {photometric}")
    return samples


def _bits(dataset: Dataset, keyword: str, notes: list[str]) -> tuple[int, Cell]:
    """The bits of a cell, and where in it the value is."""
    possible = _BITS[keyword]
    if keyword != "PixelData":
        return possible[0], Cell(possible[0], possible[0] - 1, signed=True)
    allocated = read_whole(dataset, "BitsAllocated")
    if allocated not in possible:
        expected = ", ".join(map(str, possible))
        raise RefusedError("bad-header", f"{describe('BitsAllocated')} is {allocated}; expected one of {expected}")
    stored = read_whole(dataset, "BitsStored")
    if stored > allocated:
        raise RefusedError(
            "bad-header",
            f"{describe('BitsStored')} is {stored}, more than the {allocated} of {describe('BitsAllocated')}",
        )
    high = read_whole(dataset, "HighBit", default=stored - 1, least=0)
    if not stored - 1 <= high < allocated:
        notes.append(f"HighBit is {high}, which {stored} bits in {allocated} cannot have: read as {stored - 1}")
        high = stored - 1
    representation = read_number(dataset, "PixelRepresentation", [])
    if representation is None:
        notes.append("PixelRepresentation is missing: read as 0, unsigned")
    elif representation not in (0, 1):
        raise RefusedError("bad-header", f"{describe('PixelRepresentation')} is {representation:g}; expected 0 or 1")
    return allocated, Cell(stored, high, bool(representation))


def _note_presentation(dataset: Dataset, photometric: str, notes: list[str]) -> None:
    """What a viewer would do after the window, and a network does without."""
    shape = read_code(dataset, "PresentationLUTShape")
    if (photometric, shape) in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        notes.append(f"PresentationLUTShape is {shape} with {photometric}: read as {photometric} says")
    if "ShutterShape" in dataset:
        notes.append("a display shutter (0018,1600) is not applied")
