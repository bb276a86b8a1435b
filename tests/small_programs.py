"""The smallest ONNX files, for tests of what stands around a program."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def identity_file(note: str = "") -> bytes:
    """x [N, 4] -> y [N, 4], and a note, by which files differ."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, doc_string=note)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
