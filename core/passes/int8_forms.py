"""The forms of int8 that a network may have: what each makes of a prepared ONNX file.

static: activations are rounded too, to ranges found beforehand. dynamic: their ranges are found in each run, by
DynamicQuantizeLinear before MatMulInteger. weights: the weights alone are int8, behind a DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.shape_inference import quant_pre_process

from featherweight.core.onnx_network.cleaning import slim
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program

_ROUNDING = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean",
)  # fmt: skip
# Everything that passes integers on, so that no float island stands between two convolutions: those above make new
# values, which are rounded; these hand on what they get.
OPERATORS = (
    *_ROUNDING,
    "MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Pad", "Resize",
)  # fmt: skip
_DYNAMIC = ("MatMul",)
"""Those with constant weights; Gemm becomes MatMul and Add before. ConvInteger is several times slower than Conv in
ONNX Runtime and OpenVINO, so that convolutions have int8 weights alone."""
_MIN_WEIGHTS = 256
"""Smaller constants stay float32: their scales and their operator would take as much."""
_PER_AXIS_OPSET = 13


class Form(Protocol):
    """How a prepared file becomes int8."""

    @property
    def rounding(self) -> tuple[str, ...]:
        """Names of the nodes whose quantization changes values, in the file's order."""
        ...

    def made(self, *, only: Sequence[str] = (), in_float: Collection[str] = ()) -> onnx.ModelProto:
        """The file with all nodes quantized that can be, or `only` these, or all but those `in_float`."""
        ...


@dataclass(frozen=True)
class StaticForm:
    """QDQ: unsigned activations with the given ranges, signed weights."""

    prepared: Path
    step: QuantizeStep
    ranges: Any

    @property
    def rounding(self) -> tuple[str, ...]:
        """See Form."""
        return tuple(node.name for node in onnx.load(self.prepared).graph.node if node.op_type in _ROUNDING)

    def made(self, *, only: Sequence[str] = (), in_float: Collection[str] = ()) -> onnx.ModelProto:
        """See Form."""
        proto = onnx.load(self.prepared)
        quantizer = QDQQuantizer(
            proto,
            per_channel=self.step.weight_scales == "channel",
            reduce_range=self.step.weight_bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self.ranges,
            nodes_to_quantize=list(only),
            nodes_to_exclude=[*in_float, *_standardization(proto)],
            op_types_to_quantize=list(OPERATORS),
            extra_options={"ForceQuantizeNoInputCheck": False},
        )
        quantizer.quantize_model()
        return slim(quantizer.model.model)


@dataclass(frozen=True)
class DynamicForm:
    """Matrix products find the range of their input, the whole batch, in each run; other layers have int8 weights."""

    prepared: Path
    step: QuantizeStep

    @property
    def rounding(self) -> tuple[str, ...]:
        """See Form."""
        return WeightsForm(self.prepared, self.step).rounding

    def made(self, *, only: Sequence[str] = (), in_float: Collection[str] = ()) -> onnx.ModelProto:
        """See Form."""
        chosen = [name for name in self.rounding if (not only or name in only) and name not in in_float]
        proto = onnx.load(self.prepared)
        integer = [node.name for node in proto.graph.node if node.op_type in _DYNAMIC and node.name in chosen]
        _store_weights(proto, self.step, set(chosen) - set(integer))
        if not integer:
            return slim(proto)
        quantizer = ONNXQuantizer(
            proto,
            self.step.weight_scales == "channel",
            self.step.weight_bits == 7,
            QuantizationMode.IntegerOps,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            None,
            integer,
            [],
            list(_DYNAMIC),
            {"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        return slim(quantizer.model.model)


@dataclass(frozen=True)
class WeightsForm:
    """Symmetric int8 weights behind a DequantizeLinear; the scale of each channel is its largest weight over 127."""

    prepared: Path
    step: QuantizeStep

    @property
    def rounding(self) -> tuple[str, ...]:
        """See Form."""
        graph = onnx.load(self.prepared).graph
        large = {tensor.name: tensor for tensor in graph.initializer if _is_large(tensor)}
        return tuple(node.name for node in graph.node if any(node.input[place] in large for place, _ in _places(node)))

    def made(self, *, only: Sequence[str] = (), in_float: Collection[str] = ()) -> onnx.ModelProto:
        """See Form."""
        proto = onnx.load(self.prepared)
        chosen = {name for name in self.rounding if (not only or name in only) and name not in in_float}
        _store_weights(proto, self.step, chosen)
        return slim(proto)


def prepare(program: Program, precision: str, directory: Path) -> Path:
    """The program as a file in `directory` whose shapes are inferred, constants folded and nodes named."""
    source, prepared = directory / "program.onnx", directory / "prepared.onnx"
    source.write_bytes(program.content)
    # Symbolic inference is for transformers and slow.
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    model = ONNXModel(onnx.load(prepared))
    if precision == "int8-dynamic":
        model.replace_gemm_with_matmul()
    taken: set[str] = set()
    for place, node in enumerate(model.model.graph.node):
        node.name = node.name if node.name and node.name not in taken else f"{node.op_type}:{place}"
        taken.add(node.name)
    onnx.save(model.model, prepared)
    return prepared


def store_halves(program: Program) -> onnx.ModelProto:
    """The program with weights as float16, which every runtime turns into float32 when it opens the file.

    Weights that float16 cannot hold (above 65,504) stay as they are.
    """
    proto = onnx.load_model_from_string(program.content)
    casts = []
    for tensor in proto.graph.initializer:
        if _is_large(tensor):
            array = numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if np.isfinite(half).all():
                name = tensor.name
                tensor.CopyFrom(numpy_helper.from_array(half, f"{name}:float16"))
                cast = onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}:cast", to=onnx.TensorProto.FLOAT)
                casts.append(cast)
    return _with_first(proto, casts)


def _store_weights(proto: onnx.ModelProto, step: QuantizeStep, names: Collection[str]) -> None:
    """Store the weights of these nodes as int8; in place. Raises ValueError for a file that is too old for scales of
    channels."""
    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if step.weight_scales == "channel" and opset < _PER_AXIS_OPSET:
        raise ValueError(f'opset {opset} has no scale for each channel; set weight_scales = "tensor"')
    large = {tensor.name: tensor for tensor in proto.graph.initializer if _is_large(tensor)}
    made: dict[str, onnx.NodeProto] = {}
    for node in proto.graph.node:
        for place, axis in _places(node) if node.name in names else ():
            weight = node.input[place]
            if weight not in large:
                continue
            name = f"{weight}:{axis}:int8"
            if name not in made:
                made[name] = _dequantized(proto.graph, large[weight], name, axis, step)
            node.input[place] = made[name].output[0]
    _with_first(proto, list(made.values()))


def _dequantized(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, name: str, axis: int, step: QuantizeStep
) -> onnx.NodeProto:
    weights = numpy_helper.to_array(tensor)
    axis %= weights.ndim
    each = step.weight_scales == "channel"
    others = tuple(one for one in range(weights.ndim) if one != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True) if each else np.abs(weights).max()
    scale = np.asarray(np.where(largest > 0, largest / np.float32(127), 1), np.float32)
    whole = np.clip(np.round(weights / scale), -127, 127).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(whole, name))
    scale = scale.reshape(-1) if each else scale
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}:scale"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{name}:zero"))
    inputs = [name, f"{name}:scale", f"{name}:zero"]
    axes: dict[str, Any] = {"axis": axis} if each else {}
    return onnx.helper.make_node("DequantizeLinear", inputs, [f"{name}:float"], f"{name}:node", **axes)


def _with_first(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """The same with these nodes before all others; in place."""
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    return proto


def _places(node: onnx.NodeProto) -> tuple[tuple[int, int], ...]:
    """(place, axis of its output channels) of the inputs that are a layer's weights."""
    match node.op_type:
        case "Conv":
            return ((1, 0),)
        case "ConvTranspose":
            return ((1, 1),)
        case "MatMul":
            return ((1, -1),)
        case "Gemm":
            transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
            return ((1, 0 if transposed else 1),)
        case "Gather":
            return ((0, 0),)  # a row of an embedding
        case "LSTM" | "GRU" | "RNN":
            return ((1, 1), (2, 1))
        case _:
            return ()


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1 and np.prod(tensor.dims) >= _MIN_WEIGHTS


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
