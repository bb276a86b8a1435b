"""Small programs with known answers: what PyTorch itself says about the networks that they were exported from."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from featherweight.core.program import Precision, Program
from featherweight.core.tensors import TensorSpec


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class ResidualCnn(nn.Module):
    """Strided convolution, max pooling, a residual block, ReLU6, global pooling and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            Block(16),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Mlp(nn.Module):
    """Two dense layers and activations that the CNN does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(12, 32), nn.Hardswish(), nn.Linear(32, 16), nn.Sigmoid(), nn.Linear(16, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers((x - 0.25) / 1.5)
        return result


class Filling(nn.Module):
    """Missing values become a constant of their column, then a dense network."""

    typical: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("typical", torch.linspace(-2, 2, 12))
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(torch.where(torch.isnan(x), self.typical, x) * 0.8)
        return result


@dataclass(frozen=True)
class Case:
    """A network with its programs in all precisions."""

    network: nn.Module
    programs: dict[Precision, Program]

    def batch(self, size: int, seed: int = 0) -> npt.NDArray[np.float32]:
        shape = [size, *(length or 1 for length in self.programs["fp32"].inputs[0].shape[1:])]
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    def reference(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            answer: npt.NDArray[np.float32] = self.network(torch.from_numpy(x)).numpy()
        return answer


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, shape: list[int]) -> None:
        rng = np.random.default_rng(7)
        self._batches = iter([{name: rng.normal(size=shape).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)


def make_case(network: nn.Module, shape: tuple[int, ...], outputs: int, folder: Path) -> Case:
    torch.manual_seed(11)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Livelier than the default: the outputs must depend on the input much more than any tolerance.
            nn.init.normal_(module.weight, std=2 / module.weight[0].numel() ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            dynamo=True,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
    assert exported is not None
    content = exported.model_proto.SerializeToString()
    int8 = _quantize(content, [8, *shape], folder)
    inputs, results = (TensorSpec("x", "float32", (None, *shape)),), (TensorSpec("y", "float32", (None, outputs)),)
    files: dict[Precision, bytes] = {"fp32": content, "bf16": content, "int8": int8}
    return Case(network, {name: Program(file, name, inputs, results) for name, file in files.items()})


def _quantize(content: bytes, shape: list[int], folder: Path) -> bytes:
    plain, ready, result = folder / "plain.onnx", folder / "ready.onnx", folder / "int8.onnx"
    plain.write_bytes(content)
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(result),
            _Calibration("x", shape),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits: with 8, the sums of processors without VNNI saturate, and this is no test of those.
            reduce_range=True,
        )
    finally:
        logging.disable(logging.NOTSET)
    return result.read_bytes()


def weights_elsewhere(path: str) -> Program:
    """x + w, with w in another file."""
    value = onnx.helper.make_tensor_value_info
    weights = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL
    )
    weights.external_data.add(key="location", value=path)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "elsewhere",
        [value("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [value("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [weights],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    specs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)
    return Program(model.SerializeToString(), "fp32", *specs)


def one_operator(operator: str, **attributes: Any) -> Program:
    """A valid file with one operator, x [N, 4] -> y [N, 4]."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x"], ["y"], **attributes)],
        "one",
        [value("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [value("y", onnx.TensorProto.FLOAT, ["N", 4])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    specs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)
    return Program(model.SerializeToString(), "fp32", *specs)
