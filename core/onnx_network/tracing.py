"""A graph run with several numbers of cases, to see which of its values are constants, which are sizes, and how large
everything is. Shapes that a graph computes from its inputs' are replaced by what comes out, so that exporters and
pruning see layers, and no arithmetic of shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from featherweight.core.backends.foreign import draw_inputs
from featherweight.core.backends.torch_graph import Call, run_call
from featherweight.core.errors import BackendError
from featherweight.core.inspection.operators import SHAPE_OF
from featherweight.core.tensors import TensorSpec

BATCHES = (2, 3, 5)
"""Two fix a straight line through the sizes, the third shows that it is one."""


@dataclass(frozen=True)
class Sizes:
    """Whole numbers of which some grow with the number of cases: base + per_case * cases. scalar: it is one number, not
    a list of one."""

    base: tuple[int, ...]
    per_case: tuple[int, ...]
    scalar: bool = False

    def at(self, cases: Any) -> list[Any]:
        """For this many cases, which may be one of torch's symbols."""
        return [
            base if not growth else base + growth * cases if base or growth != 1 else cases
            for base, growth in zip(self.base, self.per_case, strict=True)
        ]


@dataclass
class Trace:
    """constants: name -> value that is the same whatever goes in; sizes: name -> numbers that follow from the number of
    cases; shapes: name -> its shape with each of BATCHES."""

    constants: dict[str, Tensor]
    sizes: dict[str, Sizes] = field(default_factory=dict)
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """With the first of BATCHES."""
        return self.shapes[name][0] if name in self.shapes else tuple(self.constants[name].shape)


def trace(calls: Sequence[Call], constants: Mapping[str, Tensor], inputs: Sequence[TensorSpec]) -> Trace:
    """What is constant and what are sizes, seen with each of BATCHES. Raises BackendError where the interpreter does
    not run the graph."""
    free = _free_of_values(calls, {spec.name for spec in inputs})
    found = Trace(dict(constants))
    known: dict[str, list[Tensor]] = {name: [] for name in free}
    for batch in BATCHES:
        values = {**constants, **_tensors(inputs, batch)}
        for name in values.keys() - constants.keys():
            found.shapes.setdefault(name, []).append(tuple(values[name].shape))
        with torch.no_grad():
            for call in calls:
                made = run_call(call, values)
                values.update(made)
                for name, value in made.items():
                    found.shapes.setdefault(name, []).append(tuple(value.shape))
                    if name in known:
                        known[name].append(value)
                for name in call.last_uses:
                    values.pop(name, None)
    for name, several in known.items():
        _classify(name, several, found)
    return found


def _tensors(inputs: Sequence[TensorSpec], batch: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in draw_inputs(inputs, batch).items()}


def _free_of_values(calls: Sequence[Call], inputs: set[str]) -> set[str]:
    """Names of what does not depend on the values of the inputs, though perhaps on their shapes."""
    valued, free = set(inputs), set[str]()
    for call in calls:
        given = call.inputs[:1] if call.op_type == "CastLike" else call.inputs
        if call.op_type in SHAPE_OF or valued.isdisjoint(given):
            free.update(name for name in call.outputs if name)
        else:
            valued.update(call.outputs)
    return free


def _classify(name: str, several: Sequence[Tensor], found: Trace) -> None:
    first = several[0]
    if any(one.shape != first.shape or one.dtype != first.dtype for one in several):
        return
    if all(torch.equal(first, one) for one in several):
        found.constants[name] = first
        return
    if first.is_floating_point() or first.dtype == torch.bool or first.ndim > 1:
        return
    two, three, five = ([int(number) for number in one.reshape(-1).tolist()] for one in several)
    growth = [later - earlier for earlier, later in zip(two, three, strict=True)]
    base = [number - BATCHES[0] * grown for number, grown in zip(two, growth, strict=True)]
    if [start + BATCHES[2] * grown for start, grown in zip(base, growth, strict=True)] != five:
        raise BackendError(f"{name!r} is computed from the number of cases in a way that is not linear")
    found.sizes[name] = Sizes(tuple(base), tuple(growth), scalar=first.ndim == 0)
