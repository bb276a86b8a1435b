"""Export and quantization: one small file, the same outputs, unsigned activations, bounded memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import DataError, UsageError
from featherweight.core.export import export
from featherweight.core.model import Model
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec
from tests.fakes import INPUTS, OUTPUTS, images, trained_model

CASES = images(160, seed=1)[0]


def batches(size: int = 8) -> Iterator[Tensors]:
    for start in range(0, len(CASES), size):
        yield {"image": CASES[start : start + size]}


def run(program: Program, inputs: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": inputs})[0])


@pytest.fixture(scope="module")
def program() -> Program:
    return export(trained_model())[0]


@pytest.fixture(scope="module")
def int8(program: Program) -> Program:
    return quantize(program, QuantizeStep(), batches())[0]


def test_the_program_is_the_network_with_a_free_batch_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = trained_model()
    program, record = export(model)
    assert capfd.readouterr() == ("", "")
    for count in (1, 2, 7):
        with torch.no_grad():
            expected = model.network(torch.from_numpy(CASES[:count])).numpy()
        np.testing.assert_allclose(run(program, CASES[:count]), expected, atol=1e-4)
    assert record.facts["max_relative_difference"] < 1e-4  # type: ignore[operator]
    assert (program.precision, program.inputs, program.outputs) == ("fp32", INPUTS, OUTPUTS)


def test_the_file_holds_weights_and_little_else(program: Program) -> None:
    proto = onnx.load_from_string(program.content)
    assert {node.op_type for node in proto.graph.node}.isdisjoint({"BatchNormalization", "Identity", "Constant"})
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer)
    assert len(program.content) < weights + 4000
    assert not any(node.doc_string or len(node.metadata_props) for node in proto.graph.node)


def test_the_exported_batch_norm_is_that_of_the_network_in_eval_mode() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 22 * 22, 1)).train()
    network(torch.rand(64, 1, 24, 24) * 9)
    program, _ = export(Model(network, INPUTS, OUTPUTS))
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(CASES[:3])).numpy()
    np.testing.assert_allclose(run(program, CASES[:3]), expected, atol=1e-4)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x.mean((1, 2, 3))[:, None]
        return x.amax((1, 2, 3))[:, None]


def test_a_network_that_cannot_be_exported_says_so() -> None:
    with pytest.raises(UsageError, match="Branches cannot become an ONNX program"):
        export(Model(Branches(), INPUTS, OUTPUTS))


def test_int8_is_small_unsigned_and_per_channel(program: Program, int8: Program) -> None:
    assert int8.precision == "int8"
    assert len(int8.content) < len(program.content) / 2.5
    proto = onnx.load_from_string(int8.content)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    quantized = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert quantized
    assert {known[node.input[2]].dtype for node in quantized} == {np.dtype("uint8")}
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    made_by = {node.output[0]: node for node in proto.graph.node}
    for node in convolutions:
        weight = made_by[node.input[1]]
        assert known[weight.input[0]].dtype == np.int8
        assert known[weight.input[1]].shape == (known[weight.input[0]].shape[0],)
        assert known[made_by[node.input[2]].input[0]].dtype == np.int32
    floats = [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert max(numpy_helper.to_array(tensor).size for tensor in floats) <= 64


def test_no_float_stands_between_two_convolutions(int8: Program) -> None:
    proto = onnx.load_from_string(int8.content)
    made_by = {node.output[0]: node for node in proto.graph.node}
    for node in proto.graph.node:
        if node.op_type in {"Conv", "Add", "Gemm"}:
            assert all(made_by[name].op_type == "DequantizeLinear" for name in node.input), node.op_type


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_int8_decides_like_fp32(program: Program, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    step = QuantizeStep(method=method, calibration_samples=32)  # type: ignore[arg-type]
    quantized, record = quantize(program, step, ({"image": CASES[i : i + 8]} for i in range(0, 32, 8)))
    assert capfd.readouterr() == ("", "")
    assert record.facts["calibration_samples"] == 32
    inputs, _ = images(200, seed=4)
    before, after = run(program, inputs)[:, 0], run(quantized, inputs)[:, 0]
    assert np.corrcoef(before, after)[0, 1] > 0.98
    assert not np.array_equal(before, after)


def test_methods_give_different_ranges(program: Program) -> None:
    steps = (QuantizeStep(), QuantizeStep(method="percentile", percentile=95.0))
    one, other = (quantize(program, step, batches())[0] for step in steps)
    assert one.content != other.content


def test_more_calibration_widens_the_ranges_it_saw(program: Program) -> None:
    """The ranges of the first batch alone cannot be those of all."""
    few, _ = quantize(program, QuantizeStep(), [{"image": CASES[:1]}])
    all_of_them, _ = quantize(program, QuantizeStep(), [{"image": CASES[:1]}, {"image": CASES}])
    at_once, _ = quantize(program, QuantizeStep(), [{"image": CASES}])
    assert few.content != all_of_them.content
    assert all_of_them.content == at_once.content


def test_calibration_holds_one_batch_at_a_time(program: Program) -> None:
    alive: list[weakref.ref[np.ndarray]] = []  # type: ignore[type-arg]
    most = 0

    def watched() -> Iterator[Tensors]:
        nonlocal most
        for start in range(0, 80, 8):
            most = max(most, sum(one() is not None for one in alive))
            batch = CASES[start : start + 8].copy()
            alive.append(weakref.ref(batch))
            yield {"image": batch}
            del batch

    quantize(program, QuantizeStep(), watched())
    assert most <= 2


def test_what_cannot_be_quantized_is_refused(program: Program, int8: Program) -> None:
    with pytest.raises(UsageError, match="found a program in int8"):
        quantize(int8, QuantizeStep(), batches())
    with pytest.raises(DataError, match="no calibration inputs"):
        quantize(program, QuantizeStep(), [])


def output_error(program: Program, other: Program, backend: str = "onnxruntime") -> float:
    """Mean squared difference on new inputs, relative to the outputs' variance."""
    inputs, _ = images(100, seed=4)
    found = []
    for one in (program, other):
        with find_backend(backend).open(one) as session:
            found.append(session.run({"image": inputs})["logit"])
    return float(((found[0] - found[1]) ** 2).mean() / found[0].var())


def float_layers(program: Program) -> set[str]:
    """Convolutions and dense layers whose weights no DequantizeLinear makes."""
    proto = onnx.load_from_string(program.content)
    stored = {tensor.name for tensor in proto.graph.initializer}
    return {node.name for node in proto.graph.node if node.op_type in {"Conv", "Gemm"} and node.input[1] in stored}


def harmed(program: Program) -> tuple[Program, str]:
    """The same function, but for a bias that overwhelms a channel which the head reads no more; with the head's name.
    Where its inputs are quantized, this channel's range leaves none to the others."""
    proto = onnx.load_from_string(program.content)
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    (head,) = (node for node in proto.graph.node if node.op_type == "Gemm")
    for name, value in ((convolutions[-1].input[2], 60.0), (head.input[1], 0.0)):
        array = numpy_helper.to_array(stored[name]).copy()
        array.reshape(-1)[0] = value
        stored[name].CopyFrom(numpy_helper.from_array(array, name))
    return replace(program, content=proto.SerializeToString()), head.name


def test_the_operators_that_hurt_most_stay_in_float(program: Program, int8: Program) -> None:
    assert float_layers(int8) == set()
    found, record = quantize(program, QuantizeStep(float_operators=2), batches())
    errors = record.facts["operator_errors"]
    assert isinstance(errors, dict)
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert min(errors.values()) >= 0 < max(errors.values())
    chosen = record.facts["float_operators"]
    assert chosen == list(errors)[:2]
    assert float_layers(found) == set(chosen) & {  # type: ignore[arg-type]
        node.name for node in onnx.load_from_string(program.content).graph.node if node.op_type in {"Conv", "Gemm"}
    }
    again, repeated = quantize(program, QuantizeStep(float_operators=2), batches())
    assert (again, repeated) == (found, record)
    for backend in ("onnxruntime", "openvino"):
        assert 0 < output_error(program, found, backend) < 0.01, backend


def test_an_operator_that_was_made_to_hurt_is_found(program: Program) -> None:
    hurt, name = harmed(program)
    whole, _ = quantize(hurt, QuantizeStep(), batches())
    mixed, record = quantize(hurt, QuantizeStep(float_operators=3), batches())
    assert name in record.facts["float_operators"]  # type: ignore[operator]
    assert output_error(hurt, mixed) < output_error(hurt, whole) / 3


def test_more_float_operators_than_there_are_are_refused(program: Program) -> None:
    """What is left would be called int8 and be float throughout."""
    with pytest.raises(UsageError, match=r"none of the program's operators \(Add, Conv, .*lower float_operators"):
        quantize(program, QuantizeStep(float_operators=1000), batches())


def test_weights_of_seven_bits(program: Program, int8: Program) -> None:
    """No pair of products with unsigned bytes leaves 16 bits: 2 x 255 x 64 is 32,640."""
    narrow, _ = quantize(program, QuantizeStep(weight_bits=7), batches())
    largest = []
    for one in (int8, narrow):
        weights = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(one.content).graph.initializer]
        largest.append(max(int(np.abs(array.astype(int)).max()) for array in weights if array.dtype == np.int8))
    assert largest == [127, 64]
    for backend in ("onnxruntime", "openvino"):
        assert output_error(program, narrow, backend) < 0.05


def test_bf16_is_the_same_file(program: Program) -> None:
    found, record = quantize(program, QuantizeStep("bf16"), [])
    assert found == replace(program, precision="bf16")
    assert record.facts["file_bytes"] == len(program.content)


class _Standardized(nn.Module):
    """Columns of very different units, brought to one scale before the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([1e-4, 1.0, 1e2, 1.0]))
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.layers(features * self.scale)
        return scores


def test_columns_of_different_units_do_not_share_a_grid() -> None:
    torch.manual_seed(0)
    inputs, outputs = TensorSpec("features", "float32", (None, 4)), TensorSpec("score", "float32", (None, 1))
    plain, _ = export(Model(_Standardized().eval(), (inputs,), (outputs,)))
    scale = np.array([1e4, 1.0, 1e-2, 1.0])
    rows = (np.random.default_rng(0).normal(size=(200, 4)) * scale).astype(np.float32)
    # Weights of 7 bits: with 8, the sums of processors without VNNI saturate.
    rounded, _ = quantize(plain, QuantizeStep(weight_bits=7), [{"features": rows}])
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(rounded.content).graph.node)
    found = []
    for program in (plain, rounded):
        with find_backend("onnxruntime").open(program) as session:
            found.append(session.run({"features": rows})["score"][:, 0])
    assert np.corrcoef(*found)[0, 1] > 0.999
