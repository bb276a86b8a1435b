"""Every operator of the torch backend gives what ONNX Runtime gives, in the forms that exporters write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="the torch backend needs torch")

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from featherweight.core.backends.registry import find_backend
from featherweight.core.backends.torch_ops import OPERATORS, Form, find_operator
from featherweight.core.errors import BackendError
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec

RNG = np.random.default_rng(5)


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*numbers: int) -> npt.NDArray[np.int64]:
    return np.array(numbers, np.int64)


@dataclass(frozen=True)
class Example:
    """One node: x and constants in, y out. opset 18 unless an older form is meant."""

    operator: str
    x: npt.NDArray[np.float32]
    constants: Sequence[npt.NDArray[Any] | None] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18

    def __str__(self) -> str:
        return f"{self.operator}-{self.opset}-{self.attributes}"


X4, X2 = floats(2, 4, 9, 7), floats(3, 5)
WEIGHT = floats(6, 4, 3, 3)
PLAIN = (
    *("Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Softmax", "Erf", "Exp", "Neg"),
    *("GlobalAveragePool", "GlobalMaxPool", "Flatten", "Dropout", "Identity"),
)
EXAMPLES = [
    *(Example(name, X4) for name in PLAIN),
    *(Example(name, X4, [floats(4, 1, 1)]) for name in ("Add", "Sub", "Mul", "Div")),
    Example("Gelu", X2, opset=20),
    Example("Gelu", X2, attributes={"approximate": "tanh"}, opset=20),
    Example("Sqrt", np.abs(X2)),
    Example("Pow", X2, [np.array(2, np.float32)]),
    Example("LeakyRelu", X2, attributes={"alpha": 0.3}),
    Example("HardSigmoid", X2, attributes={"alpha": 0.3, "beta": 0.4}),
    Example("Softmax", X4, attributes={"axis": 1}),
    *(Example(name, X4, opset=11) for name in ("Softmax", "LogSoftmax", "Hardmax")),
    Example("Softmax", X4, attributes={"axis": -2}, opset=11),
    Example("Clip", X2),
    Example("AveragePool", X4, attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Example("LSTM", floats(5, 2, 3), [floats(1, 16, 3), floats(1, 16, 4), floats(1, 32)], {"hidden_size": 4}, opset=14),
    Example(
        "GRU",
        floats(5, 2, 3),
        [floats(2, 12, 3), floats(2, 12, 4), floats(2, 24)],
        {"hidden_size": 4, "linear_before_reset": 1, "direction": "bidirectional"},
        opset=14,
    ),
    Example("CumSum", X2, [np.array(1, np.int64)]),
    Example("Einsum", X2, [floats(5, 4)], {"equation": "ij,jk->ik"}),
    Example("ReduceLogSumExp", X4, [whole(1, 2)]),
    Example("Trilu", X4, [np.array(1, np.int64)]),
    Example("CastLike", X2, [np.array(1, np.int64)]),
    Example("Gather", floats(4), [np.array(1, np.int64)]),
    Example("Clip", X2, [np.array(-0.5, np.float32), np.array(0.5, np.float32)]),
    Example("Clip", X2, [None, np.array(0.5, np.float32)]),
    Example("Conv", X4, [WEIGHT, floats(6)]),
    Example("Conv", X4, [WEIGHT], {"strides": [2, 1], "pads": [1, 1, 1, 1], "dilations": [2, 1]}),
    Example("Conv", X4, [WEIGHT], {"pads": [0, 1, 2, 3]}),
    Example("Conv", X4, [WEIGHT], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Example("Conv", X4, [WEIGHT], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    Example("Conv", X4, [WEIGHT], {"auto_pad": "VALID"}),
    Example("Conv", X4, [floats(8, 1, 3, 3)], {"group": 4, "pads": [1, 1, 1, 1]}),
    Example("Conv", floats(2, 4, 9), [floats(6, 4, 3)]),
    Example("MaxPool", X4, attributes={"kernel_shape": [3, 2], "strides": [2, 2]}),
    Example("MaxPool", -np.abs(X4), attributes={"kernel_shape": [3, 3], "pads": [1, 0, 1, 2]}),
    Example("MaxPool", X4, attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Example(
        "MaxPool", X4, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    ),
    Example("MaxPool", X4, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Example("AveragePool", X4, attributes={"kernel_shape": [3, 2], "strides": [2, 1]}),
    Example("AveragePool", X4, attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Example("AveragePool", X4, attributes={"kernel_shape": [3, 3], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
    Example("BatchNormalization", X4, [floats(4), floats(4), floats(4), np.abs(floats(4))], {"epsilon": 1e-3}),
    Example("ReduceMean", X4, [whole(2, 3)]),
    Example("ReduceMean", X4, [whole(-1)], {"keepdims": 0}),
    Example("ReduceMean", X4, attributes={"axes": [2, 3], "keepdims": 0}, opset=13),
    Example("ReduceMean", X4, attributes={"noop_with_empty_axes": 1}),
    Example("ReduceSum", X4, [whole(1)]),
    Example("ReduceMax", X4, [whole(1)], {"keepdims": 0}),
    Example("ReduceSum", X4),
    Example("Gemm", X2, [floats(5, 4), floats(4)]),
    Example("Gemm", X2, [floats(4, 5), floats(4)], {"transB": 1}),
    Example("Gemm", X2, [floats(3, 4), floats(5, 4)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    Example("MatMul", X4, [floats(7, 3)]),
    Example("Flatten", X4, attributes={"axis": 2}),
    Example("Flatten", X4, attributes={"axis": -1}),
    Example("Reshape", X4, [whole(0, -1)]),
    Example("Reshape", X4, [whole(2, 4, -1, 7)]),
    Example("Squeeze", floats(2, 1, 3, 1), [whole(1, -1)]),
    Example("Squeeze", floats(2, 1, 3, 1)),
    Example("Squeeze", floats(2, 1, 3, 1), attributes={"axes": [1]}, opset=11),
    Example("Unsqueeze", X2, [whole(0, -1)]),
    Example("Unsqueeze", X2, attributes={"axes": [1, 3]}, opset=11),
    Example("Concat", X2, [floats(3, 2), floats(3, 1)], {"axis": -1}),
    Example("Transpose", X4, attributes={"perm": [0, 2, 3, 1]}),
    Example("Transpose", X2),
    Example("Gather", X4, [whole(3, -1, 0)], {"axis": 1}),
    Example("Gather", X4, [np.array(1, np.int64)], {"axis": 2}),
    Example("Gather", X2, [np.array([[0, 1], [2, -3]], np.int64)]),
    Example("Shape", X4),
    Example("Shape", X4, attributes={"start": 1, "end": -1}),
    Example("Cast", X2 * 9, attributes={"to": TensorProto.INT32}),
]


def program(example: Example) -> Program:
    names = ["x", *("" if array is None else f"c{index}" for index, array in enumerate(example.constants))]
    constants = [
        numpy_helper.from_array(array, f"c{index}")
        for index, array in enumerate(example.constants)
        if array is not None
    ]
    node = helper.make_node(example.operator, names, ["y"], **example.attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, example.x.shape)
    opsets = [helper.make_opsetid("", example.opset)]
    graph = helper.make_graph([node], "one", [x], [helper.make_empty_tensor_value_info("y")], constants)
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9), strict_mode=True, data_prop=True
    )
    kind = inferred.graph.output[0].type.tensor_type
    dtypes = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64", TensorProto.INT32: "int32"}
    shape = tuple(size.dim_value for size in kind.shape.dim)
    outputs = (TensorSpec("y", dtypes[kind.elem_type], shape),)  # type: ignore[arg-type]
    return Program(inferred.SerializeToString(), "fp32", (TensorSpec("x", "float32", example.x.shape),), outputs)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_as_onnx_runtime(example: Example) -> None:
    answers = []
    for name in ("onnxruntime", "torch"):
        with find_backend(name).open(program(example)) as session:
            answers.append(session.run({"x": example.x})["y"])
    assert answers[0].shape == answers[1].shape
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"value": numpy_helper.from_array(np.array([1.5], np.float32))},
        {"value_float": 1.5},
        {"value_floats": [1.5, 2.5, 3.5, 4.5, 5.5]},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_constants(attributes: dict[str, Any]) -> None:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Constant", [], ["c"], **attributes), helper.make_node("Add", ["x", "c"], ["y"])]
    ends = [value("x", TensorProto.FLOAT, ["N", 5])], [value("y", TensorProto.FLOAT, ["N", 5])]
    model = helper.make_model(
        helper.make_graph(nodes, "two", *ends), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    specs = (TensorSpec("x", "float32", (None, 5)),), (TensorSpec("y", "float32", (None, 5)),)
    made = Program(model.SerializeToString(), "fp32", *specs)
    answers = []
    for name in ("onnxruntime", "torch"):
        with find_backend(name).open(made) as session:
            answers.append(session.run({"x": X2})["y"])
    np.testing.assert_allclose(answers[1], answers[0])


@pytest.mark.parametrize(("opset", "width"), [(18, 2), (21, 4)])
def test_group_normalization_scales_groups_before_opset_21_and_channels_since(opset: int, width: int) -> None:
    scale, bias, attributes = floats(width), floats(width), {"num_groups": 2}
    run, attributes = find_operator("GroupNormalization", Form(opset, attributes))  # type: ignore[assignment]
    found = run([torch.from_numpy(array) for array in (X4, scale, bias)], attributes)
    grouped = X4.reshape(2, 2, -1)
    plain = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    spread = [np.repeat(array, 4 // width).reshape(4, 1, 1) for array in (scale, bias)]
    np.testing.assert_allclose(found, plain.reshape(X4.shape) * spread[0] + spread[1], rtol=1e-4, atol=1e-5)


def test_mean_variance_normalization() -> None:
    found = OPERATORS["MeanVarianceNormalization"]([torch.from_numpy(X4)], {"axes": [1, 2]})
    wanted = (X4 - X4.mean((1, 2), keepdims=True)) / X4.std((1, 2), keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def test_tensors_made_of_shapes_and_constants() -> None:
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("ConstantOfShape", ["s"], ["ones"], value=helper.make_tensor("one", TensorProto.FLOAT, [1], [1.5])),
        node("Range", ["zero", "five", "one"], ["r"]),
        node("Mul", ["ones", "r"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(number, np.float32), name)
        for name, number in (("zero", 0), ("five", 5), ("one", 1))
    ]
    ends = [value("x", TensorProto.FLOAT, ["N", 5])], [value("y", TensorProto.FLOAT, ["N", 5])]
    model = helper.make_model(
        helper.make_graph(nodes, "made", *ends, constants), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    specs = (TensorSpec("x", "float32", (None, 5)),), (TensorSpec("y", "float32", (None, 5)),)
    with find_backend("torch").open(Program(model.SerializeToString(), "fp32", *specs)) as session:
        np.testing.assert_allclose(session.run({"x": X2})["y"], X2 + 1.5 * np.arange(5, dtype=np.float32), rtol=1e-6)


def test_a_form_that_is_not_supported_is_told_before_it_runs() -> None:
    example = Example("LRN", X4, attributes={"size": 2})
    with pytest.raises(
        BackendError, match="LRN '' is not run: windows of an even size are not written; use the backend"
    ):
        find_backend("torch").open(program(example))
