"""scikit-learn's fitted tree classifiers to an Ensemble. Reads the fitted object; imports nothing of scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.trees.arrange import Nodes, arrange, below, join, on_grid
from core.trees.ensemble import LEAF, Ensemble

_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier")
_KNOWN = (*_FORESTS, "BaggingClassifier", "GradientBoostingClassifier", "HistGradientBoostingClassifier")


def from_sklearn(model: Any) -> Ensemble:
    """The trees of a fitted binary classifier: a forest, bagged decision trees (also imbalanced-learn's balanced ones),
    gradient boosting or histogram gradient boosting; class 1 of `classes_` is positive.

    scikit-learn compares x <= threshold in float64, as LightGBM does; see `decode_lightgbm`. A forest's output is its
    mean probability, the leaves rounded to multiples of PROBABILITY_STEP. Raises UsageError for another estimator, one
    that is not fitted, several classes, categorical splits, or another loss than log_loss.
    """
    name = type(model).__name__.removeprefix("Balanced")
    if name not in _KNOWN:
        raise UsageError(f"{type(model).__name__} is no tree ensemble that can be read; expected {', '.join(_KNOWN)}")
    if not hasattr(model, "classes_"):
        raise UsageError(f"this {name} is not fitted")
    if len(model.classes_) != 2:
        raise UsageError(f"this {name} has {len(model.classes_)} classes; only binary models can be used")
    features = int(model.n_features_in_)
    if name == "HistGradientBoostingClassifier":
        trees = [_histogram_tree(predictor.nodes) for (predictor,) in model._predictors]
        return arrange(join(trees), features, float(model._baseline_prediction.item()))
    if name == "GradientBoostingClassifier":
        trees = [_tree(one.tree_, one.tree_.value[:, 0, 0] * model.learning_rate) for one in model.estimators_[:, 0]]
        return arrange(join(trees), features, _initial(model))
    columns = getattr(model, "estimators_features_", None) or [np.arange(features)] * len(model.estimators_)
    members = [_member(one, of, len(columns)) for one, of in zip(model.estimators_, columns, strict=True)]
    return arrange(join(members), features, output="probability")


def _member(estimator: Any, columns: npt.NDArray[Any], members: int) -> Nodes:
    """One tree of a forest or a bag; columns: the features that it was given."""
    estimator = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    if not hasattr(estimator, "tree_"):
        raise UsageError(f"the bagged estimators are {type(estimator).__name__}; expected decision trees")
    counts = estimator.tree_.value[:, 0, :]
    return _tree(estimator.tree_, on_grid(counts[:, 1] / counts.sum(axis=1) / members), np.asarray(columns))


def _tree(tree: Any, value: npt.NDArray[np.float64], columns: npt.NDArray[Any] | None = None) -> Nodes:
    is_leaf = tree.children_left == -1
    feature = np.where(is_leaf, 0, tree.feature)
    return Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, feature if columns is None else columns[feature]),
        threshold=below(tree.threshold),
        left=tree.children_left,
        right=tree.children_right,
        missing_left=tree.missing_go_to_left.astype(bool),
        value=value,
    )


def _histogram_tree(nodes: npt.NDArray[Any]) -> Nodes:
    if nodes["is_categorical"].any():
        raise UsageError("this HistGradientBoostingClassifier splits categories; encode them as numbers")
    is_leaf = nodes["is_leaf"].astype(bool)
    return Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, nodes["feature_idx"]),
        threshold=below(nodes["num_threshold"]),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"],
    )


def _initial(model: Any) -> float:
    """What the boosting started from, as log-odds."""
    if model.loss != "log_loss":
        raise UsageError(f"this GradientBoostingClassifier's loss is {model.loss}; expected log_loss")
    if isinstance(model.init_, str) and model.init_ == "zero":
        return 0.0
    if type(model.init_).__name__ != "DummyClassifier":
        raise UsageError(
            f"this GradientBoostingClassifier starts from {type(model.init_).__name__}; expected init=None"
        )
    negative, positive = model.init_.class_prior_
    return math.log(positive / negative)
