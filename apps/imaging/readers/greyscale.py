"""How the stored values of a DICOM frame become grey (`apps.imaging.pixels.Greyscale`), as its elements say.

What is taken when a file says several things: functional groups of the frame before shared ones before the data set's
own (PS3.3 C.7.6.16); a modality LUT before rescale; a VOI LUT before a window; the first of several windows. An empty
item of a sequence says nothing. A window that the standard does not allow (width 0, say) is not a window. The entries
of a VOI LUT are as light as their largest one can be: descriptors say 16 bits of tables that hold 12.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from featherweight.apps.imaging.pixels import Greyscale, Lut, Rescale, Window, grey_from_rgb
from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.apps.imaging.readers.elements import (
    describe,
    is_signed_word,
    read_bytes,
    read_code,
    read_items,
    read_number,
    read_words,
)
from featherweight.apps.imaging.readers.header import Header
from featherweight.apps.imaging.readers.stored import Cell, wrap
from featherweight.core.arrays import Array, UInt16s
from featherweight.core.terminal import counted

_TABLE = ("LUTDescriptor", "LUTData")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_FLOAT_PADDING = {
    "FloatPixelData": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "DoubleFloatPixelData": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}


def read_greyscale(dataset: Dataset, header: Header, frame: int, notes: list[str]) -> Greyscale:
    """How a monochrome frame becomes grey values. Raises RefusedError."""
    modality = _modality(dataset, header, frame, notes)
    voi = _voi(dataset, header, frame, modality, notes)
    return Greyscale(modality, voi, header.shape.photometric == "MONOCHROME1", _padding(dataset, header, notes))


def read_palette(dataset: Dataset, header: Header) -> tuple[Array, int]:
    """The grey level 0..1 of every value that can be stored, and the first of these values. Raises RefusedError."""
    bits = header.shape.bits_allocated
    if bits > 16:
        raise RefusedError("bad-header", f"found a palette for values of {bits} bits")
    first = -(1 << (bits - 1)) if header.cell.signed else 0
    values = np.arange(first, first + (1 << bits))
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        coloured = apply_color_lut(values, dataset)[..., :3]
        return grey_from_rgb(coloured) / np.float32(np.iinfo(coloured.dtype).max), first
    tables = [
        _table(
            dataset,
            f"{name}PaletteColorLookupTableDescriptor",
            f"{name}PaletteColorLookupTableData",
            header.cell.signed,
        )
        for name in ("Red", "Green", "Blue")
    ]
    coloured = np.stack(
        [table.entries[np.clip(values - table.first, 0, len(table.entries) - 1)] for table in tables], -1
    )
    # By what they hold: entries of 8 bits may stand in words, and words may be said to have 16.
    return grey_from_rgb(coloured) / np.float32(65535 if coloured.max() > 255 else 255), first


def _modality(dataset: Dataset, header: Header, frame: int, notes: list[str]) -> Rescale | Lut:
    for group in _groups(dataset, frame, "PixelValueTransformationSequence"):
        if tables := _filled(group, "ModalityLUTSequence"):
            return _table(tables[0], *_TABLE, header.cell.signed)
        slope, intercept = (read_number(group, name, notes) for name in ("RescaleSlope", "RescaleIntercept"))
        if slope is None and intercept is None:
            continue
        if slope == 0:
            raise RefusedError("bad-header", f"{describe('RescaleSlope')} is 0: every pixel would be the same")
        return Rescale(1.0 if slope is None else slope, intercept or 0.0)
    return Rescale()


def _voi(
    dataset: Dataset, header: Header, frame: int, modality: Rescale | Lut, notes: list[str]
) -> Window | Lut | None:
    for group in _groups(dataset, frame, "FrameVOILUTSequence"):
        if tables := _filled(group, "VOILUTSequence"):
            return _voi_table(tables[0], signed=_is_below_zero(modality, header.cell), notes=notes)
        center, width = (read_number(group, name, notes) for name in ("WindowCenter", "WindowWidth"))
        if center is None or width is None:
            continue
        function = read_code(group, "VOILUTFunction") or "LINEAR"
        if function not in _FUNCTIONS:
            notes.append("VOILUTFunction (0028,1056) is not a known one: read as LINEAR")
            function = "LINEAR"
        window = Window(center, width, function)  # type: ignore[arg-type]
        if window.is_usable:
            return window
        notes.append(f"a window of width {width:g} is not allowed: stretched from the darkest to the lightest pixel")
        return None
    return None


def _voi_table(item: Dataset, *, signed: bool, notes: list[str]) -> Lut:
    table = _table(item, *_TABLE, signed)
    bits = int(table.entries.max()).bit_length() or table.bits
    if bits != table.bits:
        notes.append(f"the VOI LUT is said to have {table.bits} bits and holds {bits}: read as {bits}")
    return Lut(table.first, table.entries, bits)


def _table(item: Dataset, descriptor: str, data: str, signed: bool) -> Lut:
    """PS3.3 C.11.1.1.1: the number of entries (0 means 65536), the first input, the bits of an entry. signed: whether
    inputs may be below zero. Raises RefusedError."""
    described = read_words(item, descriptor)
    if len(described) != 3:
        raise RefusedError("bad-header", f"{describe(descriptor)} has {counted(len(described), 'values')}; expected 3")
    count, first, bits = (int(value) for value in described)
    count = count or 1 << 16
    if first > 0x7FFF and (signed or is_signed_word(item, descriptor)):
        first -= 1 << 16
    entries = _entries(item, data, count)
    if len(entries) < count or not 1 <= bits <= 16:
        raise RefusedError(
            "bad-header",
            f"{describe(data)} has {len(entries)} entries; {describe(descriptor)} says {count} of {bits} bits",
        )
    return Lut(first, entries[:count].astype(np.uint16), bits)


def _entries(item: Dataset, keyword: str, count: int) -> UInt16s:
    content = read_bytes(item, keyword)
    if content is None or len(content) >= 2 * count:
        return read_words(item, keyword)
    if len(content) not in (count, count + 1):  # a byte fills up to an even length
        return np.empty(len(content) // 2, np.uint16)
    # A byte an entry. In big endian they may be words all the same, but nobody has shown such a file.
    return np.frombuffer(content, np.uint8).astype(np.uint16)


def _is_below_zero(modality: Rescale | Lut, cell: Cell) -> bool:
    """Whether modality values may be, so that a VOI LUT's first input is a signed number, whatever its element says."""
    if isinstance(modality, Lut):
        return False
    low = -(1 << (cell.bits_stored - 1)) if cell.signed else 0
    return min(end * modality.slope + modality.intercept for end in (low, low + (1 << cell.bits_stored) - 1)) < 0


def _padding(dataset: Dataset, header: Header, notes: list[str]) -> tuple[float, float] | None:
    if header.is_float:
        value, limit = (read_number(dataset, keyword, notes) for keyword in _FLOAT_PADDING[header.keyword])
        return None if value is None else (value, value if limit is None else limit)
    values, limits = (read_words(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not len(values):
        return None
    first = wrap(values[0], header.cell)
    return first, wrap(limits[0], header.cell) if len(limits) else first


def _filled(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a look-up table that hold one."""
    return [item for item in read_items(dataset, keyword) if any(len(read_words(item, name)) for name in _TABLE)]


def _groups(dataset: Dataset, frame: int, keyword: str) -> list[Dataset]:
    """Where a frame's elements may be, the first that has them counts: the functional group `keyword` of the frame,
    that of all frames, the data set itself."""
    frames = read_items(dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    shared = read_items(dataset, "SharedFunctionalGroupsSequence")[:1]
    return [*(group for item in (*frames, *shared) for group in read_items(item, keyword)[:1]), dataset]
