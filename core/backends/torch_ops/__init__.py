"""The ONNX operators that networks use, in PyTorch (https://onnx.ai/onnx/operators/).

Each takes its inputs (None for one left out) and attributes and returns its output, or a tuple of several, of which a
node may ask for the first ones only. `find_operator` refuses, before anything runs, the forms that are not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from featherweight.core.backends.torch_ops.convolution import CONVOLUTION
from featherweight.core.backends.torch_ops.linear import LINEAR, group_normalization_18, layer_normalization
from featherweight.core.backends.torch_ops.pointwise import CAST, POINTWISE
from featherweight.core.backends.torch_ops.recurrent import DEFAULT_ACTIVATIONS, RECURRENT
from featherweight.core.backends.torch_ops.reductions import REDUCTIONS, REDUCTIONS_11
from featherweight.core.backends.torch_ops.resizing import COORDINATES, RESIZING
from featherweight.core.backends.torch_ops.shaping import SHAPING_OPERATORS
from featherweight.core.backends.torch_ops.values import Attributes, Operator

__all__ = ["OPERATORS", "Form", "Operator", "find_operator"]

OPERATORS: Mapping[str, Operator] = {
    **CONVOLUTION,
    **LINEAR,
    **POINTWISE,
    **RECURRENT,
    **REDUCTIONS,
    **RESIZING,
    **SHAPING_OPERATORS,
}
"""By name, in the meaning of the newest opset."""

_OLDER: Mapping[str, tuple[int, Operator]] = {
    **{name: (13, operator) for name, operator in REDUCTIONS_11.items()},
    "GroupNormalization": (21, group_normalization_18),
}
"""Operators that meant something else before an opset."""


@dataclass(frozen=True)
class Form:
    """A node as it stands in a file. constants: those tensors whose values are known before anything runs."""

    opset: int
    attributes: Attributes
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    constants: Mapping[str, Tensor] | None = None

    def has_input(self, place: int) -> bool:
        """Whether the node is given this one."""
        return place < len(self.inputs) and bool(self.inputs[place])

    def asks_for(self, place: int) -> bool:
        """Whether anything may use this output."""
        return place < len(self.outputs) and bool(self.outputs[place])


def find_operator(name: str, form: Form) -> tuple[Operator, Attributes]:
    """The operator for such a node, and the attributes that it is to be given. Raises ValueError with the reason for a
    form that is not written; KeyError for an operator that is not known."""
    operator, attributes = OPERATORS[name], form.attributes
    reason = _REFUSED[name](form) if name in _REFUSED else ""
    if reason:
        raise ValueError(reason)
    if name in _OLDER and form.opset < _OLDER[name][0]:
        operator = _OLDER[name][1]
    if name == "LayerNormalization" and len(form.outputs) > 1:
        operator = layer_normalization
    if name == "Split" and not form.has_input(1) and "num_outputs" not in attributes:
        attributes = {**attributes, "num_outputs": len(form.outputs)}
    return operator, attributes


def _training(form: Form) -> str:
    said = "it drops values as in training; export the network in eval mode"
    if form.opset < 12 or not form.has_input(2):
        return ""
    switch = (form.constants or {}).get(form.inputs[2])
    return "" if switch is not None and not bool(switch) else said


def _batch_training(form: Form) -> str:
    trains = form.attributes.get("training_mode", 0) or len([name for name in form.outputs if name]) > 1
    return "it normalizes as in training; export the network in eval mode" if trains else ""


def _recurrent(kind: str) -> Callable[[Form], str]:
    def refused(form: Form) -> str:
        if form.has_input(4):
            return "sequences of different lengths are not written"
        if form.has_input(7) or form.attributes.get("input_forget", 0) or form.attributes.get("clip"):
            return "peepholes, coupled gates and clipping are not written"
        found = [str(name).lower() for name in form.attributes.get("activations") or ()]
        usual = list(DEFAULT_ACTIVATIONS[kind])
        if found not in ([], usual, usual * 2):
            return f"the activations {', '.join(found)} are not written"
        if kind == "GRU" and not form.attributes.get("linear_before_reset", 0):
            return "linear_before_reset = 0 is not written"
        return ""

    return refused


def _resize(form: Form) -> str:
    how = form.attributes.get("coordinate_transformation_mode", "half_pixel")
    if how not in COORDINATES:
        return f"coordinate_transformation_mode = {how} is not written"
    found = [name for name in ("antialias", "exclude_outside") if form.attributes.get(name, 0)]
    return f"{found[0]} is not written" if found else ""


def _one_of(attribute: str, usual: str, *known: str) -> Callable[[Form], str]:
    def refused(form: Form) -> str:
        found: Any = form.attributes.get(attribute, usual)
        return "" if found in (usual, *known) else f"{attribute} = {found} is not written"

    return refused


_REFUSED: Mapping[str, Callable[[Form], str]] = {
    "BatchNormalization": _batch_training,
    "Cast": lambda form: (
        "" if form.attributes.get("to") in CAST else f"the type {form.attributes.get('to')} is not written"
    ),
    "Dropout": _training,
    "GRU": _recurrent("GRU"),
    "LRN": lambda form: "" if form.attributes.get("size", 0) % 2 else "windows of an even size are not written",
    "LSTM": _recurrent("LSTM"),
    "MaxPool": lambda form: "the places of the largest are not written" if form.asks_for(1) else "",
    "RNN": _recurrent("RNN"),
    "Resize": _resize,
    "ScatterND": _one_of("reduction", "none", "add"),
}
"""Operator -> why a form of it is not run, or nothing."""
