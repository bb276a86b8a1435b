"""An ONNX file as a message, checked against a program's specs; shared by the backends that read files themselves.
Imported only when one of them opens a program."""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError

from featherweight.core.backends import opening
from featherweight.core.errors import BackendError
from featherweight.core.program import Program
from featherweight.core.tensors import DType

DTYPES: dict[int, DType] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.UINT8: "uint8",
}


def read_graph(backend: str, program: Program, newest_opset: int) -> tuple[onnx.GraphProto, int]:
    """The graph and the opset of ONNX's own operators in it.

    Raises BackendError for bytes that are no ONNX model, for an opset that the backend does not know and for other
    inputs and outputs than the program's."""
    try:
        model = onnx.load_model_from_string(program.content)
    except DecodeError as error:
        raise BackendError(f"backend {backend}: cannot open the {program.precision} program: {error}") from error
    graph = model.graph
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not 11 <= opset <= newest_opset:
        raise BackendError(
            f"backend {backend}: the program uses opset {opset}; this backend knows 11 to {newest_opset}"
        )
    constants = {tensor.name for tensor in graph.initializer}
    opening.check_specs("input", program.inputs, [_described(v) for v in graph.input if v.name not in constants])
    opening.check_specs("output", program.outputs, [_described(value) for value in graph.output])
    return graph, opset


def operator(node: onnx.NodeProto) -> str:
    """The operator's name, with its domain where that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _described(value: onnx.ValueInfoProto) -> tuple[str, str, list[int | None]]:
    kind = value.type.tensor_type
    shape = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    return value.name, DTYPES.get(kind.elem_type, f"ONNX type {kind.elem_type}"), shape
