"""Models that are run: ONNX files and artifacts, on columns and on arrays; what fails is told with its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import featherweight
from featherweight.core.bundled import data_directory
from featherweight.core.compare.cases import Cases, Columns, read_cases
from featherweight.core.compare.inputs import open_inputs
from featherweight.core.compare.programs import open_artifact, open_onnx
from featherweight.core.compare.tables import table_of
from featherweight.core.errors import DataError, WrongModelError
from tests.small_programs import file_that_does_not_open

MODELS = data_directory() / "models"
COUNT = 600
IDS = [f"case {place}" for place in range(COUNT)]
WEIGHTS = (0.5, -2.0, 1.0)


def the_cases() -> Cases:
    return read_cases(table_of("data", {"id": IDS, "y": [0, 1] * (COUNT // 2)}), Columns("y"))


def rows() -> dict[str, object]:
    """In another order than the cases."""
    order = np.random.default_rng(0).permutation(COUNT)
    values = np.random.default_rng(1).normal(size=(COUNT, 3)).astype(np.float32)
    return {"id": [IDS[place] for place in order], **{name: values[order, k] for k, name in enumerate("abc")}}


def expected() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(COUNT, 3)).astype(np.float32) @ np.array(WEIGHTS, np.float32)


def save(path: Path, nodes: list, inputs: list, outputs: list, constants: tuple = ()) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "linear",
        [value(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [value(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        list(constants),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def one_input(path: Path, outputs: int = 1) -> Path:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, outputs], list(WEIGHTS) * outputs)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return save(path, nodes, [("x", ["N", 3])], [("y", ["N", outputs])], (weights,))


def test_columns_make_up_the_one_input(tmp_path: Path) -> None:
    inputs = open_inputs(table_of("data", rows()), the_cases(), "id", ("a", "b", "c"))
    found = open_onnx(one_input(tmp_path / "m.onnx")).run(inputs)
    np.testing.assert_allclose(found.scores, expected(), rtol=1e-5, atol=1e-5)
    assert "sha256" in found.source


def test_an_input_of_its_own_name_is_a_column(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [("a", ["N", 1]), ("b", ["N", 1])], [("y", ["N", 1])])
    inputs = open_inputs(table_of("data", rows()), the_cases(), "id", ())
    values = np.random.default_rng(1).normal(size=(COUNT, 3)).astype(np.float32)
    np.testing.assert_allclose(open_onnx(path).run(inputs).scores, values[:, 0] - values[:, 1], rtol=1e-5, atol=1e-6)


def test_arrays_are_taken_from_an_archive(tmp_path: Path) -> None:
    given = rows()
    x = np.stack([given[name] for name in "abc"], axis=1)
    np.savez(tmp_path / "x.npz", id=np.array(given["id"]), x=x)
    inputs = open_inputs(tmp_path / "x.npz", the_cases(), "id", ())
    found = open_onnx(one_input(tmp_path / "m.onnx")).run(inputs)
    np.testing.assert_allclose(found.scores, expected(), rtol=1e-5, atol=1e-5)
    np.savez(tmp_path / "x.npz", x=x)
    with pytest.raises(DataError, match="no array 'id'"):
        open_inputs(tmp_path / "x.npz", the_cases(), "id", ())
    np.savez(tmp_path / "x.npz", id=np.array(given["id"]), x=x[:5])
    with pytest.raises(DataError, match="one row for each"):
        open_inputs(tmp_path / "x.npz", the_cases(), "id", ())


def test_inputs_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path, table = one_input(tmp_path / "m.onnx"), table_of("data", rows())
    with pytest.raises(DataError, match=r"takes x: float32 \[N, 3\], which no column is; name the columns"):
        open_onnx(path).run(open_inputs(table, the_cases(), "id", ()))
    with pytest.raises(DataError, match="--features names 2 columns"):
        open_onnx(path).run(open_inputs(table, the_cases(), "id", ("a", "b")))
    with pytest.raises(DataError, match="no column 'd'"):
        open_onnx(path).run(open_inputs(table, the_cases(), "id", ("a", "b", "d")))


def test_programs_that_are_refused_are_told_with_their_file(tmp_path: Path) -> None:
    inputs = open_inputs(table_of("data", rows()), the_cases(), "id", ("a", "b", "c"))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a program")
    with pytest.raises(DataError, match=r"m\.onnx: .*or run it elsewhere"):
        open_onnx(path).run(inputs)
    path.write_bytes(file_that_does_not_open("x", "y", 3, 2))
    with pytest.raises(DataError, match=r"m\.onnx: "):
        open_onnx(path).run(inputs)
    with pytest.raises(DataError, match="expected one output of one float32 a case"):
        open_onnx(one_input(path, outputs=2)).run(inputs)
    nodes = [helper.make_node("Log", ["x"], ["l"]), helper.make_node("ReduceSum", ["l", "ax"], ["y"], keepdims=1)]
    axes = helper.make_tensor("ax", TensorProto.INT64, [1], [1])
    save(path, nodes, [("x", ["N", 3])], [("y", ["N", 1])], (axes,))
    with pytest.raises(DataError, match="no finite number for"):
        open_onnx(path).run(inputs)


def test_an_artifact_of_rows_gives_what_open_model_gives() -> None:
    pytest.importorskip("numba")
    with featherweight.open_model(MODELS / "card-fraud") as model:
        names = [one.name for one in model.describe().ranges]
        values = np.random.default_rng(2).random((COUNT, len(names)))
        wanted = model.predict(values)
    table = table_of("data", {"id": IDS, **{name: values[:, k] for k, name in enumerate(names)}})
    found = open_artifact(MODELS / "card-fraud").run(open_inputs(table, the_cases(), "id", ()))
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-6)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, rtol=1e-6)
    document = featherweight.read_evidence(MODELS / "card-fraud").document
    decides = open_artifact(MODELS / "card-fraud").decides
    assert decides is not None
    assert decides.outcomes is not None
    assert decides.threshold == document["test"]["candidate"]["threshold"] == decides.outcomes.thresholds[0]
    assert decides.outcomes.names == ("approve", "review", "decline")
    served = np.array(decides.outcomes.names)[np.searchsorted(decides.outcomes.thresholds, wanted.scores, "right")]
    assert served.tolist() == wanted.decisions.tolist()
    assert found.labels == ("legitimate", "fraud")


def test_an_artifact_of_images_runs_on_an_archive(tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (4, 60, 50), np.uint8)
    cases = read_cases(table_of("data", {"id": range(4), "y": [0, 1, 0, 1]}), Columns("y"))
    np.savez(tmp_path / "x.npz", id=np.arange(4)[::-1], images=images[::-1])
    found = open_artifact(MODELS / "chest-xray").run(open_inputs(tmp_path / "x.npz", cases, "id", ()))
    with featherweight.open_model(MODELS / "chest-xray") as model:
        wanted = model.predict(images)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-6)
    np.savez(tmp_path / "x.npz", id=np.arange(4), image=np.full((4, 1, 224, 224), 2, np.float32))
    with pytest.raises(DataError, match="the inputs do not fit the model"):
        open_artifact(MODELS / "chest-xray").run(open_inputs(tmp_path / "x.npz", cases, "id", ()))
    np.savez(tmp_path / "x.npz", id=np.arange(4), images=np.array(list("abcd")))
    with pytest.raises(DataError, match="no numbers"):
        open_artifact(MODELS / "chest-xray").tensors(open_inputs(tmp_path / "x.npz", cases, "id", ()))


def test_a_folder_that_is_no_artifact_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongModelError):
        open_artifact(tmp_path)
