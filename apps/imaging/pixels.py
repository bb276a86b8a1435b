"""Stored values become grey levels, in DICOM's own words and order (PS3.3 C.7.6.3, C.11.1, C.11.2).

    stored values -> modality LUT or rescale -> VOI LUT or window -> inversion (MONOCHROME1) -> resize

Everything here is pure. `render_reference` takes the steps in that order at full size and in float64; `render` gives
the same image within `TOLERANCE` and several times faster, because it resizes as early as the mathematics allows:
rescale and window are affine between the window's two ends, an average commutes with an affine map, so clipping the
stored values to the window's ends *first* leaves nothing that does not commute. Look-up tables and the sigmoid are not
affine and keep the order above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Stored = npt.NDArray[Any]
Floats = npt.NDArray[Any]
"""float32 or float64"""
WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

TOLERANCE = 1e-3
"""Largest difference of any pixel of `render` from `render_reference`; grey levels are in 0..1."""

_INTEGER_SPAN = 2048
"""A window this wide or wider, in stored values, is clipped and resized in integers: rounding the ends and the average
costs at most 0.5 + 0.5 stored values, 0.5e-3 of the window. Narrower ones are clipped and resized in float32."""


@dataclass(frozen=True)
class Rescale:
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Lut:
    """A modality or VOI look-up table (PS3.3 C.11.1.1.1). first: the input that entry 0 stands for; entries: uint16
    [N]; bits: of each entry. Inputs outside take the first or last entry."""

    first: int
    entries: npt.NDArray[np.uint16]
    bits: int


@dataclass(frozen=True)
class Window:
    """PS3.3 C.11.2.1.2. width >= 1 for LINEAR, > 0 for the others (`is_usable`)."""

    center: float
    width: float
    function: WindowFunction = "LINEAR"

    @property
    def is_usable(self) -> bool:
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


def render(stored: Stored, greyscale: Greyscale, side: int) -> npt.NDArray[np.float32]:
    """float32 [side, side] in 0..1 from `stored` [H, W], within TOLERANCE of `render_reference`.

    Raises FloatingPointError when a stored value is not finite (float pixel data only).
    """
    modality, voi = greyscale.modality, greyscale.voi
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)  # OpenCV takes the bytes as they lie
    if isinstance(modality, Lut) or isinstance(voi, Lut) or (voi is not None and voi.function == "SIGMOID"):
        return finish(resize(_levels(stored, greyscale, np.dtype(np.float32)), side), greyscale.inverted)
    if voi is None:
        low, high = _stored_range(stored, greyscale.padding)
    else:
        low, high = sorted((end - modality.intercept) / modality.slope for end in voi.ends)
    if not high > low:  # a step, not a ramp: which side the boundary itself is on changes with the slope's sign
        return finish(resize(_levels(stored, greyscale, np.dtype(np.float64)), side), greyscale.inverted)
    levels = _resize_clipped(stored, low, high, side)
    return finish(1 - levels if modality.slope < 0 else levels, greyscale.inverted)


def render_reference(stored: Stored, greyscale: Greyscale, side: int) -> npt.NDArray[np.float32]:
    """The same image by the standard's order, every step at full size and in float64; the measure of `render`."""
    levels = _levels(stored, greyscale, np.dtype(np.float64))
    return finish(resize(levels, side), greyscale.inverted)


def finish(levels: Floats, inverted: bool) -> npt.NDArray[np.float32]:
    """Invert, and cut off what rounding left outside 0..1."""
    grey: npt.NDArray[np.float32] = np.clip(1 - levels if inverted else levels, 0, 1).astype(np.float32)
    return grey


def resize(image: Stored, side: int) -> Stored:
    """`image` [H, W] stretched to [side, side], same type: shrinking averages over the area, enlarging is bilinear,
    each axis by its own need (area averaging in OpenCV does not interpolate when it enlarges)."""
    height, width = image.shape
    if height > side or width > side:
        shrunk = (min(width, side), min(height, side))
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if image.shape != (side, side):
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    return image


def apply_modality(stored: Stored, modality: Rescale | Lut, dtype: np.dtype[Any]) -> Floats:
    """Modality values of `stored`, in `dtype`."""
    if isinstance(modality, Lut):
        return _look_up(stored, modality).astype(dtype)
    rescaled: Floats = stored.astype(dtype) * dtype.type(modality.slope) + dtype.type(modality.intercept)
    return rescaled


def apply_window(values: Floats, window: Window) -> Floats:
    """Modality values to 0..1 by the functions of PS3.3 C.11.2.1.2.1 and C.11.2.1.3."""
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - window.center) / window.width, -80, 80)
        return 1 / (1 + np.exp(exponent))
    return _stretch(values, *window.ends)


def grey_from_rgb(rgb: Stored) -> Floats:
    """Luma of [H, W, 3] by ITU-R BT.601, which is also the Y of DICOM's YBR_FULL (PS3.3 C.7.6.3.1.2); float32, same
    scale."""
    return rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _levels(stored: Stored, greyscale: Greyscale, dtype: np.dtype[Any]) -> Floats:
    """Full-size levels in 0..1 before inversion."""
    values = apply_modality(stored, greyscale.modality, dtype)
    if not np.isfinite(values).all():
        raise FloatingPointError("pixel values are not all finite")
    match greyscale.voi:
        case Window() as window:
            return apply_window(values, window)
        case Lut() as lut:
            return np.divide(_look_up(np.rint(values), lut), (1 << lut.bits) - 1, dtype=dtype)
        case None:
            kept = values if greyscale.padding is None else values[~_is_padding(stored, greyscale.padding)]
            kept = kept if kept.size else values
            return _stretch(values, float(kept.min()), float(kept.max()))


def _look_up(inputs: Stored, lut: Lut) -> npt.NDArray[np.uint16]:
    last = len(lut.entries) - 1
    if inputs.dtype.kind in "ui":
        index = inputs.astype(np.int64) - lut.first
    else:
        index = (np.clip(inputs, lut.first, lut.first + last) - lut.first).astype(np.int64)
    return lut.entries[np.clip(index, 0, last)]


def _stretch(values: Floats, low: float, high: float) -> Floats:
    """low -> 0, high -> 1, clipped; where both are the same: 0 up to and including it, 1 above."""
    if not high > low:
        return (values > low).astype(values.dtype)
    return np.clip((values - low) / (high - low), 0, 1)


def _is_padding(stored: Stored, padding: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return np.asarray((stored >= min(padding)) & (stored <= max(padding)))


def _stored_range(stored: Stored, padding: tuple[float, float] | None) -> tuple[float, float]:
    low, high = stored.min(), stored.max()
    if padding is not None and low <= max(padding) and high >= min(padding):
        kept = stored[~_is_padding(stored, padding)]
        if kept.size:
            low, high = kept.min(), kept.max()
    return float(low), float(high)


def _resize_clipped(stored: Stored, low: float, high: float, side: int) -> Floats:
    """Levels in 0..1 [side, side]: `stored` clipped to low..high, resized, stretched."""
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        values = stored.astype(np.float64)
        if not np.isfinite(values).all():
            raise FloatingPointError("pixel values are not all finite")
        return resize(_stretch(values, low, high), side)
    least, most = int(stored.min()), int(stored.max())
    if high - low >= _INTEGER_SPAN:
        floor, ceiling = math.floor(low), math.ceil(high)
        if least < floor or most > ceiling:
            # Kept among the values that occur: a window wholly beside them may not fit into their type.
            stored = np.clip(stored, min(max(least, floor), most), max(min(most, ceiling), least))
        return _stretch(resize(stored, side).astype(np.float32), low, high)
    # From the window's own end, or the average of large values would lose what a narrow window magnifies.
    offset = stored.astype(np.float32) - np.float32(low)
    if least < low or most > high:
        offset = np.clip(offset, 0, np.float32(high - low))
    return _stretch(resize(offset, side), 0.0, high - low)
