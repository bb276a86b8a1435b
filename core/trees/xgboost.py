"""XGBoost's JSON model (`Booster.save_raw("json")`, `save_model("x.json")`) to an Ensemble, without XGBoost.

The format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from core.errors import DataError, UsageError
from core.trees.arrange import Nodes, arrange, join
from core.trees.ensemble import LEAF, Ensemble

_LOGISTIC = ("binary:logistic", "binary:logitraw", "reg:logistic")


def decode_xgboost(content: bytes | bytearray | str) -> Ensemble:
    """All trees of the model; one that stopped early is sliced before it is saved: `booster[: best_iteration + 1]`.

    Raises UsageError for a model of a kind that does not become an Ensemble (several classes, linear, categorical
    splits, an objective without log-odds), DataError for bytes that are no model.
    """
    try:
        learner = json.loads(content)["learner"]
        return _ensemble(learner)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"this is no XGBoost model in JSON ({type(error).__name__}: {error}); save it by save_raw('json')"
        ) from error


def _ensemble(learner: dict[str, Any]) -> Ensemble:
    parameters, objective = learner["learner_model_param"], learner["objective"]["name"]
    if int(parameters["num_class"]) > 1 or int(parameters.get("num_target", 1)) > 1:
        raise UsageError("this XGBoost model has several classes or targets; only binary models can be used")
    if objective not in _LOGISTIC:
        raise UsageError(f"this XGBoost model's objective is {objective}; expected one of {', '.join(_LOGISTIC)}")
    booster = learner["gradient_booster"]
    if booster["name"] == "dart":
        model, weights = booster["gbtree"]["model"], [float(weight) for weight in booster["weight_drop"]]
    elif booster["name"] == "gbtree":
        model = booster["model"]
        weights = [1.0] * len(model["trees"])
    else:
        raise UsageError(f"this XGBoost model's booster is {booster['name']}; expected gbtree or dart")
    trees = [_tree(tree, weight) for tree, weight in zip(model["trees"], weights, strict=True)]
    return arrange(join(trees), int(parameters["num_feature"]), _base(parameters["base_score"], objective))


def _base(text: str, objective: str) -> float:
    """base_score is a probability, except for logitraw; since 3.1 it is written as a vector of one."""
    value = float(str(text).strip("[]"))
    if objective == "binary:logitraw":
        return value
    if not 0 < value < 1:
        raise ValueError(f"base_score is {text}")
    return math.log(value / (1 - value))


def _tree(tree: dict[str, Any], weight: float) -> Nodes:
    left = np.array(tree["left_children"], np.int64)
    is_leaf = left == -1
    if np.array(tree.get("split_type", []), np.int64).any():
        raise UsageError("this XGBoost model splits categories; encode them as numbers before training")
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise UsageError("this XGBoost model's leaves are vectors; only binary models can be used")
    # A leaf's value stands where a split has its threshold.
    conditions = np.array(tree["split_conditions"], np.float32)
    return Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, np.array(tree["split_indices"], np.int64)),
        threshold=conditions,
        left=left,
        right=np.array(tree["right_children"], np.int64),
        missing_left=np.array(tree["default_left"], bool),
        value=conditions * np.float32(weight),
    )
