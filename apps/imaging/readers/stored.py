"""The one place where decoded samples become DICOM's stored values (PS3.5 8.1.1), whatever coded them.

A stored value takes `bits_stored` bits of its cell, of which `high_bit` is the highest; the bits around it belong to
overlays or to nobody. A codec gives cells as it found them: the whole cell of 16 bits where the encoder took that
(dcmcjpls does, and JPEG-LS knows no sign), or the value alone where its own precision is that of the value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import StoredPixels

_ROWS = 8
"""Each such row is looked at."""


@dataclass(frozen=True)
class Cell:
    """bits_stored, high_bit, signed: of the header; high_bit >= bits_stored - 1."""

    bits_stored: int
    high_bit: int
    signed: bool


def stored_values(
    samples: StoredPixels, cell: Cell, *, precision: int | None = None, lossless: bool = True
) -> StoredPixels:
    """Integers as wide as `samples`, signed as the header says.

    precision: how many bits the codec gave each sample; None: the whole cell. lossless False: a value may have come out
    just above what `bits_stored` can hold, or be of a header that says too few bits; cut off to these bits, the
    lightest pixels would become the darkest. No overlay survives such a codec, so nothing is cut off.
    """
    width = 8 * samples.dtype.itemsize
    precision = width if precision is None else min(precision, width)
    top = min(cell.high_bit + 1, precision)
    below = top - min(cell.bits_stored, top)
    if not lossless and (not cell.signed or samples.dtype.kind == "i"):
        top = precision
    kind = np.dtype(f"{samples.dtype.byteorder}{'i' if cell.signed else 'u'}{samples.dtype.itemsize}")
    whole = top == width or (samples.dtype.kind == "u" and not cell.signed and top == precision)
    values: StoredPixels = samples.view(kind)
    if whole and below == 0:
        return values
    if not cell.signed:
        # One pass where there is one operation: most files have an unsigned value at the lower end of its cell.
        values = values >> below if below else values
        return np.bitwise_and(values, (1 << (top - below)) - 1, dtype=kind.newbyteorder("=")).astype(kind, copy=False)
    values = np.left_shift(values, width - top, dtype=kind.newbyteorder("="))
    return np.right_shift(values, width - top + below, out=values).astype(kind, copy=False)


def agreed_cell(samples: StoredPixels, cell: Cell, notes: list[str]) -> Cell:
    """The cell that the header describes, unless its HighBit cannot be: it puts values at the upper end of a cell whose
    upper bits are all empty and whose lower ones are not."""
    below = cell.high_bit + 1 - cell.bits_stored
    if below == 0 or samples.dtype.kind != "u" or int(samples.max()) >= 1 << cell.bits_stored:
        return cell
    if not np.bitwise_and(samples, (1 << below) - 1).any():
        return cell
    notes.append(f"HighBit is {cell.high_bit}, but the values are in the lower {cell.bits_stored} bits: read as these")
    return replace(cell, high_bit=cell.bits_stored - 1)


def note_upper_bits(samples: StoredPixels, cell: Cell, notes: list[str]) -> None:
    """Bits above the value belong to overlays, or BitsStored is wrong and the lightest pixels become the darkest: the
    file does not tell which. Above signed values stands their sign. Looked for in some of the rows, for speed."""
    width = 8 * samples.dtype.itemsize
    if cell.signed or samples.dtype.kind != "u" or cell.high_bit + 1 >= width:
        return
    if int(samples[::_ROWS].max()) >> (cell.high_bit + 1):
        notes.append(f"bits above the {cell.bits_stored} of BitsStored are set: not read, as if they were overlays")


def wrap(word: int, cell: Cell) -> float:
    """A word of 16 bits that an element names for pixels (padding), as a pixel that holds it is read: elements call it
    signed or not as their writer liked."""
    value = int(word) - (1 << 16) if cell.signed and word > 0x7FFF else int(word)
    kept = value & ((1 << cell.bits_stored) - 1)
    return float(kept - (1 << cell.bits_stored) if cell.signed and kept >> (cell.bits_stored - 1) else kept)
