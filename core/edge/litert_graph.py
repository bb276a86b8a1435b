"""An ONNX network as a .tflite file with the same numbers in it: float32 stays float32, and int8 keeps the program's
own scales, so that nothing is calibrated again.

Written by hand because no converter fits (ADR 023). Values of four dimensions lie as [1, H, W, C], all others as they
are in ONNX. uint8 becomes int8 by moving the zero point by 128, which is the same number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper
from ai_edge_litert import schema_py_generated as schema

from core.backends.onnx_model import operator, read_graph
from core.edge.litert_file import FileWriter, Quantization
from core.edge.onnx_nodes import attributes, ordered
from core.errors import UsageError
from core.program import Program

_MAX_OPSET = 26

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Value:
    """A tensor of the file. shape: as in ONNX; quantization: None for float32."""

    tensor: int
    shape: tuple[int, ...]
    quantization: Quantization | None = None


@dataclass(frozen=True)
class _Constant:
    """What stands in the file's initializers; quantized weights keep their integers."""

    array: Array
    quantization: Quantization | None = None

    @property
    def floats(self) -> Array:
        if self.quantization is None:
            return self.array
        shape = [1] * self.array.ndim
        if len(self.quantization.scales) > 1:
            shape[self.quantization.axis] = -1
        scales = np.asarray(self.quantization.scales).reshape(shape)
        zeros = np.asarray(self.quantization.zeros).reshape(shape)
        return np.asarray((self.array.astype(np.int64) - zeros) * scales, np.float32)


def encode_network(program: Program) -> bytes:
    """The bytes of a .tflite file for one case at a time. Raises UsageError for an operator that it does not write and
    BackendError for a file that is no ONNX model."""
    graph = read_graph("litert", program, _MAX_OPSET)
    return _Conversion(program, graph).encode()


class _Conversion:
    def __init__(self, program: Program, graph: onnx.GraphProto) -> None:
        self._graph, self._program = graph, program
        self._writer = FileWriter()
        self._values: dict[str, _Value] = {}
        self._floats: dict[str, _Value] = {}
        """Quantized values' float32 copies, by tensor."""
        self._constants = {entry.name: _Constant(onnx.numpy_helper.to_array(entry)) for entry in graph.initializer}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(value.name for value in graph.output)
        self._readers = {name: node for node in graph.node for name in node.input}

    def encode(self) -> bytes:
        unknown = sorted({operator(node) for node in self._graph.node} - _OPERATORS.keys())
        if unknown:
            raise _refused(", ".join(unknown))
        inputs = [self._input(spec.name, tuple(size or 1 for size in spec.shape)) for spec in self._program.inputs]
        for node in ordered("litert", self._graph):
            _OPERATORS[operator(node)](self, node)
        outputs = [self._output(spec.name) for spec in self._program.outputs]
        return self._writer.encode(inputs, outputs)

    def _input(self, name: str, shape: tuple[int, ...]) -> tuple[str, int]:
        """The file takes what the program takes, [1, C, H, W] too."""
        given = self._writer.tensor(name, shape, np.float32)
        self._values[name] = _Value(given, shape)
        if len(shape) == 4:
            laid = self._writer.tensor(f"{name}_nhwc", _laid(shape), np.float32)
            order = self._writer.constant(np.array([0, 2, 3, 1], np.int32))
            self._writer.operator("TRANSPOSE", [given, order], [laid], schema.TransposeOptionsT())
            self._values[name] = _Value(laid, shape)
        return name, given

    def _output(self, name: str) -> tuple[str, int]:
        value = self.floats(name)
        if len(value.shape) == 4:
            value = self._planar(value)
        self._writer.rename(value.tensor, name)
        return name, value.tensor

    def _planar(self, value: _Value) -> _Value:
        """[1, H, W, C] back to [1, C, H, W]."""
        if value.shape[2:] == (1, 1) or value.shape[1] == 1:
            return self._reshaped(value, value.shape)
        made = self._writer.tensor("nchw", value.shape, _dtype(value.quantization), value.quantization)
        order = self._writer.constant(np.array([0, 3, 1, 2], np.int32))
        self._writer.operator("TRANSPOSE", [value.tensor, order], [made], schema.TransposeOptionsT())
        return replace(value, tensor=made)

    def _reshaped(self, value: _Value, laid: Sequence[int]) -> _Value:
        made = self._writer.tensor("reshaped", laid, _dtype(value.quantization), value.quantization)
        shape = self._writer.constant(np.array(laid, np.int32))
        self._writer.operator("RESHAPE", [value.tensor, shape], [made], schema.ReshapeOptionsT(newShape=list(laid)))
        return replace(value, tensor=made)

    def array(self, name: str) -> Array | None:
        """The values of a constant as floats, or None for what is computed."""
        constant = self._constants.get(name)
        return None if constant is None else constant.floats

    def value(self, name: str) -> _Value:
        """As it was computed: quantized or not. Constants of elementwise operators are written where they are used."""
        if name in self._values:
            return self._values[name]
        array = np.atleast_1d(self._constants[name].floats)
        laid = array if array.ndim < 3 else np.moveaxis(array, -3, -1)
        return _Value(self._writer.constant(np.ascontiguousarray(laid), name=name), array.shape)

    def floats(self, name: str) -> _Value:
        value = self.value(name)
        if value.quantization is None:
            return value
        if name not in self._floats:
            made = self._writer.tensor(f"{name}_float", _laid(value.shape), np.float32)
            self._writer.operator("DEQUANTIZE", [value.tensor], [made], schema.DequantizeOptionsT())
            self._floats[name] = _Value(made, value.shape)
        return self._floats[name]

    def result(self, node: onnx.NodeProto, *, quantized: bool) -> Quantization | None:
        """How the node's output is to be quantized: as its only reader, a QuantizeLinear, says."""
        reader = self._readers.get(node.output[0])
        if not quantized or reader is None or reader.op_type != "QuantizeLinear" or self._uses[node.output[0]] != 1:
            return None
        return self.quantization(reader)

    def quantization(self, node: onnx.NodeProto, *, unsigned: bool = True) -> Quantization:
        """`unsigned` where the node states no zero point, whose type would tell."""
        scale = np.atleast_1d(self._constants[node.input[1]].array)
        zero = self._constants[node.input[2]].array if len(node.input) > 2 else None
        if zero is not None:
            unsigned = zero.dtype == np.uint8
        zeros = np.zeros(scale.shape, np.int64) if zero is None else np.atleast_1d(zero).astype(np.int64)
        axis = attributes(node).get("axis", 1) if len(scale) > 1 else 0
        return Quantization(tuple(scale.tolist()), tuple((zeros - 128 * unsigned).tolist()), axis)

    def emit(
        self,
        node: onnx.NodeProto,
        code: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        options: Any = None,
        quantization: Quantization | None = None,
        dtype: type = np.float32,
    ) -> None:
        made = self._writer.tensor(node.output[0], _laid(shape), np.int8 if quantization else dtype, quantization)
        self._writer.operator(code, inputs, [made], options)
        self._values[node.output[0]] = _Value(made, shape, quantization)

    # One method for each kind of operator.

    def quantize(self, node: onnx.NodeProto) -> None:
        wanted = self.quantization(node)
        if node.input[0] in self._constants:
            scale, zero = wanted.scales[0], wanted.zeros[0]
            levels = np.round(self._constants[node.input[0]].floats / scale) + zero
            self._constants[node.output[0]] = _Constant(np.clip(levels, -128, 127).astype(np.int8), wanted)
            return
        value = self.value(node.input[0])
        if value.quantization == wanted:  # its maker wrote it so
            self._values[node.output[0]] = value
            return
        self.emit(node, "QUANTIZE", [value.tensor], value.shape, schema.QuantizeOptionsT(), wanted)

    def dequantize(self, node: onnx.NodeProto) -> None:
        name, given = node.output[0], node.input[0]
        if given in self._values:
            self._values[name] = self._values[given]
            return
        constant = self._constants[given]
        if constant.quantization is None:
            array, unsigned = constant.array, constant.array.dtype == np.uint8
            signed = (array.astype(np.int16) - 128).astype(np.int8) if unsigned else array
            constant = _Constant(signed, self.quantization(node, unsigned=unsigned))
        self._constants[name] = constant

    def passed(self, node: onnx.NodeProto) -> None:
        self._values[node.output[0]] = self.value(node.input[0])

    def elementwise(self, node: onnx.NodeProto, code: str, options: Any, *, quantizable: bool) -> None:
        values = [self.value(name) for name in node.input]
        ranks = {len(value.shape) for value in values if int(np.prod(value.shape)) > 1}
        if 4 in ranks and ranks & {1, 2}:
            raise _refused(f"{node.op_type} of images and vectors")
        integers = quantizable and all(value.quantization for value in values)
        wanted = self.result(node, quantized=integers)
        if wanted is None:
            values = [self.floats(name) for name in node.input]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        self.emit(node, code, [value.tensor for value in values], shape, options, wanted)

    def unary(self, node: onnx.NodeProto, code: str, options: Any = None) -> None:
        value = self.floats(node.input[0])
        self.emit(node, code, [value.tensor], value.shape, options)

    def clip(self, node: onnx.NodeProto) -> None:
        """Between bounds that may be arrays or missing."""
        value = self.floats(node.input[0])
        for code, name in zip(("MAXIMUM", "MINIMUM"), node.input[1:], strict=False):
            if name:
                bound = self.value(name)
                self.emit(node, code, [value.tensor, bound.tensor], value.shape, schema.MaximumMinimumOptionsT())
                value = self._values[node.output[0]]
        self._values[node.output[0]] = value

    def hard_sigmoid(self, node: onnx.NodeProto) -> None:
        """alpha * x + beta, held between 0 and 1."""
        given = attributes(node)
        value, options = self.floats(node.input[0]), schema.MaximumMinimumOptionsT
        for code, number, made in (
            ("MUL", given.get("alpha", 0.2), schema.MulOptionsT()),
            ("ADD", given.get("beta", 0.5), schema.AddOptionsT()),
            ("MAXIMUM", 0.0, options()),
            ("MINIMUM", 1.0, options()),
        ):
            constant = self._writer.constant(np.array([number], np.float32))
            self.emit(node, code, [value.tensor, constant], value.shape, made)
            value = self._values[node.output[0]]

    def is_nan(self, node: onnx.NodeProto) -> None:
        """NaN alone is not what it is."""
        value = self.floats(node.input[0])
        options = schema.NotEqualOptionsT()
        self.emit(node, "NOT_EQUAL", [value.tensor, value.tensor], value.shape, options, dtype=np.bool_)

    def where(self, node: onnx.NodeProto) -> None:
        values = [self.value(node.input[0]), *(self.floats(name) for name in node.input[1:])]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        self.emit(node, "SELECT_V2", [value.tensor for value in values], shape, schema.SelectV2OptionsT())

    def concat(self, node: onnx.NodeProto) -> None:
        values = [self.floats(name) for name in node.input]
        rank = len(values[0].shape)
        axis = attributes(node)["axis"] % rank
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        laid = (0, 3, 1, 2)[axis] if rank == 4 else axis
        options = schema.ConcatenationOptionsT(axis=laid)
        self.emit(node, "CONCATENATION", [value.tensor for value in values], tuple(shape), options)

    def reshape(self, node: onnx.NodeProto) -> None:
        value = self.value(node.input[0])
        count = int(np.prod(value.shape))
        if node.op_type == "Flatten":
            axis = attributes(node).get("axis", 1)
            rows = int(np.prod(value.shape[:axis]))
            wanted = [rows, count // rows]
        else:
            stated = self._constants[node.input[1]].array.tolist()
            keep = not attributes(node).get("allowzero", 0)
            wanted = [value.shape[i] if size == 0 and keep else size for i, size in enumerate(stated)]
            wanted = [-count // int(np.prod(wanted)) if size == -1 else size for size in wanted]
        if len(value.shape) == 4:
            value = self._planar(value)
        made = self._reshaped(value, tuple(wanted))
        if len(wanted) == 4:
            raise _refused("Reshape to four dimensions")
        self._values[node.output[0]] = replace(made, shape=tuple(wanted))

    def mean(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        value = self.value(node.input[0])
        if node.op_type == "GlobalAveragePool":
            axes: list[int] = [2, 3]
        elif len(node.input) > 1:
            axes = self._constants[node.input[1]].array.tolist()
        else:
            axes = list(given["axes"])
        if len(value.shape) != 4 or {axis % 4 for axis in axes} != {2, 3}:
            raise _refused("a mean over other axes than height and width")
        keep = bool(given.get("keepdims", 1))
        shape = (*value.shape[:2], 1, 1) if keep else value.shape[:2]
        wanted = self.result(node, quantized=value.quantization is not None)
        value = value if wanted else self.floats(node.input[0])
        over = self._writer.constant(np.array([1, 2], np.int32))
        self.emit(node, "MEAN", [value.tensor, over], shape, schema.ReducerOptionsT(keepDims=keep), wanted)

    def pool(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        value = self.value(node.input[0])
        kernel = list(given["kernel_shape"])
        strides, pads = list(given.get("strides", [1, 1])), _pads(node, given)
        averaged = node.op_type == "AveragePool"
        if len(kernel) != 2 or given.get("ceil_mode", 0) or (averaged and any(pads)):
            raise _refused(f"this {node.op_type} (ceil_mode, padded mean, 1-D)")
        lowest = -128.0 if value.quantization else -np.inf
        laid, shape = self._padded(value, pads, lowest)
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
        self.emit(node, code, [laid], shape, options, value.quantization)

    def _padded(self, value: _Value, pads: Sequence[int], filler: float) -> tuple[int, tuple[int, ...]]:
        """The tensor with a rim of `filler`, and its ONNX shape. pads: top, left, bottom, right."""
        if not any(pads):
            return value.tensor, value.shape
        top, left, bottom, right = pads
        shape = (*value.shape[:2], value.shape[2] + top + bottom, value.shape[3] + left + right)
        dtype = _dtype(value.quantization)
        made = self._writer.tensor("padded", _laid(shape), dtype, value.quantization)
        rim = self._writer.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
        zero = value.quantization.zeros[0] if value.quantization else 0.0
        if filler == zero:
            self._writer.operator("PAD", [value.tensor, rim], [made], schema.PadOptionsT())
        else:
            with_what = self._writer.constant(np.array([filler], dtype), quantization=value.quantization)
            self._writer.operator("PADV2", [value.tensor, rim, with_what], [made], schema.PadV2OptionsT())
        return made, shape

    def convolution(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        value, weight = self.value(node.input[0]), self._weight(node)
        if weight.array.ndim != 4:
            raise _refused("a convolution that is not two-dimensional")
        groups, channels = given.get("group", 1), value.shape[1]
        if groups not in (1, channels):
            raise _refused(f"a convolution in {groups} groups of {channels}")
        integers = value.quantization is not None and weight.quantization is not None
        wanted = self.result(node, quantized=integers)
        if wanted is None:
            value, weight = self.floats(node.input[0]), _Constant(weight.floats)
        strides, dilations = (list(given.get(name, [1, 1])) for name in ("strides", "dilations"))
        zero = value.quantization.zeros[0] if value.quantization else 0.0
        laid, shape = self._padded(value, _pads(node, given), zero)
        kernel = list(weight.array.shape[2:])
        depthwise = groups == channels and groups > 1
        filters = np.ascontiguousarray(np.moveaxis(weight.array, 0 if depthwise else 1, -1))
        if wanted is not None:
            weight = replace(weight, quantization=_per_channel(weight, 3 if depthwise else 0))
        tensor = self._writer.constant(
            filters, name=node.input[1], quantization=weight.quantization if wanted else None
        )
        bias = self._bias(node, value, weight, weight.array.shape[0])
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
        self.emit(node, code, [laid, tensor, bias], shape, options, wanted)

    def dense(self, node: onnx.NodeProto) -> None:
        """Gemm or MatMul with constant weights [out, in]."""
        given = attributes(node)
        value, weight = self.value(node.input[0]), self._weight(node)
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        if weight.array.ndim != 2 or len(value.shape) != 2 or not plain:
            raise _refused(f"this {node.op_type} (scaled, transposed, not 2-D)")
        if not given.get("transB", 0):
            turned = weight.quantization and replace(weight.quantization, axis=1 - weight.quantization.axis)
            weight = _Constant(np.ascontiguousarray(weight.array.T), turned)
        integers = value.quantization is not None and weight.quantization is not None
        wanted = self.result(node, quantized=integers)
        if wanted is None:
            value, weight = self.floats(node.input[0]), _Constant(weight.floats)
        else:
            weight = replace(weight, quantization=_per_channel(weight, 0))
        tensor = self._writer.constant(weight.array, name=node.input[1], quantization=weight.quantization)
        bias = self._bias(node, value, weight, len(weight.array))
        shape = (value.shape[0], len(weight.array))
        self.emit(node, "FULLY_CONNECTED", [value.tensor, tensor, bias], shape, schema.FullyConnectedOptionsT(), wanted)

    def _weight(self, node: onnx.NodeProto) -> _Constant:
        found = self._constants.get(node.input[1])
        if found is None:
            raise _refused(f"{node.op_type} with weights that are computed")
        return found

    def _bias(self, node: onnx.NodeProto, value: _Value, weight: _Constant, outputs: int) -> int:
        """int32 in steps of input scale x weight scale, as the runtime's kernels want it; float32 otherwise."""
        given = self.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        floats = np.zeros(outputs, np.float32) if given is None else np.broadcast_to(given, (outputs,))
        if value.quantization is None or weight.quantization is None:
            return self._writer.constant(np.ascontiguousarray(floats, np.float32))
        scales = value.quantization.scales[0] * np.asarray(weight.quantization.scales, np.float64)
        whole = np.round(floats / scales)
        quantization = Quantization(tuple(scales.tolist()), (0,) * len(scales), 0)
        return self._writer.constant(whole.astype(np.int32), quantization=quantization)


def _refused(what: str) -> UsageError:
    return UsageError(f"litert: {what} cannot be exported; use ort-mobile")


def _per_channel(weight: _Constant, axis: int) -> Quantization:
    found = weight.quantization
    if found is None or any(found.zeros):
        raise UsageError("litert: weights whose zero point is not 0 are not written; use ort-mobile")
    return replace(found, axis=axis)


def _dtype(quantization: Quantization | None) -> type:
    return np.int8 if quantization else np.float32


def _laid(shape: Sequence[int]) -> tuple[int, ...]:
    """An ONNX shape as it lies in the file."""
    if len(shape) != 4:
        return tuple(shape)
    return shape[0], shape[2], shape[3], shape[1]


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
        raise _refused(f"{node.op_type} with auto_pad")
    return list(given.get("pads", [0, 0, 0, 0]))


_Step = Callable[[_Conversion, onnx.NodeProto], None]


def _binary(code: str, options: Callable[[], Any], *, quantizable: bool) -> _Step:
    return lambda conversion, node: conversion.elementwise(node, code, options(), quantizable=quantizable)


def _unary(code: str, options: Callable[[], Any] = lambda: None) -> _Step:
    return lambda conversion, node: conversion.unary(node, code, options())


_OPERATORS: Mapping[str, _Step] = {
    "Add": _binary("ADD", schema.AddOptionsT, quantizable=True),
    "AveragePool": _Conversion.pool,
    "Clip": _Conversion.clip,
    "Concat": _Conversion.concat,
    "Conv": _Conversion.convolution,
    "DequantizeLinear": _Conversion.dequantize,
    "Div": _binary("DIV", schema.DivOptionsT, quantizable=False),
    "Dropout": _Conversion.passed,
    "Flatten": _Conversion.reshape,
    "Gemm": _Conversion.dense,
    "GlobalAveragePool": _Conversion.mean,
    "HardSigmoid": _Conversion.hard_sigmoid,
    "HardSwish": _unary("HARD_SWISH", schema.HardSwishOptionsT),
    "Identity": _Conversion.passed,
    "IsNaN": _Conversion.is_nan,
    "MatMul": _Conversion.dense,
    "MaxPool": _Conversion.pool,
    "Mul": _binary("MUL", schema.MulOptionsT, quantizable=True),
    "QuantizeLinear": _Conversion.quantize,
    "ReduceMean": _Conversion.mean,
    "Relu": _unary("RELU"),
    "Reshape": _Conversion.reshape,
    "Sigmoid": _unary("LOGISTIC"),
    "Sub": _binary("SUB", schema.SubOptionsT, quantizable=False),
    "Tanh": _unary("TANH"),
    "Where": _Conversion.where,
}
