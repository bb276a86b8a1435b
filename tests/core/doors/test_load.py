"""Models of every kind, read and compared with their own library on rows and at the thresholds."""

from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import featherweight
from featherweight.core.doors.binding import InputForm, bind
from featherweight.core.doors.data import Data
from featherweight.core.doors.load import load
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.rows import check_rows, run_model
from featherweight.core.doors.scores import infer_score
from featherweight.core.errors import DataError, UsageError
from featherweight.core.model import Model, trees_model
from tests.core.doors.models import FEATURES, MODELS, NO_MISSING, rows_and_labels


def notes_of(loaded: LoadedModel, rows: Any, labels: Any) -> tuple[str, ...]:
    """What is found when it is compared on the rows."""
    form = InputForm(loaded.model.inputs, loaded.columns, loaded.classes, loaded.missing_value)
    bound = bind(Data(cases=(rows, labels)), form)
    some = bound.parts["validation"].tensors
    score = infer_score(run_model(loaded.model, some), loaded.model.outputs)
    return check_rows(loaded, score, bound.exact, bound.rounded)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_agrees_with_its_library_on_the_users_rows(name: str) -> None:
    fitted = MODELS[name]()
    loaded = load(fitted)
    rows, labels = rows_and_labels(0 if name in NO_MISSING else 0.05)
    if loaded.missing_value is not None:
        rows = np.nan_to_num(rows, nan=-999.0)
    (note,) = notes_of(loaded, rows, labels)
    assert note.startswith("The model agrees with"), note
    assert f"{len(rows):,} rows" in note
    assert loaded.features == FEATURES


def files(folder: Path) -> dict[str, Path]:
    """Written by the libraries themselves."""
    paths = {suffix: folder / f"model.{suffix}" for suffix in ("txt", "json", "ubj")}
    MODELS["LightGBM Booster"]().save_model(paths["txt"])
    stopped = MODELS["XGBClassifier that stopped early"]()
    stopped.save_model(paths["json"])
    stopped.save_model(paths["ubj"])
    return paths


def test_a_file_scores_as_the_library_that_wrote_it(tmp_path: Path) -> None:
    """Of an XGBClassifier that stopped early, with the trees up to its best iteration."""
    rows, labels = rows_and_labels()
    for path in files(tmp_path).values():
        loaded = load(path)
        assert any("agrees with" in note for note in notes_of(loaded, rows, labels)), path
        assert path.name in loaded.source
    expected = MODELS["XGBClassifier that stopped early"]().predict_proba(rows)[:, 1]
    score = run_model(load(tmp_path / "model.ubj").model, {"features": rows})["score"][:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-score.astype(float))), expected, atol=1e-5)


def test_trees_that_were_read_wrongly_are_refused() -> None:
    """A leaf of another value: planted."""
    loaded = load(MODELS["LGBMClassifier"]())
    trees = loaded.model.ensemble("a test")
    wrong = dataclasses.replace(trees, value=trees.value + np.float32(0.01) * (trees.value != 0))
    rows, labels = rows_and_labels()
    with pytest.raises(UsageError, match="have another probability than LightGBM"):
        notes_of(dataclasses.replace(loaded, model=trees_model(wrong)), rows, labels)


def test_columns_that_float32_rounds_are_compared_in_float64() -> None:
    """Seconds since 1970 are 128 apart in float32: the trees tell them apart in float64, and so does the program."""
    import lightgbm

    generator = np.random.default_rng(0)
    seconds = 1.6e9 + generator.integers(0, 2000, 1000)
    rows = np.stack([seconds, generator.normal(size=1000)], axis=1)
    labels = ((seconds % 97) > 48).astype(np.int64)
    loaded = load(lightgbm.LGBMClassifier(n_estimators=20, verbosity=-1, n_jobs=1).fit(rows, labels))
    assert loaded.model.inputs[0].dtype == "float64"
    (note,) = notes_of(loaded, rows, labels)
    assert note.startswith("The model agrees with")
    rounded = rows.astype(np.float32).astype(np.float64)
    found = [run_model(loaded.model, {"features": one})["score"] for one in (rows, rounded)]
    assert (np.abs(found[0] - found[1]) > 1e-3).mean() > 0.2


def test_a_file_that_ends_the_librarys_process_is_refused_in_this_one(tmp_path: Path) -> None:
    """LightGBM follows the numbers of a tree's children unchecked."""
    path = tmp_path / "model.txt"
    MODELS["LightGBM Booster"]().save_model(path)
    text = re.sub(r"left_child=\S+", "left_child=2000000000", path.read_text())
    text = re.sub(r"tree_sizes=.*", "", text)
    path.write_text(text)
    with pytest.raises(DataError, match=r"model.txt: (reading it by lightgbm|lightgbm cannot read it)"):
        load(path)


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".pt", ".pth"])
def test_a_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(_Trap(str(tmp_path / "ran"))))
    with pytest.raises(UsageError, match="is a pickle"):
        load(path)
    assert not (tmp_path / "ran").exists()


class _Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.txt", b"not a model", "not the text of a LightGBM model"),
        ("model.txt", b"tree\nversion=v4\nnum_class=x\n", "lightgbm cannot read it"),
        ("model.json", b"{", "is not JSON"),
        ("model.json", b'{"a": 1}', "the JSON of no model"),
        ("model.ubj", b"\0\1\2", "xgboost cannot read it"),
        ("model.onnx", b"\0\1\2", "model.onnx"),
        ("model.cbm", b"", "CatBoost's own format"),
        ("model.xyz", b"", "no kind of model is known"),
        ("absent.txt", None, "No such file"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((UsageError, DataError), match=says):
        load(tmp_path / name)


def test_an_object_of_the_users_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mymodels.py").write_text(
        "from torch import nn\nnetwork = nn.Linear(3, 1)\ndef made():\n    return nn.Linear(4, 1)\n"
        "def broken():\n    raise OSError('disk')\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded = load("mymodels:network", example=np.zeros((2, 3)))
    assert isinstance(loaded.model, Model)
    assert "mymodels:network" in loaded.source
    assert load("mymodels:made", example=np.zeros((2, 4))).features == 4
    for source, says in (
        ("mymodels:absent", "has no attribute"),
        ("mymodels:broken", "its code fails"),
        ("mymodels:number", "int is no model"),
        ("nowhere:network", "there is no module 'nowhere'"),
    ):
        with pytest.raises(UsageError, match=says):
            load(source, example=np.zeros((2, 3)))


def test_a_pipeline_with_another_step_is_refused() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows, labels = rows_and_labels(0)
    with pytest.raises(UsageError, match="step 'pca' is PCA"):
        load(make_pipeline(PCA(3), LogisticRegression()).fit(rows, labels))


def test_a_network_says_what_it_takes_by_its_example() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    loaded = featherweight.load(network, example=np.zeros((5, 1, 3, 4)))
    assert [str(spec) for spec in loaded.model.inputs] == ["input: float32 [N, 1, 3, 4]"]
    assert [str(spec) for spec in loaded.model.outputs] == ["output: float32 [N, 2]"]
    with pytest.raises(UsageError, match="give `example`"):
        featherweight.load(network)
    with pytest.raises(UsageError, match="does not run on its inputs"):
        featherweight.load(network, example=np.zeros((5, 1, 3, 5)))


@pytest.mark.parametrize("name", ["histogram boosting", "imputed and scaled boosting", "logistic regression"])
def test_a_file_of_skops_is_read(tmp_path: Path, name: str) -> None:
    from skops.io import dump

    fitted = MODELS[name]()
    dump(fitted, tmp_path / "model.skops")
    rows, _ = rows_and_labels(0)
    (output,) = run_model(load(tmp_path / "model.skops").model, {"features": rows}).values()
    np.testing.assert_allclose(
        1 / (1 + np.exp(-output[:, 0].astype(float))), fitted.predict_proba(rows)[:, 1], atol=1e-5
    )


def test_a_file_of_skops_with_other_types_is_refused(tmp_path: Path) -> None:
    from skops.io import dump

    dump(MODELS["LGBMClassifier"](), tmp_path / "model.skops")
    with pytest.raises(UsageError, match=r"lightgbm\.basic\.Booster, .*only scikit-learn's own types"):
        load(tmp_path / "model.skops")
    (tmp_path / "model.skops").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read by skops"):
        load(tmp_path / "model.skops")


def test_a_calibration_that_is_not_of_scores_is_refused() -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = rows_and_labels(0)
    several = CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=3).fit(rows, labels)
    with pytest.raises(UsageError, match="has 3 calibrated models"):
        load(several)
    one = CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=3, ensemble=False).fit(rows, labels)
    with pytest.raises(UsageError, match="calibrates the probabilities of RandomForestClassifier"):
        load(one)


def test_the_calibration_of_a_model_is_its_own_decision() -> None:
    from featherweight.apps.custom.task import SourceSettings, make_task

    rows, labels = rows_and_labels()
    fitted = MODELS["calibrated boosting"]()
    task = make_task(fitted, Data(cases=(rows, labels)), SourceSettings(model="m", data="d"))
    cases = task.validation_cases()
    scores = task.scores(run_model(task.baseline, cases.tensors))
    own = fitted.predict(cases.tensors["features"])
    np.testing.assert_array_equal(scores >= task.positive_threshold, own == 1)
    assert task.baseline_probability is not None
    expected = fitted.predict_proba(cases.tensors["features"])[:, 1]
    np.testing.assert_allclose(task.baseline_probability(scores), expected, atol=1e-5)
