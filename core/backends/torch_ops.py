"""The ONNX operators that exported CNNs and MLPs use, in PyTorch (https://onnx.ai/onnx/operators/).

Each takes its inputs (None for one left out) and attributes and returns its output, or a tuple of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Inputs = Sequence[Tensor | None]
Attributes = Mapping[str, Any]
Operator = Callable[[Inputs, Attributes], Tensor | tuple[Tensor, ...]]


def _required(inputs: Inputs, index: int = 0) -> Tensor:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise ValueError(f"input {index} is missing")
    return value


def _optional(inputs: Inputs, index: int) -> Tensor | None:
    return inputs[index] if index < len(inputs) else None


def _integers(inputs: Inputs, index: int, attributes: Attributes, name: str) -> list[int] | None:
    """Axes and the like: an input in new opsets, an attribute in old ones."""
    value = _optional(inputs, index)
    if value is not None:
        return [int(number) for number in value.reshape(-1).tolist()]
    found = attributes.get(name)
    return None if found is None else [int(number) for number in ([found] if isinstance(found, int) else found)]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(_required(inputs))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        return function(_required(inputs), _required(inputs, 1))

    return apply


def _divide(left: Tensor, right: Tensor) -> Tensor:
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _padding(x: Tensor, attributes: Attributes, kernel: Sequence[int]) -> list[int]:
    """begin and end of every spatial axis, as ONNX counts them: [b1, b2, ..., e1, e2, ...]."""
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(attributes.get("pads") or [0] * 2 * len(kernel))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    strides = attributes.get("strides") or [1] * len(kernel)
    dilations = attributes.get("dilations") or [1] * len(kernel)
    begins, ends = [], []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (width - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def _pad(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    half = len(pads) // 2
    if not any(pads):
        return x
    # torch counts from the last axis to the first.
    order = [size for axis in reversed(range(half)) for size in (pads[axis], pads[half + axis])]
    return functional.pad(x, order, value=value)


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = _required(inputs), _required(inputs, 1), _optional(inputs, 2)
    rank = weight.ndim - 2
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    pads = _padding(x, attributes, weight.shape[2:])
    symmetric = pads[:rank] == pads[rank:]
    return convolve(
        x if symmetric else _pad(x, pads, 0.0),
        weight,
        bias,
        stride=list(attributes.get("strides") or [1] * rank),
        padding=pads[:rank] if symmetric else 0,
        dilation=list(attributes.get("dilations") or [1] * rank),
        groups=attributes.get("group", 1),
    )


def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, kernel = _required(inputs), list(attributes["kernel_shape"])
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[len(kernel)]
    pads, rank = _padding(x, attributes, kernel), len(kernel)
    native = pads[:rank] == pads[rank:] and all(2 * pad <= width for pad, width in zip(pads, kernel, strict=False))
    if attributes.get("ceil_mode", 0) and not native:
        raise ValueError("ceil_mode with uneven padding of MaxPool is not supported")
    return pool(
        x if native else _pad(x, pads, float("-inf")),
        kernel,
        stride=list(attributes.get("strides") or [1] * rank),
        padding=pads[:rank] if native else 0,
        dilation=list(attributes.get("dilations") or [1] * rank),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, kernel = _required(inputs), list(attributes["kernel_shape"])
    rank = len(kernel)
    if attributes.get("ceil_mode", 0) or any(size != 1 for size in attributes.get("dilations") or [1]):
        raise ValueError("ceil_mode and dilations of AveragePool are not supported")
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
    pads, strides = _padding(x, attributes, kernel), list(attributes.get("strides") or [1] * rank)
    sums = pool(_pad(x, pads, 0.0), kernel, stride=strides)
    if attributes.get("count_include_pad", 0) or not any(pads):
        return sums
    counted = pool(_pad(torch.ones_like(x[:1, :1]), pads, 0.0), kernel, stride=strides)
    return sums / counted


def _global_average_pool(x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def _global_max_pool(x: Tensor) -> Tensor:
    return x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        x, axes = _required(inputs), _integers(inputs, 1, attributes, "axes")
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, axes, bool(attributes.get("keepdims", 1)))

    return apply


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    left, right, bias = _required(inputs), _required(inputs, 1), _optional(inputs, 2)
    left = left.t() if attributes.get("transA", 0) else left
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if alpha == 1.0 and beta == 1.0 and (bias is None or bias.ndim == 1):
        return functional.linear(left, right if attributes.get("transB", 0) else right.t(), bias)
    product: Tensor = alpha * (left @ (right.t() if attributes.get("transB", 0) else right))
    return product if bias is None else product + beta * bias


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = _required(inputs), attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, wanted = _required(inputs), _integers(inputs, 1, attributes, "shape") or []
    if not attributes.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = _required(inputs), _integers(inputs, 1, attributes, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = _required(inputs), _integers(inputs, 1, attributes, "axes") or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.clamp(_required(inputs), _optional(inputs, 1), _optional(inputs, 2))


def _batch_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    if attributes.get("training_mode", 0):
        raise ValueError("training_mode of BatchNormalization is not supported; export the network in eval mode")
    x, scale, bias, mean, variance = (_required(inputs, index) for index in range(5))
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.clamp(_required(inputs) * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1)


def _concat(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.cat([_required(inputs, index) for index in range(len(inputs))], dim=attributes["axis"])


def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.tensor(list(_required(inputs).shape))[attributes.get("start", 0) : attributes.get("end")]


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, indices = _required(inputs), _required(inputs, 1)
    axis = attributes.get("axis", 0) % x.ndim
    wrapped = torch.where(indices < 0, indices + x.shape[axis], indices).to(x.device)
    picked = x.index_select(axis, wrapped.reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = _required(inputs)
    return x.permute(*(attributes.get("perm") or reversed(range(x.ndim))))


_CAST = {1: torch.float32, 2: torch.uint8, 6: torch.int32, 7: torch.int64, 9: torch.bool}
"""TensorProto.DataType -> dtype."""


def _cast(inputs: Inputs, attributes: Attributes) -> Tensor:
    return _required(inputs).to(_CAST[attributes["to"]])


def _constant(inputs: Inputs, attributes: Attributes) -> Tensor:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in attributes:
            value = attributes[name]
            return value if isinstance(value, Tensor) else torch.tensor(value)
    raise ValueError(f"a constant of the kind {sorted(attributes)} is not supported")


def _gelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    return functional.gelu(_required(inputs), approximate=attributes.get("approximate", "none"))


OPERATORS: Mapping[str, Operator] = {
    "Add": _binary(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Div": _binary(_divide),
    "Dropout": _unary(lambda x: x),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(_global_average_pool),
    "GlobalMaxPool": _unary(_global_max_pool),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "LeakyRelu": lambda inputs, attributes: functional.leaky_relu(_required(inputs), attributes.get("alpha", 0.01)),
    "MatMul": _binary(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pow": _binary(torch.pow),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Softmax": lambda inputs, attributes: torch.softmax(_required(inputs), attributes.get("axis", -1)),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
