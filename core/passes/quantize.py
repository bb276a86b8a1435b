"""Static int8 as ONNX QDQ with unsigned activations and signed weights per channel: fast in ONNX Runtime and OpenVINO.

Signed activations are several times slower in ONNX Runtime on x86: its kernels multiply unsigned by signed bytes.
Trees have int8 leaves instead: see `core.passes.quantize_trees`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from core.errors import DataError, UsageError
from core.export import quiet, slim
from core.model import StepRecord
from core.passes.quantize_trees import quantize_trees
from core.passes.steps import QuantizeStep
from core.program import Program
from core.tensors import Tensors

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}

# Everything that passes integers on, so that no float island stands between two convolutions.
_OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean",
    "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Pad", "Resize",
)  # fmt: skip


def quantize(program: Program, step: QuantizeStep, batches: Iterable[Tensors]) -> tuple[Program, StepRecord]:
    """`program` in the step's precision; `batches` are unlabelled inputs for the ranges of the activations.

    bf16 keeps the file: the backend does the arithmetic. For int8 one batch's activations are in memory at a time.
    Raises UsageError for a program that is not fp32 and for trees in bf16, DataError when there are no calibration
    inputs.
    """
    if program.precision != "fp32":
        raise UsageError(f"quantize: found a program in {program.precision}, expected fp32; quantize once only")
    if program.kind == "trees":
        return quantize_trees(program, step, batches)
    if step.precision == "bf16":
        cast = Program(program.content, "bf16", program.inputs, program.outputs)
        return cast, StepRecord(step.kind, asdict(step), {"file_bytes": len(cast.content)})
    with tempfile.TemporaryDirectory(prefix="featherweight-") as name, quiet():
        prepared = _prepared(program, Path(name))
        ranges, samples = _ranges(prepared, step, batches, Path(name))
        quantizer = QDQQuantizer(
            onnx.load(prepared),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(_OPERATORS),
            extra_options={"ForceQuantizeNoInputCheck": False},
        )
        quantizer.quantize_model()
        proto = slim(quantizer.model.model)
    content: bytes = proto.SerializeToString()
    quantized = Program(content, "int8", program.inputs, program.outputs)
    facts = {
        "file_bytes": len(content),
        "calibration_samples": samples,
        "operators": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
    }
    return quantized, StepRecord(step.kind, asdict(step), facts)


def _prepared(program: Program, directory: Path) -> Path:
    source, prepared = directory / "program.onnx", directory / "prepared.onnx"
    source.write_bytes(program.content)
    # Shapes inferred and constants folded; symbolic inference is for transformers and slow.
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def _ranges(prepared: Path, step: QuantizeStep, batches: Iterable[Tensors], directory: Path) -> tuple[Any, int]:
    options = {"percentile": step.percentile} if step.method == "percentile" else {}
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
        calibrator.collect_data(_OneBatch(batch))
        samples += len(next(iter(batch.values())))
    if samples == 0:
        raise DataError("quantize: the task gives no calibration inputs; its training set is empty")
    return calibrator.compute_data(), samples


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batch: Tensors) -> None:
        self._left: Iterator[Tensors] = iter([batch])

    def get_next(self) -> Tensors | None:
        return next(self._left, None)
