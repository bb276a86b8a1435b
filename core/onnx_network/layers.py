"""Nodes with weights as torch's layers, whose parameters the passes know: prune, train, count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featherweight.core.backends.torch_graph import Call
from featherweight.core.backends.torch_ops.convolution import padding_of, transposed_pads
from featherweight.core.backends.torch_ops.values import Attributes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """pads: what is added around the input before the layer, counted as ONNX does; () for nothing."""

    module: nn.Module
    input: str
    pads: tuple[int, ...] = ()


_CONVOLUTIONS: Mapping[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Mapping[int, Callable[..., nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def make_layer(call: Call, constants: Mapping[str, Tensor], shape: Shape, opset: int) -> Layer | None:
    """The layer that does what the call does to its first input, of this shape; None where it is no such layer."""
    if call.op_type == "Gather":
        return _embedding(call, constants)
    if len(call.inputs) < 2 or call.inputs[0] in constants:
        return None
    given = [constants.get(name) for name in call.inputs[1:]]
    weights = [value for value in given if value is not None]
    if len(weights) < len([name for name in call.inputs[1:] if name]):
        return None
    if not weights or any(value.dtype != torch.float32 for value in weights) or len([o for o in call.outputs if o]) > 1:
        return None
    return _MAKERS[call.op_type](call, given, shape, opset) if call.op_type in _MAKERS else None


def dense(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """weight: [outputs, inputs]; bias: [outputs]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    _fill(layer, weight=weight, bias=bias)
    return layer


def _fill(module: nn.Module, **values: Tensor | None) -> None:
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(module, name).copy_(value)


def _each(attributes: Attributes, name: str, rank: int) -> tuple[int, ...]:
    return tuple(attributes.get(name) or [1] * rank)


def _convolution(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    weight, bias = given[0], given[1] if len(given) > 1 else None
    assert weight is not None  # noqa: S101  (make_layer has looked)
    rank, groups = weight.ndim - 2, call.attributes.get("group", 1)
    if rank not in _CONVOLUTIONS:
        return None
    pads = tuple(padding_of(shape[2:], call.attributes, weight.shape[2:]))
    even = pads[:rank] == pads[rank:]
    layer = _CONVOLUTIONS[rank](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        _each(call.attributes, "strides", rank),
        pads[:rank] if even else 0,
        _each(call.attributes, "dilations", rank),
        groups,
        bias=bias is not None,
    )
    _fill(layer, weight=weight, bias=bias)
    return Layer(layer, call.inputs[0], () if even else pads)


def _transposed(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    weight, bias = given[0], given[1] if len(given) > 1 else None
    assert weight is not None  # noqa: S101  (make_layer has looked)
    rank, groups = weight.ndim - 2, call.attributes.get("group", 1)
    pads = transposed_pads(shape[2:], call.attributes, weight.shape[2:])
    strides, dilations = _each(call.attributes, "strides", rank), _each(call.attributes, "dilations", rank)
    # What is cut off less at the end than at the begin is what torch calls the padding of the output.
    more = call.attributes.get("output_padding") or [0] * rank
    extra = [out + begin - end for out, begin, end in zip(more, pads[:rank], pads[rank:], strict=True)]
    if min(pads) < 0 or any(not 0 <= out < max(s, d) for out, s, d in zip(extra, strides, dilations, strict=True)):
        return None
    layer = _TRANSPOSED[rank](
        weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), strides, tuple(pads[:rank]), tuple(extra),
        groups, bias is not None, dilations,
    )  # fmt: skip
    _fill(layer, weight=weight, bias=bias)
    return Layer(layer, call.inputs[0])


def _gemm(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    weight, bias = given[0], given[1] if len(given) > 1 else None
    assert weight is not None  # noqa: S101  (make_layer has looked)
    if call.attributes.get("transA", 0):
        return None
    weight = weight if call.attributes.get("transB", 0) else weight.t()
    if bias is not None:
        if bias.ndim > 1 and bias.shape[0] != 1:
            return None
        bias = (bias * call.attributes.get("beta", 1.0)).reshape(-1).expand(weight.shape[0])
    return Layer(dense(weight * call.attributes.get("alpha", 1.0), bias), call.inputs[0])


def _product(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    weight = given[0]
    if weight is None or weight.ndim != 2 or len(shape) < 2:
        return None
    return Layer(dense(weight.t(), None), call.inputs[0])


def _batch_norm(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    if len(shape) not in _BATCH_NORMS or len(given) != 4:
        return None
    weight, bias, mean, variance = given
    eps, momentum = call.attributes.get("epsilon", 1e-5), 1 - call.attributes.get("momentum", 0.9)
    layer = _BATCH_NORMS[len(shape)](shape[1], eps, momentum)
    _fill(layer, weight=weight, bias=bias, running_mean=mean, running_var=variance)
    return Layer(layer.eval(), call.inputs[0])


def _layer_norm(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    weight, bias = given[0], given[1] if len(given) > 1 else None
    normalized = shape[call.attributes.get("axis", -1) % len(shape) :]
    if any(value is not None and tuple(value.shape) != normalized for value in (weight, bias)):
        return None
    layer = nn.LayerNorm(normalized, call.attributes.get("epsilon", 1e-5), bias=bias is not None)
    _fill(layer, weight=weight, bias=bias)
    return Layer(layer, call.inputs[0])


def _instance_norm(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    if len(shape) not in _INSTANCE_NORMS:
        return None
    layer = _INSTANCE_NORMS[len(shape)](shape[1], call.attributes.get("epsilon", 1e-5), affine=True)
    _fill(layer, weight=given[0], bias=given[1])
    return Layer(layer, call.inputs[0])


def _group_norm(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    groups = call.attributes["num_groups"]
    layer = nn.GroupNorm(groups, shape[1], call.attributes.get("epsilon", 1e-5))
    times = shape[1] // groups if opset < 21 else 1
    weight, bias = (None if value is None else value.repeat_interleave(times) for value in given[:2])
    _fill(layer, weight=weight, bias=bias)
    return Layer(layer, call.inputs[0])


def _slope(call: Call, given: Sequence[Tensor | None], shape: Shape, opset: int) -> Layer | None:
    slope = given[0]
    assert slope is not None  # noqa: S101  (make_layer has looked)
    if slope.numel() != 1 and (len(shape) < 2 or tuple(slope.shape) != (shape[1], *[1] * (len(shape) - 2))):
        return None
    layer = nn.PReLU(slope.numel())
    _fill(layer, weight=slope.reshape(-1))
    return Layer(layer, call.inputs[0])


def _embedding(call: Call, constants: Mapping[str, Tensor]) -> Layer | None:
    table = constants.get(call.inputs[0])
    usable = table is not None and table.ndim == 2 and table.dtype == torch.float32
    if table is None or not usable or call.attributes.get("axis", 0) != 0 or call.inputs[1] in constants:
        return None
    layer = nn.Embedding(*table.shape)
    _fill(layer, weight=table)
    return Layer(layer, call.inputs[1])


_MAKERS = {
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _product,
    "PRelu": _slope,
}
