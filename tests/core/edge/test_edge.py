"""Exports for edge runtimes: the file gives the program's numbers in its own runtime, or nothing is left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.nn import functional

from featherweight.core import cli
from featherweight.core.artifact import Contents, read_artifact, write_artifact
from featherweight.core.artifact.manifest import DecisionPoint
from featherweight.core.artifact.reference_cases import ReferenceCases
from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.edge import export as exporting
from featherweight.core.edge.export import FACTS, count_order_flips, export_artifact, largest_difference
from featherweight.core.edge.litert import LiteRt
from featherweight.core.edge.ort_mobile import OrtMobile
from featherweight.core.edge.targets import find_target
from featherweight.core.errors import LimitError, OutputError, UsageError
from featherweight.core.export import export
from featherweight.core.model import Model, trees_model
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec
from tests.fakes import fitted_trees, images, trained_model

STEP = QuantizeStep(precision="int8", calibration_samples=32, weight_bits=7)
LOGIT = (TensorSpec("logit", "float32", (None, 2)),)
COLOUR = (TensorSpec("image", "float32", (None, 3, 20, 28)),)


class Mixed(nn.Module):
    """What the small networks of the field are made of: depthwise and dilated convolutions, hard swish, squeeze and
    excitation, both pools, concatenation, uneven sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.norm, self.dilated = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=2, dilation=2)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.hidden, self.last = nn.Linear(16 * 2 * 3, 12), nn.Linear(12, 2)
        with torch.no_grad():
            for weight in self.parameters():
                weight.mul_(2)  # so that outputs differ from case to case

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.norm(self.depthwise(functional.hardswish(self.first(x - 0.5)))))
        x = functional.relu6(self.dilated(functional.max_pool2d(x, 3, 2, 1)))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.cat([x * gate, functional.max_pool2d(0.5 - x, 3, 1, 1)], 1)
        x = functional.avg_pool2d(x, 2).flatten(1)
        return torch.as_tensor(self.last(torch.tanh(self.hidden(x))))


class Filled(nn.Module):
    """Rows whose gaps are filled, as the fraud app's networks do it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.where(torch.isnan(x), torch.tensor([0.5, -1.0, 0.0, 2.0, 9.0]), x)
        return torch.as_tensor(self.layers(((x - 0.1) * 0.5).clamp(-3, 3)))


def program_of(network: nn.Module, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Program:
    return export(Model(network.eval(), inputs, outputs))[0]


def int8(program: Program, seed: int = 0) -> Program:
    shape = [8, *(size or 1 for size in program.inputs[0].shape[1:])]
    generator = np.random.default_rng(seed)
    batches: Iterator[Tensors] = (
        {program.inputs[0].name: generator.random(shape).astype(np.float32)} for _ in range(4)
    )
    return quantize(program, STEP, batches)[0]


@pytest.fixture(scope="module")
def squares() -> Program:
    inputs, _ = images(64, seed=3)
    return quantize(export(trained_model())[0], STEP, [{"image": inputs}])[0]


def seal(folder: Path, program: Program, reference: ReferenceCases | None = None) -> Path:
    contents = Contents(
        name="small",
        app="imaging",
        labels=("no", "yes"),
        programs=(program,),
        sealed={"decision.json": b'{"threshold": 0.5}', "preprocess.json": b"{}"},
        evidence={"evidence.json": b"{}"},
        weights_source="trained on synthetic data",
        versions={},
        reference_cases=reference,
    )
    write_artifact(folder / "artifact", contents)
    return folder / "artifact"


def both(program: Program, tmp_path: Path, inputs: Tensors) -> tuple[Tensors, Tensors]:
    """The program on ONNX Runtime and the .tflite file in its runtime, case by case."""
    path = tmp_path / LiteRt.file
    path.write_bytes(LiteRt().encode(program))
    run = LiteRt().open(path, program.inputs, program.outputs)
    cases = range(len(next(iter(inputs.values()))))
    with OnnxRuntime().open(program) as session:
        rows = [{name: array[i : i + 1] for name, array in inputs.items()} for i in cases]
        pairs = [(session.run(row), run(row)) for row in rows]
    names = [spec.name for spec in program.outputs]
    one, other = ({name: np.concatenate([pair[k][name] for pair in pairs]) for name in names} for k in (0, 1))
    return one, other


@pytest.fixture(scope="module")
def mixed() -> Program:
    torch.manual_seed(0)
    return program_of(Mixed(), COLOUR, LOGIT)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_litert_has_the_operators_of_small_networks(precision: str, mixed: Program, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    program = int8(mixed) if precision == "int8" else mixed
    inputs = {"image": np.random.default_rng(1).random((16, 3, 20, 28)).astype(np.float32)}
    expected, found = both(program, tmp_path, inputs)
    spread = np.ptp(expected["logit"], axis=0)
    assert (spread > 0.02).all()
    limit = 1e-4 if precision == "fp32" else 0.15
    assert (np.abs(found["logit"] - expected["logit"]).max(axis=0) <= limit * spread).all()


def test_litert_fills_gaps(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    program = program_of(Filled(), (TensorSpec("row", "float32", (None, 5)),), LOGIT)
    rows = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    rows[::2, 1], rows[::3, 4] = np.nan, np.nan
    expected, found = both(program, tmp_path, {"row": rows})
    np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-5)


@pytest.mark.parametrize("target", ["litert", "executorch"])
def test_an_operator_that_a_target_does_not_have_is_named(target: str) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(target, target))
    row = onnx.helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, ["N", 5])
    logit = onnx.helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, ["N", 5])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Det2", ["row"], ["logit"])], "g", [row], [logit])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    specs = [(TensorSpec(name, "float32", (None, 5)),) for name in ("row", "logit")]
    program = Program(proto.SerializeToString(), "fp32", specs[0], specs[1])
    with pytest.raises(UsageError, match=r"Det2.*use ort-mobile"):
        find_target(target).encode(program)


@pytest.mark.parametrize("target", ["litert", "executorch", "ort-mobile"])
def test_an_export_holds_the_file_its_facts_and_what_the_app_sealed(
    target: str, squares: Program, tmp_path: Path
) -> None:
    pytest.importorskip({"litert": "ai_edge_litert", "ort-mobile": "onnxruntime"}.get(target, target))
    artifact, out = seal(tmp_path, squares), tmp_path / "edge"
    exported = export_artifact(artifact, target, out)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(
        [FACTS, exported.file, "sealed/decision.json", "sealed/preprocess.json"]
    )
    assert (out / "sealed/decision.json").read_bytes() == b'{"threshold": 0.5}'
    facts = json.loads((out / FACTS).read_text())
    content = (out / exported.file).read_bytes()
    assert facts["file"] == {
        "name": exported.file,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert facts["source"]["artifact_sha256"] == read_artifact(artifact).sha256
    assert facts["precision"] == "int8"
    # Its own scales: what is left is a rounding here and there.
    assert exported.agreement.difference["logit"] <= exported.agreement.tolerance["logit"] / 2
    assert exported.agreement.decision_flips is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "edge"]


def test_int8_stays_int8_in_litert(squares: Program) -> None:
    pytest.importorskip("ai_edge_litert")
    assert len(LiteRt().encode(squares)) < 1.1 * len(squares.content)


def trees() -> Program:
    return export(trees_model(fitted_trees(4)))[0]


def test_trees_go_to_ort_mobile_and_nowhere_else(tmp_path: Path) -> None:
    artifact = seal(tmp_path, trees())
    assert export_artifact(artifact, "ort-mobile", tmp_path / "edge").agreement.difference == {"score": 0.0}
    for target in ("litert", "executorch"):
        with pytest.raises(UsageError, match="trees") as refused:
            export_artifact(artifact, target, tmp_path / target)
        assert "\n" not in str(refused.value)
        assert not (tmp_path / target).exists()


class Shifted(OrtMobile):
    """A converter with a fault: the last layer's bias is off by `shift`."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def encode(self, program: Program) -> bytes:
        proto = onnx.load_model_from_string(program.content)
        name = proto.graph.output[0].name
        (maker,) = (node for node in proto.graph.node if name in node.output)
        maker.output[0] = "exact"
        shift = onnx.numpy_helper.from_array(np.array([self.shift], np.float32), "shift")
        proto.graph.initializer.append(shift)
        proto.graph.node.append(onnx.helper.make_node("Add", ["exact", "shift"], [name]))
        return super().encode(replace(program, content=proto.SerializeToString()))


@pytest.mark.parametrize("shift", [0.5, float("nan")])
def test_a_file_that_does_not_agree_is_not_left(
    shift: float, squares: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = seal(tmp_path, squares)
    monkeypatch.setattr(exporting, "find_target", lambda name: Shifted(shift))
    with pytest.raises(LimitError, match="does not agree") as refused:
        export_artifact(artifact, "ort-mobile", tmp_path / "edge")
    assert refused.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_decision_that_is_another_is_a_disagreement_within_the_tolerance_too(
    squares: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"image": images(16, seed=5)[0]}
    with OnnxRuntime().open(squares) as session:
        outputs = session.run(inputs)
    ordered = np.sort(outputs["logit"][:, 0])
    wide = int(np.argmax(np.diff(ordered)))
    threshold = float(ordered[wide : wide + 2].mean())
    gap = threshold - float(ordered[wide])
    reference = ReferenceCases(
        inputs,
        outputs,
        "onnxruntime",
        "int8",
        {"logit": 10 * gap},
        DecisionPoint(output="logit", column=0, threshold=threshold),
    )
    artifact = seal(tmp_path, squares, reference)
    exported = export_artifact(artifact, "ort-mobile", tmp_path / "edge")
    assert exported.agreement.decision_flips == 0
    assert exported.agreement.inputs == "16 reference inputs"
    monkeypatch.setattr(exporting, "find_target", lambda name: Shifted(2 * gap))
    with pytest.raises(LimitError, match=r"decisions? otherwise"):
        export_artifact(artifact, "ort-mobile", tmp_path / "other")


def test_what_stands_there_is_left_alone(squares: Program, tmp_path: Path) -> None:
    artifact = seal(tmp_path, squares)
    (tmp_path / "edge").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        export_artifact(artifact, "ort-mobile", tmp_path / "edge")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        export_artifact(artifact, "ort-mobile", tmp_path / "file" / "edge")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_target_lists_those_there_are(squares: Program, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="executorch, ort-mobile, litert"):
        export_artifact(seal(tmp_path, squares), "tflite", tmp_path / "edge")


columns = arrays(np.float32, st.integers(1, 12), elements=st.integers(-3, 3).map(float))


@given(columns, st.integers(0, 2**32 - 1))
def test_order_flips_are_the_pairs_that_turned_round(column: npt.NDArray[np.float32], seed: int) -> None:
    other = np.random.default_rng(seed).permutation(column)
    expected = sum((column[i] - column[j]) * (other[i] - other[j]) < 0 for i in range(len(column)) for j in range(i))
    assert count_order_flips(column[:, None], other[:, None]) == expected
    assert count_order_flips(column[:, None], column[:, None]) == 0


def test_a_difference_that_is_no_number_is_infinite() -> None:
    one = np.zeros((2, 1), np.float32)
    assert largest_difference(one, one) == 0
    assert largest_difference(np.array([[0], [np.nan]], np.float32), one) == float("inf")
    assert largest_difference(one[:1], one) == float("inf")


def test_the_command_prints_the_facts_and_a_disagreement_ends_with_4(
    squares: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = str(seal(tmp_path, squares))

    def export_to(name: str) -> list[str]:
        return [
            "featherweight",
            "artifact",
            "export",
            artifact,
            "--target",
            "ort-mobile",
            "--out",
            str(tmp_path / name),
        ]

    monkeypatch.setattr("sys.argv", [*export_to("edge"), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "edge" / FACTS).read_text())
    monkeypatch.setattr(exporting, "find_target", lambda name: Shifted(9.0))
    monkeypatch.setattr("sys.argv", export_to("other"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    assert "does not agree" in capsys.readouterr().err


def small(nodes: list[onnx.NodeProto], constants: dict[str, npt.NDArray[np.generic]], name: str = "x") -> Program:
    """A program [N, 6] -> [N, 6]."""
    ends = [onnx.helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, ["N", 6]) for one in (name, "y")]
    held = [onnx.numpy_helper.from_array(array, one) for one, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    specs = [(TensorSpec(one, "float32", (None, 6)),) for one in (name, "y")]
    return Program(model.SerializeToString(), "fp32", *specs)


STRANGE = {
    "Identity": [onnx.helper.make_node("Identity", ["s"], ["t"]), onnx.helper.make_node("Reshape", ["x", "t"], ["y"])],
    "QuantizeLinear": [
        onnx.helper.make_node("Identity", ["f"], ["t"]),
        onnx.helper.make_node("QuantizeLinear", ["x", "t"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "t"], ["y"]),
    ],
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_onnx_may_compute_and_litert_wants_constant_is_refused(what: str) -> None:
    pytest.importorskip("ai_edge_litert")
    program = small(STRANGE[what], {"s": np.array([-1, 6], np.int64), "f": np.array(0.1, np.float32)})
    with OnnxRuntime().open(program) as session:
        session.run({"x": np.zeros((1, 6), np.float32)})
    with pytest.raises(UsageError, match=f"{what}.*ort-mobile"):
        LiteRt().encode(program)


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args"])
def test_tensors_may_have_any_name(name: str, tmp_path: Path) -> None:
    artifact = seal(tmp_path, small([onnx.helper.make_node("Relu", [name], ["y"])], {}, name))
    assert export_artifact(artifact, "ort-mobile", tmp_path / "out").agreement.passed


def test_a_program_whose_inputs_are_too_large_to_draw_is_refused(tmp_path: Path) -> None:
    program = small([onnx.helper.make_node("Relu", ["x"], ["y"])], {})
    huge = replace(program, inputs=(TensorSpec("x", "float32", (None, 1 << 30, 1 << 30)),))
    with pytest.raises(UsageError, match="bytes"):
        export_artifact(seal(tmp_path, huge), "ort-mobile", tmp_path / "out")
