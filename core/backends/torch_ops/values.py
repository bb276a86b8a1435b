"""How operators read their inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Numbers = Sequence[Any]
"""Sizes, axes and the like as Python's numbers, or torch's symbols for them."""
Inputs = Sequence[Any]
"""Tensors; None for one left out; `Numbers` may stand where an operator is told a shape, axes or places."""
Attributes = Mapping[str, Any]
Operator = Callable[[Inputs, Attributes], "Tensor | tuple[Tensor, ...]"]


def required(inputs: Inputs, index: int = 0) -> Tensor:
    """The tensor at a place. Raises ValueError where it is left out."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise ValueError(f"input {index} is missing")
    return value if isinstance(value, Tensor) else torch.tensor(value)


def optional(inputs: Inputs, index: int) -> Tensor | None:
    """The tensor at a place, or None where it is left out."""
    return None if index >= len(inputs) or inputs[index] is None else required(inputs, index)


def numbers(inputs: Inputs, index: int, attributes: Attributes, name: str = "") -> list[Any] | None:
    """Axes and the like: an input in new opsets, an attribute in old ones; None where neither is given."""
    value = inputs[index] if index < len(inputs) else None
    if isinstance(value, Tensor):
        return value.reshape(-1).tolist()
    if value is not None:
        return list(value)
    found = attributes.get(name)
    return None if found is None else [found] if isinstance(found, int) else list(found)


def number(inputs: Inputs, index: int, attributes: Attributes, name: str = "", *, default: Any = None) -> Any:
    """One number that is told like `numbers`."""
    found = numbers(inputs, index, attributes, name)
    return default if not found else found[0]


def unary(function: Callable[[Tensor], Tensor]) -> Operator:
    """An operator of one input and no attributes."""
    return lambda inputs, attributes: function(required(inputs))


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of two inputs and no attributes."""
    return lambda inputs, attributes: function(required(inputs), required(inputs, 1))


def variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, each joined to the result of those before."""

    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        found = required(inputs)
        for index in range(1, len(inputs)):
            found = function(found, required(inputs, index))
        return found

    return apply
