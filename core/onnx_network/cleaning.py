"""A foreign file in the form that everything here reads: checked, without what no runtime needs, its batch free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.version_converter
from google.protobuf.message import DecodeError

from featherweight.core.arrays import Array
from featherweight.core.backends.onnx_model import DTYPES, operator
from featherweight.core.causes import describe_cause
from featherweight.core.errors import BackendError, UsageError
from featherweight.core.inspection import check_content
from featherweight.core.tensors import TensorSpec

OPSETS = range(11, 27)
OPSET = 20
"""What files of opset 11 and 12 become: the quantizer writes nodes that have been there since 13."""
_MAX_BYTES = (1 << 31) - 1
_MAX_INPUTS = 8
BATCH = "batch"

QUANTIZED = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
        "MatMulInteger",
    }
)  # fmt: skip


@dataclass(frozen=True)
class CleanFile:
    """inputs: with a free batch. fixed_batch: the number of cases that the file takes at a time, None where it takes
    any. notes: what was left out or changed, in words."""

    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    fixed_batch: int | None
    notes: tuple[str, ...]

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        content: bytes = self.model.SerializeToString(deterministic=True)
        return content


def clean(content: bytes) -> CleanFile:
    """Raises UsageError for bytes that are not such a file, or hold what no program may (core.inspection)."""
    if len(content) > _MAX_BYTES:
        raise UsageError(f"the ONNX file has {len(content):,} bytes; at most {_MAX_BYTES:,} are read")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise UsageError(f"this is not an ONNX file, or it is cut off ({describe_cause(error)})") from error
    if model.functions:
        raise UsageError("the ONNX file holds functions of its own; export it with them inlined (onnx.inliner)")
    notes = _without_labels(model.graph)
    _drop_preset_inputs(model)
    slim(model)
    _drop_unused(model.graph)
    _check(model)
    model, told = _modern(model)
    inputs = tuple(_spec(value) for value in model.graph.input)
    if not 1 <= len(inputs) <= _MAX_INPUTS:
        raise UsageError(f"the ONNX file has {len(inputs)} inputs; 1 to {_MAX_INPUTS} are taken")
    fixed = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] is not None}
    if len(fixed) > 1:
        raise UsageError(
            f"the ONNX file's inputs begin with {sorted(fixed)}; expected the number of cases first in all of them"
        )
    free = tuple(TensorSpec(spec.name, spec.dtype, (None, *spec.shape[1:])) for spec in inputs)
    return CleanFile(model, free, next(iter(fixed), None), (*notes, *told))


def free_batch(file: CleanFile) -> CleanFile:
    """The same file for any number of cases, as far as that can be told from its inputs and the shapes that it reshapes
    to: whether it then gives the same is for a comparison to say."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: entry.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for entry in node.attribute
        if entry.name == "value"
    }
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = onnx.numpy_helper.to_array(constants[node.input[1]]).copy()
            if shape.ndim == 1 and len(shape) > 0 and shape[0] == file.fixed_batch:
                if -1 in shape:
                    kept = [entry for entry in node.attribute if entry.name != "allowzero"]
                    del node.attribute[:]
                    node.attribute.extend(kept)
                shape[0] = 0 if -1 in shape else -1
                name = f"{node.output[0]}_shape_of_any_batch"
                model.graph.initializer.append(onnx.numpy_helper.from_array(shape, name))
                node.input[1] = name
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    slim(model)
    return CleanFile(
        model, file.inputs, None, (*file.notes, f"made for any number of cases instead of {file.fixed_batch}")
    )


def state_specs(model: onnx.ModelProto, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> onnx.ModelProto:
    """The same file whose inputs and outputs say exactly these types and shapes."""
    stated = onnx.ModelProto()
    stated.CopyFrom(model)
    kinds = {name: number for number, name in DTYPES.items()}
    for side, specs in ((stated.graph.input, inputs), (stated.graph.output, outputs)):
        del side[:]
        side.extend(
            onnx.helper.make_tensor_value_info(
                spec.name, kinds[spec.dtype], [BATCH if size is None else size for size in spec.shape]
            )
            for spec in specs
        )
    return stated


def slim(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what no runtime reads (doc strings, exporter metadata, value infos, unused initializers); in place."""
    graph = proto.graph
    for holder in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.doc_string = ""
        del holder.metadata_props[:]
    del graph.value_info[:]
    del proto.functions[:]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    domains = {node.domain for node in graph.node}
    imports = [entry for entry in proto.opset_import if entry.domain in domains | {"", "ai.onnx"}]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.producer_name, proto.producer_version = "featherweight", ""
    graph.name = "program"
    return proto


def _check(model: onnx.ModelProto) -> None:
    try:
        check_content(model.SerializeToString(deterministic=True))
    except BackendError as error:
        raise UsageError(f"the ONNX file cannot be taken: {error}") from error


def _drop_preset_inputs(model: onnx.ModelProto) -> None:
    """Files of before 2019 name every weight among the inputs, so that it could be given anew."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 8)


def _without_labels(graph: onnx.GraphProto) -> list[str]:
    """Converters of classifiers give the class's name beside its probability, and the probabilities in a map."""
    makers = {node.output[0]: node for node in graph.node if node.op_type == "ZipMap" and node.output}
    for value in graph.output:
        if value.name in makers:
            value.CopyFrom(
                onnx.helper.make_tensor_value_info(makers[value.name].input[0], onnx.TensorProto.FLOAT, None)
            )
    kept = [value for value in graph.output if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    left = [value.name for value in graph.output if value not in kept]
    if not kept or not left:
        return []
    del graph.output[:]
    graph.output.extend(kept)
    return [f"the output {name!r}, which is not a float32 tensor, is left out" for name in left]


def _drop_unused(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    if len(kept) < len(graph.node) and _is_sorted(graph):
        del graph.node[:]
        graph.node.extend(reversed(kept))
        constants = [tensor for tensor in graph.initializer if tensor.name in needed]
        del graph.initializer[:]
        graph.initializer.extend(constants)


def _is_sorted(graph: onnx.GraphProto) -> bool:
    known = {"", *(tensor.name for tensor in graph.initializer), *(value.name for value in graph.input)}
    for node in graph.node:
        if not known.issuperset(node.input):
            return False
        known.update(node.output)
    return True


def _modern(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """In an opset that the quantizer can write; with a note where the converter does not get there."""
    opset = opset_of(model)
    if opset not in OPSETS:
        raise UsageError(
            f"the ONNX file is of opset {opset}; {OPSETS.start} to {OPSETS.stop - 1} are read: export it anew, or "
            "convert it with onnx.version_converter"
        )
    if opset >= 13:
        return model, []
    try:
        converted = slim(onnx.version_converter.convert_version(model, OPSET))
        _check(converted)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (the converter raises whatever it stumbles over)
        return model, [f"stays in opset {opset}, for its conversion fails ({describe_cause(error)})"]
    return converted, [f"converted from opset {opset} to {OPSET}"]


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    return int(max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0))


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether it computes in integers already, or says what would."""
    return any(operator(node) in QUANTIZED for node in model.graph.node)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    if kind.elem_type not in DTYPES:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise UsageError(
            f"the ONNX file's input {value.name!r} is of the type {name}; {', '.join(DTYPES.values())} are taken"
        )
    if not shape or any(size is None for size in shape[1:]):
        shown = ", ".join("?" if size is None else str(size) for size in shape)
        raise UsageError(
            f"the ONNX file's input {value.name!r} has the shape [{shown}]; only the first size, the number of cases, "
            "may be open: fix the others with onnxruntime.tools.make_dynamic_shape_fixed"
        )
    return TensorSpec(value.name, DTYPES[kind.elem_type], tuple(shape))


def same_values(found: Array, wanted: Array) -> float:
    """The largest difference relative to the largest value; infinite where shapes differ or one is not a number."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf")
    finite = np.isfinite(other)
    if not finite.any():
        return 0.0
    return float(np.abs(one[finite] - other[finite]).max() / max(1.0, float(np.abs(other[finite]).max())))
