"""Recurrent layers by torch's own kernels, whose gates stand in another order than ONNX's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from featherweight.core.backends.torch_ops.values import Attributes, Inputs, Operator, optional, required

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where each of torch's gates stands in ONNX's weights: of an LSTM input, forget, cell, output; of a GRU reset, update,
new."""
DEFAULT_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


def _recurrent(kind: str) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
        x, batch_first = required(inputs), bool(attributes.get("layout", 0))
        x = x.transpose(0, 1) if batch_first else x
        weights, recurrent, bias = required(inputs, 1), required(inputs, 2), optional(inputs, 3)
        directions, hidden = weights.shape[0], recurrent.shape[2]
        start = [
            _state(optional(inputs, place), x, directions, hidden, batch_first)
            for place in ((5, 6) if kind == "LSTM" else (5,))
        ]
        outputs: list[Tensor] = []
        ends: list[list[Tensor]] = [[] for _ in start]
        for way in range(directions):
            backwards = way == 1 or attributes.get("direction") == "reverse"
            parameters = [*_parameters(kind, weights[way], recurrent[way], bias if bias is None else bias[way])]
            found, *last = _run(kind, x.flip(0) if backwards else x, [one[way : way + 1] for one in start], parameters)
            outputs.append(found.flip(0) if backwards else found)
            for kept, one in zip(ends, last, strict=True):
                kept.append(one)
        joined = torch.stack(outputs, dim=1)
        lasts = [torch.cat(one) for one in ends]
        if batch_first:
            return joined.permute(2, 0, 1, 3), *(one.transpose(0, 1) for one in lasts)
        return joined, *lasts

    return apply


def _state(given: Tensor | None, x: Tensor, directions: int, hidden: int, batch_first: bool) -> Tensor:
    if given is None:
        return x.new_zeros(directions, x.shape[1], hidden)
    return given.transpose(0, 1).contiguous() if batch_first else given


def _parameters(kind: str, weights: Tensor, recurrent: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """In torch's order of gates: input weights, recurrent weights, their biases."""
    gates = _GATES[kind]
    ordered = [_reordered(values, gates) for values in (weights, recurrent)]
    if bias is not None:
        ordered += [_reordered(half, gates) for half in bias.chunk(2)]
    return tuple(ordered)


def _reordered(values: Tensor, gates: Sequence[int]) -> Tensor:
    parts = values.chunk(len(gates))
    return torch.cat([parts[place] for place in gates])


def _run(kind: str, x: Tensor, start: Sequence[Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    settings = (len(parameters) > 2, 1, 0.0, False, False, False)
    if kind == "LSTM":
        return torch.lstm(x, list(start), list(parameters), *settings)
    function = torch.gru if kind == "GRU" else torch.rnn_tanh
    return function(x, start[0], list(parameters), *settings)


RECURRENT: Mapping[str, Operator] = {kind: _recurrent(kind) for kind in _GATES}
