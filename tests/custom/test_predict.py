"""`featherweight predict`: every row of a table, in order, in bounded memory, and on after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

import featherweight
from featherweight.apps.custom.adapter import CustomAdapter
from featherweight.apps.custom.predict import PredictJob, run_predict
from featherweight.apps.custom.rows import prepare
from featherweight.apps.custom.sealed import Schema
from featherweight.apps.custom.task import make_task, read_settings
from featherweight.core.doors.data import Data
from featherweight.core.doors.scores import ScoreForm
from featherweight.core.errors import TensorError, UsageError
from featherweight.core.tensors import TensorSpec
from tests.custom.conftest import COUNT, run


def test_a_table_is_scored_as_the_front_door_scores_it(folder: Path, artifact: Path) -> None:
    words = ("predict", "models/x", "--data", "cases.parquet", "--keep", "patient,site", "--out", "scores.parquet")
    said = run(folder, *words)
    assert "scores.parquet: 3,000 rows" in said
    found, table = pq.read_table(folder / "scores.parquet"), pq.read_table(folder / "cases.parquet")
    assert found.column_names == ["patient", "site", "score", "probability", "decision", "reason"]
    assert found["patient"].to_pylist() == table["patient"].to_pylist()
    with featherweight.open_model(artifact) as model:
        expected = model.predict({name: table[name].to_numpy() for name in table.column_names})
    assert found["decision"].to_pylist() == expected.decisions.tolist()
    np.testing.assert_array_equal(found["score"].to_numpy(), expected.scores)
    np.testing.assert_allclose(found["probability"].to_numpy(), expected.probabilities, rtol=1e-14)
    assert found["reason"].null_count == COUNT
    assert not list(folder.glob(".scores*"))


def test_a_csv_in_and_out_says_the_same(folder: Path, artifact: Path) -> None:
    table = pq.read_table(folder / "cases.parquet")
    csv.write_csv(table, folder / "cases.csv")
    run(folder, "predict", "models/x", "--data", "cases.csv", "--out", "from-csv.csv")
    run(folder, "predict", "models/x", "--data", "cases.parquet", "--out", "from-parquet.csv")
    assert (folder / "from-csv.csv").read_bytes() == (folder / "from-parquet.csv").read_bytes()
    assert len((folder / "from-csv.csv").read_text().splitlines()) == COUNT + 1


def test_rows_that_cannot_be_scored_stay_in_their_places(folder: Path, artifact: Path) -> None:
    lines = ["id,age,dose,weight,height", "a,1,2,3,4", "b,many,2,3,4", "c,1,1e999,3,4", "d,1,,nan,4", "e,1,2,3,4.5"]
    (folder / "odd.csv").write_text("\n".join(lines) + "\n")
    words = ("predict", "models/x", "--data", "odd.csv", "--out", "odd.parquet", "--json")
    summary, _ = json.JSONDecoder().raw_decode(run(folder, *words, code=3))
    assert summary["rejected"] == 2
    assert summary["reasons"] == {"age: not a number": 1, "dose: infinite, or too large for float64": 1}
    found = pq.read_table(folder / "odd.parquet")
    assert found["id"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert [value is None for value in found["score"].to_pylist()] == [False, True, True, False, False]
    assert [value is None for value in found["decision"].to_pylist()] == [False, True, True, False, False]
    run(folder, *words[:-1], "--max-rejected-share", "0.1", code=4)


def test_a_value_that_is_missing_is_refused_where_the_model_takes_none() -> None:
    schema = Schema(columns=("a", "b"), score=ScoreForm(output="score", form="logit"))
    batch = pa.record_batch({"a": pa.array([1, None, 3]), "b": pa.array([1.0, 2.0, -9.0])})
    assert prepare(batch, schema).reasons.tolist() == ["", "a: missing", ""]
    exact = pa.record_batch({"a": pa.array([Decimal("1.5"), None, Decimal(3)]), "b": batch["b"].dictionary_encode()})
    assert prepare(exact, schema).reasons.tolist() == ["", "a: missing", ""]
    np.testing.assert_array_equal(prepare(exact, schema).rows[[0, 2]], [[1.5, 1], [3, -9]])
    known = Schema(columns=("a", "b"), missing=True, missing_value=-9.0, score=schema.score)
    prepared = prepare(batch, known)
    assert prepared.fit.all()
    assert np.isnan(prepared.rows).tolist() == [[False, False], [True, False], [False, True]]


def test_a_fraction_is_no_category() -> None:
    """Libraries read 2.5 as 2, or as a category that they do not know: it is refused, with its row."""
    score = ScoreForm(output="score", form="logit")
    schema = Schema(columns=("seconds", "site"), categories=(1,), missing=True, score=score)
    batch = pa.record_batch({"seconds": pa.array([1_700_000_001, 2, 3]), "site": pa.array([2.0, 2.5, None])})
    prepared = prepare(batch, schema, "float64")
    assert prepared.rows.dtype == np.float64
    assert prepared.rows[0].tolist() == [1_700_000_001, 2]
    assert prepared.reasons.tolist() == ["", "site: not a whole number, and so no category", ""]
    rule = {"slope": 1.0, "intercept": 0.0, "threshold": 0.5, "chosen_for": "a test"}
    files = {"schema.json": msgspec.json.encode(schema), "decision.json": msgspec.json.encode(rule)}
    adapter = CustomAdapter(("no", "yes"), files, (TensorSpec("features", "float64", (None, 2)),))
    tensors, _ = adapter.prepare(adapter.cases({"site": [2, 3], "seconds": [1_700_000_001, 2]}), 0)
    assert tensors["features"].dtype == np.float64
    assert tensors["features"][0, 0] == 1_700_000_001
    with pytest.raises(TensorError, match=r"column 'site'.*expected whole numbers"):
        adapter.prepare(adapter.cases(np.array([[1, 2.5]])), 0)


def test_classes_that_the_data_lack_and_values_are_not_judged() -> None:
    rows, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60)
    settings = read_settings({"model": "of a test", "data": "of a test"})
    lacking = "one output of one or two float32 numbers a case, which decides yes or no"
    value = "gives a value, and only yes or no, or one of several classes, is judged"
    several = "gives several labels, and only yes or no"
    for objective, count, says in (("multiclass", 3, lacking), ("regression", 1, value), ("multiclassova", 3, several)):
        parameters = {"objective": objective, "num_class": count, "verbosity": -1, "num_threads": 1}
        model = lightgbm.train(parameters, lightgbm.Dataset(rows, labels % 3), 2)
        with pytest.raises(UsageError, match=says):
            make_task(model, Data(cases=(rows, labels % 2)), settings)


def test_an_interrupted_job_goes_on_where_it_was(folder: Path, artifact: Path) -> None:
    out = folder / "again.parquet"
    job = PredictJob(artifact, folder / "cases.parquet", out)
    calls: list[int] = []

    def interrupt(stage: str, done: int, total: int) -> None:
        calls.append(done)
        if done >= 1500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_predict(job, interrupt)
    parts = sorted((folder / ".again.parquet.parts").glob("*.parquet"))
    assert len(parts) == 2  # of row groups of 500: the third was not finished
    assert not out.exists()
    done: list[int] = []
    assert run_predict(job, lambda stage, count, total: done.append(count)).rows == COUNT
    assert min(done) > 1000
    whole = folder / "whole.parquet"
    run_predict(PredictJob(artifact, folder / "cases.parquet", whole))
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_parts_of_another_job_are_not_taken(folder: Path, artifact: Path) -> None:
    out = folder / "other.parquet"

    def interrupt(stage: str, done: int, total: int) -> None:
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_predict(PredictJob(artifact, folder / "cases.parquet", out), interrupt)
    done: list[int] = []
    run_predict(PredictJob(artifact, folder / "cases.parquet", out, ("site",)), lambda *told: done.append(told[1]))
    assert min(done) <= 500
    assert "site" in pq.read_table(out).column_names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("models/x", "--data", "absent.parquet", "--out", "s.parquet"), "there is no such file"),
        (("models/x", "--data", "model.txt", "--out", "s.parquet"), "expected a table"),
        (("models/x", "--data", "cases.parquet", "--out", "s.xlsx"), "ends with .parquet or .csv"),
        (
            ("models/x", "--data", "cases.parquet", "--keep", "nothing", "--out", "s.parquet"),
            "lacks 1 column (nothing)",
        ),
        (("models/none", "--data", "cases.parquet", "--out", "s.parquet"), "there is no such folder"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(folder: Path, artifact: Path, words: tuple[str, ...], says: str) -> None:
    said = run(folder, "predict", *words, code=2)
    assert says in " ".join(said.split())
    assert "Traceback" not in said


def test_it_needs_nothing_that_only_training_needs(folder: Path, artifact: Path) -> None:
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from featherweight.apps.custom.predict import PredictJob, run_predict\n"
        "job = PredictJob(Path('models/x'), Path('cases.parquet'), Path('bare.parquet'), backend='onnxruntime')\n"
        "run_predict(job)\n"
        "print(json.dumps(sorted({'torch', 'sklearn', 'onnx', 'numba', 'scipy', 'lightgbm'} & sys.modules.keys())))"
    )
    done: Any = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr
