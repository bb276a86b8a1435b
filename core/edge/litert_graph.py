"""An ONNX network as a .tflite file with the same numbers in it: float32 stays float32, and int8 keeps the program's
own scales, so that nothing is calibrated again.

Written by hand because no converter fits (ADR 023). Values of four dimensions lie as [1, H, W, C], all others as they
are in ONNX. uint8 becomes int8 by moving the zero point by 128, which is the same number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from ai_edge_litert import schema_py_generated as schema

from featherweight.core.arrays import Array
from featherweight.core.edge.litert_file import FileWriter, Quantization
from featherweight.core.edge.onnx_nodes import attributes
from featherweight.core.errors import UsageError


@dataclass(frozen=True)
class Value:
    """A tensor of the file. shape: as in ONNX; quantization: None for float32."""

    tensor: int
    shape: tuple[int, ...]
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Constant:
    """What stands in the file's initializers; quantized weights keep their integers."""

    array: Array
    quantization: Quantization | None = None

    @property
    def floats(self) -> Array:
        """The numbers that the constant stands for, float32 of the array's shape. It may have any shape."""
        if self.quantization is None:
            return self.array
        shape = [1] * self.array.ndim
        if len(self.quantization.scales) > 1:
            shape[self.quantization.axis] = -1
        scales = np.asarray(self.quantization.scales).reshape(shape)
        zeros = np.asarray(self.quantization.zeros).reshape(shape)
        return np.asarray((self.array.astype(np.int64) - zeros) * scales, np.float32)


class Graph:
    """What has been written so far, by ONNX's names; values: what is computed, constants: what is not."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.writer = FileWriter()
        self.values: dict[str, Value] = {}
        self._floats: dict[str, Value] = {}
        """Quantized values' float32 copies, by tensor."""
        self.constants = {entry.name: Constant(onnx.numpy_helper.to_array(entry)) for entry in graph.initializer}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(value.name for value in graph.output)
        self._readers = {name: node for node in graph.node for name in node.input}

    def input(self, name: str, shape: tuple[int, ...]) -> tuple[str, int]:
        """The file takes what the program takes, [1, C, H, W] too."""
        given = self.writer.tensor(name, shape, np.float32)
        self.values[name] = Value(given, shape)
        if len(shape) == 4:
            laid = self.writer.tensor(f"{name}_nhwc", laid_out(shape), np.float32)
            order = self.writer.constant(np.array([0, 2, 3, 1], np.int32))
            self.writer.operator("TRANSPOSE", [given, order], [laid], schema.TransposeOptionsT())
            self.values[name] = Value(laid, shape)
        return name, given

    def output(self, name: str) -> tuple[str, int]:
        """(name, tensor) of an output, in floats and in the layout of ONNX."""
        value = self.floats(name)
        if len(value.shape) == 4:
            value = self.planar(value)
        self.writer.rename(value.tensor, name)
        return name, value.tensor

    def planar(self, value: Value) -> Value:
        """[1, H, W, C] back to [1, C, H, W]."""
        if value.shape[2:] == (1, 1) or value.shape[1] == 1:
            return self.reshaped(value, value.shape)
        made = self.writer.tensor("nchw", value.shape, tensor_type(value.quantization), value.quantization)
        order = self.writer.constant(np.array([0, 3, 1, 2], np.int32))
        self.writer.operator("TRANSPOSE", [value.tensor, order], [made], schema.TransposeOptionsT())
        return replace(value, tensor=made)

    def reshaped(self, value: Value, laid: Sequence[int]) -> Value:
        """The value in another shape, its elements in the same order."""
        made = self.writer.tensor("reshaped", laid, tensor_type(value.quantization), value.quantization)
        shape = self.writer.constant(np.array(laid, np.int32))
        self.writer.operator("RESHAPE", [value.tensor, shape], [made], schema.ReshapeOptionsT(newShape=list(laid)))
        return replace(value, tensor=made)

    def array(self, name: str) -> Array | None:
        """The values of a constant as floats, or None for what is computed. It may have any shape."""
        constant = self.constants.get(name)
        return None if constant is None else constant.floats

    def value(self, name: str) -> Value:
        """As it was computed: quantized or not. Constants of elementwise operators are written where they are used."""
        if name in self.values:
            return self.values[name]
        array = np.atleast_1d(self.constants[name].floats)
        laid = array if array.ndim < 3 else np.moveaxis(array, -3, -1)
        return Value(self.writer.constant(np.ascontiguousarray(laid), name=name), array.shape)

    def floats(self, name: str) -> Value:
        """The value in float32, dequantized once where it is int8."""
        value = self.value(name)
        if value.quantization is None:
            return value
        if name not in self._floats:
            made = self.writer.tensor(f"{name}_float", laid_out(value.shape), np.float32)
            self.writer.operator("DEQUANTIZE", [value.tensor], [made], schema.DequantizeOptionsT())
            self._floats[name] = Value(made, value.shape)
        return self._floats[name]

    def result(self, node: onnx.NodeProto, *, quantized: bool) -> Quantization | None:
        """How the node's output is to be quantized: as its only reader, a QuantizeLinear, says."""
        reader = self._readers.get(node.output[0])
        if not quantized or reader is None or reader.op_type != "QuantizeLinear" or self._uses[node.output[0]] != 1:
            return None
        return self.quantization(reader)

    def quantization(self, node: onnx.NodeProto, *, unsigned: bool = True) -> Quantization:
        """`unsigned` where the node states no zero point, whose type would tell."""
        scale = np.atleast_1d(self.constants[node.input[1]].array)
        zero = self.constants[node.input[2]].array if len(node.input) > 2 else None
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
        """Append the operator of a node; its first output is known by its ONNX name from then on. shape: as ONNX has
        it."""
        made = self.writer.tensor(node.output[0], laid_out(shape), np.int8 if quantization else dtype, quantization)
        self.writer.operator(code, inputs, [made], options)
        self.values[node.output[0]] = Value(made, shape, quantization)

    def padded(self, value: Value, pads: Sequence[int], filler: float) -> tuple[int, tuple[int, ...]]:
        """The tensor with a rim of `filler`, and its ONNX shape. pads: top, left, bottom, right."""
        if not any(pads):
            return value.tensor, value.shape
        top, left, bottom, right = pads
        shape = (*value.shape[:2], value.shape[2] + top + bottom, value.shape[3] + left + right)
        dtype = tensor_type(value.quantization)
        made = self.writer.tensor("padded", laid_out(shape), dtype, value.quantization)
        rim = self.writer.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
        zero = value.quantization.zeros[0] if value.quantization else 0.0
        if filler == zero:
            self.writer.operator("PAD", [value.tensor, rim], [made], schema.PadOptionsT())
        else:
            with_what = self.writer.constant(np.array([filler], dtype), quantization=value.quantization)
            self.writer.operator("PADV2", [value.tensor, rim, with_what], [made], schema.PadV2OptionsT())
        return made, shape


def refused(what: str) -> UsageError:
    """The error for what LiteRT cannot express here, with what to use in its place."""
    return UsageError(f"litert: {what} cannot be exported; use ort-mobile")


def tensor_type(quantization: Quantization | None) -> type:
    """int8 where there is a quantization, else float32."""
    return np.int8 if quantization else np.float32


def laid_out(shape: Sequence[int]) -> tuple[int, ...]:
    """An ONNX shape as it lies in the file."""
    if len(shape) != 4:
        return tuple(shape)
    return shape[0], shape[2], shape[3], shape[1]
