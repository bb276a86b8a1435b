"""A foreign ONNX file goes the whole road to a sealed artifact, or is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from featherweight.core.artifact.store import read_artifact
from featherweight.core.errors import UsageError
from featherweight.core.export import export
from featherweight.core.model import Model
from featherweight.core.onnx_network import OnnxNetwork, read_onnx_network
from featherweight.core.optimize import optimize
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.recipe import parse_recipe
from tests.core.recipes import recipe_head
from tests.fakes import SquaresTask, trained_model

HEAD = recipe_head("squares", "auc_loss = 0.03", repetitions=5)
INT8 = '[[step]]\nkind = "quantize"\ncalibration_samples = 32\n'
SPARSE = '[[step]]\nkind = "prune-weights"\nsparsity = 0.2\n'


class ForeignTask(SquaresTask):
    """The same task whose baseline came as an ONNX file."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.network = read_onnx_network(content)
        self.baseline = Model(self.network, self.network.inputs, self.network.outputs)


def with_a_norm_that_pytorch_lacks(content: bytes) -> bytes:
    """The same network behind a norm over one value of its output, which is its absolute value."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    (last,) = [node for node in graph.node if "logit" in node.output]
    last.output[0] = "inner"
    shape = onnx.numpy_helper.from_array(np.array([0, 1, 1], "int64"), "shape")
    back = onnx.numpy_helper.from_array(np.array([0, 1], "int64"), "back")
    graph.initializer.extend([shape, back])
    graph.node.extend(
        [
            onnx.helper.make_node("Exp", ["inner"], ["positive"]),
            onnx.helper.make_node("Reshape", ["positive", "shape"], ["deep"]),
            onnx.helper.make_node("GlobalLpPool", ["deep"], ["pooled"]),
            onnx.helper.make_node("Reshape", ["pooled", "back"], ["logit"]),
        ]
    )
    changed: bytes = model.SerializeToString()
    return changed


@pytest.fixture(scope="module")
def content() -> bytes:
    return export(trained_model())[0].content


def test_pruned_and_quantized(content: bytes, tmp_path: Path) -> None:
    task = ForeignTask(content)
    assert not task.network.fixed_because
    outcome = optimize(parse_recipe(HEAD + SPARSE + INT8), task, tmp_path / "out", work=tmp_path / "work")
    artifact = read_artifact(tmp_path / "out")
    assert artifact.manifest == outcome.artifact.manifest
    (record,) = outcome.evidence.candidates
    names = [step["name"] for step in record.steps]  # type: ignore[index]
    # Where int8 is slower, as on a busy host it may be, the same in fp32 takes its place.
    assert names[:2] == ["prune-weights", "export"]


def test_one_that_cannot_be_trained_becomes_int8(content: bytes, tmp_path: Path) -> None:
    task = ForeignTask(with_a_norm_that_pytorch_lacks(content))
    assert "GlobalLpPool" in task.network.fixed_because
    task.positive_threshold = 1.0
    optimize(parse_recipe(HEAD + INT8), task, tmp_path / "out", work=tmp_path / "work")
    assert read_artifact(tmp_path / "out").manifest
    with pytest.raises(UsageError, match=r"prune-weights: .*GlobalLpPool.*remove the step"):
        optimize(parse_recipe(HEAD + SPARSE), task, tmp_path / "other", work=tmp_path / "other-work")


def test_steps_that_cannot_treat_a_quantized_file_are_refused_before_work(content: bytes, tmp_path: Path) -> None:
    network = read_onnx_network(content)
    batches = SquaresTask().calibration_batches(32, 0)
    program = export(Model(network, network.inputs, network.outputs))[0]
    task = ForeignTask(quantize(program, QuantizeStep("int8"), batches)[0].content)
    for steps in (INT8, SPARSE):
        task.asked.clear()
        with pytest.raises(UsageError, match=r"the ONNX file is quantized already.*remove the step"):
            optimize(parse_recipe(HEAD + steps), task, tmp_path / "out", work=tmp_path / "work")
        assert task.asked == []
    assert isinstance(task.network, OnnxNetwork)
