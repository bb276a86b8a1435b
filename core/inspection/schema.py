"""The messages of an ONNX file, without what no program needs: data in other files, graphs within graphs, functions,
training, sparse tensors, texts as data, sequences, maps, devices.

Numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from featherweight.core.inspection.tensors import RANK
from featherweight.core.inspection.wire import Field, Kind, Schema

_INTEGER, _FLOAT, _TEXT, _BYTES, _MESSAGE = Kind.INTEGER, Kind.FLOAT, Kind.TEXT, Kind.BYTES, Kind.MESSAGE


def _many(number: int, name: str, schema: Schema) -> Field:
    return Field(number, name, _MESSAGE, repeated=True, message=schema)


_NOTE = Schema("StringStringEntryProto", Field(1, "key", _TEXT), Field(2, "value", _TEXT))
_DIMENSION = Schema(
    "Dimension",
    Field(1, "dim_value", _INTEGER),
    Field(2, "dim_param", _TEXT),
    Field(3, "denotation", _TEXT),
    one_of=("dim_value", "dim_param"),
)
_SHAPE = Schema("TensorShapeProto", _many(1, "dim", _DIMENSION))
_TENSOR_TYPE = Schema("TypeProto.Tensor", Field(1, "elem_type", _INTEGER), Field(2, "shape", _MESSAGE, message=_SHAPE))
_TYPE = Schema("TypeProto", Field(1, "tensor_type", _MESSAGE, message=_TENSOR_TYPE), Field(6, "denotation", _TEXT))
_VALUE = Schema(
    "ValueInfoProto",
    Field(1, "name", _TEXT),
    Field(2, "type", _MESSAGE, message=_TYPE),
    Field(3, "doc_string", _TEXT),
    _many(4, "metadata_props", _NOTE),
)
# Field 14 says where the data is: one value means "in this file": see `tensors`.
_TENSOR = Schema(
    "TensorProto",
    Field(1, "dims", _INTEGER, repeated=True, most=RANK),
    Field(2, "data_type", _INTEGER),
    Field(4, "float_data", Kind.PACKED_FLOATS),
    Field(5, "int32_data", Kind.PACKED_INTEGERS),
    Field(7, "int64_data", Kind.PACKED_INTEGERS),
    Field(8, "name", _TEXT),
    Field(9, "raw_data", _BYTES),
    Field(10, "double_data", Kind.PACKED_DOUBLES),
    Field(11, "uint64_data", Kind.PACKED_INTEGERS),
    Field(12, "doc_string", _TEXT),
    Field(14, "data_location", _INTEGER),
    _many(16, "metadata_props", _NOTE),
    refused={6: "holds texts", 13: "takes data from other files; export it with all its weights inside"},
)
_ATTRIBUTE = Schema(
    "AttributeProto",
    Field(1, "name", _TEXT),
    Field(2, "f", _FLOAT),
    Field(3, "i", _INTEGER),
    Field(4, "s", _BYTES),
    Field(5, "t", _MESSAGE, message=_TENSOR),
    Field(7, "floats", _FLOAT, repeated=True),
    Field(8, "ints", _INTEGER, repeated=True),
    Field(9, "strings", _BYTES, repeated=True),
    Field(13, "doc_string", _TEXT),
    Field(20, "type", _INTEGER),
    Field(21, "ref_attr_name", _TEXT),
    refused=dict.fromkeys((6, 11), "holds graphs within its graph (If, Loop, Scan), which no program needs"),
)
_NODE = Schema(
    "NodeProto",
    Field(1, "input", _TEXT, repeated=True),
    Field(2, "output", _TEXT, repeated=True),
    Field(3, "name", _TEXT),
    Field(4, "op_type", _TEXT),
    _many(5, "attribute", _ATTRIBUTE),
    Field(6, "doc_string", _TEXT),
    Field(7, "domain", _TEXT),
    Field(8, "overload", _TEXT),
    _many(9, "metadata_props", _NOTE),
)
_ANNOTATION = Schema(
    "TensorAnnotation", Field(1, "tensor_name", _TEXT), _many(2, "quant_parameter_tensor_names", _NOTE)
)
_GRAPH = Schema(
    "GraphProto",
    _many(1, "node", _NODE),
    Field(2, "name", _TEXT),
    _many(5, "initializer", _TENSOR),
    Field(10, "doc_string", _TEXT),
    _many(11, "input", _VALUE),
    _many(12, "output", _VALUE),
    _many(13, "value_info", _VALUE),
    _many(14, "quantization_annotation", _ANNOTATION),
    _many(16, "metadata_props", _NOTE),
)
_OPERATORS = Schema("OperatorSetIdProto", Field(1, "domain", _TEXT), Field(2, "version", _INTEGER))
MODEL = Schema(
    "ModelProto",
    Field(1, "ir_version", _INTEGER),
    Field(2, "producer_name", _TEXT),
    Field(3, "producer_version", _TEXT),
    Field(4, "domain", _TEXT),
    Field(5, "model_version", _INTEGER),
    Field(6, "doc_string", _TEXT),
    Field(7, "graph", _MESSAGE, message=_GRAPH),
    _many(8, "opset_import", _OPERATORS),
    _many(14, "metadata_props", _NOTE),
    refused={20: "holds what trains it", 25: "holds functions; export it with them inlined"},
)
