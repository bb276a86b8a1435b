"""Several classes, the whole road: from a fitted model to a sealed artifact that is verified, opened and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from jsonschema import Draft202012Validator
from lightgbm import LGBMClassifier
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from xgboost import XGBClassifier

import featherweight
from featherweight.apps.custom.predict import PredictJob, run_predict
from featherweight.apps.custom.task import CustomTask, SourceSettings, make_task
from featherweight.core.compare.programs import open_artifact
from featherweight.core.errors import DataError, UsageError
from featherweight.core.evidence.reports import json as document
from tests.custom.conftest import run

SCHEMA = json.loads((Path(document.__file__).parent / "evidence.schema.json").read_text())
NAMES = ["cat", "dog", "horse", "owl"]
LIMITS = {"sensitivity_loss": 0.05, "macro_auc_loss": 0.02, "accuracy_loss": 0.02, "flip_ratio_max": 0.03}


def _cases(count: int = 3000) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(count, 6))
    logits = 2 * rows[:, :4] + 0.5 * draw.normal(size=(count, 4))
    return rows.astype(np.float32), logits.argmax(axis=1)


def _network(rows: Any, labels: Any) -> nn.Sequential:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(network.parameters(), 2e-2)
    inputs, truth = torch.from_numpy(rows), torch.from_numpy(labels)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def _onnx_file(network: nn.Sequential) -> bytes:
    weights = [value.detach().numpy() for value in network.parameters()]
    nodes = [
        helper.make_node("Gemm", ["rows", "w0", "b0"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w1", "b1"], ["logits"], transB=1),
    ]
    given = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 6])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])
    named = [
        numpy_helper.from_array(value, name) for value, name in zip(weights, ("w0", "b0", "w1", "b1"), strict=True)
    ]
    graph = helper.make_graph(nodes, "classes", [given], [answer], named)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx with four outputs and cases.parquet, whose labels are names; the artifact of both is models/x."""
    path = tmp_path_factory.mktemp("classes")
    rows, labels = _cases()
    (path / "model.onnx").write_bytes(_onnx_file(_network(rows[::3], labels[::3])))
    table: dict[str, Any] = {f"x{place}": rows[:, place] for place in range(6)}
    table |= {"y": np.array(NAMES)[labels], "site": np.where(np.arange(len(rows)) % 5 == 0, "north", "south")}
    table |= {"split": np.array(["train", "validation", "test"])[np.arange(len(rows)) % 3]}
    pq.write_table(pa.table(table), path / "cases.parquet")
    limits = [word for name, limit in LIMITS.items() for word in ("--limit", f"{name}={limit}")]
    meant = ("--label", "y", "--split", "split", "--groups", "site", "--classes", ",".join(NAMES))
    run(path, "optimize", "model.onnx", "--data", "cases.parquet", *meant, *limits, "--out", "models/x")
    return path


def test_a_network_of_several_classes_becomes_a_verified_artifact(folder: Path) -> None:
    assert "reproduces the artifact's" in run(folder, "artifact", "verify", "models/x")
    evidence = featherweight.read_evidence(folder / "models/x")
    assert evidence.passed
    assert {one.name for one in evidence.limits} == set(LIMITS)
    told = evidence.document
    assert [fault.message for fault in Draft202012Validator(SCHEMA).iter_errors(told)] == []
    assert told["labels"] == NAMES
    assert sum(told["test"]["classes"].values()) == 1000
    assert np.array(told["test"]["outcomes"]["moves"]).shape == (4, 4)
    assert np.array(told["test"]["baseline"]["confusion_matrix"]).sum() == 1000
    assert [one["name"] for one in told["test"]["outcomes"]["classes"]] == NAMES
    assert told["gate"]["caught"] == told["gate"]["should_be_caught"] > 30
    assert {row["column"] for row in told["test"]["subgroups"]["rows"]} == {"site"}
    assert "Between which classes" in evidence.page
    assert "Class by class" in evidence.page
    assert "gives the case's own class" in (folder / "models" / "x-cases.html").read_text()
    with pytest.raises(UsageError, match="decides for one of 4 classes; models are compared on a yes or no alone"):
        open_artifact(folder / "models" / "x")


def test_it_decides_as_the_network_does(folder: Path) -> None:
    table = pq.read_table(folder / "cases.parquet")
    with featherweight.open_model(folder / "models/x") as model:
        found = model.predict({name: table[name].to_numpy() for name in table.column_names})
    assert found.labels == tuple(NAMES)
    assert found.positive == ""
    assert found.scores.shape == found.probabilities.shape == (3000, 4)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert (np.array(NAMES)[found.probabilities.argmax(axis=1)] == found.decisions).all()
    assert (found.decisions == np.array(table["y"].to_pylist())).mean() > 0.85
    assert "<th>probability of the decision</th>" in found._repr_html_()


def test_a_table_is_scored_as_the_front_door_scores_it(folder: Path) -> None:
    run_predict(PredictJob(folder / "models/x", folder / "cases.parquet", folder / "scores.parquet", keep=("site",)))
    scored, table = pq.read_table(folder / "scores.parquet"), pq.read_table(folder / "cases.parquet")
    each = [f"probability of {name}" for name in NAMES]
    assert scored.column_names == ["site", "probability", *each, "decision", "reason"]
    with featherweight.open_model(folder / "models/x") as model:
        expected = model.predict({name: table[name].to_numpy() for name in table.column_names})
    assert scored["decision"].to_pylist() == expected.decisions.tolist()
    found = np.stack([scored[name].to_numpy() for name in each], axis=1)
    np.testing.assert_allclose(found, expected.probabilities, rtol=1e-12)
    np.testing.assert_allclose(scored["probability"].to_numpy(), found.max(axis=1))
    with pytest.raises(UsageError, match="'probability' cannot be carried over"):
        run_predict(PredictJob(folder / "models/x", folder / "cases.parquet", folder / "s.parquet", ("probability",)))


def test_a_linear_model_of_several_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn names the classes itself; limits are those that the cases can show."""
    monkeypatch.chdir(tmp_path)
    rows, labels = _cases()
    named = np.array(NAMES)[labels]
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[::3], named[::3])
    data = featherweight.Data(
        train=(rows[::3], named[::3]), validation=(rows[1::3], named[1::3]), test=(rows[2::3], named[2::3])
    )
    outcome = featherweight.optimize(fitted, data, out="models/linear")
    assert any("The model agrees with scikit-learn on 3,000 rows" in note for note in outcome.warnings)
    assert {"macro_auc_loss", "accuracy_loss", "sensitivity_loss", "flip_ratio_max"} == set(outcome.evidence.limits)
    with featherweight.open_model("models/linear") as model:
        found = model.predict(rows)
    assert found.labels == tuple(NAMES)
    assert (found.decisions == fitted.predict(rows)).mean() > 0.98


def test_trees_of_several_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGBM's trees, a tree for each class and round, which compare rows in float64."""
    monkeypatch.chdir(tmp_path)
    rows, labels = _cases()
    wide = rows.astype(np.float64)
    fitted = LGBMClassifier(n_estimators=40, n_jobs=1, verbose=-1).fit(wide[::3], labels[::3])
    data = featherweight.Data(
        train=(wide[::3], labels[::3]), validation=(wide[1::3], labels[1::3]), test=(wide[2::3], labels[2::3])
    )
    outcome = featherweight.optimize(fitted, data, out="models/trees")
    assert any("The model agrees with LightGBM on 3,000 rows" in note for note in outcome.warnings)
    assert outcome.evidence.passed
    assert "reproduces the artifact's" in run(tmp_path, "artifact", "verify", "models/trees")
    with featherweight.open_model("models/trees") as model:
        found = model.predict(wide)
    assert found.labels == ("0", "1", "2", "3")
    assert (found.decisions == fitted.predict(wide).astype(str)).mean() > 0.99
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_two_classes_with_a_score_for_each_are_a_yes_or_no() -> None:
    rows, labels = _cases(900)
    fitted = XGBClassifier(n_estimators=3, n_jobs=1, objective="multi:softprob", num_class=2).fit(rows, labels % 2)
    task = _make(fitted, featherweight.Data(cases=(rows, labels % 2)))
    assert any("The model agrees with XGBoost on 900 rows" in note for note in task.notes)
    assert task.score.form == "logits"


def test_what_does_not_fit_is_refused() -> None:
    rows, _ = _cases(900)
    network = nn.Linear(6, 1)
    values = rows[:, 0]
    with pytest.raises(DataError, match=r"no quantities \(regression\)"):
        _make(network, featherweight.Data(cases=(rows, values)))
    with pytest.raises(UsageError, match="one output of 5 float32 numbers a case, one for each class"):
        _make(nn.Linear(6, 3), featherweight.Data(cases=(rows, np.arange(900) % 5)))
    with pytest.raises(UsageError, match="of several classes the most probable one is decided for; leave it out"):
        _make(nn.Linear(6, 3), featherweight.Data(cases=(rows, np.arange(900) % 3)), 0.3)
    with pytest.raises(DataError, match="is named the positive one; leave that out for several classes"):
        _make(nn.Linear(6, 3), featherweight.Data(cases=(rows, np.arange(900) % 3), positive=1))


def _make(network: Any, data: featherweight.Data, threshold: float = 0.5) -> CustomTask:
    return make_task(network, data, SourceSettings(model="m", data="d", threshold=threshold))
