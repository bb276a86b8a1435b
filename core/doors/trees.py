"""Tree ensembles of LightGBM, XGBoost, CatBoost and scikit-learn, as fitted objects and as the files that these write.

LightGBM and histogram gradient boosting compare rows in float64, so that their programs take float64; all others round
them to float32, as their programs do.

What a file says is translated by `core.trees`, which compares it with the library at the thresholds; `reference` is
for the comparison on the user's own rows."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.arrays import AnyFloats, Array, FeatureRows, Probabilities
from featherweight.core.doors.loaded import LoadedModel, Reference
from featherweight.core.doors.scores import Meaning, meant
from featherweight.core.doors.tried import check_loads
from featherweight.core.errors import DataError, MissingExtraError, UsageError
from featherweight.core.model import trees_model
from featherweight.core.trees.catboost import BINARY, CLASSES, LABELS, decode_catboost, loss_of
from featherweight.core.trees.catboost import feature_names as catboost_names
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import INPUT
from featherweight.core.trees.lightgbm import decode_lightgbm, from_lightgbm, objective_of
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import LOGISTIC, decode_xgboost, from_xgboost

_LIGHTGBM: Mapping[str, Meaning] = {
    "binary": "binary",
    "cross_entropy": "binary",
    "multiclass": "classes",
    "multiclassova": "labels",
}
"""LightGBM's objectives; all others that are read give values."""


def read_lightgbm(model: Any, *, wide: bool = True) -> LoadedModel:
    """A fitted Booster, LGBMClassifier or LGBMRegressor."""
    booster = model.booster_ if hasattr(model, "fit") and hasattr(model, "booster_") else model
    _check_codes(getattr(booster, "pandas_categorical", None) or ())
    ensemble = from_lightgbm(model, wide=wide)
    names = tuple(booster.feature_name())
    made_up = tuple(f"Column_{place}" for place in range(len(names)))
    return LoadedModel(
        trees_model(ensemble),
        type(model).__name__,
        "LightGBM",
        _of_rows(lambda rows: np.asarray(booster.predict(rows), np.float64)),
        () if names == made_up else names,
        class_labels(model),
        meaning=_LIGHTGBM.get(objective_of(booster.dump_model(num_iteration=1)), "value"),
    )


def read_lightgbm_text(path: Path, content: bytes) -> LoadedModel:
    """The text that `Booster.save_model` writes."""
    lightgbm = _library("lightgbm", "train", path)
    if not content.startswith(b"tree\n"):
        raise DataError(f"{path}: is not the text of a LightGBM model; write it by booster.save_model('model.txt')")
    check_loads(path, content, "lightgbm")
    return read_lightgbm(lightgbm.Booster(model_str=content.decode("utf-8")))


def read_xgboost(model: Any) -> LoadedModel:
    """A fitted Booster, XGBClassifier or XGBRegressor; a number that it reads as missing becomes NaN in what it scores
    here, and in what the artifact scores."""
    missing = getattr(model, "missing", None) if hasattr(model, "fit") else None
    replaced = None if missing is None or np.isnan(missing) else float(missing)
    plain = model
    if replaced is not None:
        plain = copy.copy(model)
        plain.missing = np.nan
    ensemble = from_xgboost(plain)
    booster = plain.get_booster() if hasattr(plain, "fit") else plain
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    meaning = _xgboost_meaning(learner)
    _check_codes(_xgboost_categories(learner))
    if not hasattr(plain, "fit"):
        reference = _of_rows(lambda rows: _xgboost_scores(booster, rows, (0, 0), meaning))
    elif meaning == "value":
        reference = _of_rows(lambda rows: np.asarray(model.predict(rows, validate_features=False), float))
    else:
        reference = _of_rows(lambda rows: _positive(model.predict_proba(rows, validate_features=False), meaning))
    names = tuple(booster.feature_names or ())
    return LoadedModel(
        trees_model(ensemble),
        type(model).__name__,
        "XGBoost",
        reference,
        names,
        class_labels(model),
        replaced,
        meaning=meaning,
    )


def read_xgboost_file(path: Path, content: bytes) -> LoadedModel:
    """What `save_model` writes, in JSON or UBJSON: all trees, or those up to the best iteration of an XGBClassifier."""
    if path.suffix.lower() == ".ubj":
        xgboost = _library("xgboost", "dev", path)
        check_loads(path, content, "xgboost")
        booster = xgboost.Booster()
        booster.load_model(bytearray(content))
        content = bytes(booster.save_raw("json"))
    ensemble = decode_xgboost(content)
    learner = json.loads(content)["learner"]
    names = tuple(map(str, learner.get("feature_names") or ()))
    meaning = _xgboost_meaning(learner)
    _check_codes(_xgboost_categories(learner))
    note = "a number that an XGBClassifier read as missing is not in its file; if there was one, put NaN in its place"
    plain = LoadedModel(trees_model(ensemble), "XGBoost model", columns=names, notes=(note,), meaning=meaning)
    if find_spec("xgboost") is None:
        return replace(plain, notes=(note, _not_compared("XGBoost")))
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(content))
    best = booster.attr("best_iteration") if booster.attr("scikit_learn") is not None else None
    rounds = (0, 0) if best is None else (0, int(best) + 1)
    reference = _of_rows(lambda rows: _xgboost_scores(booster, rows, rounds, meaning))
    return replace(plain, library="XGBoost", reference=reference)


def read_json(path: Path, content: bytes) -> LoadedModel:
    """XGBoost's own JSON, or a dump of LightGBM; other libraries' are refused by name."""
    try:
        found = json.loads(content)
        keys = set(found)
    except (ValueError, RecursionError, TypeError) as error:
        raise DataError(f"{path}: is not JSON ({type(error).__name__})") from error
    if "learner" in keys:
        return read_xgboost_file(path, content)
    if "tree_info" in keys:
        ensemble = decode_lightgbm(content, wide=True)
        _check_codes(found.get("pandas_categorical") or ())
        names = tuple(map(str, found.get("feature_names") or ()))
        notes = (_not_compared("LightGBM") + "; the text of booster.save_model is compared",)
        meaning = _LIGHTGBM.get(objective_of(found), "value")
        return LoadedModel(trees_model(ensemble), "LightGBM dump", columns=names, notes=notes, meaning=meaning)
    if "features_info" in keys:
        return read_catboost_json(path, content)
    raise DataError(
        f"{path}: is the JSON of no model that is read here: XGBoost's or CatBoost's save_model, or LightGBM's dump"
    )


def read_catboost_json(path: Path, content: bytes) -> LoadedModel:
    """What CatBoost's `save_model(..., format="json")` writes."""
    plain = _catboost(content)
    if find_spec("catboost") is None:
        return replace(plain, notes=(_not_compared("CatBoost"),))
    import catboost

    check_loads(path, content, "catboost")
    model = catboost.CatBoost()
    with tempfile.TemporaryDirectory() as folder:  # it reads JSON from a file alone
        copied = Path(folder) / "model.json"
        copied.write_bytes(content)
        model.load_model(str(copied), format="json")
    return _compared_catboost(plain, model)


def read_catboost(model: Any) -> LoadedModel:
    """A fitted CatBoostClassifier, CatBoostRegressor or CatBoost."""
    name = type(model).__name__
    if not model.is_fitted():
        raise UsageError(f"this {name} is not fitted")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        content = path.read_bytes()
    plain = _catboost(content)
    classes = class_labels(model) if plain.meaning in ("binary", "classes") else None
    return _compared_catboost(replace(plain, source=name, classes=classes), model)


def _catboost(content: bytes) -> LoadedModel:
    ensemble = decode_catboost(content)
    said = json.loads(content)
    loss = loss_of(said)
    meaning: Meaning = "classes" if loss in CLASSES else "labels" if loss in LABELS else "value"
    if loss in BINARY:
        meaning = "binary"
    return LoadedModel(trees_model(ensemble), "CatBoost model", columns=catboost_names(said), meaning=meaning)


def _compared_catboost(plain: LoadedModel, model: Any) -> LoadedModel:
    def score(rows: FeatureRows) -> AnyFloats:
        return np.asarray(model.predict(rows, prediction_type="RawFormulaVal", thread_count=1))

    check_same_scores(plain.model.ensemble("reading CatBoost's trees"), score, "CatBoost")
    reference = _of_rows(lambda rows: meant(np.asarray(score(rows), np.float64), plain.meaning))
    return replace(plain, library="CatBoost", reference=reference)


def read_sklearn_trees(model: Any, *, wide: bool = True) -> LoadedModel:
    """A decision tree, a forest, bagged trees, gradient boosting or histogram gradient boosting."""
    ensemble = from_sklearn(model, wide=wide)
    meaning: Meaning = "classes" if ensemble.targets > 1 else "binary"
    if not hasattr(model, "predict_proba"):
        meaning = "value"
    return LoadedModel(
        trees_model(ensemble),
        type(model).__name__,
        "scikit-learn",
        _of_rows(lambda rows: estimator_answer(model, rows, meaning)),
        feature_names(model),
        class_labels(model),
        meaning=meaning,
    )


def estimator_answer(model: Any, rows: Array, meaning: Meaning) -> Probabilities:
    """What a classifier or regressor in scikit-learn's manner says of rows [N, F]: probabilities [N], of several
    classes [N, K], or values [N]."""
    if meaning == "value":
        return np.asarray(model.predict(rows), np.float64)
    return _positive(model.predict_proba(rows), meaning)


def _positive(chances: Array, meaning: Meaning) -> Probabilities:
    return np.asarray(chances[:, 1] if meaning == "binary" else chances, np.float64)


def feature_names(model: Any) -> tuple[str, ...]:
    """The columns that an estimator was fitted on, where they had names."""
    return tuple(map(str, getattr(model, "feature_names_in_", ())))


def class_labels(model: Any) -> tuple[str, ...] | None:
    """The labels that a classifier was fitted on, in its order."""
    return tuple(str(value) for value in getattr(model, "classes_", ())) or None


def _of_rows(score: Callable[[Array], Probabilities]) -> Reference:
    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        return score(inputs[INPUT])

    return reference


def _check_codes(categories: Any) -> None:
    """Of each column of categories that a library numbered itself, the categories in that order: only where these are
    the numbers themselves does a row of numbers mean the same to the trees as to the library's table."""
    for values in categories if isinstance(categories, Sequence) else [None]:
        if not isinstance(values, Sequence) or list(values) != list(range(len(values))):
            raise UsageError(
                "the model numbers the categories of a table itself (pandas' `category`), and only rows of numbers "
                "come to a program: train on the codes (`frame[column].cat.codes`), and give the cases so"
            )


def _xgboost_categories(learner: Mapping[str, Any]) -> Any:
    booster = learner["gradient_booster"]
    model = booster.get("model") or booster.get("gbtree", {}).get("model", {})
    cats = model.get("cats") or {}
    encoded = cats.get("enc") or [] if isinstance(cats, Mapping) else None
    if not isinstance(encoded, Sequence):
        return encoded
    return [one["values"] for one in encoded if isinstance(one, Mapping) and one.get("values")]


def _xgboost_meaning(learner: Mapping[str, Any]) -> Meaning:
    objective = str(learner["objective"]["name"])
    if objective.startswith("multi:"):
        return "classes"
    several = int(learner["learner_model_param"].get("num_target", 1)) > 1
    return ("labels" if several else "binary") if objective in LOGISTIC else "value"


def _xgboost_scores(booster: Any, rows: Array, rounds: tuple[int, int], meaning: Meaning) -> Probabilities:
    """What a model says of rows [N, F], from margins: an objective may give either."""
    import xgboost

    data = xgboost.DMatrix(rows, feature_types=booster.feature_types, enable_categorical=True)
    margins = booster.predict(data, output_margin=True, iteration_range=rounds, validate_features=False)
    return meant(np.asarray(margins, np.float64), meaning)


def _library(name: str, extra: str, path: Path) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, extra, f"reading {path}") from error


def _not_compared(library: str) -> str:
    return f"{library} does not load it here, so that its outputs were compared with nothing"
