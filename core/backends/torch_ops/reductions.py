"""Operators that look along axes: reductions, softmax, the largest, running sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from featherweight.core.backends.torch_ops.values import Attributes, Inputs, Operator, number, numbers, required


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        x, axes = required(inputs), numbers(inputs, 1, attributes, "axes")
        if not axes:
            axes = [] if attributes.get("noop_with_empty_axes", 0) else list(range(x.ndim))
        keep = bool(attributes.get("keepdims", 1))
        if not axes:
            # torch takes no axes for all of them: one of length 1 in front changes nothing else.
            return function(x.unsqueeze(0), [0], False)
        return function(x, [axis % x.ndim for axis in axes], keep)

    return apply


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.is_floating_point():
        raise ValueError("the mean of whole numbers is not supported")
    return x.mean(axes, keep)


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    return lambda inputs, attributes: function(required(inputs), attributes.get("axis", -1))


def _softmax_11(function: Callable[[Tensor, int], Tensor]) -> Operator:
    """Before opset 13 all axes from `axis` on, the second without one, were taken together."""

    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        x = required(inputs)
        axis = attributes.get("axis", 1) % x.ndim
        return function(x.flatten(axis), axis).reshape(x.shape)

    return apply


def _hardmax(x: Tensor, axis: int) -> Tensor:
    places = torch.arange(x.shape[axis], device=x.device).reshape(-1, *[1] * (x.ndim - 1 - axis % x.ndim))
    return (places == x.argmax(axis, keepdim=True)).to(x.dtype)


def _extreme(function: Callable[..., Tensor]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        x, axis, keep = required(inputs), attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
        if attributes.get("select_last_index", 0):
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)
        return function(x, axis, keepdim=keep)

    return apply


def _running_sum(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = required(inputs), int(number(inputs, 1, attributes))
    x = x.flip(axis) if attributes.get("reverse", 0) else x
    found = x.cumsum(axis, dtype=x.dtype)
    found = found - x if attributes.get("exclusive", 0) else found
    return found.flip(axis) if attributes.get("reverse", 0) else found


def _largest(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, Tensor]:
    x, count, axis = required(inputs), number(inputs, 1, attributes), attributes.get("axis", -1)
    # A stable sort, because of equal ones the first come first.
    found = torch.sort(x, stable=True, dim=axis, descending=bool(attributes.get("largest", 1)))
    return found.values.narrow(axis, 0, count), found.indices.narrow(axis, 0, count)


REDUCTIONS: Mapping[str, Operator] = {
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "CumSum": _running_sum,
    "Hardmax": _softmax(_hardmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "ReduceL1": _reduce(lambda x, axes, keep: _total(x.abs(), axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: _total(x * x, axes, keep).sqrt().to(x.dtype)),
    "ReduceLogSum": _reduce(lambda x, axes, keep: _total(x, axes, keep).log()),
    "ReduceLogSumExp": _reduce(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(_mean),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(_total),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: _total(x * x, axes, keep)),
    "Softmax": _softmax(torch.softmax),
    "TopK": _largest,
}
REDUCTIONS_11: Mapping[str, Operator] = {
    "Hardmax": _softmax_11(_hardmax),
    "LogSoftmax": _softmax_11(torch.log_softmax),
    "Softmax": _softmax_11(torch.softmax),
}
