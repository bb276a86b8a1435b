"""The smallest ONNX files, for tests of what stands around a program; and one that never ends."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def identity_file(note: str = "", columns: int = 4) -> bytes:
    """x [N, columns] -> y [N, columns], and a note, by which files differ."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", TensorProto.FLOAT, ["N", columns])],
        [value("y", TensorProto.FLOAT, ["N", columns])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, doc_string=note)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def file_without_end(given: str = "x", wanted: str = "y", columns: int = 4) -> bytes:
    """given [N, columns] -> wanted [N, 1]: hours of work, by operators that every network has. All of it is to be done
    when the file is opened, since a runtime computes constants once."""
    side, count = 6_000, 5_000
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("ConstantOfShape", ["side"], ["s0"]),
        *(helper.make_node("MatMul", [f"s{index}", "s0"], [f"s{index + 1}"]) for index in range(count)),
        helper.make_node("ReduceMax", [f"s{count}"], ["largest"], keepdims=0),
        helper.make_node("ReduceMax", [given], ["first"], axes=[1], keepdims=1),
        helper.make_node("Add", ["first", "largest"], [wanted]),
    ]
    graph = helper.make_graph(
        nodes,
        "without end",
        [value(given, TensorProto.FLOAT, ["N", columns])],
        [value(wanted, TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor("side", TensorProto.INT64, [2], [side, side])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def file_that_does_not_open(given: str, wanted: str, *shape: int) -> bytes:
    """given [N, *shape] -> wanted [N, 1]: a product of what does not fit. Nothing is hostile in its bytes."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Flatten", [given], ["flat"]), helper.make_node("MatMul", ["flat", "w"], [wanted])],
        "wrong",
        [value(given, TensorProto.FLOAT, ["N", *shape])],
        [value(wanted, TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 1], [0.0] * 3)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
