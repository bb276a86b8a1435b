"""LightGBM's models to an Ensemble: fitted ones, compared with what LightGBM says, or their JSON dump without LightGBM.

The format: https://lightgbm.readthedocs.io/en/stable/pythonapi/lightgbm.Booster.html#lightgbm.Booster.dump_model
"""

from __future__ import annotations

import json
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


def from_lightgbm(model: Any) -> Ensemble:
    """The trees of a fitted Booster or LGBMClassifier, up to its best iteration where it stopped early, as LightGBM
    itself scores. Imports nothing of LightGBM.

    Raises UsageError for what `decode_lightgbm` refuses, for a model that is not fitted, and for one whose trees do not
    score as LightGBM does: see `check_same_scores`.
    """
    booster = _booster_of(model) if hasattr(model, "fit") else model
    if not hasattr(booster, "dump_model"):
        raise UsageError(f"{type(model).__name__} is not a LightGBM model; expected a Booster or an LGBMClassifier")
    content = booster.dump_model()
    ensemble = _ensemble(content)

    def score(rows: FeatureRows) -> AnyFloats:
        if content.get("average_output"):  # the raw score of a forest is the trees' sum and not their mean
            chance = np.asarray(booster.predict(rows))
            return np.asarray(np.log(chance) - np.log1p(-chance))
        return np.asarray(_sigmoid(content) * np.asarray(model.predict(rows, raw_score=True)))

    check_same_scores(ensemble, score, "LightGBM")
    return ensemble


def _booster_of(classifier: Any) -> Any:
    name = type(classifier).__name__
    if not hasattr(classifier, "classes_"):
        raise UsageError(f"this {name} is not fitted, or is not a classifier")
    if len(classifier.classes_) != 2:
        raise UsageError(f"this {name} has {len(classifier.classes_)} classes; only binary models can be used")
    return classifier.booster_


def decode_lightgbm(content: bytes | bytearray | str) -> Ensemble:
    """From `json.dumps(booster.dump_model())`. LightGBM compares x <= threshold in float64; the thresholds become those
    float32 ones for which x < threshold says the same of every float32 x.

    LightGBM does not load such a dump, so it is compared with nothing: where LightGBM is there, `from_lightgbm` is the
    better way. Raises UsageError for a model of a kind that does not become an Ensemble (several classes, linear
    leaves, categorical splits, zero as missing, an objective without log-odds), DataError for bytes that are no model.
    """
    try:
        return _ensemble(json.loads(content))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"this is not a LightGBM model in JSON ({type(error).__name__}: {error}); write json.dumps(dump_model())"
        ) from error


def _ensemble(model: dict[str, Any]) -> Ensemble:
    scale = _scale(model)
    trees = [_tree(tree["tree_structure"], scale) for tree in model["tree_info"]]
    return canonicalize(join(trees), int(model["max_feature_idx"]) + 1)


def _scale(model: dict[str, Any]) -> float:
    """What a leaf is multiplied by so that the sum of the trees is the log-odds."""
    if int(model["num_class"]) > 1 or int(model["num_tree_per_iteration"]) > 1:
        raise UsageError("this LightGBM model has several classes; only binary models can be used")
    return _sigmoid(model) / (len(model["tree_info"]) if model.get("average_output") else 1)


def _sigmoid(model: dict[str, Any]) -> float:
    """What LightGBM's raw score is multiplied by so that it is the log-odds."""
    name, *settings = str(model.get("objective") or "custom").split()
    if name == "custom" and "tree_info" in model:
        raise UsageError(
            "this LightGBM model names no objective, as one that was trained with an objective of its own, so nothing "
            "says what its scores mean; train with binary or cross_entropy"
        )
    if name not in ("binary", "cross_entropy"):
        raise UsageError(f"this LightGBM model's objective is {name}; expected binary or cross_entropy")
    return next((float(text.removeprefix("sigmoid:")) for text in settings if text.startswith("sigmoid:")), 1.0)


def _tree(root: dict[str, Any], scale: float) -> Nodes:
    feature: list[int] = []
    threshold: list[float] = []
    children: list[list[int]] = []
    missing_left: list[bool] = []
    value: list[float] = []
    pending: list[tuple[dict[str, Any], int]] = [(root, -1)]
    while pending:
        node, parent = pending.pop()
        if parent >= 0:
            children[parent].append(len(feature))
        children.append([])
        if "leaf_value" in node:
            if "leaf_const" in node:
                raise UsageError("this LightGBM model has linear leaves; train without linear_tree")
            feature.append(LEAF)
            threshold.append(0.0)
            missing_left.append(False)
            value.append(float(node["leaf_value"]) * scale)
            continue
        pending += [(node["right_child"], len(feature)), (node["left_child"], len(feature))]
        missing_left.append(_missing_left(node))
        feature.append(int(node["split_feature"]))
        threshold.append(float(node["threshold"]))
        value.append(0.0)
    left, right = (np.array([two[side] if two else LEAF for two in children]) for side in (0, 1))
    exact = np.array(threshold, np.float64)
    beside_zero = np.where(exact < 0, -_ZERO, np.nextafter(_ZERO, np.float32(1)))
    limits = np.where(np.abs(exact) <= _ZERO, beside_zero, strict_thresholds(exact))
    nodes = Nodes(np.array([0]), np.array(feature), limits, left, right, np.array(missing_left), np.array(value))
    return all_left(nodes, exact >= _INFINITE)


def _missing_left(node: dict[str, Any]) -> bool:
    if node["decision_type"] != "<=":
        raise UsageError("this LightGBM model splits categories; encode them as numbers before training")
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # a NaN that training never saw counts as zero
        return float(node["threshold"]) >= 0
    raise UsageError("this LightGBM model treats zero as missing; train with zero_as_missing=false")
