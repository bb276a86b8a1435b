"""From a graph's calls to the steps of a module: layers where weights are, operators for the rest. What follows from
sizes alone is computed already."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from featherweight.core.backends.torch_graph import Call
from featherweight.core.inspection.operators import SHAPING
from featherweight.core.onnx_network.layers import Layer, dense, make_layer
from featherweight.core.onnx_network.network import Constant, Plan, Source, Step, Told
from featherweight.core.onnx_network.tracing import Sizes, Trace
from featherweight.core.tensors import TensorSpec

_TOLD = {**SHAPING, "CumSum": (1,), "Trilu": (1,), "OneHot": (1,)}
"""Operator -> inputs that operators take as Python's numbers."""


def make_plan(calls: Sequence[Call], trace: Trace, outputs: Sequence[TensorSpec], opset: int) -> Plan:
    """The steps from the inputs to these outputs."""
    planner = _Planner(trace, opset)
    uses = Counter(name for call in calls for name in call.inputs)
    uses.update(spec.name for spec in outputs)
    pending = list(calls)
    for place, call in enumerate(pending):
        if all(name in trace.constants or name in trace.sizes for name in call.outputs if name):
            continue
        if place in planner.taken:
            continue
        planner.add(call, pending, uses)
    return planner.plan([spec.name for spec in outputs])


class _Planner:
    def __init__(self, trace: Trace, opset: int) -> None:
        self._trace, self._opset = trace, opset
        self._steps: list[Step] = []
        self._layers: dict[str, nn.Module] = {}
        self._kept: dict[str, Tensor] = {}
        self._shared: dict[object, str] = {}
        self.taken: set[int] = set()

    def add(self, call: Call, calls: Sequence[Call], uses: Mapping[str, int]) -> None:
        """One step, which takes a bias behind a matrix product with it."""
        shape = self._trace.shape(call.inputs[0]) if call.inputs and call.inputs[0] else ()
        layer = make_layer(call, self._trace.constants, shape, self._opset)
        if layer is None:
            self._add_operator(call)
            return
        outputs = call.outputs
        unbiased = getattr(layer.module, "bias", None) is None
        if isinstance(layer.module, nn.Linear) and unbiased and uses[outputs[0]] == 1:
            layer, outputs = self._with_bias(layer, outputs, calls)
        key = self._shared_key(call, layer, outputs)
        self._steps.append(Step(call.label, (layer.input,), outputs, layer=key, pads=layer.pads))

    def _with_bias(
        self, layer: Layer, outputs: tuple[str, ...], calls: Sequence[Call]
    ) -> tuple[Layer, tuple[str, ...]]:
        place = next((place for place, call in enumerate(calls) if outputs[0] in call.inputs), None)
        if place is None:
            return layer, outputs
        call = calls[place]
        other = [name for name in call.inputs if name != outputs[0]]
        bias = self._trace.constants.get(other[0]) if call.op_type == "Add" and len(other) == 1 else None
        weight = layer.module.weight
        assert isinstance(weight, Tensor)  # noqa: S101  (of a Linear)
        if bias is None or bias.dtype != torch.float32 or (bias.ndim > 1 and bias.numel() > bias.shape[-1]):
            return layer, outputs
        if bias.ndim == 0 or bias.shape[-1] != weight.shape[0] or bias.ndim > len(self._trace.shape(outputs[0])):
            return layer, outputs
        self.taken.add(place)
        return replace(layer, module=dense(weight.detach(), bias.reshape(-1))), call.outputs

    def _shared_key(self, call: Call, layer: Layer, outputs: tuple[str, ...]) -> str:
        """Layers of the same weights are one, so that training keeps them the same."""
        weights = tuple(name for name in call.inputs if name != layer.input)
        identity = (call.op_type, weights, repr(layer.module), outputs != call.outputs and outputs)
        if identity not in self._shared:
            key = self._key(call)
            self._layers[key] = layer.module
            self._shared[identity] = key
        return self._shared[identity]

    def _key(self, call: Call) -> str:
        name = re.sub(r"\W+", "_", call.label.split(" ", 1)[1]).strip("_") or call.op_type
        while name in self._layers or hasattr(nn.ModuleDict, name):
            name = f"{name}_{len(self._layers)}"
        return name

    def _add_operator(self, call: Call) -> None:
        sources = tuple(self._source(call, place, name) for place, name in enumerate(call.inputs))
        attributes = call.attributes
        if call.op_type in ("Reshape", "Expand", "Resize"):
            sources, attributes = self._relative(call, sources)
        self._steps.append(Step(call.label, sources, call.outputs, operator=call.operator, attributes=attributes))

    def _source(self, call: Call, place: int, name: str) -> Source:
        if not name:
            return None
        told = place in _TOLD.get(call.op_type, ())
        if name in self._trace.sizes:
            sizes = self._trace.sizes[name]
            return Told(sizes) if told else sizes
        value = self._trace.constants.get(name)
        if value is None:
            return name
        if told and value.numel() <= 1 << 16:
            numbers = tuple(value.reshape(-1).tolist())
            whole = not value.is_floating_point()
            return Told(Sizes(numbers, (0,) * len(numbers))) if whole else numbers
        key = f"c_{re.sub(r'[^0-9a-zA-Z_]+', '_', name)}"
        while key in self._kept and self._kept[key] is not value:
            key += "_"
        self._kept[key] = value
        return Constant(key)

    def _relative(self, call: Call, sources: tuple[Source, ...]) -> tuple[tuple[Source, ...], dict[str, object]]:
        """Sizes that are those of the input said as such, so that they hold when channels are gone."""
        attributes = {name: value for name, value in call.attributes.items() if name != "allowzero"}
        before, after = self._trace.shapes.get(call.inputs[0]), self._trace.shapes.get(call.outputs[0])
        place = 3 if call.op_type == "Resize" else 1
        if before is None or after is None or place >= len(sources) or not isinstance(sources[place], Told):
            return sources, dict(call.attributes)
        if any(0 in shape for shape in (*before, *after)):
            return sources, dict(call.attributes)
        sizes = {"Reshape": _reshaped, "Expand": _expanded, "Resize": _resized}[call.op_type](before, after)
        if sizes is None or (call.op_type == "Resize" and "axes" in call.attributes):
            return sources, dict(call.attributes)
        told = Told(Sizes(tuple(sizes), (0,) * len(sizes)))
        return (*sources[:place], told, *sources[place + 1 :]), attributes

    def plan(self, outputs: Sequence[str]) -> Plan:
        """All of it, without steps of which nobody uses anything."""
        needed, steps = set(outputs), list[Step]()
        for step in reversed(self._steps):
            if needed.intersection(step.outputs):
                needed.update(source for source in step.sources if isinstance(source, str))
                steps.append(step)
        constants = {source.key for step in steps for source in step.sources if isinstance(source, Constant)}
        layers = {step.layer for step in steps}
        kept = {key: value for key, value in self._kept.items() if key in constants}
        trained = {key for key, value in kept.items() if _is_weight(value)}
        return Plan(
            tuple(reversed(steps)),
            {key: layer for key, layer in self._layers.items() if key in layers},
            {key: value for key, value in kept.items() if key in trained},
            {key: value for key, value in kept.items() if key not in trained},
        )


def _is_weight(value: Tensor) -> bool:
    """Not a mask, which has two values, and not one number, which belongs to a formula."""
    if value.dtype != torch.float32 or value.numel() < 2 or not bool(value.isfinite().all()):
        return False
    return value.numel() == 2 or len(set(value.reshape(-1)[:4096].tolist())) != 2


def _reshaped(before: Sequence[tuple[int, ...]], after: Sequence[tuple[int, ...]]) -> list[int] | None:
    """Sizes of a Reshape: 0 for one that the input has in this place, -1 for the only other one that is not fixed."""
    first = after[0]
    sizes = []
    for axis, size in enumerate(first):
        same = all(axis < len(old) and old[axis] == new[axis] for old, new in zip(before, after, strict=True))
        fixed = all(new[axis] == size for new in after)
        sizes.append(0 if same else size if fixed else -1)
    others = [axis for axis, size in enumerate(sizes) if size != 0]
    if len(others) == 1:
        sizes[others[0]] = -1
    return sizes if sizes.count(-1) <= 1 else None


def _expanded(before: Sequence[tuple[int, ...]], after: Sequence[tuple[int, ...]]) -> list[int] | None:
    """Sizes of an Expand: 1 for one that the input has already."""
    rank = len(after[0])
    sizes = []
    for axis in range(rank):
        have = [old[axis - rank] if rank - axis <= len(old) else 1 for old in before]
        if all(old == new[axis] for old, new in zip(have, after, strict=True)):
            sizes.append(1)
        elif all(new[axis] == after[0][axis] for new in after):
            sizes.append(after[0][axis])
        else:
            return None
    return sizes


def _resized(before: Sequence[tuple[int, ...]], after: Sequence[tuple[int, ...]]) -> list[int] | None:
    """Sizes of a Resize: 0 for one that stays."""
    sizes = []
    for axis, size in enumerate(after[0]):
        same = all(old[axis] == new[axis] for old, new in zip(before, after, strict=True))
        sizes.append(0 if same else size)
    fixed = all(new[axis] == size for new in after for axis, size in enumerate(after[0]) if sizes[axis])
    return sizes if fixed else None
