"""int8 and smaller files for networks.

Static int8 is ONNX QDQ with unsigned activations and signed weights: fast in ONNX Runtime and OpenVINO. Signed
activations are several times slower in ONNX Runtime on x86, whose kernels multiply unsigned by signed bytes. The other
forms are in `core.passes.int8_forms`.

Trees have int8 leaves instead: see `core.passes.quantize_trees`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from featherweight.core.causes import describe_cause
from featherweight.core.errors import DataError, FeatherweightError, UsageError
from featherweight.core.export import quiet
from featherweight.core.model import Model, StepRecord
from featherweight.core.onnx_network import OnnxNetwork
from featherweight.core.passes.float_operators import SAMPLES, needs_inputs, quantize_but_worst
from featherweight.core.passes.int8_forms import (
    OPERATORS,
    DynamicForm,
    Form,
    StaticForm,
    WeightsForm,
    prepare,
    store_halves,
)
from featherweight.core.passes.quantize_trees import quantize_trees
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
_INTEGERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear"})
_HALF = onnx.TensorProto.FLOAT16


def quantize(program: Program, step: QuantizeStep, batches: Iterable[Tensors]) -> tuple[Program, StepRecord]:
    """`program` in the step's precision; `batches` are unlabelled inputs for the ranges of the activations.

    bf16 keeps the file: the backend does the arithmetic. fp16-weights stores the weights as float16 in a program that
    is fp32 all the same. Of static int8 one batch's activations are in memory at a time; where operators may stay in
    float the first SAMPLES inputs stay there too, and what each operator's quantization alone does to the outputs for
    them is recorded. Inputs that nothing is measured with are not asked for. Raises UsageError for a program that is
    not fp32, for trees in anything but int8 and for a network that cannot be quantized or in which nothing would be,
    DataError when there are no calibration inputs.
    """
    if program.precision != "fp32":
        raise UsageError(f"quantize: found a program in {program.precision}, expected fp32; quantize once only")
    if program.kind == "trees":
        return quantize_trees(program, step, batches)
    if step.precision == "bf16":
        cast = Program(program.content, "bf16", program.inputs, program.outputs)
        return cast, StepRecord(step.kind, asdict(step), {"file_bytes": len(cast.content)})
    facts: dict[str, object] = {}
    if step.precision == "fp16-weights":
        proto = store_halves(program)
    else:
        proto, facts = _int8(program, step, batches)
    if not _is_quantized(proto):
        kinds = ", ".join(sorted({node.op_type for node in proto.graph.node}))
        raise UsageError(
            f"quantize: none of the program's operators ({kinds}) would be {step.precision}; leave the step out, or "
            "lower float_operators"
        )
    content: bytes = proto.SerializeToString()
    operators = dict(sorted(Counter(node.op_type for node in proto.graph.node).items()))
    facts = {"file_bytes": len(content), "operators": operators, **facts}
    made = Program(content, step.program_precision, program.inputs, program.outputs)
    return made, StepRecord(step.kind, asdict(step), facts)


def _int8(
    program: Program, step: QuantizeStep, batches: Iterable[Tensors]
) -> tuple[onnx.ModelProto, dict[str, object]]:
    first: list[Tensors] = []
    with tempfile.TemporaryDirectory(prefix="featherweight-") as name, quiet():
        directory = Path(name)
        with _quantizing():
            prepared = prepare(program, step.precision, directory)
        watched = _keeping(batches, first, SAMPLES) if needs_inputs(step) else batches
        facts: dict[str, object] = {}
        form: Form
        if step.precision == "int8":
            ranges, facts["calibration_samples"] = _ranges(prepared, step, watched, directory)
            form = StaticForm(prepared, step, ranges)
        else:
            if needs_inputs(step) and not sum(1 for _ in watched):
                raise DataError("quantize: the task gives no calibration inputs; its training set is empty")
            form = (DynamicForm if step.precision == "int8-dynamic" else WeightsForm)(prepared, step)
        with _quantizing():
            proto, measured = quantize_but_worst(form, onnx.load(prepared), step, first)
    return proto, {**facts, **measured}


def _is_quantized(proto: onnx.ModelProto) -> bool:
    halves = any(tensor.data_type == _HALF for tensor in proto.graph.initializer)
    return halves or any(node.op_type in _INTEGERS for node in proto.graph.node)


def check_not_quantized(model: Model) -> None:
    """Raise UsageError, before any work, for a model that came as a file which was quantized elsewhere."""
    if isinstance(model.network, OnnxNetwork) and model.network.precision != "fp32":
        raise UsageError(f"quantize: {model.network.fixed_because}; remove the step from the recipe")


@contextlib.contextmanager
def _quantizing() -> Iterator[None]:
    """What the quantizer raises for a graph that it does not know may be anything. Inputs are drawn outside of this:
    what the task's code raises says nothing of the network."""
    try:
        yield
    except (FeatherweightError, MemoryError, OSError):
        raise
    except Exception as error:
        raise UsageError(f"quantize: this network cannot be quantized ({describe_cause(error)})") from error


def _ranges(prepared: Path, step: QuantizeStep, batches: Iterable[Tensors], directory: Path) -> tuple[Any, int]:
    options = {"percentile": step.percentile} if step.method == "percentile" else {}
    with _quantizing():
        calibrator = create_calibrator(
            prepared,
            list(OPERATORS),
            augmented_model_path=str(directory / "augmented.onnx"),
            calibrate_method=_METHODS[step.method],
            extra_options=options,
        )
    samples = 0
    for batch in batches:
        # One call per batch: the calibrator keeps the outputs of all batches of a call in memory.
        with _quantizing():
            calibrator.collect_data(_OneBatch(batch))
        samples += len(next(iter(batch.values())))
    if samples == 0:
        raise DataError("quantize: the task gives no calibration inputs; its training set is empty")
    with _quantizing():
        return calibrator.compute_data(), samples


def _keeping(batches: Iterable[Tensors], kept: list[Tensors], count: int) -> Iterator[Tensors]:
    """The same batches; the first ones, until they hold `count` cases, go into `kept`."""
    seen = 0
    for batch in batches:
        if seen < count:
            kept.append(batch)
        seen += len(next(iter(batch.values())))
        yield batch


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batch: Tensors) -> None:
        self._left: Iterator[Tensors] = iter([batch])

    def get_next(self) -> Tensors | None:
        return next(self._left, None)
