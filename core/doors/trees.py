"""Tree ensembles of LightGBM, XGBoost and scikit-learn, as fitted objects and as the files that these write.

What a file says is translated by `core.trees`, which compares it with the library at the thresholds; `reference` is
for the comparison on the user's own rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.arrays import Array, Probabilities
from featherweight.core.doors.loaded import LoadedModel, Reference
from featherweight.core.doors.scores import probabilities
from featherweight.core.doors.tried import check_loads
from featherweight.core.errors import DataError, MissingExtraError, UsageError
from featherweight.core.model import trees_model
from featherweight.core.trees.ensemble import INPUT, Ensemble
from featherweight.core.trees.lightgbm import decode_lightgbm, from_lightgbm
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import decode_xgboost, from_xgboost


def read_lightgbm(model: Any) -> LoadedModel:
    """A fitted Booster or LGBMClassifier."""
    booster = model.booster_ if hasattr(model, "fit") and hasattr(model, "classes_") else model
    ensemble = from_lightgbm(model)
    names = tuple(booster.feature_name())
    made_up = tuple(f"Column_{place}" for place in range(len(names)))
    return LoadedModel(
        trees_model(ensemble),
        type(model).__name__,
        "LightGBM",
        _of_rows(lambda rows: np.asarray(booster.predict(rows), np.float64)),
        () if names == made_up else names,
        _classes(model),
    )


def read_lightgbm_text(path: Path, content: bytes) -> LoadedModel:
    """The text that `Booster.save_model` writes."""
    lightgbm = _library("lightgbm", "train", path)
    if not content.startswith(b"tree\n"):
        raise DataError(f"{path}: is not the text of a LightGBM model; write it by booster.save_model('model.txt')")
    check_loads(path, content, "lightgbm")
    return read_lightgbm(lightgbm.Booster(model_str=content.decode("utf-8")))


def read_xgboost(model: Any) -> LoadedModel:
    """A fitted Booster or XGBClassifier; a number that the classifier reads as missing becomes NaN in what it scores
    here, and in what the artifact scores."""
    missing = getattr(model, "missing", None) if hasattr(model, "fit") else None
    replaced = None if missing is None or np.isnan(missing) else float(missing)
    plain = model
    if replaced is not None:
        plain = copy.copy(model)
        plain.missing = np.nan
    ensemble = from_xgboost(plain)
    booster = plain.get_booster() if hasattr(plain, "fit") else plain
    if hasattr(plain, "fit"):
        reference = _of_rows(lambda rows: np.asarray(model.predict_proba(rows, validate_features=False)[:, 1], float))
    else:
        reference = _of_rows(lambda rows: _xgboost_chances(booster, rows, (0, 0)))
    names = tuple(booster.feature_names or ())
    return LoadedModel(
        trees_model(ensemble), type(model).__name__, "XGBoost", reference, names, _classes(model), replaced
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
    names = tuple(map(str, json.loads(content)["learner"].get("feature_names") or ()))
    note = "a number that an XGBClassifier read as missing is not in its file; if there was one, put NaN in its place"
    if find_spec("xgboost") is None:
        return LoadedModel(
            trees_model(ensemble), "XGBoost model", columns=names, notes=(note, _not_compared("XGBoost"))
        )
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(content))
    best = booster.attr("best_iteration") if booster.attr("scikit_learn") is not None else None
    rounds = (0, 0) if best is None else (0, int(best) + 1)
    reference = _of_rows(lambda rows: _xgboost_chances(booster, rows, rounds))
    return LoadedModel(trees_model(ensemble), "XGBoost model", "XGBoost", reference, names, notes=(note,))


def read_json(path: Path, content: bytes) -> LoadedModel:
    """XGBoost's own JSON, or a dump of LightGBM; other libraries' are refused by name."""
    try:
        keys = set(json.loads(content))
    except (ValueError, RecursionError, TypeError) as error:
        raise DataError(f"{path}: is not JSON ({type(error).__name__})") from error
    if "learner" in keys:
        return read_xgboost_file(path, content)
    if "tree_info" in keys:
        ensemble = decode_lightgbm(content)
        names = tuple(map(str, json.loads(content).get("feature_names") or ()))
        notes = (_not_compared("LightGBM") + "; the text of booster.save_model is compared",)
        return LoadedModel(trees_model(ensemble), "LightGBM dump", columns=names, notes=notes)
    if "oblivious_trees" in keys or "model_info" in keys:
        raise UsageError(f"{path}: is a CatBoost model, which is not read yet; train the same with LightGBM or XGBoost")
    raise DataError(f"{path}: is the JSON of no model that is read here: XGBoost's save_model, or LightGBM's dump")


def read_sklearn_trees(model: Any) -> LoadedModel:
    """A decision tree, a forest, bagged trees, gradient boosting or histogram gradient boosting."""
    return trees_of_estimator(model, from_sklearn(model))


def trees_of_estimator(model: Any, ensemble: Ensemble) -> LoadedModel:
    """Trees that were made of an estimator whose `predict_proba` is what they are compared with."""
    return LoadedModel(
        trees_model(ensemble),
        type(model).__name__,
        "scikit-learn",
        _of_rows(lambda rows: np.asarray(model.predict_proba(rows)[:, 1], np.float64)),
        feature_names(model),
        _classes(model),
    )


def feature_names(model: Any) -> tuple[str, ...]:
    """The columns that an estimator was fitted on, where they had names."""
    return tuple(map(str, getattr(model, "feature_names_in_", ())))


def _classes(model: Any) -> tuple[str, str] | None:
    found = [str(value) for value in getattr(model, "classes_", ())]
    return (found[0], found[1]) if len(found) == 2 else None


def _of_rows(score: Callable[[Array], Probabilities]) -> Reference:
    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        return score(inputs[INPUT])

    return reference


def _xgboost_chances(booster: Any, rows: Array, rounds: tuple[int, int]) -> Probabilities:
    """Probabilities [N] of rows [N, F], from margins: an objective may give either."""
    import xgboost

    data = xgboost.DMatrix(rows)
    margins = booster.predict(data, output_margin=True, iteration_range=rounds, validate_features=False)
    return probabilities(np.asarray(margins, np.float64))


def _library(name: str, extra: str, path: Path) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, extra, f"reading {path}") from error


def _not_compared(library: str) -> str:
    return f"{library} does not load it here, so that its outputs were compared with nothing"
