"""Models of every kind of tree that is read, with rows that hold missing values and categories, and what each model's
own library says of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import xgboost
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from featherweight.core.trees.ensemble import Ensemble
from featherweight.core.trees.lightgbm import from_lightgbm
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import from_xgboost

Rows = npt.NDArray[Any]
FEATURES, CATEGORIES, SECONDS = 6, [0, 1], 5
"""Columns of categories; the one of seconds since 1970, which float32 keeps to the next two minutes."""
ROUNDS = 12
_TYPES = ["c", "c", "q", "q", "q", "q"]


def make_rows(count: int, seed: int, *, strange: bool) -> Rows:
    """float64 [N, 6]: a code below 30, multiples of three, three numbers, seconds since 1970; a twentieth is missing.
    strange: with categories that no model was fitted on."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, FEATURES))
    rows[:, 0], rows[:, 1] = generator.integers(0, 30, count), 3 * generator.integers(0, 60, count)
    rows[:, 2:5] = rows[:, 2:5].astype(np.float32)
    rows[:, SECONDS] = 1_700_000_000 + generator.integers(0, 40_000, count)
    if strange:
        for column in CATEGORIES:
            some = generator.random(count) < 0.05
            rows[some, column] = generator.choice([31, 45, 100, 181, 255, 256, 1000, 70_000], int(some.sum()))
    rows[generator.random(rows.shape) < 0.05] = np.nan
    return rows


@cache
def _data() -> tuple[Rows, Rows]:
    rows = make_rows(3000, 0, strange=False)
    effect = np.random.default_rng(1).normal(size=200)
    known = np.nan_to_num(rows)
    value = effect[known[:, 0].astype(int)] + effect[30 + known[:, 1].astype(int) // 3] + known[:, 2] * known[:, 3]
    value += 2 * (known[:, SECONDS] % 8000 > 4000) + np.isnan(rows[:, 4])
    return rows, value


def _truths() -> dict[str, Rows]:
    value = _data()[1]
    return {
        "binary": (value > np.median(value)).astype(int),
        "classes": np.digitize(value, np.quantile(value, [0.3, 0.7])),
        "value": value,
    }


@dataclass(frozen=True)
class Kind:
    """fit: the model; read: its trees; say: its library's margins of rows, of forests' probabilities the logarithms or
    log-odds; narrow: whether the library itself rounds rows to float32."""

    fit: Callable[[], Any]
    read: Callable[[Any], Ensemble]
    say: Callable[[Any, Rows], Rows]
    narrow: bool = False
    whole: bool = False

    def rows(self, count: int, seed: int) -> Rows:
        rows = make_rows(count, seed, strange=True)
        rows = np.nan_to_num(rows) if self.whole else rows
        return rows.astype(np.float32) if self.narrow else rows


def _lightgbm(objective: str, truth: str, **settings: Any) -> Kind:
    chosen = {"objective": objective, "verbosity": -1, "num_threads": 1, "min_data_per_group": 5, "cat_smooth": 1.0}

    def fit() -> Any:
        data = lightgbm.Dataset(_data()[0], _truths()[truth], categorical_feature=CATEGORIES)
        return lightgbm.train(chosen | settings, data, ROUNDS)

    share = 1 / ROUNDS if settings.get("boosting") == "rf" else 1.0  # of a forest the raw score is the trees' sum

    def say(model: Any, rows: Rows) -> Rows:
        return share * np.asarray(model.predict(rows, raw_score=True))

    return Kind(fit, lambda model: from_lightgbm(model, wide=True), say)


def _xgboost(objective: str, truth: str, **settings: Any) -> Kind:
    def fit() -> Any:
        data = xgboost.DMatrix(_data()[0], _truths()[truth], feature_types=_TYPES, enable_categorical=True)
        return xgboost.train({"objective": objective, "max_depth": 5, "nthread": 1} | settings, data, ROUNDS)

    def say(model: Any, rows: Rows) -> Rows:
        data = xgboost.DMatrix(rows, feature_types=_TYPES, enable_categorical=True)
        return np.asarray(model.predict(data, output_margin=True))

    return Kind(fit, from_xgboost, say, narrow=True)


def _histogram(maker: Any, truth: str, **settings: Any) -> Kind:
    def fit() -> Any:
        return maker(max_iter=ROUNDS, categorical_features=CATEGORIES, **settings).fit(_data()[0], _truths()[truth])

    def say(model: Any, rows: Rows) -> Rows:
        return np.asarray(model.predict(rows) if truth == "value" else model.decision_function(rows))

    return Kind(fit, lambda model: from_sklearn(model, wide=True), say)


def _sklearn(maker: Any, truth: str, *, whole: bool = False, **settings: Any) -> Kind:
    def fit() -> Any:
        rows = np.nan_to_num(_data()[0]) if whole else _data()[0]
        return maker(n_estimators=8, random_state=0, **settings).fit(rows.astype(np.float32), _truths()[truth])

    def say(model: Any, rows: Rows) -> Rows:
        if truth == "value":
            return np.asarray(model.predict(rows))
        if hasattr(model, "decision_function"):
            return np.asarray(model.decision_function(rows))
        return np.log(np.clip(model.predict_proba(rows), 2.0**-20, 1))

    return Kind(fit, from_sklearn, say, narrow=True, whole=whole)


KINDS: dict[str, Kind] = {
    "LightGBM": _lightgbm("binary", "binary"),
    "LightGBM, one category against the others": _lightgbm("binary", "binary", max_cat_to_onehot=100),
    "LightGBM, several classes": _lightgbm("multiclass", "classes", num_class=3),
    "LightGBM, one class against the others": _lightgbm("multiclassova", "classes", num_class=3),
    "LightGBM, regression": _lightgbm("regression", "value"),
    "LightGBM's forest of several classes": _lightgbm(
        "multiclass", "classes", num_class=3, boosting="rf", bagging_freq=1, bagging_fraction=0.6
    ),
    "XGBoost": _xgboost("binary:logistic", "binary"),
    "XGBoost, one category against the others": _xgboost("binary:logistic", "binary", max_cat_to_onehot=100),
    "XGBoost, several classes": _xgboost("multi:softprob", "classes", num_class=3, num_parallel_tree=2),
    "XGBoost, regression": _xgboost("reg:squarederror", "value"),
    "histogram boosting": _histogram(HistGradientBoostingClassifier, "binary"),
    "histogram boosting, several classes": _histogram(HistGradientBoostingClassifier, "classes"),
    "histogram boosting, regression": _histogram(HistGradientBoostingRegressor, "value"),
    "forest of several classes": _sklearn(RandomForestClassifier, "classes", max_depth=8),
    "forest, regression": _sklearn(RandomForestRegressor, "value", max_depth=8),
    "extra trees, regression": _sklearn(ExtraTreesRegressor, "value", max_depth=8),
    "gradient boosting, several classes": _sklearn(GradientBoostingClassifier, "classes", whole=True),
    "gradient boosting, regression": _sklearn(GradientBoostingRegressor, "value", whole=True),
}


@cache
def fitted(name: str) -> Any:
    """The model of a kind, fitted once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # categories as float64 are LightGBM's own advice against
        return KINDS[name].fit()


@cache
def read(name: str) -> Ensemble:
    """Its trees, compared with its library at the thresholds."""
    return KINDS[name].read(fitted(name))
