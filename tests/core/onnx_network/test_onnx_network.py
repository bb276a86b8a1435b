"""Files that others made become modules which every pass treats, or are told why not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from featherweight.core.backends.foreign import draw_inputs
from featherweight.core.errors import UsageError
from featherweight.core.export import export
from featherweight.core.losses import BINARY
from featherweight.core.model import Model
from featherweight.core.onnx_network import OnnxNetwork, read_onnx_network
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.prune_weights import prune_weights
from featherweight.core.passes.quantize import check_not_quantized, quantize
from featherweight.core.passes.recover import recover
from featherweight.core.passes.steps import PruneChannelsStep, PruneWeightsStep, QuantizeStep, RecoverStep
from featherweight.core.program import Program
from tests.core.onnx_network.files import (
    Cnn,
    Series,
    Words,
    classifier_like,
    file_of,
    new_export,
    old_export,
    tensorflow_like,
    weights,
    whole,
)

IMAGE, TEXT, SERIES = torch.rand(2, 1, 8, 8), torch.randint(0, 11, (2, 6)), torch.rand(2, 5, 4)
FILES: dict[str, Callable[[], bytes]] = {
    "convolutions, old exporter": lambda: old_export(Cnn(), IMAGE, folded=False),
    "convolutions, one case, opset 11": lambda: old_export(Cnn(), IMAGE[:1], free=False, opset=11),
    "convolutions, two cases, new exporter": lambda: new_export(Cnn(), IMAGE, free=False),
    "convolutions, shapes computed": lambda: new_export(Cnn(), IMAGE, optimize=False),
    "text": lambda: new_export(Words(), TEXT),
    "text, old exporter": lambda: old_export(Words(), TEXT, opset=14),
    "series": lambda: old_export(Series(), SERIES),
    "tensorflow": tensorflow_like,
    "classifier": classifier_like,
}


EXPORTED = ("convolutions, old exporter", "text", "series", "tensorflow")
NOT_PRUNED = {
    "text": "the dependency graph of OnnxNetwork cannot be followed.*remove the step",
    "text, old exporter": "the dependency graph of OnnxNetwork cannot be followed.*remove the step",
    "series": "no layer but the last has channels that could go",
}


def model_of(network: OnnxNetwork) -> Model:
    return Model(network, network.inputs, network.outputs)


def outputs_of(program: Program, cases: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(program.content, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, dict(draw_inputs(program.inputs, cases)))  # type: ignore[type-arg]
    return found


def network_outputs(network: nn.Module, program: Program, cases: int) -> Tensor:
    drawn = draw_inputs(program.inputs, cases)
    with torch.no_grad():
        found: Tensor = network(*(torch.from_numpy(drawn[spec.name]) for spec in program.inputs))
    return found


@pytest.fixture(scope="module")
def networks() -> dict[str, OnnxNetwork]:
    return {}


@pytest.fixture(params=FILES)
def network(request: pytest.FixtureRequest, networks: dict[str, OnnxNetwork]) -> OnnxNetwork:
    if request.param not in networks:
        torch.manual_seed(5)
        networks[request.param] = read_onnx_network(FILES[request.param]())
    return copy.deepcopy(networks[request.param])


def test_an_untouched_file_goes_on_as_it_came(network: OnnxNetwork) -> None:
    assert not network.fixed_because
    assert all(spec.shape[0] is None for spec in (*network.inputs, *network.outputs))
    program, record = export(model_of(network))
    assert program.content == network.file.program
    assert record.facts["max_relative_difference"] < 1e-5  # type: ignore[operator]
    for cases in (1, 4):
        (found,) = outputs_of(program, cases)
        np.testing.assert_allclose(network_outputs(network, program, cases), found, rtol=1e-3, atol=1e-4)
        assert cases == 1 or float(found.std(axis=0).max()) > 0


def test_one_that_was_touched_is_exported_anew(network: OnnxNetwork, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["network"] not in EXPORTED:
        pytest.skip("torch's exporter takes seconds")
    before = copy.deepcopy(network.state_dict())
    sparse, _ = prune_weights(model_of(network), PruneWeightsStep(0.3))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not sparse.module("test").is_untouched()  # type: ignore[operator]
    program, _ = export(sparse)
    assert program.content != network.file.program
    (found,) = outputs_of(program, 3)
    np.testing.assert_allclose(network_outputs(sparse.module("test"), program, 3), found, rtol=1e-3, atol=1e-4)
    assert not np.allclose(found, outputs_of(export(model_of(network))[0], 3)[0])


def test_channels_leave_or_the_reason_is_told(network: OnnxNetwork, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["network"]
    if name in NOT_PRUNED:
        with pytest.raises(UsageError, match=NOT_PRUNED[name]):
            prune_channels(model_of(network), PruneChannelsStep(0.5, round_to=4))
        return
    pruned, record = prune_channels(model_of(network), PruneChannelsStep(0.5, round_to=4))
    assert record.facts["parameters_after"] < record.facts["parameters_before"]  # type: ignore[operator]
    found = network_outputs(pruned.module("test"), export(model_of(network))[0], 3)
    assert found.shape == (3, *network.outputs[0].shape[1:])


def test_layers_are_trained_and_quantized() -> None:
    network = read_onnx_network(FILES["convolutions, old exporter"]())
    kinds = {type(layer) for layer in network.layers.values()}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.Linear}
    model = model_of(network)
    batches = [(torch.rand(4, 1, 8, 8), torch.tensor([[0.0], [1.0], [1.0], [0.0]]))]
    trained, record = recover(model, RecoverStep(1), network, lambda epoch: batches, stated=BINARY)
    assert record.facts["steps"] == 1
    before, after = network.state_dict(), trained.module("test").state_dict()
    assert not torch.equal(before["layers.stem_Conv.weight"], after["layers.stem_Conv.weight"])
    drawn = [dict(draw_inputs(network.inputs, 8))]
    program, _ = quantize(export(model)[0], QuantizeStep("int8"), drawn)
    assert program.precision == "int8"
    (found,) = outputs_of(program, 3)
    assert found.shape == (3, 1)


def test_weights_that_are_used_twice_stay_the_same() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    network = read_onnx_network(file_of(nodes, [weights("w", 4, 4)]))
    assert len(network.layers) == 1


def test_labels_are_left_out_and_told() -> None:
    network = read_onnx_network(classifier_like())
    assert [spec.name for spec in network.outputs] == ["p"]
    assert network.file.notes == ("the output 'label', which is not a float32 tensor, is left out",)


def test_weights_among_the_inputs() -> None:
    content = file_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights("w", 4, 2)], constants_as_inputs=True)
    assert [spec.name for spec in read_onnx_network(content).inputs] == ["x"]


def test_one_that_pytorch_does_not_do_is_exported_and_quantized_only() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("GlobalLpPool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    network = read_onnx_network(file_of(nodes, [weights("w", 4, 1, 3, 3)], shape=["n", 1, 8, 8]))
    assert "GlobalLpPool" in network.fixed_because
    model = model_of(network)
    for prune in (
        lambda: prune_channels(model, PruneChannelsStep(0.5)),
        lambda: prune_weights(model, PruneWeightsStep(0.5)),
        lambda: recover(model, RecoverStep(1), network, lambda epoch: [(torch.rand(2, 1, 8, 8), torch.zeros(2, 4))]),
    ):
        with pytest.raises(UsageError, match=r"GlobalLpPool.*remove the step"):
            prune()
    check_not_quantized(model)
    program, _ = export(copy.deepcopy(model))
    np.testing.assert_allclose(network_outputs(network, program, 3), outputs_of(program, 3)[0])
    int8, _ = quantize(program, QuantizeStep("int8"), [dict(draw_inputs(network.inputs, 4))])
    assert int8.precision == "int8"


def test_one_that_is_quantized_already_is_the_baseline() -> None:
    network = read_onnx_network(old_export(Cnn(), IMAGE))
    made, _ = quantize(export(model_of(network))[0], QuantizeStep("int8"), [dict(draw_inputs(network.inputs, 8))])
    quantized = read_onnx_network(made.content)
    assert quantized.precision == "int8"
    program, _ = export(model_of(quantized))
    assert program.precision == "int8"
    with pytest.raises(UsageError, match="quantized already"):
        check_not_quantized(model_of(quantized))
    with pytest.raises(UsageError, match="quantized already"):
        prune_weights(model_of(quantized), PruneWeightsStep(0.5))


def _elsewhere() -> bytes:
    model = onnx.load_model_from_string(file_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights("w", 4, 2)]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    content: bytes = model.SerializeToString()
    return content


def _branching() -> bytes:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["i"])], "then", [], [helper.make_tensor_value_info("i", 1, None)]
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)]
    return file_of(nodes, [helper.make_tensor("yes", TensorProto.BOOL, [], [1])])


def _endless() -> bytes:
    """A small file that asks for 2^60 numbers."""
    nodes = [helper.make_node("Tile", ["t0", "often"], ["t1"]), helper.make_node("Tile", ["t1", "often"], ["t2"])]
    nodes += [helper.make_node("Tile", ["t2", "often"], ["t3"]), helper.make_node("ReduceSum", ["t3"], ["s"])]
    nodes += [helper.make_node("Add", ["x", "s"], ["y"])]
    return file_of(nodes, [weights("t0", 1), whole("often", 1 << 20)])


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no model": (lambda: b"nothing of the kind", "not an ONNX file"),
    "empty": (lambda: b"", "cannot be taken|opset 0"),
    "cut off": (lambda: tensorflow_like()[:-40], "not an ONNX file"),
    "data elsewhere": (_elsewhere, "takes data from other files"),
    "branches": (_branching, "graphs within its graph"),
    "endless": (_endless, "ONNX Runtime"),
    "opset 9": (lambda: file_of([helper.make_node("Relu", ["x"], ["y"])], opset=9), "opset 9; 11 to 26 are read"),
    "open sizes": (
        lambda: file_of([helper.make_node("Relu", ["x"], ["y"])], shape=["n", "m"]),
        r"has the shape \[\?, \?\]; only the first size",
    ),
    "no cases": (
        lambda: file_of([helper.make_node("ReduceSum", ["x"], ["y"])]),
        "expected the number of cases first",
    ),
    "cases that stay": (
        lambda: file_of([helper.make_node("Add", ["x", "w"], ["y"])], [weights("w", 2, 4)], shape=[2, 4]),
        "takes 2 cases at a time",
    ),
    "no such operator": (lambda: file_of([helper.make_node("Loop", ["x"], ["y"])]), "operator 'Loop'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_told_in_a_sentence(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(UsageError, match=said) as told:
        read_onnx_network(make())
    assert "\n" not in str(told.value)
