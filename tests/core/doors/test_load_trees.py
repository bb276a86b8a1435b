"""Trees of every kind through `load`: what their scores mean, and that they say what the library says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.core.doors.binding import InputForm, bind
from featherweight.core.doors.data import Data
from featherweight.core.doors.load import load
from featherweight.core.doors.rows import check_categories, run_model
from featherweight.core.doors.scores import meant
from featherweight.core.errors import DataError, UsageError
from featherweight.core.trees.catboost import decode_catboost
from featherweight.core.trees.ensemble import INPUT, OUTPUT
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from featherweight.core.trees.predict import predict
from tests.core.trees.kinds import CATEGORIES, KINDS, fitted

LOADED = {
    "LightGBM": ("binary", 1, True),
    "LightGBM, several classes": ("classes", 3, True),
    "LightGBM, one class against the others": ("labels", 3, True),
    "LightGBM, regression": ("value", 1, True),
    "XGBoost": ("binary", 1, False),
    "XGBoost, several classes": ("classes", 3, False),
    "XGBoost, regression": ("value", 1, False),
    "histogram boosting, several classes": ("classes", 3, True),
    "histogram boosting, regression": ("value", 1, True),
    "forest of several classes": ("classes", 3, False),
}


@pytest.mark.parametrize("name", LOADED)
def test_a_model_is_loaded_with_its_meaning(name: str) -> None:
    meaning, targets, wide = LOADED[name]
    loaded = load(fitted(name))
    assert (loaded.meaning, loaded.model.outputs[0].shape) == (meaning, (None, targets))
    assert loaded.model.inputs[0].dtype == ("float64" if wide else "float32")
    assert loaded.categories == (() if name.startswith("forest") else tuple(CATEGORIES))
    rows = KINDS[name].rows(1000, 3)
    assert loaded.reference is not None
    scores = run_model(loaded.model, {INPUT: rows})[OUTPUT].astype(np.float64)
    found = meant(scores if targets > 1 else scores[:, 0], loaded.meaning)
    np.testing.assert_allclose(found, loaded.reference({INPUT: rows}), atol=1e-5, rtol=1e-5)


def test_data_with_a_fraction_for_a_category_is_refused() -> None:
    loaded = load(fitted("LightGBM"))
    rows = KINDS["LightGBM"].rows(300, 4)
    data = Data(cases=(rows, np.arange(300) % 2))
    form = InputForm(loaded.model.inputs, loaded.columns, loaded.classes)
    check_categories(loaded, bind(data, form))
    rows[5, CATEGORIES[1]] = 1.5
    with pytest.raises(UsageError, match="holds categories for this model; found 1 fraction"):
        check_categories(loaded, bind(data, form))


def test_a_file_of_several_classes(tmp_path: Path) -> None:
    fitted("LightGBM, several classes").save_model(tmp_path / "model.txt")
    fitted("XGBoost, several classes").save_model(tmp_path / "model.json")
    for name in ("model.txt", "model.json"):
        loaded = load(tmp_path / name)
        assert (loaded.meaning, loaded.model.outputs[0].shape) == ("classes", (None, 3))


def catboost_model(**changes: Any) -> dict[str, Any]:
    """A symmetric tree over two of three columns, and one that is written as nested splits."""
    columns = [
        {"feature_index": place, "flat_feature_index": place, "feature_id": name, "nan_value_treatment": missing}
        for place, (name, missing) in enumerate((("age", "AsFalse"), ("dose", "AsTrue"), ("site", "AsFalse")))
    ]

    def split(place: int, border: float) -> dict[str, Any]:
        return {"split_type": "FloatFeature", "float_feature_index": place, "border": border, "split_index": 0}

    nested = {"split": split(2, 7.0), "left": {"value": 0.5}, "right": {"value": -0.5}}
    symmetric = {"splits": [split(0, 1.5), split(1, -2.0)], "leaf_values": [1.0, 2.0, 4.0, 8.0]}
    return {
        "features_info": {"float_features": columns},
        "model_info": {"params": json.dumps({"loss_function": {"type": "Logloss"}})},
        "oblivious_trees": [symmetric],
        "trees": [nested],
        "scale_and_bias": [2.0, [0.25]],
        **changes,
    }


def test_the_json_of_catboost() -> None:
    """By hand: the first split is the lowest bit of the leaf's number; x on a border goes left; of the columns, one
    takes missing values for larger than any border."""
    ensemble = decode_catboost(json.dumps(catboost_model()))
    rows = np.array([[1.5, -2, 7], [1.6, -2, 7], [1.5, -1.9, 7], [9, 9, 9], [np.nan, np.nan, np.nan]], np.float32)
    expected = np.array([1 + 0.5, 2 + 0.5, 4 + 0.5, 8 - 0.5, 4 + 0.5]) * 2 + 0.25
    np.testing.assert_allclose(predict(ensemble, rows), expected, rtol=1e-6)
    np.testing.assert_array_equal(predict(decode_trees(encode_trees(ensemble)), rows), predict(ensemble, rows))


def test_a_file_of_catboost_without_catboost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherweight.core.doors.trees.find_spec", lambda name: None)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(catboost_model()))
    loaded = load(path)
    assert (loaded.columns, loaded.meaning) == (("age", "dose", "site"), "binary")
    assert any("compared with nothing" in note for note in loaded.notes)


def one_hot(model: dict[str, Any]) -> None:
    model["oblivious_trees"][0]["splits"][0] = {"split_type": "OneHotFeature", "cat_feature_index": 0, "value": 5}


def counted(model: dict[str, Any]) -> None:
    model["oblivious_trees"][0]["splits"][0] = {"split_type": "OnlineCtr", "border": 1.0}


def ranking(model: dict[str, Any]) -> None:
    model["model_info"]["params"] = json.dumps({"loss_function": {"type": "YetiRank"}})


@pytest.mark.parametrize(
    ("change", "part"),
    [(one_hot, "splits by OneHotFeature"), (counted, "splits by OnlineCtr"), (ranking, "loss is YetiRank")],
)
def test_what_catboost_does_beside_numbers_is_refused(change: Any, part: str) -> None:
    model = catboost_model()
    change(model)
    with pytest.raises(UsageError, match=part):
        decode_catboost(json.dumps(model))


@pytest.mark.parametrize(
    "change",
    [
        {"scale_and_bias": [1.0]},
        {"features_info": {}},
        {"model_info": {}},
        {"oblivious_trees": [{"splits": [], "leaf_values": [1.0, 2.0]}]},
        {"trees": [{"split": {}}]},
        {"oblivious_trees": [], "trees": []},
    ],
)
def test_what_is_no_model_of_catboost(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        decode_catboost(json.dumps(catboost_model(**change)))


@pytest.mark.parametrize("loss", ["Logloss", "MultiClass", "MultiClassOneVsAll", "RMSE"])
@pytest.mark.parametrize("grow_policy", ["SymmetricTree", "Lossguide"])
def test_models_of_catboost_itself(tmp_path: Path, loss: str, grow_policy: str) -> None:
    catboost = pytest.importorskip("catboost", reason="is not among the packages of the dev extra")
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(800, 4)).astype(np.float32)
    rows[generator.random(rows.shape) < 0.05] = np.nan
    value = np.nan_to_num(rows[:, 0] + rows[:, 1] * rows[:, 2])
    truth = value if loss == "RMSE" else np.digitize(value, [0.0] if loss == "Logloss" else [-0.5, 0.5])
    model = catboost.CatBoost(
        {"loss_function": loss, "grow_policy": grow_policy, "iterations": 8, "depth": 5, "verbose": False,
         "thread_count": 1, "allow_writing_files": False}
    ).fit(rows, truth)  # fmt: skip
    model.save_model(str(tmp_path / "model.json"), format="json")
    expected = np.asarray(model.predict(rows, prediction_type="RawFormulaVal")).reshape(800, -1)
    for source in (model, tmp_path / "model.json"):
        loaded = load(source)
        found = run_model(loaded.model, {INPUT: rows})[OUTPUT]
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
