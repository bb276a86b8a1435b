"""Stored values become grey levels, in DICOM's own words and order (PS3.3 C.7.6.3, C.11.1, C.11.2).

    stored values -> modality LUT or rescale -> VOI LUT or window -> inversion (MONOCHROME1) -> resize

Everything here is pure. `render_reference` takes the steps in that order at full size and in float64; `render` gives
the same image within `TOLERANCE` and several times faster, because it does as little as possible at full size: rescale
and window are affine between the window's two ends, an average commutes with an affine map, so clipping the stored
values to the window's ends *first* leaves nothing that does not commute. Look-up tables and the sigmoid are not affine
and keep the order above.

An image is read in bands of rows: a copy of it in floating point, twice to eight times its size, never exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np

from featherweight.core.arrays import Array, Bools, Floats, GreyImage, Indices, StoredPixels, UInt16s

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

TOLERANCE = 1e-3
"""Largest difference of any pixel of `render` from `render_reference`; grey levels are in 0..1."""

DARK_NOTE = "no value is above 4095 of 65535: read as dark; an image of 12 bits?"
"""Note for an image of 16 bits without the tag that would say how many of them are used."""

_BAND_BYTES = 512 << 10
"""Rows that are worked on at once, as float32: they stay in a core's cache."""

_BLOCK = 4
"""Output rows that one small matrix product makes."""

_EXACT = 1 << 24
"""Whole numbers up to here are exact in float32."""


class Rows(Protocol):
    """What an image must offer to be rendered; an array [H, W] or [H, W, samples] does."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> StoredPixels: ...


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope and Rescale Intercept (PS3.3 C.11.1)."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Lut:
    """A modality or VOI look-up table (PS3.3 C.11.1.1.1). first: the input that entry 0 stands for; entries: uint16
    [N]; bits: of each entry. Inputs outside take the first or last entry."""

    first: int
    entries: UInt16s
    bits: int


@dataclass(frozen=True)
class Window:
    """PS3.3 C.11.2.1.2. width >= 1 for LINEAR, > 0 for the others (`is_usable`)."""

    center: float
    width: float
    function: WindowFunction = "LINEAR"

    @property
    def is_usable(self) -> bool:
        """Whether the standard gives this center and width a meaning."""
        allowed = self.width >= 1 if self.function == "LINEAR" else self.width > 1e-30
        return math.isfinite(self.center) and math.isfinite(self.width) and allowed

    @property
    def ends(self) -> tuple[float, float]:
        """The modality values that become black and white; the sigmoid has none that are finite."""
        if self.function == "LINEAR":
            half = (self.width - 1) / 2
            return self.center - 0.5 - half, self.center - 0.5 + half
        if self.function == "LINEAR_EXACT":
            return self.center - self.width / 2, self.center + self.width / 2
        return -math.inf, math.inf


@dataclass(frozen=True)
class Greyscale:
    """How one frame's stored values become grey.

    voi None: from the smallest to the largest modality value of the frame; inverted: MONOCHROME1; padding: first and
    last stored value that mean "nothing was imaged here" (PS3.3 C.7.5.1.1.2), left out of that smallest and largest.
    """

    modality: Rescale | Lut = Rescale()
    voi: Window | Lut | None = None
    inverted: bool = False
    padding: tuple[float, float] | None = None


def render(stored: Rows, greyscale: Greyscale, side: int) -> GreyImage:
    """float32 [side, side] in 0..1 from `stored` [H, W], within TOLERANCE of `render_reference`.

    Raises FloatingPointError when a stored value is not finite (float pixel data only).
    """
    modality, voi = greyscale.modality, greyscale.voi
    if isinstance(modality, Lut) or isinstance(voi, Lut) or (voi is not None and voi.function == "SIGMOID"):
        return _render_in_order(stored, greyscale, side, np.dtype(np.float32))
    if voi is None:
        low, high = _range(stored, greyscale.padding)
    else:
        low, high = sorted((end - modality.intercept) / modality.slope for end in voi.ends)
    # A step, not a ramp: which side the boundary itself is on changes with the slope's sign. Infinite ends make no
    # window.
    if not (high > low and math.isfinite(high - low)):
        return _render_in_order(stored, greyscale, side, np.dtype(np.float64))
    levels = _resize_clipped(stored, low, high, side)
    return finish(1 - levels if modality.slope < 0 else levels, greyscale.inverted)


def render_reference(stored: StoredPixels, greyscale: Greyscale, side: int) -> GreyImage:
    """The same image by the standard's order, every step at full size and in float64; the measure of `render`. float32
    [side, side]."""
    levels = _levels(stored, greyscale, np.dtype(np.float64), _modality_range(stored, greyscale, np.dtype(np.float64)))
    return finish(resize(levels, side), greyscale.inverted)


def render_unsigned(stored: Rows, white: int, side: int) -> GreyImage:
    """float32 [side, side] in 0..1 of whole numbers [H, W] of which 0 is black and `white` is white: pictures that are
    not DICOM, and arrays."""
    if white == 255:
        return finish(resize(stored, side) / 255, False)
    return render(stored, Greyscale(voi=Window(white / 2, white, "LINEAR_EXACT")), side)


def finish(levels: Array, inverted: bool) -> GreyImage:
    """Invert, and cut off what rounding left outside 0..1. levels: float [H, W]."""
    grey: GreyImage = np.clip(1 - levels if inverted else levels, 0, 1).astype(np.float32)
    return grey


def resize(image: Rows, side: int, prepare: Callable[[StoredPixels], Array] | None = None) -> Array:
    """`image` stretched to [side, side], in floating point: shrinking averages over the exact area, enlarging is
    bilinear between the centres of pixels, each axis by its own need.

    prepare: makes floats [n, W] of n rows; without it they become float32, or stay float64.
    """
    height, width = image.shape[:2]
    narrow = prepare or _as_floats
    tall = _resample(lambda first, last: narrow(image[first:last]), height, side, width)
    turned = np.ascontiguousarray(tall.T)
    return np.ascontiguousarray(_resample(lambda first, last: turned[first:last], width, side, side).T)


def _as_floats(rows: StoredPixels) -> Array:
    return rows.astype(np.float64 if rows.dtype == np.float64 else np.float32, copy=False)


def _resample(read: Callable[[int, int], Array], length: int, wanted: int, width: int) -> Array:
    """[wanted, width] from `length` rows, which `read(first, last)` gives."""
    if length == wanted:
        return read(0, length)
    sources, weights = _resampling(length, wanted)
    blocks, reach = sources.shape
    step = max(1, _BAND_BYTES // (4 * width * reach))
    made: Array = np.empty(0)
    for start in range(0, blocks, step):
        block = sources[start : start + step]
        first = int(block[0, 0])
        rows = read(first, int(block[-1, -1]) + 1)
        if start == 0:
            made = np.empty((blocks, _BLOCK, width), rows.dtype)
        # A stack of small products, [blocks, _BLOCK, reach] @ [blocks, reach, width], inside numpy.
        stop = start + step
        np.matmul(weights[start:stop].astype(rows.dtype), rows[block - first], out=made[start:stop])
    return made.reshape(-1, width)[:wanted]


@lru_cache(maxsize=16)
def _resampling(length: int, wanted: int) -> tuple[Indices, Floats]:
    """How `length` rows become `wanted`, in blocks of _BLOCK: (the k rows that a block is made of [blocks, k], their
    weights [blocks, _BLOCK, k])."""
    blocks = -(-wanted // _BLOCK)
    outputs = np.minimum(np.arange(blocks * _BLOCK), wanted - 1).reshape(blocks, _BLOCK, 1)
    scale = length / wanted
    if scale > 1:
        low, high = outputs * length / wanted, (outputs + 1) * length / wanted  # the interval that an output covers
    else:
        low = np.clip((outputs + 0.5) * scale - 0.5, 0, length - 1)
        high = low + 1
    first = np.minimum(np.floor(low[:, 0]), length - 1)
    reach = int((np.ceil(high[:, -1]) - first).max())
    places = first + np.arange(reach)
    if scale > 1:
        covered = np.minimum(places[:, None] + 1, high) - np.maximum(places[:, None], low)
        weights = np.maximum(covered, 0) / scale
    else:
        weights = np.maximum(0, 1 - np.abs(places[:, None] - low))
    weights = np.where(places[:, None] < length, weights, 0)
    return np.minimum(places, length - 1).astype(np.intp), weights


def apply_modality(stored: StoredPixels, modality: Rescale | Lut, dtype: np.dtype[Any]) -> Array:
    """Modality values of `stored`, in `dtype`. stored: [H, W] of any number type."""
    if isinstance(modality, Lut):
        return _look_up(stored, modality).astype(dtype)
    rescaled: Array = stored.astype(dtype) * dtype.type(modality.slope) + dtype.type(modality.intercept)
    return rescaled


def apply_window(values: Array, window: Window) -> Array:
    """Modality values to 0..1 by the functions of PS3.3 C.11.2.1.2.1 and C.11.2.1.3. values: float [H, W]."""
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - window.center) / window.width, -80, 80)
        return 1 / (1 + np.exp(exponent))
    return _stretch(values, *window.ends)


def grey_from_rgb(rgb: StoredPixels) -> Array:
    """Luma of [H, W, 3] by ITU-R BT.601, which is also the Y of DICOM's YBR_FULL (PS3.3 C.7.6.3.1.2); float32, same
    scale."""
    return rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _render_in_order(stored: Rows, greyscale: Greyscale, side: int, dtype: np.dtype[Any]) -> GreyImage:
    ends = _modality_range(stored, greyscale, dtype)
    return finish(resize(stored, side, lambda rows: _levels(rows, greyscale, dtype, ends)), greyscale.inverted)


def _levels(stored: StoredPixels, greyscale: Greyscale, dtype: np.dtype[Any], ends: tuple[float, float]) -> Array:
    """Full-size levels in 0..1 before inversion. ends: what is black and white where there is neither window nor VOI
    LUT."""
    values = apply_modality(stored, greyscale.modality, dtype)
    if not np.isfinite(values).all():
        raise FloatingPointError("pixel values are not all finite")
    match greyscale.voi:
        case Window() as window:
            return apply_window(values, window)
        case Lut() as lut:
            return np.divide(_look_up(np.rint(values), lut), (1 << lut.bits) - 1, dtype=dtype)
        case None:
            return _stretch(values, *ends)


def _modality_range(stored: Rows, greyscale: Greyscale, dtype: np.dtype[Any]) -> tuple[float, float]:
    """The smallest and the largest modality value; not looked for where a window or VOI LUT says what they are."""
    if greyscale.voi is not None:
        return 0.0, 0.0
    return _range(stored, greyscale.padding, lambda rows: apply_modality(rows, greyscale.modality, dtype))


def _look_up(inputs: StoredPixels, lut: Lut) -> UInt16s:
    last = len(lut.entries) - 1
    if inputs.dtype.kind in "ui":
        index = inputs.astype(np.int64) - lut.first
    else:
        index = (np.clip(inputs, lut.first, lut.first + last) - lut.first).astype(np.int64)
    return lut.entries[np.clip(index, 0, last)]


def _stretch(values: Array, low: float, high: float) -> Array:
    """low -> 0, high -> 1, clipped; where both are the same: 0 up to and including it, 1 above."""
    if not high > low:
        return (values > low).astype(values.dtype)
    return np.clip((values - low) / (high - low), 0, 1)


def _is_padding(stored: StoredPixels, padding: tuple[float, float]) -> Bools:
    return np.asarray((stored >= min(padding)) & (stored <= max(padding)))


def _bands(stored: Rows) -> Iterator[StoredPixels]:
    step = max(1, _BAND_BYTES // (4 * stored.shape[1]))
    return (stored[start : start + step] for start in range(0, stored.shape[0], step))


def _range(
    stored: Rows, padding: tuple[float, float] | None, modality: Callable[[StoredPixels], StoredPixels] | None = None
) -> tuple[float, float]:
    """The smallest and the largest (modality) value without padding; of all where everything is padding."""
    kept: list[StoredPixels] = []
    every: list[StoredPixels] = []
    for rows in _bands(stored):
        values = modality(rows) if modality else rows
        every += [values.min(), values.max()]
        if padding is not None and len(inside := values[~_is_padding(rows, padding)]):
            kept += [inside.min(), inside.max()]
    found = kept or every
    return float(np.min(found)), float(np.max(found))


def _resize_clipped(stored: Rows, low: float, high: float, side: int) -> Array:
    """Levels in 0..1 [side, side]: `stored` clipped to low..high, resized, stretched."""
    wide = stored.dtype.kind == "f" or stored.dtype.itemsize > 2 or max(abs(low), abs(high)) >= _EXACT
    dtype = np.dtype(np.float64 if wide else np.float32)
    # From a whole number at the window's end, or the average of large values would lose what a narrow window magnifies.
    base = float(math.floor(low))

    def clip(rows: StoredPixels) -> Array:
        values = rows.astype(dtype)
        if rows.dtype.kind == "f" and not np.isfinite(values).all():
            raise FloatingPointError("pixel values are not all finite")
        values -= dtype.type(base)
        return np.clip(values, dtype.type(low - base), dtype.type(high - base), out=values)

    return _stretch(resize(stored, side, clip), low - base, high - base)
