"""XGBoost's models to an Ensemble: fitted ones, or their JSON (`Booster.save_raw("json")`, `save_model("x.json")`),
which is read without XGBoost and compared with what XGBoost says of it where XGBoost is installed.

The format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from featherweight.core.arrays import AnyFloats, FeatureRows, Integers
from featherweight.core.errors import DataError, UsageError
from featherweight.core.trees.canonical import Nodes, with_bases
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import LEAF, Ensemble

_NO_PARENT = (1 << 31) - 1
LOGISTIC = ("binary:logistic", "binary:logitraw", "reg:logistic")
"""Objectives whose margins are log-odds."""
_CLASSES = ("multi:softprob", "multi:softmax")
_VALUES = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "reg:squaredlogerror")
_OBJECTIVES = (*LOGISTIC, *_CLASSES, *_VALUES)


def from_xgboost(model: Any) -> Ensemble:
    """The trees of a fitted Booster, XGBClassifier or XGBRegressor. Imports nothing of XGBoost.

    An estimator that stopped early scores with the trees up to its best iteration, and these are read. Raises
    UsageError for what `decode_xgboost` refuses, for one that is not fitted, has an objective of its own or
    reads a number as missing, and for one whose trees do not score as XGBoost does: see `check_same_scores`.
    """
    if not hasattr(model, "fit"):
        if not hasattr(model, "save_raw"):
            raise UsageError(f"{type(model).__name__} is not an XGBoost model; expected a Booster or an XGBClassifier")
        return decode_xgboost(model.save_raw("json"))
    _check_estimator(model)
    ensemble = _decoded(model.get_booster().save_raw("json"), stops_at_best=True)

    def score(rows: FeatureRows) -> AnyFloats:
        return np.asarray(model.predict(rows, output_margin=True, validate_features=False))

    check_same_scores(ensemble, score, type(model).__name__)
    return ensemble


def decode_xgboost(content: bytes | bytearray | str) -> Ensemble:
    """All trees of a model in JSON; up to the best iteration of one that XGBClassifier saved.

    Raises UsageError for a model of a kind that does not become an Ensemble (linear, leaves that are vectors, an
    objective whose scores are no log-odds, classes or values), for one that stopped early and does not say whether the
    trees after its best iteration count, and for one whose trees do not score as XGBoost does; DataError for bytes that
    are no model. What number a classifier read as missing is not in the JSON: `from_xgboost` sees it.
    """
    ensemble = _decoded(content, stops_at_best=False)
    if find_spec("xgboost") is not None:
        _check_loaded(ensemble, content)
    return ensemble


def _check_estimator(model: Any) -> None:
    name = type(model).__name__
    try:
        model.get_booster()
        if "Regressor" not in name:
            _ = model.classes_
    except (AttributeError, ValueError) as error:  # XGBoost's and scikit-learn's ways of saying so
        raise UsageError(f"this {name} is not fitted, or is neither a classifier nor a regressor") from error
    if callable(model.objective):
        raise UsageError(
            f"this {name} was trained with an objective of its own, so nothing says what its scores mean; train with "
            "binary:logistic"
        )
    if model.missing is not None and not np.isnan(model.missing):
        raise UsageError(
            f"this {name} reads {model.missing:g} as missing, which plain trees do not; put NaN in its place and train "
            "with missing=nan"
        )


def _check_loaded(ensemble: Ensemble, content: bytes | bytearray | str) -> None:
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(content.encode() if isinstance(content, str) else content))
    except xgboost.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"this XGBoost model is not one that XGBoost {xgboost.__version__} loads: {reason}") from error
    is_classifiers = booster.attr("scikit_learn") is not None and booster.attr("best_iteration") is not None
    rounds = (0, booster.best_iteration + 1) if is_classifiers else (0, 0)  # 0 is all

    def score(rows: FeatureRows) -> AnyFloats:
        data = xgboost.DMatrix(rows, feature_types=booster.feature_types, enable_categorical=True)
        found = booster.predict(data, output_margin=True, iteration_range=rounds, validate_features=False)
        return np.asarray(found)

    check_same_scores(ensemble, score, f"XGBoost {xgboost.__version__}")


def _decoded(content: bytes | bytearray | str, *, stops_at_best: bool) -> Ensemble:
    try:
        learner = json.loads(content)["learner"]
        return _ensemble(learner, stops_at_best=stops_at_best)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"this is not an XGBoost model in JSON ({type(error).__name__}: {error}); save it by save_raw('json')"
        ) from error


def _ensemble(learner: dict[str, Any], *, stops_at_best: bool) -> Ensemble:
    parameters, objective = learner["learner_model_param"], learner["objective"]["name"]
    if objective not in _OBJECTIVES:
        raise UsageError(
            f"this XGBoost model's objective is {objective}; expected one of {', '.join(_OBJECTIVES)}. One that was "
            "trained with an objective of its own is kept under another's name, and cannot be used"
        )
    booster = learner["gradient_booster"]
    if booster["name"] == "dart":
        model, weights = booster["gbtree"]["model"], [float(weight) for weight in booster["weight_drop"]]
    elif booster["name"] == "gbtree":
        model = booster["model"]
        weights = [1.0] * len(model["trees"])
    else:
        raise UsageError(f"this XGBoost model's booster is {booster['name']}; expected gbtree or dart")
    targets = _targets(parameters)
    classes = [int(target) for target in model["tree_info"]]
    if any(target not in range(targets) for target in classes):
        raise ValueError("tree_info counts a tree for another class than there are")
    trees = [_tree(tree, weight) for tree, weight in zip(model["trees"], weights, strict=True)]
    trees = [replace(tree, target=np.array([target])) for tree, target in zip(trees, classes, strict=True)]
    trees = trees[: _rounds(learner, stops_at_best=stops_at_best) * _trees_a_round(learner)]
    bases = _bases(str(parameters["base_score"]), objective, targets)
    ensemble = with_bases(trees, int(parameters["num_feature"]), bases)
    for tree in model["trees"]:
        _check_parents(tree)
    return ensemble


def _targets(parameters: dict[str, Any]) -> int:
    return max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)


def _trees_a_round(learner: dict[str, Any]) -> int:
    """More than one of several classes, and in a forest of XGBoost's own."""
    parallel = int(_gbtree(learner)["gbtree_model_param"].get("num_parallel_tree", 1))
    return max(1, parallel) * _targets(learner["learner_model_param"])


def _gbtree(learner: dict[str, Any]) -> dict[str, Any]:
    booster = learner["gradient_booster"]
    model: dict[str, Any] = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    return model


def _rounds(learner: dict[str, Any], *, stops_at_best: bool) -> int:
    """How many rounds of boosting count: of a model that stopped early, XGBClassifier scores with those up to the best,
    Booster.predict with all."""
    rounds = len(_gbtree(learner)["trees"]) // _trees_a_round(learner)
    attributes = learner.get("attributes") or {}
    counted = int(attributes.get("best_iteration", rounds - 1)) + 1
    if counted >= rounds:
        return rounds
    if not stops_at_best and "scikit_learn" not in attributes:  # XGBClassifier.save_model puts it there
        raise UsageError(
            f"this XGBoost model stopped early: round {counted - 1} was its best of {rounds}. XGBClassifier scores "
            "with the rounds up to it, Booster.predict with all, and the model does not say which was meant. Give the "
            "XGBClassifier itself, or leave the others out by booster[: booster.best_iteration + 1]"
        )
    return max(1, counted)


def _bases(text: str, objective: str, targets: int) -> list[float]:
    """base_score is a probability where log-odds are given, except for logitraw; since 3.1 it is written as a vector,
    before as one number for all targets."""
    values = [float(one) for one in text.strip("[]").split(",")]
    if objective in LOGISTIC and objective != "binary:logitraw":
        if any(not 0 < value < 1 for value in values):
            raise ValueError(f"base_score is {text}")
        values = [math.log(value / (1 - value)) for value in values]
    if len(values) not in (1, targets):
        raise ValueError(f"base_score is {text} of {targets} targets")
    return values * targets if len(values) == 1 else values


def _tree(tree: dict[str, Any], weight: float) -> Nodes:
    left = np.array(tree["left_children"], np.int64)
    is_leaf = left == -1
    if int(tree["tree_param"].get("size_leaf_vector", 1)) not in (0, 1):
        raise UsageError(
            "this XGBoost model's leaves are vectors; train with multi_strategy='one_output_per_tree', trees for each "
            "class"
        )
    counts, members = _categories(tree, len(left))
    right, missing_left = np.array(tree["right_children"], np.int64), np.array(tree["default_left"], bool)
    if len(right) != len(left) or len(missing_left) != len(left):
        raise DataError("trees: the arrays of nodes differ in length")
    # XGBoost keeps the categories that go right, and all others go left: its sides are exchanged.
    exchanged = counts > 0
    # A leaf's value stands where a split has its threshold.
    conditions = np.array(tree["split_conditions"], np.float32)
    return Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, np.array(tree["split_indices"], np.int64)),
        threshold=conditions,
        left=np.where(exchanged, right, left),
        right=np.where(exchanged, left, right),
        missing_left=missing_left ^ exchanged,
        value=conditions * np.float32(weight),
        counts=counts,
        members=members,
    )


def _categories(tree: dict[str, Any], nodes: int) -> tuple[Integers, Integers]:
    """(how many categories each node keeps; those of all, node after node)."""
    counts = np.zeros(nodes, np.int64)
    kinds = np.array(tree.get("split_type", []), np.int64)
    if not kinds.any():
        return counts, np.zeros(0, np.int64)
    which, begins, sizes = (np.array(tree[f"categories_{name}"], np.int64) for name in ("nodes", "segments", "sizes"))
    values = np.array(tree["categories"], np.int64)
    sets = np.flatnonzero(kinds)
    if len(kinds) != nodes or not np.array_equal(np.sort(which), sets) or (begins < 0).any() or (sizes < 1).any():
        raise ValueError("the categories are not those of the splits")
    order = np.argsort(which)
    parts = [np.unique(values[begin : begin + size]) for begin, size in zip(begins[order], sizes[order], strict=True)]
    counts[sets] = sizes[order]
    return counts, np.concatenate(parts)


def _check_parents(tree: dict[str, Any]) -> None:
    """XGBoost follows these numbers unchecked, out of its memory if need be; nodes that pruning left over have any."""
    parents, left, right = (np.array(tree[name], np.int64) for name in ("parents", "left_children", "right_children"))
    splits = np.flatnonzero(left != -1)
    outside = (parents < 0) | ((parents >= len(left)) & (parents != _NO_PARENT))
    if outside.any() or (parents[left[splits]] != splits).any() or (parents[right[splits]] != splits).any():
        raise ValueError("a node's parent has other children")
