"""Operators that move elements, pick them and make new ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from featherweight.core.backends.torch_ops.convolution import pad_spatial
from featherweight.core.backends.torch_ops.pointwise import CAST
from featherweight.core.backends.torch_ops.values import (
    Attributes,
    Inputs,
    Operator,
    number,
    numbers,
    optional,
    required,
)


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = required(inputs), attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 1:
        return x.flatten(1) if x.ndim > 1 else x.reshape(-1, 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, wanted = required(inputs), numbers(inputs, 1, attributes, "shape") or []
    if not attributes.get("allowzero", 0):
        wanted = [x.shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = required(inputs), numbers(inputs, 1, attributes, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = required(inputs), numbers(inputs, 1, attributes, "axes") or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, wanted = required(inputs), numbers(inputs, 1, attributes) or []
    rank = max(x.ndim, len(wanted))
    have, want = [1] * (rank - x.ndim) + list(x.shape), [1] * (rank - len(wanted)) + list(wanted)
    # Where x is longer than what is asked for, x stays.
    sizes = [old if isinstance(new, int) and new == 1 else new for old, new in zip(have, want, strict=True)]
    return x.expand(sizes)


def _concat(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.cat([required(inputs, index) for index in range(len(inputs))], dim=attributes["axis"])


def _split(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
    x, axis, sizes = required(inputs), attributes.get("axis", 0), numbers(inputs, 1, attributes, "split")
    if sizes is None:
        return torch.split(x, -(-x.shape[axis] // attributes["num_outputs"]), axis)
    return torch.split(x, sizes, axis)


_FAR = 1 << 40


def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = required(inputs)
    starts, ends = numbers(inputs, 1, attributes) or [], numbers(inputs, 2, attributes) or []
    axes = numbers(inputs, 3, attributes) or list(range(len(starts)))
    steps = numbers(inputs, 4, attributes) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            backwards = list(range(*slice(start, end, step).indices(x.shape[axis])))
            x = x.index_select(axis, torch.tensor(backwards, dtype=torch.int64, device=x.device))
        else:
            places = slice(_bounded(start), _bounded(end), step)
            x = x[(slice(None),) * (axis % x.ndim) + (places,)]
    return x


def _bounded(place: Any) -> Any:
    """From the begin, or to the end, is written as the least or largest number that there is, of which torch warns."""
    return max(-_FAR, min(place, _FAR)) if isinstance(place, int) else place


def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.tensor(list(required(inputs).shape))[attributes.get("start", 0) : attributes.get("end")]


def _wrapped(indices: Tensor, size: int, device: torch.device) -> Tensor:
    return torch.where(indices < 0, indices + size, indices).to(device)


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, indices = required(inputs), required(inputs, 1)
    axis = attributes.get("axis", 0) % x.ndim
    picked = x.index_select(axis, _wrapped(indices, x.shape[axis], x.device).reshape(-1))
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gather_elements(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = required(inputs), attributes.get("axis", 0)
    return x.gather(axis, _wrapped(required(inputs, 1), x.shape[axis], x.device).long())


def _gather_nd(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, indices, shared = required(inputs), required(inputs, 1).long(), attributes.get("batch_dims", 0)
    batch, width = x.shape[:shared], indices.shape[-1]
    count = math.prod(batch)
    rows, flat = x.reshape(count, *x.shape[shared:]), indices.reshape(count, -1, width)
    places = [torch.arange(count, device=x.device).unsqueeze(1)]
    places += [_wrapped(flat[..., axis], rows.shape[axis + 1], x.device) for axis in range(width)]
    return rows[tuple(places)].reshape([*batch, *indices.shape[shared:-1], *x.shape[shared + width :]])


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = required(inputs), attributes.get("axis", 0)
    places, updates = _wrapped(required(inputs, 1), x.shape[axis], x.device).long(), required(inputs, 2)
    how = attributes.get("reduction", "none")
    if how == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[how], include_self=True)


def _scatter_nd(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, indices, updates = required(inputs), required(inputs, 1).long(), required(inputs, 2)
    places = tuple(_wrapped(indices[..., axis], x.shape[axis], x.device) for axis in range(indices.shape[-1]))
    return x.index_put(places, updates, accumulate=attributes.get("reduction", "none") == "add")


def _one_hot(inputs: Inputs, attributes: Attributes) -> Tensor:
    indices, depth, values = required(inputs), int(number(inputs, 1, attributes)), required(inputs, 2)
    axis = attributes.get("axis", -1)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    places = torch.arange(depth, device=indices.device).reshape(-1, *[1] * (indices.ndim - axis))
    wanted = torch.where(indices < 0, indices + depth, indices)
    return torch.where(wanted.unsqueeze(axis) == places, values[1], values[0])


def _pad(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, pads = required(inputs), numbers(inputs, 1, attributes, "pads") or []
    axes = numbers(inputs, 3, attributes)
    mode, given = attributes.get("mode", "constant"), optional(inputs, 2)
    half = len(pads) // 2
    where = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    begins, ends = dict(zip(where, pads[:half], strict=True)), dict(zip(where, pads[half:], strict=True))
    if mode == "constant":
        value = 0.0 if given is None else given.reshape(()).item()
        every = [begins.get(axis, 0) for axis in range(x.ndim)] + [ends.get(axis, 0) for axis in range(x.ndim)]
        return pad_spatial(x, every, value)
    for axis in where:
        if begins[axis] or ends[axis]:
            places = [
                _mirrored(place, x.shape[axis], mode) for place in range(-begins[axis], x.shape[axis] + ends[axis])
            ]
            x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x


def _mirrored(place: int, size: int, mode: str) -> int:
    """Which element stands at a place outside of 0..size-1."""
    if mode == "edge":
        return min(max(place, 0), size - 1)
    if mode == "wrap":
        return place % size
    period = max(1, 2 * (size - 1))
    return min(place % period, period - place % period) if size > 1 else 0


def _constant(inputs: Inputs, attributes: Attributes) -> Tensor:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in attributes:
            value = attributes[name]
            return value if isinstance(value, Tensor) else torch.tensor(value)
    raise ValueError(f"a constant of the kind {sorted(attributes)} is not supported")


def _constant_of_shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    value = attributes.get("value")
    value = torch.zeros(1) if value is None else value
    return torch.full(numbers(inputs, 0, attributes) or [], value.item(), dtype=value.dtype)


def _range(inputs: Inputs, attributes: Attributes) -> Tensor:
    start, limit, step = (number(inputs, place, attributes) for place in range(3))
    given = [value.dtype for value in inputs if isinstance(value, Tensor)]
    return torch.arange(start, limit, step, dtype=given[0] if given else None)


def _eye_like(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = required(inputs)
    dtype = CAST[attributes["dtype"]] if "dtype" in attributes else x.dtype
    ones = torch.ones(x.shape, dtype=dtype, device=x.device)
    return ones.triu(attributes.get("k", 0)).tril(attributes.get("k", 0))


def _triangle(inputs: Inputs, attributes: Attributes) -> Tensor:
    keep = torch.triu if attributes.get("upper", 1) else torch.tril
    return keep(required(inputs), int(number(inputs, 1, attributes, default=0)))


def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = required(inputs)
    return x.permute(*(attributes.get("perm") or reversed(range(x.ndim))))


def _depth_to_space(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, size = required(inputs), attributes["blocksize"]
    batch, channels, height, width = x.shape
    inner = channels // size**2
    shape, order = [batch, size, size, inner, height, width], (0, 3, 4, 1, 5, 2)
    if attributes.get("mode", "DCR") == "CRD":
        shape, order = [batch, inner, size, size, height, width], (0, 1, 4, 2, 5, 3)
    return x.reshape(shape).permute(order).reshape(batch, inner, height * size, width * size)


def _space_to_depth(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, size = required(inputs), attributes["blocksize"]
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * size**2, height // size, width // size)


def _tile(inputs: Inputs, attributes: Attributes) -> Tensor:
    repeats: Sequence[Any] = numbers(inputs, 1, attributes) or []
    return required(inputs).tile(tuple(repeats))


SHAPING_OPERATORS: Mapping[str, Operator] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": lambda inputs, attributes: torch.tensor(required(inputs).numel()),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
}
