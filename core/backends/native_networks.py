"""A small dense ONNX network to a packed program of native_kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from featherweight.core.arrays import Floats32, Octets
from featherweight.core.backends import native_kernels as kernels
from featherweight.core.backends.native_trees import pack
from featherweight.core.backends.onnx_model import operator, read_graph
from featherweight.core.errors import BackendError, BackendUnavailableError
from featherweight.core.program import Program

Layer = tuple[int, int, Floats32]
"""(what, values that it gives, constants)."""

_NEWEST_OPSET = 26
_MAX_WEIGHTS = 1 << 20
_WIDEST = 4096
_MAX_LAYERS = 256
_SAME = frozenset({"Identity", "Dropout"})
_ARITHMETIC = {
    "Add": kernels.ADD,
    "Sub": kernels.SUBTRACT,
    "Mul": kernels.MULTIPLY,
    "Div": kernels.DIVIDE,
}


def pack_network(program: Program) -> Octets:
    """The network as `kernels.network_row` takes it, uint8 [bytes]. Raises BackendUnavailableError for a network that
    is not a small chain of dense layers, BackendError for a file that is not such a program."""
    graph, _ = read_graph("native", program, _NEWEST_OPSET)
    try:
        with np.errstate(all="ignore"):
            layers = _layers(graph, program)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise BackendError(f"backend native: cannot read the program: {error}") from error
    width = program.inputs[0].shape[1] or 0
    rows, constants, at = [], [], 0
    widest = width
    for what, outputs, values in layers:
        rows.append((what, width, outputs, at))
        constants.append(values)
        at, width, widest = at + len(values), outputs, max(widest, outputs)
    if width != program.outputs[0].shape[1]:
        raise BackendError(f"backend native: the program gives {width} values a row, not {program.outputs[0]}")
    sizes = np.array([len(layers), widest], np.int64)
    # An activation reads two numbers, wherever it points.
    together = np.concatenate([*constants, np.zeros(2, np.float32)])
    parts = [sizes, np.array(rows, np.int64).reshape(-1, 4), together]
    return pack(parts, columns=program.inputs[0].shape[1] or 0, scratch=8 * widest)


def _layers(graph: onnx.GraphProto, program: Program) -> list[Layer]:
    """Each operator has to take what the last one gave, and nothing else that depends on the input; but
    Where(IsNaN(x), constants, x) is one layer."""
    current, width = _input(program)
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    layers: list[Layer] = []
    flags: dict[str, str] = {}
    weights = 0
    for node in graph.node:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = _array(attributes["value"])
            continue
        given = [constants.get(name) for name in node.input]
        unknown = [name for name, value in zip(node.input, given, strict=True) if name and value is None]
        filling = operator(node) == "Where" and flags.get(node.input[0]) == current
        if unknown[1 if filling else 0 :] != [current]:
            raise _unsuited(f"{operator(node)}, which takes {', '.join(unknown) or 'constants only'}")
        if operator(node) == "IsNaN":
            flags[node.output[0]] = current
            continue
        place = list(node.input).index(current)
        if filling and place == 2:
            made = [(kernels.FILL, width, _spread(given[1], width))]
        else:
            made = _made(operator(node), place, given, attributes, width)
        for what, outputs, values in made:
            _check_constants(operator(node), what, values, width, outputs)
        layers += made
        current, width = node.output[0], made[-1][1] if made else width
        weights += sum(len(values) for _, _, values in made)
        _check_small(weights, width, len(layers))
    if current != program.outputs[0].name:
        raise BackendError(f"backend native: the last operator does not make the output {program.outputs[0].name!r}")
    return layers


def _input(program: Program) -> tuple[str, int]:
    """Its name and the values of a row."""
    specs = (*program.inputs, *program.outputs)
    if [(len(spec.shape), spec.dtype) for spec in specs] != [(2, "float32")] * 2 or not all(s.shape[1] for s in specs):
        raise _unsuited("other tensors than one float32 input [N, F] and one float32 output [N, O]")
    return program.inputs[0].name, program.inputs[0].shape[1] or 0


def _check_small(weights: int, width: int, layers: int) -> None:
    if weights > _MAX_WEIGHTS or width > _WIDEST or layers > _MAX_LAYERS:
        raise _unsuited(f"more than {_MAX_WEIGHTS} weights, {_WIDEST} values wide or {_MAX_LAYERS} layers long")


def _made(
    name: str, place: int, given: list[Floats32 | None], attributes: Mapping[str, Any], width: int
) -> list[Layer]:
    """The layers of one operator whose input number `place` is the row; the others are constants."""
    if name == "Dropout" and len(given) > 2 and given[2] is not None and given[2].any():
        raise _unsuited("the operator Dropout as in training")
    if name in _SAME or (name == "Flatten" and attributes.get("axis", 1) == 1):
        return []
    if name in ("Gemm", "MatMul") and place == 0:
        return [_dense(name, given[1:], attributes, width)]
    if name == "BatchNormalization" and place == 0 and not attributes.get("training_mode", 0):
        return _normalization(given[1:], attributes, width)
    if name in _ARITHMETIC and (place == 0 or name in ("Add", "Mul")):
        return [(_ARITHMETIC[name], width, _spread(given[1 - place], width))]
    if name == "Sub":  # c - x
        negative = (kernels.MULTIPLY, width, np.full(width, -1, np.float32))
        return [negative, (kernels.ADD, width, _spread(given[0], width))]
    if name in _ACTIVATIONS and place == 0:
        what, numbers = _ACTIVATIONS[name](attributes, given)
        return [(what, width, np.array(numbers, np.float32))]
    raise _unsuited(f"the operator {name}" + (" in this form" if name in _KNOWN else ""))


def _check_constants(name: str, what: int, values: Floats32, inputs: int, outputs: int) -> None:
    """Raise ValueError unless they are what the compiled code, which checks nothing, takes them for."""
    size = (inputs + 1) * outputs if what == kernels.DENSE else outputs if what >= kernels.ADD else 2
    if values.dtype != np.float32 or values.shape != (size,):
        raise ValueError(f"{name}: constants {values.dtype} {list(values.shape)}, expected float32 [{size}]")


def _dense(name: str, given: list[Floats32 | None], attributes: Mapping[str, Any], width: int) -> Layer:
    weights = _needed(given[0])
    if name == "Gemm":
        if attributes.get("transA", 0):
            raise _unsuited("Gemm with transA")
        weights = weights.T if attributes.get("transB", 0) else weights
        weights = weights * np.float32(attributes.get("alpha", 1.0))
    if weights.ndim != 2 or weights.shape[0] != width:
        raise ValueError(f"{name}: weights {list(weights.shape)} for rows of {width} values")
    outputs = weights.shape[1]
    bias = given[1] if len(given) > 1 else None
    biases = np.zeros(outputs, np.float32) if bias is None else _spread(bias, outputs)
    biases = biases * np.float32(attributes.get("beta", 1.0))
    return kernels.DENSE, outputs, np.concatenate([biases, weights.reshape(-1)])


def _normalization(given: list[Floats32 | None], attributes: Mapping[str, Any], width: int) -> list[Layer]:
    scale, bias, mean, variance = (_spread(value, width).astype(np.float64) for value in given)
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    multiply = (kernels.MULTIPLY, width, factor.astype(np.float32))
    return [multiply, (kernels.ADD, width, (bias - mean * factor).astype(np.float32))]


def _clip(attributes: Mapping[str, Any], given: list[Floats32 | None]) -> tuple[int, tuple[float, float]]:
    low, high = (given[i] if len(given) > i else None for i in (1, 2))
    return kernels.CLIP, (-np.inf if low is None else float(low.item()), np.inf if high is None else float(high.item()))


_ACTIVATIONS: Mapping[str, Callable[[Mapping[str, Any], list[Floats32 | None]], tuple[int, tuple[float, float]]]] = {
    "Relu": lambda attributes, given: (kernels.RELU, (0, 0)),
    "Sigmoid": lambda attributes, given: (kernels.SIGMOID, (0, 0)),
    "Tanh": lambda attributes, given: (kernels.TANH, (0, 0)),
    "LeakyRelu": lambda attributes, given: (kernels.LEAKY_RELU, (attributes.get("alpha", 0.01), 0)),
    "HardSigmoid": lambda attributes, given: (
        kernels.HARD_SIGMOID,
        (attributes.get("alpha", 0.2), attributes.get("beta", 0.5)),
    ),
    "HardSwish": lambda attributes, given: (kernels.HARD_SWISH, (1 / 6, 0.5)),
    "Clip": _clip,
}
_KNOWN = {"Gemm", "MatMul", "BatchNormalization", "Flatten", "Where", *_ARITHMETIC, *_ACTIVATIONS}


def _spread(value: Floats32 | None, width: int) -> Floats32:
    """A constant for each value of a row. Raises ValueError where it does not fit."""
    return np.asarray(np.broadcast_to(_needed(value), (1, width))[0])


def _needed(value: Floats32 | None) -> Floats32:
    if value is None:
        raise ValueError("an operator lacks an input")
    return value


def _array(tensor: onnx.TensorProto) -> Floats32:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or any(size < 0 for size in tensor.dims):
        raise ValueError(f"the constant {tensor.name!r} has no data or no size")
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def _unsuited(what: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"backend native: runs trees and small dense networks; this one has {what}: use the backend onnxruntime"
    )
