"""LightGBM's models to an Ensemble: fitted ones, compared with what LightGBM says, or their JSON dump without LightGBM.

The format: https://lightgbm.readthedocs.io/en/stable/pythonapi/lightgbm.Booster.html#lightgbm.Booster.dump_model
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from featherweight.core.arrays import AnyFloats, FeatureRows
from featherweight.core.errors import DataError, UsageError
from featherweight.core.trees.canonical import Nodes, all_left, canonicalize, join, strict_thresholds
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import LEAF, Ensemble

_ZERO = np.float32(1e-35)
"""LightGBM reads every value up to this far from zero as zero, and puts thresholds there."""
_INFINITE = 1e300
"""As which the dump writes an infinite threshold: that of missing values against all others."""


_SIGMOIDS = ("binary", "cross_entropy", "multiclassova")
"""Objectives whose raw scores, times a factor, are log-odds."""
_IDENTITIES = ("multiclass", "regression", "regression_l1", "huber", "fair", "quantile", "mape")
"""Objectives whose raw scores are what the model says: logarithms of the classes' shares but for a number that is
common to all, or the value itself."""


def from_lightgbm(model: Any, *, wide: bool = False) -> Ensemble:
    """The trees of a fitted Booster, LGBMClassifier or LGBMRegressor, up to its best iteration where it stopped early,
    as LightGBM itself scores. Imports nothing of LightGBM. wide: for float64 rows, which LightGBM compares as they are;
    else for float32 ones.

    Raises UsageError for what `decode_lightgbm` refuses, for a model that is not fitted, and for one whose trees do not
    score as LightGBM does: see `check_same_scores`.
    """
    booster = _booster_of(model) if hasattr(model, "fit") else model
    if not hasattr(booster, "dump_model"):
        raise UsageError(f"{type(model).__name__} is not a LightGBM model; expected a Booster or an LGBMClassifier")
    content = booster.dump_model()
    ensemble = _ensemble(content, wide=wide)

    def score(rows: FeatureRows) -> AnyFloats:
        if content.get("average_output"):  # the raw score of a forest is the trees' sum and not their mean
            rounds = len(content["tree_info"]) // ensemble.targets
            return np.asarray(_sigmoid(content) * np.asarray(booster.predict(rows, raw_score=True)) / rounds)
        return np.asarray(_sigmoid(content) * np.asarray(model.predict(rows, raw_score=True)))

    check_same_scores(ensemble, score, "LightGBM")
    return ensemble


def _booster_of(estimator: Any) -> Any:
    name = type(estimator).__name__
    if not hasattr(estimator, "classes_") and "Regressor" not in name:
        raise UsageError(f"this {name} is not fitted, or is neither a classifier nor a regressor")
    try:
        return estimator.booster_
    except (AttributeError, ValueError) as error:
        raise UsageError(f"this {name} is not fitted") from error


def decode_lightgbm(content: bytes | bytearray | str, *, wide: bool = False) -> Ensemble:
    """From `json.dumps(booster.dump_model())`. LightGBM compares x <= threshold in float64; the thresholds become those
    float32 ones for which x < threshold says the same of every float32 x, or float64 ones if the trees are to be
    `wide`.

    LightGBM does not load such a dump, so it is compared with nothing: where LightGBM is there, `from_lightgbm` is the
    better way. Raises UsageError for a model of a kind that does not become an Ensemble (linear leaves, zero as
    missing, an objective whose scores are no log-odds, classes or values), DataError for bytes that are no model.
    """
    try:
        return _ensemble(json.loads(content), wide=wide)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"this is not a LightGBM model in JSON ({type(error).__name__}: {error}); write json.dumps(dump_model())"
        ) from error


def objective_of(content: dict[str, Any]) -> str:
    """The name of the objective that a dump states."""
    return str(content.get("objective") or "custom").split()[0]


def _ensemble(model: dict[str, Any], *, wide: bool = False) -> Ensemble:
    targets = int(model["num_tree_per_iteration"])
    scale = _sigmoid(model)
    if model.get("average_output"):
        scale /= len(model["tree_info"]) // targets
    trees = [
        replace(_tree(tree["tree_structure"], scale, wide=wide), target=np.array([place % targets]))
        for place, tree in enumerate(model["tree_info"])
    ]
    return canonicalize(join(trees), int(model["max_feature_idx"]) + 1, wide=wide)


def _sigmoid(model: dict[str, Any]) -> float:
    """What LightGBM's raw score is multiplied by so that it is the log-odds."""
    name, *settings = str(model.get("objective") or "custom").split()
    if name == "custom" and "tree_info" in model:
        raise UsageError(
            "this LightGBM model names no objective, as one that was trained with an objective of its own, so nothing "
            "says what its scores mean; train with binary or cross_entropy"
        )
    if name not in (*_SIGMOIDS, *_IDENTITIES) or "sqrt" in settings:
        raise UsageError(
            f"this LightGBM model's objective is {' '.join([name, *settings])}, whose scores are no log-odds, classes "
            f"or values; expected one of {', '.join((*_SIGMOIDS, *_IDENTITIES))}"
        )
    if name in _IDENTITIES:
        return 1.0
    return next((float(text.removeprefix("sigmoid:")) for text in settings if text.startswith("sigmoid:")), 1.0)


def _tree(root: dict[str, Any], scale: float, *, wide: bool) -> Nodes:
    feature: list[int] = []
    threshold: list[float] = []
    children: list[list[int]] = []
    missing_left: list[bool] = []
    value: list[float] = []
    members: list[list[int]] = []
    pending: list[tuple[dict[str, Any], int]] = [(root, -1)]
    while pending:
        node, parent = pending.pop()
        if parent >= 0:
            children[parent].append(len(feature))
        children.append([])
        members.append([])
        if "leaf_value" in node:
            if "leaf_const" in node:
                raise UsageError("this LightGBM model has linear leaves; train without linear_tree")
            feature.append(LEAF)
            threshold.append(0.0)
            missing_left.append(False)
            value.append(float(node["leaf_value"]) * scale)
            continue
        pending += [(node["right_child"], len(feature)), (node["left_child"], len(feature))]
        is_set = node["decision_type"] == "=="
        if is_set:
            members[-1] = sorted(set(map(int, str(node["threshold"]).split("||"))))
        missing_left.append(not is_set and _missing_left(node))
        feature.append(int(node["split_feature"]))
        threshold.append(0.0 if is_set else float(node["threshold"]))
        value.append(0.0)
    left, right = (np.array([two[side] if two else LEAF for two in children]) for side in (0, 1))
    exact = np.array(threshold, np.float64)
    zero = np.float64(_ZERO) if wide else _ZERO
    beside_zero = np.where(exact < 0, -zero, np.nextafter(zero, type(zero)(1)))
    limits = np.where(np.abs(exact) <= _ZERO, beside_zero, strict_thresholds(exact, wide=wide))
    nodes = Nodes(
        np.array([0]),
        np.array(feature),
        limits,
        left,
        right,
        np.array(missing_left),
        np.array(value),
        np.array(list(map(len, members))),
        np.array([one for some in members for one in some], np.int64),
    )
    return all_left(nodes, exact >= _INFINITE)


def _missing_left(node: dict[str, Any]) -> bool:
    if node["decision_type"] != "<=":
        raise UsageError(f"this LightGBM model splits by {node['decision_type']!r}; expected numbers and categories")
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # a NaN that training never saw counts as zero
        return float(node["threshold"]) >= 0
    raise UsageError("this LightGBM model treats zero as missing; train with zero_as_missing=false")
