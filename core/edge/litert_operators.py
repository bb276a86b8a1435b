"""The ONNX operators that exported CNNs and MLPs use, as those of a .tflite file (https://onnx.ai/onnx/operators/,
github.com/google-ai-edge/LiteRT, tflite/schema/schema.fbs)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from featherweight.core.backends.onnx_model import operator, read_graph
from featherweight.core.edge.litert_file import Quantization
from featherweight.core.edge.litert_graph import Constant, Graph, Value, refused
from featherweight.core.edge.onnx_nodes import attributes, ordered
from featherweight.core.program import Program

_MAX_OPSET = 26


def encode_network(program: Program) -> bytes:
    """The bytes of a .tflite file for one case at a time. Raises UsageError for an operator or type that it does not
    write and BackendError for a file that is not an ONNX model."""
    proto, _ = read_graph("litert", program, _MAX_OPSET)
    unknown = sorted({operator(node) for node in proto.node} - _OPERATORS.keys())
    if unknown:
        raise refused(", ".join(unknown))
    for spec in (*program.inputs, *program.outputs):
        if spec.dtype != "float32":
            raise refused(f"the tensor {spec}")
    graph = Graph(proto)
    inputs = [graph.input(spec.name, tuple(size or 1 for size in spec.shape)) for spec in program.inputs]
    for node in ordered("litert", proto):
        try:
            _OPERATORS[operator(node)](graph, node)
        except (LookupError, ValueError) as error:  # computed where a constant is wanted, or of another type
            raise refused(f"this {node.op_type} {node.name!r} ({type(error).__name__}: {error})") from error
    return graph.writer.encode(inputs, [graph.output(spec.name) for spec in program.outputs])


def _quantize(graph: Graph, node: onnx.NodeProto) -> None:
    wanted = graph.quantization(node)
    if node.input[0] in graph.constants:
        scale, zero = wanted.scales[0], wanted.zeros[0]
        levels = np.round(graph.constants[node.input[0]].floats / scale) + zero
        graph.constants[node.output[0]] = Constant(np.clip(levels, -128, 127).astype(np.int8), wanted)
        return
    value = graph.value(node.input[0])
    if value.quantization == wanted:  # its maker wrote it so
        graph.values[node.output[0]] = value
        return
    graph.emit(node, "QUANTIZE", [value.tensor], value.shape, schema.QuantizeOptionsT(), wanted)


def _dequantize(graph: Graph, node: onnx.NodeProto) -> None:
    name, given = node.output[0], node.input[0]
    if given in graph.values:
        graph.values[name] = graph.values[given]
        return
    constant = graph.constants[given]
    if constant.quantization is None:
        array, unsigned = constant.array, constant.array.dtype == np.uint8
        signed = (array.astype(np.int16) - 128).astype(np.int8) if unsigned else array
        constant = Constant(signed, graph.quantization(node, unsigned=unsigned))
    graph.constants[name] = constant


def _dropout(graph: Graph, node: onnx.NodeProto) -> None:
    if len(node.input) > 2 and node.input[2]:
        raise refused("Dropout as in training")
    _passed(graph, node)


def _passed(graph: Graph, node: onnx.NodeProto) -> None:
    graph.values[node.output[0]] = graph.value(node.input[0])


def _elementwise(graph: Graph, node: onnx.NodeProto, code: str, options: Any, *, quantizable: bool) -> None:
    values = [graph.value(name) for name in node.input]
    ranks = {len(value.shape) for value in values if int(np.prod(value.shape)) > 1}
    if 4 in ranks and ranks & {1, 2}:
        raise refused(f"{node.op_type} of images and vectors")
    integers = quantizable and all(value.quantization for value in values)
    wanted = graph.result(node, quantized=integers)
    if wanted is None:
        values = [graph.floats(name) for name in node.input]
    shape = np.broadcast_shapes(*(value.shape for value in values))
    graph.emit(node, code, [value.tensor for value in values], shape, options, wanted)


def _unary(graph: Graph, node: onnx.NodeProto, code: str, options: Any = None) -> None:
    value = graph.floats(node.input[0])
    graph.emit(node, code, [value.tensor], value.shape, options)


def _clip(graph: Graph, node: onnx.NodeProto) -> None:
    """Between bounds that may be arrays or missing."""
    value = graph.floats(node.input[0])
    for code, name in zip(("MAXIMUM", "MINIMUM"), node.input[1:], strict=False):
        if name:
            bound = graph.value(name)
            graph.emit(node, code, [value.tensor, bound.tensor], value.shape, schema.MaximumMinimumOptionsT())
            value = graph.values[node.output[0]]
    graph.values[node.output[0]] = value


def _hard_sigmoid(graph: Graph, node: onnx.NodeProto) -> None:
    """alpha * x + beta, held between 0 and 1."""
    given = attributes(node)
    value, options = graph.floats(node.input[0]), schema.MaximumMinimumOptionsT
    for code, number, made in (
        ("MUL", given.get("alpha", 0.2), schema.MulOptionsT()),
        ("ADD", given.get("beta", 0.5), schema.AddOptionsT()),
        ("MAXIMUM", 0.0, options()),
        ("MINIMUM", 1.0, options()),
    ):
        constant = graph.writer.constant(np.array([number], np.float32))
        graph.emit(node, code, [value.tensor, constant], value.shape, made)
        value = graph.values[node.output[0]]


def _is_nan(graph: Graph, node: onnx.NodeProto) -> None:
    """NaN alone is not what it is."""
    value = graph.floats(node.input[0])
    options = schema.NotEqualOptionsT()
    graph.emit(node, "NOT_EQUAL", [value.tensor, value.tensor], value.shape, options, dtype=np.bool_)


def _where(graph: Graph, node: onnx.NodeProto) -> None:
    values = [graph.value(node.input[0]), *(graph.floats(name) for name in node.input[1:])]
    shape = np.broadcast_shapes(*(value.shape for value in values))
    graph.emit(node, "SELECT_V2", [value.tensor for value in values], shape, schema.SelectV2OptionsT())


def _concat(graph: Graph, node: onnx.NodeProto) -> None:
    values = [graph.floats(name) for name in node.input]
    rank = len(values[0].shape)
    axis = attributes(node)["axis"] % rank
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    laid = (0, 3, 1, 2)[axis] if rank == 4 else axis
    options = schema.ConcatenationOptionsT(axis=laid)
    graph.emit(node, "CONCATENATION", [value.tensor for value in values], tuple(shape), options)


def _reshape(graph: Graph, node: onnx.NodeProto) -> None:
    value = graph.value(node.input[0])
    count = int(np.prod(value.shape))
    if node.op_type == "Flatten":
        axis = attributes(node).get("axis", 1)
        rows = int(np.prod(value.shape[:axis]))
        wanted = [rows, count // rows]
    else:
        stated = graph.constants[node.input[1]].array.tolist()
        keep = not attributes(node).get("allowzero", 0)
        wanted = [value.shape[i] if size == 0 and keep else size for i, size in enumerate(stated)]
        wanted = [-count // int(np.prod(wanted)) if size == -1 else size for size in wanted]
    if len(value.shape) == 4:
        value = graph.planar(value)
    made = graph.reshaped(value, tuple(wanted))
    if len(wanted) == 4:
        raise refused("Reshape to four dimensions")
    graph.values[node.output[0]] = replace(made, shape=tuple(wanted))


def _mean(graph: Graph, node: onnx.NodeProto) -> None:
    given = attributes(node)
    value = graph.value(node.input[0])
    if node.op_type == "GlobalAveragePool":
        axes: list[int] = [2, 3]
    elif len(node.input) > 1:
        axes = graph.constants[node.input[1]].array.tolist()
    else:
        axes = list(given["axes"])
    if len(value.shape) != 4 or {axis % 4 for axis in axes} != {2, 3}:
        raise refused("a mean over other axes than height and width")
    keep = bool(given.get("keepdims", 1))
    shape = (*value.shape[:2], 1, 1) if keep else value.shape[:2]
    wanted = graph.result(node, quantized=value.quantization is not None)
    value = value if wanted else graph.floats(node.input[0])
    over = graph.writer.constant(np.array([1, 2], np.int32))
    graph.emit(node, "MEAN", [value.tensor, over], shape, schema.ReducerOptionsT(keepDims=keep), wanted)


def _pool(graph: Graph, node: onnx.NodeProto) -> None:
    given = attributes(node)
    value = graph.value(node.input[0])
    kernel = list(given["kernel_shape"])
    strides, pads = list(given.get("strides", [1, 1])), _pads(node, given)
    averaged = node.op_type == "AveragePool"
    if len(kernel) != 2 or given.get("ceil_mode", 0) or (averaged and any(pads)):
        raise refused(f"this {node.op_type} (ceil_mode, padded mean, 1-D)")
    lowest = -128.0 if value.quantization else -np.inf
    laid, shape = graph.padded(value, pads, lowest)
    shape = _slid(shape, value.shape[1], kernel, strides, [1, 1])
    options = schema.Pool2DOptionsT(
        padding=schema.Padding.VALID,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
    )
    # The runtime's pools keep the scale; a QuantizeLinear with another one becomes an operator of its own.
    code = "AVERAGE_POOL_2D" if averaged else "MAX_POOL_2D"
    graph.emit(node, code, [laid], shape, options, value.quantization)


def _convolution(graph: Graph, node: onnx.NodeProto) -> None:
    given = attributes(node)
    value, weight = graph.value(node.input[0]), _weight(graph, node)
    if weight.array.ndim != 4:
        raise refused("a convolution that is not two-dimensional")
    groups, channels = given.get("group", 1), value.shape[1]
    if groups not in (1, channels):
        raise refused(f"a convolution in {groups} groups of {channels}")
    integers = value.quantization is not None and weight.quantization is not None
    wanted = graph.result(node, quantized=integers)
    if wanted is None:
        value, weight = graph.floats(node.input[0]), Constant(weight.floats)
    strides, dilations = (list(given.get(name, [1, 1])) for name in ("strides", "dilations"))
    zero = value.quantization.zeros[0] if value.quantization else 0.0
    laid, shape = graph.padded(value, _pads(node, given), zero)
    kernel = list(weight.array.shape[2:])
    depthwise = groups == channels and groups > 1
    filters = np.ascontiguousarray(np.moveaxis(weight.array, 0 if depthwise else 1, -1))
    if wanted is not None:
        weight = replace(weight, quantization=_per_channel(weight, 3 if depthwise else 0))
    tensor = graph.writer.constant(filters, name=node.input[1], quantization=weight.quantization if wanted else None)
    bias = _bias(graph, node, value, weight, weight.array.shape[0])
    window = {
        "padding": schema.Padding.VALID,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
    }
    options = (
        schema.DepthwiseConv2DOptionsT(depthMultiplier=weight.array.shape[0] // channels, **window)
        if depthwise
        else schema.Conv2DOptionsT(**window)
    )
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    shape = _slid(shape, weight.array.shape[0], kernel, strides, dilations)
    graph.emit(node, code, [laid, tensor, bias], shape, options, wanted)


def _dense(graph: Graph, node: onnx.NodeProto) -> None:
    """Gemm or MatMul with constant weights [out, in]."""
    given = attributes(node)
    value, weight = graph.value(node.input[0]), _weight(graph, node)
    plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
    if weight.array.ndim != 2 or len(value.shape) != 2 or not plain:
        raise refused(f"this {node.op_type} (scaled, transposed, not 2-D)")
    if not given.get("transB", 0):
        turned = weight.quantization and replace(weight.quantization, axis=1 - weight.quantization.axis)
        weight = Constant(np.ascontiguousarray(weight.array.T), turned)
    integers = value.quantization is not None and weight.quantization is not None
    wanted = graph.result(node, quantized=integers)
    if wanted is None:
        value, weight = graph.floats(node.input[0]), Constant(weight.floats)
    else:
        weight = replace(weight, quantization=_per_channel(weight, 0))
    tensor = graph.writer.constant(weight.array, name=node.input[1], quantization=weight.quantization)
    bias = _bias(graph, node, value, weight, len(weight.array))
    shape = (value.shape[0], len(weight.array))
    graph.emit(node, "FULLY_CONNECTED", [value.tensor, tensor, bias], shape, schema.FullyConnectedOptionsT(), wanted)


def _weight(graph: Graph, node: onnx.NodeProto) -> Constant:
    found = graph.constants.get(node.input[1])
    if found is None:
        raise refused(f"{node.op_type} with weights that are computed")
    return found


def _bias(graph: Graph, node: onnx.NodeProto, value: Value, weight: Constant, outputs: int) -> int:
    """int32 in steps of input scale x weight scale, as the runtime's kernels want it; float32 otherwise."""
    given = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    floats = np.zeros(outputs, np.float32) if given is None else np.broadcast_to(given, (outputs,))
    if value.quantization is None or weight.quantization is None:
        return graph.writer.constant(np.ascontiguousarray(floats, np.float32))
    scales = value.quantization.scales[0] * np.asarray(weight.quantization.scales, np.float64)
    whole = np.round(floats / scales)
    quantization = Quantization(tuple(scales.tolist()), (0,) * len(scales), 0)
    return graph.writer.constant(whole.astype(np.int32), quantization=quantization)


def _per_channel(weight: Constant, axis: int) -> Quantization:
    found = weight.quantization
    if found is None or any(found.zeros):
        raise refused("weights whose zero point is not 0")
    return replace(found, axis=axis)


def _slid(
    shape: tuple[int, ...], channels: int, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """The ONNX shape after a window has slid over `shape` without padding."""
    sizes = [
        (size - dilation * (width - 1) - 1) // stride + 1
        for size, width, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True)
    ]
    return (shape[0], channels, *sizes)


def _pads(node: onnx.NodeProto, given: Mapping[str, Any]) -> list[int]:
    if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
        raise refused(f"{node.op_type} with auto_pad")
    return list(given.get("pads", [0, 0, 0, 0]))


_Step = Callable[[Graph, onnx.NodeProto], None]


def _binary(code: str, options: Callable[[], Any], *, quantizable: bool) -> _Step:
    return lambda graph, node: _elementwise(graph, node, code, options(), quantizable=quantizable)


def _simple(code: str, options: Callable[[], Any] = lambda: None) -> _Step:
    return lambda graph, node: _unary(graph, node, code, options())


_OPERATORS: Mapping[str, _Step] = {
    "Add": _binary("ADD", schema.AddOptionsT, quantizable=True),
    "AveragePool": _pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "DequantizeLinear": _dequantize,
    "Div": _binary("DIV", schema.DivOptionsT, quantizable=False),
    "Dropout": _dropout,
    "Flatten": _reshape,
    "Gemm": _dense,
    "GlobalAveragePool": _mean,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _simple("HARD_SWISH", schema.HardSwishOptionsT),
    "Identity": _passed,
    "IsNaN": _is_nan,
    "MatMul": _dense,
    "MaxPool": _pool,
    "Mul": _binary("MUL", schema.MulOptionsT, quantizable=True),
    "QuantizeLinear": _quantize,
    "ReduceMean": _mean,
    "Relu": _simple("RELU"),
    "Reshape": _reshape,
    "Sigmoid": _simple("LOGISTIC"),
    "Sub": _binary("SUB", schema.SubOptionsT, quantizable=False),
    "Tanh": _simple("TANH"),
    "Where": _where,
}
