"""scikit-learn's fitted tree classifiers to an Ensemble, compared with what they say themselves.

Reads the fitted object; imports nothing of scikit-learn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from featherweight.core.arrays import AnyFloats, Array, FeatureRows, Floats
from featherweight.core.errors import UsageError
from featherweight.core.trees.canonical import Nodes, all_left, canonicalize, join, round_to_grid, strict_thresholds
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.lightgbm import from_lightgbm
from featherweight.core.trees.xgboost import from_xgboost

_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier")
_TREES = ("DecisionTreeClassifier", "ExtraTreeClassifier")
_KNOWN = (*_FORESTS, *_TREES, "BaggingClassifier", "GradientBoostingClassifier", "HistGradientBoostingClassifier")
_OTHERS = {"LGBMClassifier": from_lightgbm, "XGBClassifier": from_xgboost}
"""Classifiers in scikit-learn's manner of libraries that have readers of their own."""


def from_sklearn(model: Any) -> Ensemble:
    """The trees of a fitted binary classifier: a decision tree, a forest, bagged decision trees (also those of
    imbalanced-learn), gradient boosting or histogram gradient boosting; class 1 of `classes_` is positive.
    LGBMClassifier and XGBClassifier are read by `from_lightgbm` and `from_xgboost`.

    scikit-learn compares x <= threshold in float64, as LightGBM does; see `decode_lightgbm`. A forest's output is its
    mean probability, the leaves rounded to multiples of PROBABILITY_STEP. Raises UsageError for another estimator, one
    that is not fitted, several classes or outputs, categories, another loss than log_loss, bagged pipelines that
    transform, and for trees that do not score as the estimator does: see `check_same_scores`.
    """
    for known, read in _OTHERS.items():
        if any(ancestor.__name__ == known for ancestor in type(model).__mro__):
            return read(model)
    name = type(model).__name__.removeprefix("Balanced")
    if name not in _KNOWN:
        raise UsageError(
            f"{type(model).__name__} is not a tree ensemble that can be read; expected {', '.join((*_KNOWN, *_OTHERS))}"
        )
    _check_binary(model, name)
    try:
        ensemble = _ensemble(model, name)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"this {name} is not as scikit-learn keeps one ({type(error).__name__}: {error}); train it again with the "
            "version that is installed"
        ) from error

    def score(rows: FeatureRows) -> AnyFloats:
        if ensemble.output == "margin":
            return np.asarray(model.decision_function(rows))
        return np.asarray(model.predict_proba(rows)[:, 1])

    check_same_scores(ensemble, score, name)
    return ensemble


def _check_binary(model: Any, name: str) -> None:
    if not hasattr(model, "classes_"):
        raise UsageError(f"this {name} is not fitted")
    if isinstance(model.classes_, list) or getattr(model, "n_outputs_", 1) != 1:
        raise UsageError(f"this {name} has {len(model.classes_)} outputs; train one model for each")
    if len(model.classes_) != 2:
        raise UsageError(f"this {name} has {len(model.classes_)} classes; only binary models can be used")


def _ensemble(model: Any, name: str) -> Ensemble:
    features = int(model.n_features_in_)
    if name == "HistGradientBoostingClassifier":
        if model.is_categorical_ is not None:
            raise UsageError("this HistGradientBoostingClassifier splits categories; encode them as numbers")
        trees = [_histogram_tree(predictor.nodes) for (predictor,) in model._predictors]
        return canonicalize(join(trees), features, float(model._baseline_prediction.item()))
    if name == "GradientBoostingClassifier":
        trees = [_tree(one.tree_, one.tree_.value[:, 0, 0] * model.learning_rate) for one in model.estimators_[:, 0]]
        return canonicalize(join(trees), features, _initial(model))
    if name in _TREES:
        return canonicalize(_member(model, np.arange(features), 1), features, output="probability")
    columns = getattr(model, "estimators_features_", None) or [np.arange(features)] * len(model.estimators_)
    members = [_member(one, of, len(columns)) for one, of in zip(model.estimators_, columns, strict=True)]
    return canonicalize(join(members), features, output="probability")


def _member(estimator: Any, columns: Array, members: int) -> Nodes:
    """One tree of a forest or a bag; columns: the features that it was given."""
    if hasattr(estimator, "steps"):
        estimator = _last_step(estimator.steps)
    if type(estimator).__name__ not in _TREES:
        raise UsageError(f"the bagged estimators are {type(estimator).__name__}; expected decision trees")
    counts = estimator.tree_.value[:, 0, :]
    # A pipeline of a bag may have seen rows of one class alone; classes are numbers in a bag.
    positive = counts[:, 1] if counts.shape[1] == 2 else counts[:, 0] * (estimator.classes_[0] == 1)
    return _tree(estimator.tree_, round_to_grid(positive / counts.sum(axis=1) / members), np.asarray(columns))


def _last_step(steps: Any) -> Any:
    """The last step of imbalanced-learn's balanced bags: a sampler, which scoring skips, then the tree."""
    for _, step in steps[:-1]:
        if step is not None and step != "passthrough" and not hasattr(step, "fit_resample"):
            raise UsageError(
                f"the bagged estimators are pipelines in which {type(step).__name__} transforms the inputs before the "
                "tree; bag the trees alone, and transform the inputs before the bag"
            )
    return steps[-1][1]


def _tree(tree: Any, value: Floats, columns: Array | None = None) -> Nodes:
    is_leaf = tree.children_left == -1
    feature = np.where(is_leaf, 0, tree.feature)
    nodes = Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, feature if columns is None else columns[feature]),
        threshold=strict_thresholds(tree.threshold),
        left=tree.children_left,
        right=tree.children_right,
        missing_left=tree.missing_go_to_left.astype(bool),
        value=value,
    )
    return all_left(nodes, ~is_leaf & np.isposinf(tree.threshold))


def _histogram_tree(nodes: Array) -> Nodes:
    is_leaf = nodes["is_leaf"].astype(bool)
    found = Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, nodes["feature_idx"]),
        threshold=strict_thresholds(nodes["num_threshold"]),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"],
    )
    return all_left(found, ~is_leaf & np.isposinf(nodes["num_threshold"]))


def _initial(model: Any) -> float:
    """What the boosting started from, as log-odds."""
    if model.loss != "log_loss":
        raise UsageError(f"this GradientBoostingClassifier's loss is {model.loss}; expected log_loss")
    if isinstance(model.init_, str) and model.init_ == "zero":
        return 0.0
    strategy = getattr(model.init_, "strategy", None)
    if type(model.init_).__name__ != "DummyClassifier" or strategy != "prior":
        which = f" of the strategy {strategy}" if strategy else ""
        raise UsageError(
            f"this GradientBoostingClassifier starts from {type(model.init_).__name__}{which}; expected init=None"
        )
    negative, positive = model.init_.class_prior_
    return math.log(positive / negative)
