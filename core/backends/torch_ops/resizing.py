"""Resize and GridSample. What torch's own interpolation does it does; all else is one matrix for each axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featherweight.core.backends.torch_ops.values import Attributes, Inputs, Operator, numbers, required

COORDINATES = frozenset({"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"})
_ALIGNING = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}


def _resize(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = required(inputs)
    for axis, (length, scale) in _lengths(x, inputs, attributes).items():
        if length != x.shape[axis] or scale != 1.0:
            native = _interpolated(x, inputs, attributes)
            break
    else:
        return x
    if native is not None:
        return native
    for axis, (length, scale) in _lengths(x, inputs, attributes).items():
        if length != x.shape[axis] or scale != 1.0:
            weights = _weights(int(x.shape[axis]), length, scale, attributes).to(x)
            x = torch.movedim(torch.movedim(x, axis, -1) @ weights.t(), -1, axis)
    return x


def _lengths(x: Tensor, inputs: Inputs, attributes: Attributes) -> dict[int, tuple[int, float]]:
    """Axis -> (length, scale). A size of 0, which ONNX does not have, leaves the axis as it is."""
    scales, sizes = numbers(inputs, 2, attributes), numbers(inputs, 3, attributes)
    axes = [axis % x.ndim for axis in attributes.get("axes") or range(x.ndim)]
    if not sizes:
        return {
            axis: (math.floor(x.shape[axis] * scale), float(scale)) if scale != 1.0 else (x.shape[axis], 1.0)
            for axis, scale in zip(axes, scales or [], strict=True)
        }
    found = {}
    for axis, size in zip(axes, sizes, strict=True):
        kept = (isinstance(size, int) and size == 0) or axis < 1
        found[axis] = (x.shape[axis], 1.0) if kept else (int(size), float(size) / int(x.shape[axis]))
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        scale = (min if policy == "not_larger" else max)(scale for _, scale in found.values())
        found = {axis: (math.floor(x.shape[axis] * scale + 0.5), scale) for axis in found}
    return found


def _interpolated(x: Tensor, inputs: Inputs, attributes: Attributes) -> Tensor | None:
    """By torch's interpolation, where it does the same: then autograd and exporters know it."""
    lengths = _lengths(x, inputs, attributes)
    mode, how = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    changed = {axis: found for axis, found in lengths.items() if found[1] != 1.0}
    exact = all(length == x.shape[axis] * scale for axis, (length, scale) in changed.items())
    if not exact or x.ndim != 4 or min(changed) < 2 or not x.is_floating_point():
        return None
    size = [changed[axis][0] if axis in changed else int(x.shape[axis]) for axis in (2, 3)]
    if mode == "nearest" and how == "asymmetric" and attributes.get("nearest_mode") == "floor":
        return functional.interpolate(x, size=size, mode="nearest")
    aligned = _ALIGNING.get(how)
    if aligned is None or min(size) == 1:
        return None
    if mode == "linear":
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=aligned)
    if mode == "cubic" and attributes.get("cubic_coeff_a", -0.75) == -0.75:
        return functional.interpolate(x, size=size, mode="bicubic", align_corners=aligned)
    return None


def _origin(place: int, length: int, old: int, scale: float, how: str) -> float:
    """Where an output's element lies in the input."""
    if how == "align_corners":
        return 0.0 if length == 1 else place * (old - 1) / (length - 1)
    if how == "asymmetric":
        return place / scale
    if how == "pytorch_half_pixel" and length == 1:
        return 0.0
    at = (place + 0.5) / scale - 0.5
    if how == "half_pixel_symmetric":
        at += old / 2 * (1 - length / (old * scale))
    return at


def _weights(old: int, length: int, scale: float, attributes: Attributes) -> Tensor:
    """float64 [length, old]: how much of each element goes into each new one."""
    mode, how = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    found = torch.zeros(length, old, dtype=torch.float64)
    for place in range(length):
        at = _origin(place, length, old, scale, how)
        if mode == "nearest":
            found[place, min(max(_nearest(at, attributes), 0), old - 1)] = 1.0
            continue
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            found[place, min(max(tap, 0), old - 1)] += _kernel(mode, tap - at, attributes)
    return found


def _nearest(at: float, attributes: Attributes) -> int:
    mode = attributes.get("nearest_mode", "round_prefer_floor")
    if mode == "floor":
        return math.floor(at)
    if mode == "ceil":
        return math.ceil(at)
    return math.ceil(at - 0.5) if mode == "round_prefer_floor" else math.floor(at + 0.5)


def _kernel(mode: str, distance: float, attributes: Attributes) -> float:
    """Linear, or cubic convolution (Keys, 1981)."""
    distance = abs(distance)
    if mode == "linear":
        return max(0.0, 1 - distance)
    a = float(attributes.get("cubic_coeff_a", -0.75))
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0


_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def _grid_sample(inputs: Inputs, attributes: Attributes) -> Tensor:
    mode: Any = attributes.get("mode", "linear")
    return functional.grid_sample(
        required(inputs),
        required(inputs, 1),
        mode=_MODES.get(mode, mode),
        padding_mode=attributes.get("padding_mode", "zeros"),
        align_corners=bool(attributes.get("align_corners", 0)),
    )


RESIZING: Mapping[str, Operator] = {"GridSample": _grid_sample, "Resize": _resize}
