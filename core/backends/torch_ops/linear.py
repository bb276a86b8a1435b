"""Matrix products and normalization."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from featherweight.core.backends.torch_ops.values import Attributes, Inputs, Operator, binary, optional, required


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    left, right, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    left = left.t() if attributes.get("transA", 0) else left
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if alpha == 1.0 and beta == 1.0 and (bias is None or bias.ndim == 1):
        return functional.linear(left, right if attributes.get("transB", 0) else right.t(), bias)
    product: Tensor = alpha * (left @ (right.t() if attributes.get("transB", 0) else right))
    return product if bias is None else product + beta * bias


def _einsum(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.einsum(attributes["equation"], *(required(inputs, index) for index in range(len(inputs))))


def _batch_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = (required(inputs, index) for index in range(5))
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _instance_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias = (required(inputs, index) for index in range(3))
    return functional.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _group_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias = (required(inputs, index) for index in range(3))
    return functional.group_norm(x, attributes["num_groups"], scale, bias, attributes.get("epsilon", 1e-5))


def group_normalization_18(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Before opset 21 scale and bias were of groups, not of channels."""
    x, scale, bias = (required(inputs, index) for index in range(3))
    times = x.shape[1] // attributes["num_groups"]
    spread = [x, scale.repeat_interleave(times), bias.repeat_interleave(times)]
    return _group_normalization(spread, attributes)


def layer_normalization(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, Tensor, Tensor]:
    """With the means and the inverse deviations, for a node that asks for them."""
    x, scale, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    axes = list(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + attributes.get("epsilon", 1e-5))
    found = (x - mean) * inverse * scale
    return found if bias is None else found + bias, mean, inverse


def _layer_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    shape = x.shape[attributes.get("axis", -1) % x.ndim :]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, attributes.get("epsilon", 1e-5))
    return layer_normalization(inputs, attributes)[0]


def _rms_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale = required(inputs), required(inputs, 1)
    axes = list(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + attributes.get("epsilon", 1e-5)) * scale


def _mean_variance(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = required(inputs), list(attributes.get("axes") or [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


def _local_response(inputs: Inputs, attributes: Attributes) -> Tensor:
    alpha, beta, bias = (attributes.get(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1)))
    return functional.local_response_norm(required(inputs), attributes["size"], alpha, beta, bias)


def _lp_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    return functional.normalize(required(inputs), attributes.get("p", 2), attributes.get("axis", -1))


LINEAR: Mapping[str, Operator] = {
    "BatchNormalization": _batch_normalization,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LRN": _local_response,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "MatMul": binary(torch.matmul),
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_normalization,
}
