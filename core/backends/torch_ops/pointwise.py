"""Operators that treat each element by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from featherweight.core.backends.torch_ops.values import (
    Attributes,
    Inputs,
    Operator,
    binary,
    optional,
    required,
    unary,
    variadic,
)

CAST: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
"""TensorProto.DataType -> dtype."""


def _divide(left: Tensor, right: Tensor) -> Tensor:
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _power(left: Tensor, right: Tensor) -> Tensor:
    return torch.pow(left, right).to(left.dtype)


def _modulo(inputs: Inputs, attributes: Attributes) -> Tensor:
    function = torch.fmod if attributes.get("fmod", 0) else torch.remainder
    return function(required(inputs), required(inputs, 1))


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, low, high = required(inputs), optional(inputs, 1), optional(inputs, 2)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _cast(inputs: Inputs, attributes: Attributes) -> Tensor:
    return required(inputs).to(CAST[attributes["to"]])


def _is_infinite(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = required(inputs)
    above, below = attributes.get("detect_positive", 1), attributes.get("detect_negative", 1)
    found = torch.isposinf(x) if above else torch.zeros_like(x, dtype=torch.bool)
    return found | torch.isneginf(x) if below else found


def _shift(inputs: Inputs, attributes: Attributes) -> Tensor:
    move = torch.bitwise_left_shift if attributes["direction"] == "LEFT" else torch.bitwise_right_shift
    return move(required(inputs), required(inputs, 1))


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.clamp(required(inputs) * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1)


def _shrink(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, width, bias = required(inputs), attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
    return torch.where(x < -width, x + bias, torch.where(x > width, x - bias, torch.zeros_like(x)))


def _selu(inputs: Inputs, attributes: Attributes) -> Tensor:
    alpha, gamma = (
        attributes.get("alpha", 1.67326319217681884765625),
        attributes.get("gamma", 1.05070102214813232421875),
    )
    return functional.elu(required(inputs), alpha) * float(gamma)


def _swish(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = required(inputs)
    return x * torch.sigmoid(attributes.get("alpha", 1.0) * x)


def _gelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    return functional.gelu(required(inputs), approximate=attributes.get("approximate", "none"))


def _slope(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, slope = required(inputs), required(inputs, 1)
    return torch.where(x < 0, slope * x, x)


def _where(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.where(required(inputs), required(inputs, 1), required(inputs, 2))


def _mean(inputs: Inputs, attributes: Attributes) -> Tensor:
    total = _ADD(inputs, attributes)
    assert isinstance(total, Tensor)  # noqa: S101  (it makes one output)
    return total / len(inputs)


def _dropout(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, Tensor]:
    if len(inputs) > 2 and inputs[2] is not None and bool(required(inputs, 2)):
        raise ValueError("training_mode of Dropout is not supported; export the network in eval mode")
    x = required(inputs)
    return x, torch.ones_like(x, dtype=torch.bool)


_ADD = variadic(torch.add)

POINTWISE: Mapping[str, Operator] = {
    "Abs": unary(torch.abs),
    "Acos": unary(torch.acos),
    "Acosh": unary(torch.acosh),
    "Add": binary(torch.add),
    "And": binary(torch.logical_and),
    "Asin": unary(torch.asin),
    "Asinh": unary(torch.asinh),
    "Atan": unary(torch.atan),
    "Atanh": unary(torch.atanh),
    "BitShift": _shift,
    "BitwiseAnd": binary(torch.bitwise_and),
    "BitwiseNot": unary(torch.bitwise_not),
    "BitwiseOr": binary(torch.bitwise_or),
    "BitwiseXor": binary(torch.bitwise_xor),
    "Cast": _cast,
    "CastLike": lambda inputs, attributes: required(inputs).to(required(inputs, 1).dtype),
    "Ceil": unary(torch.ceil),
    "Celu": lambda inputs, attributes: functional.celu(required(inputs), attributes.get("alpha", 1.0)),
    "Clip": _clip,
    "Cos": unary(torch.cos),
    "Cosh": unary(torch.cosh),
    "Div": binary(_divide),
    "Dropout": _dropout,
    "Elu": lambda inputs, attributes: functional.elu(required(inputs), attributes.get("alpha", 1.0)),
    "Equal": binary(torch.eq),
    "Erf": unary(torch.erf),
    "Exp": unary(torch.exp),
    "Floor": unary(torch.floor),
    "Gelu": _gelu,
    "Greater": binary(torch.gt),
    "GreaterOrEqual": binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": unary(functional.hardswish),
    "Identity": unary(lambda x: x),
    "IsInf": _is_infinite,
    "IsNaN": unary(torch.isnan),
    "LeakyRelu": lambda inputs, attributes: functional.leaky_relu(required(inputs), attributes.get("alpha", 0.01)),
    "Less": binary(torch.lt),
    "LessOrEqual": binary(torch.le),
    "Log": unary(torch.log),
    "Max": variadic(torch.maximum),
    "Mean": _mean,
    "Min": variadic(torch.minimum),
    "Mish": unary(functional.mish),
    "Mod": _modulo,
    "Mul": binary(torch.mul),
    "Neg": unary(torch.neg),
    "Not": unary(torch.logical_not),
    "Or": binary(torch.logical_or),
    "PRelu": _slope,
    "Pow": binary(_power),
    "Reciprocal": unary(torch.reciprocal),
    "Relu": unary(torch.relu),
    "Round": unary(torch.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": unary(torch.sigmoid),
    "Sign": unary(torch.sign),
    "Sin": unary(torch.sin),
    "Sinh": unary(torch.sinh),
    "Softplus": unary(functional.softplus),
    "Softsign": unary(functional.softsign),
    "Sqrt": unary(torch.sqrt),
    "Sub": binary(torch.sub),
    "Sum": _ADD,
    "Swish": _swish,
    "Tan": unary(torch.tan),
    "Tanh": unary(torch.tanh),
    "ThresholdedRelu": lambda inputs, attributes: functional.threshold(
        required(inputs), attributes.get("alpha", 1.0), 0.0
    ),
    "Where": _where,
    "Xor": binary(torch.logical_xor),
}
