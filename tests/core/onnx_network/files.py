"""Small ONNX files as other people's exporters and converters write them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from featherweight.core.export import quiet

RNG = np.random.default_rng(3)


class Cnn(nn.Module):
    """With batch normalization, a branch, and a flattening of more than one place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.branch, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16 * 4, 1)
        self.norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm(self.stem(x)))
        inner = nn.functional.max_pool2d(inner + self.branch(inner), 4)
        found: Tensor = self.head(inner.reshape(inner.size(0), -1))
        return found


class Words(nn.Module):
    """A transformer's layer over 6 tokens, with a class token and places that are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(11, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 7, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([self.first.expand(x.shape[0], -1, -1), self.table(x)], dim=1) + self.places
        found: Tensor = self.head(self.layer(rows)[:, 0])
        return found


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 8, batch_first=True, bidirectional=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.layer(x)[0][:, -1])
        return found


def old_export(network: nn.Module, x: Tensor, *, opset: int = 17, free: bool = True, folded: bool = True) -> bytes:
    """By the exporter before torch.export. folded: with batch normalization in the convolutions."""
    buffer = io.BytesIO()
    modes = torch.onnx.TrainingMode
    with quiet():
        torch.onnx.export(
            network.eval(),
            (x,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}} if free else None,
            training=modes.EVAL if folded else modes.PRESERVE,
            do_constant_folding=folded,
        )
    return buffer.getvalue()


def new_export(network: nn.Module, x: Tensor, *, free: bool = True, optimize: bool = True) -> bytes:
    """By torch.export. Without `optimize` the arithmetic of shapes stays in the file."""
    shapes = ({0: torch.export.Dim("n", min=1)},) if free else None
    with quiet():
        exported = torch.onnx.export(
            network.eval(), (x,), dynamo=True, input_names=["x"], output_names=["y"], dynamic_shapes=shapes,
            verbose=False, optimize=optimize,
        )  # fmt: skip
    assert exported is not None
    content: bytes = exported.model_proto.SerializeToString()
    return content


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)


def whole(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def file_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    shape: Sequence[Any] = ("n", 4),
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 17,
    constants_as_inputs: bool = False,
) -> bytes:
    """x -> y."""
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, list(shape))]
    if constants_as_inputs:
        inputs += [value(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in constants]
    ends = [value("y", TensorProto.FLOAT, None)] if outputs is None else list(outputs)
    graph = helper.make_graph(list(nodes), "foreign", inputs, ends, list(constants))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    return content


def tensorflow_like() -> bytes:
    """As tf2onnx writes it: images with channels last, padding told by a word, a shape put together from pieces."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w", "b"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
        node("Mul", ["c", "scale"], ["m"]),
        node("Relu", ["m"], ["r"]),
        node("Transpose", ["r"], ["back"], perm=[0, 2, 3, 1]),
        node("Shape", ["back"], ["s"]),
        node("Cast", ["s"], ["s32"], to=TensorProto.INT32),
        node("Slice", ["s32", "zero", "one", "zero"], ["cases"]),
        node("Cast", ["cases"], ["cases64"], to=TensorProto.INT64),
        node("Concat", ["cases64", "rest"], ["wanted"], axis=0),
        node("Reshape", ["back", "wanted"], ["flat"]),
        node("MatMul", ["flat", "dense"], ["product"]),
        node("Add", ["product", "bias"], ["y"]),
    ]
    constants = [
        weights("w", 8, 3, 3, 3), weights("b", 8), weights("scale", 1, 8, 1, 1), whole("zero", 0), whole("one", 1),
        whole("rest", 128), weights("dense", 128, 2), weights("bias", 2),
    ]  # fmt: skip
    return file_of(nodes, constants, shape=["n", 7, 8, 3], opset=13)


def classifier_like() -> bytes:
    """As skl2onnx writes a perceptron: the class's name, and probabilities in a map."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "b"], ["c"]),
        node("Relu", ["c"], ["d"]),
        node("MatMul", ["d", "v"], ["e"]),
        node("Softmax", ["e"], ["p"], axis=1),
        node("ArgMax", ["p"], ["place"], axis=1),
        node("ArrayFeatureExtractor", ["classes", "place"], ["label"], domain="ai.onnx.ml"),
        node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    constants = [weights("w", 4, 8), weights("b", 1, 8), weights("v", 8, 2), whole("classes", 0, 1)]
    sequence = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_value_info("probabilities", sequence),
    ]
    return file_of(nodes, constants, outputs=outputs)
