"""Static int8 as ONNX QDQ with unsigned activations and signed weights per channel: fast in ONNX Runtime and OpenVINO.

Signed activations are several times slower in ONNX Runtime on x86: its kernels multiply unsigned by signed bytes.
Trees have int8 leaves instead: see `core.passes.quantize_trees`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from featherweight.core.arrays import Floats
from featherweight.core.causes import describe_cause
from featherweight.core.errors import DataError, FeatherweightError, UsageError
from featherweight.core.export import quiet
from featherweight.core.model import Model, StepRecord
from featherweight.core.onnx_network import OnnxNetwork
from featherweight.core.onnx_network.cleaning import slim
from featherweight.core.passes.quantize_trees import quantize_trees
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}

_ROUNDING = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean",
)  # fmt: skip
# Everything that passes integers on, so that no float island stands between two convolutions: those above make new
# values, which are rounded; these hand on what they get.
_OPERATORS = (
    *_ROUNDING,
    "MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Pad", "Resize",
)  # fmt: skip

ERROR_SAMPLES = 64
"""Unlabelled inputs for which each operator's own error is measured."""
_WORST = 20
"""How many operators' errors a record lists."""


def quantize(program: Program, step: QuantizeStep, batches: Iterable[Tensors]) -> tuple[Program, StepRecord]:
    """`program` in the step's precision; `batches` are unlabelled inputs for the ranges of the activations.

    bf16 keeps the file: the backend does the arithmetic. For int8 one batch's activations are in memory at a time; with
    `float_operators` the first ERROR_SAMPLES inputs stay there too, and what each operator's quantization alone does to
    the outputs for them is recorded. Raises UsageError for a program that is not fp32, for trees in bf16 and for a
    network that cannot be quantized or in which nothing would be, DataError when there are no calibration inputs.
    """
    if program.precision != "fp32":
        raise UsageError(f"quantize: found a program in {program.precision}, expected fp32; quantize once only")
    if program.kind == "trees":
        return quantize_trees(program, step, batches)
    if step.precision == "bf16":
        cast = Program(program.content, "bf16", program.inputs, program.outputs)
        return cast, StepRecord(step.kind, asdict(step), {"file_bytes": len(cast.content)})
    with tempfile.TemporaryDirectory(prefix="featherweight-") as name, quiet():
        with _quantizing():
            prepared = _prepared(program, Path(name))
        first: list[Tensors] = []
        watched = _keeping(batches, first, ERROR_SAMPLES) if step.float_operators else batches
        ranges, samples = _ranges(prepared, step, watched, Path(name))
        with _quantizing():
            errors = _operator_errors(prepared, step, ranges, first) if step.float_operators else {}
            in_float = list(errors)[: step.float_operators]
            proto = _quantized(prepared, step, ranges, in_float=in_float)
    if not any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
        kinds = ", ".join(sorted({node.op_type for node in proto.graph.node}))
        raise UsageError(
            f"quantize: none of the program's operators ({kinds}) would be int8; leave the step out, or lower "
            "float_operators"
        )
    content: bytes = proto.SerializeToString()
    facts = {
        "file_bytes": len(content),
        "calibration_samples": samples,
        "operators": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
    }
    if step.float_operators:
        facts |= {"float_operators": in_float, "operator_errors": dict(islice(errors.items(), _WORST))}
    return Program(content, "int8", program.inputs, program.outputs), StepRecord(step.kind, asdict(step), facts)


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


def _quantized(
    prepared: Path, step: QuantizeStep, ranges: Any, *, only: Sequence[str] = (), in_float: Sequence[str] = ()
) -> onnx.ModelProto:
    """The prepared program with all of _OPERATORS quantized, or `only` these nodes, or all but those `in_float`."""
    proto = onnx.load(prepared)
    quantizer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=step.weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(only),
        nodes_to_exclude=[*in_float, *_standardization(proto)],
        op_types_to_quantize=list(_OPERATORS),
        extra_options={"ForceQuantizeNoInputCheck": False},
    )
    quantizer.quantize_model()
    return slim(quantizer.model.model)


def _standardization(proto: onnx.ModelProto) -> list[str]:
    """Nodes that treat rows of features before the first layer: columns of different units (an amount, a share) must
    not share one grid of 256 values; an image's pixels may."""
    if any(len(value.type.tensor_type.shape.dim) != 2 for value in proto.graph.input):
        return []
    reached: set[str] = set()
    before = []
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") or reached & set(node.input):
            reached |= set(node.output)
        else:
            before.append(node.name)
    return before


def _operator_errors(prepared: Path, step: QuantizeStep, ranges: Any, inputs: Sequence[Tensors]) -> dict[str, float]:
    """Node -> mean squared change of the outputs relative to their variance when it alone is quantized; worst first."""
    proto = onnx.load(prepared)
    reference = _outputs(proto, inputs)
    spread = max(float(reference.var(axis=0).mean()), 1e-12)
    found = {}
    for node in proto.graph.node:
        if node.op_type in _ROUNDING:
            alone = _outputs(_quantized(prepared, step, ranges, only=[node.name]), inputs)
            found[node.name] = float(f"{float(((alone - reference) ** 2).mean()) / spread:.3g}")
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _outputs(proto: onnx.ModelProto, inputs: Sequence[Tensors]) -> Floats:
    """All outputs of each case in one row, [N, values], in the runtime's own integer arithmetic."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = []
    for batch in inputs:
        outputs = session.run(None, dict(batch))
        rows.append(np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1))
    return np.concatenate(rows).astype(np.float64)


def _prepared(program: Program, directory: Path) -> Path:
    source, prepared = directory / "program.onnx", directory / "prepared.onnx"
    source.write_bytes(program.content)
    # Shapes inferred and constants folded; symbolic inference is for transformers and slow.
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def _ranges(prepared: Path, step: QuantizeStep, batches: Iterable[Tensors], directory: Path) -> tuple[Any, int]:
    options = {"percentile": step.percentile} if step.method == "percentile" else {}
    with _quantizing():
        calibrator = create_calibrator(
            prepared,
            list(_OPERATORS),
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
