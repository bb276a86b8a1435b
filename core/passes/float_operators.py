"""Which operators of a quantized network stay in float, found by measuring.

Each operator's own error says in which order they go back; how many do is the least number with which the outputs keep
within a given change. NNCF's `quantize_with_accuracy_control` goes the same way, one operator after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import numpy as np
import onnx
import onnxruntime

from featherweight.core.arrays import Floats
from featherweight.core.errors import UsageError
from featherweight.core.passes.int8_forms import Form
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.tensors import Tensors

SAMPLES: Final = 64
"""Unlabelled inputs for which errors and changes are measured."""
_WORST = 20
"""How many operators' errors a record lists."""


def needs_inputs(step: QuantizeStep) -> bool:
    """Whether anything is measured for this step."""
    return bool(step.float_operators or step.change_max)


def quantize_but_worst(
    form: Form, plain: onnx.ModelProto, step: QuantizeStep, inputs: Sequence[Tensors]
) -> tuple[onnx.ModelProto, dict[str, object]]:
    """(the quantized file, what was measured): all operators quantized but the `step.float_operators` worst, and as
    many more as it takes to keep the change of the outputs for `inputs` within `step.change_max`.

    A change is an output's mean squared difference from that of `plain` relative to its variance. Raises UsageError
    when only a program that is float throughout keeps it.
    """
    if not needs_inputs(step):
        return form.made(), {}
    change = _change_of(plain, inputs)
    errors = {name: change(form.made(only=[name])) for name in form.rounding}
    worst = sorted(errors, key=lambda name: -errors[name])
    count = step.float_operators
    made = form.made(in_float=worst[:count])
    facts: dict[str, object] = {}
    if step.change_max:
        found = {count: change(made)}
        before = found[count]
        if before > step.change_max:
            count, made = _fewest(form, worst, count, step.change_max, change, found)
        facts = {"change_of_all": before, "change": found[count]}
    listed = {name: errors[name] for name in islice(worst, _WORST)}
    return made, {"float_operators": worst[:count], "operator_errors": listed, **facts}


def _fewest(
    form: Form,
    worst: Sequence[str],
    low: int,
    most: float,
    change: Callable[[onnx.ModelProto], float],
    found: dict[int, float],
) -> tuple[int, onnx.ModelProto]:
    """(how many of `worst` stay in float, the file): the end of a bisection between `low`, with which the outputs move
    too far, and all. What it ends with was measured, though fewer might do where changes do not fall steadily."""
    high, kept = len(worst), None
    while high - low > 1:
        middle = (low + high) // 2
        made = form.made(in_float=worst[:middle])
        found[middle] = change(made)
        if found[middle] <= most:
            high, kept = middle, made
        else:
            low = middle
    if kept is None:
        raise UsageError(
            f"quantize: the outputs move by {found[low]:.3g} of their variance with one operator in int8, more than "
            f"change_max {most:g} allows; raise change_max or leave the step out"
        )
    return high, kept


def _change_of(plain: onnx.ModelProto, inputs: Sequence[Tensors]) -> Callable[[onnx.ModelProto], float]:
    """How far a file moves the outputs; of several outputs, the one that moves most."""
    reference = _outputs(plain, inputs)
    spreads = [max(float(output.var(axis=0).mean()), 1e-12) for output in reference]

    def change(made: onnx.ModelProto) -> float:
        each = zip(_outputs(made, inputs), reference, spreads, strict=True)
        return max(float(f"{float(((found - wanted) ** 2).mean()) / spread:.3g}") for found, wanted, spread in each)

    return change


def _outputs(proto: onnx.ModelProto, inputs: Sequence[Tensors]) -> list[Floats]:
    """Each output with its cases in rows, [N, values], in the runtime's own integer arithmetic."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [session.run(None, dict(batch)) for batch in inputs]
    joined = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
    return [output.reshape(len(output), -1).astype(np.float64) for output in joined]
