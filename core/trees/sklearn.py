"""scikit-learn's fitted tree classifiers to an Ensemble, compared with what they say themselves.

Reads the fitted object; imports nothing of scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.core.arrays import AnyFloats, Array, FeatureRows, Floats
from featherweight.core.errors import UsageError
from featherweight.core.trees.canonical import (
    Nodes,
    all_left,
    canonicalize,
    join,
    round_to_grid,
    strict_thresholds,
    with_bases,
)
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.histogram import histogram_ensemble
from featherweight.core.trees.lightgbm import from_lightgbm
from featherweight.core.trees.xgboost import from_xgboost

_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "BaggingClassifier")
_VALUE_FORESTS = ("RandomForestRegressor", "ExtraTreesRegressor")
_HISTOGRAMS = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_TREES = ("DecisionTreeClassifier", "ExtraTreeClassifier")
_KNOWN = (*_FORESTS, *_TREES, *_VALUE_FORESTS, *_BOOSTED, *_HISTOGRAMS)
_LOSSES = ("log_loss", "squared_error", "absolute_error", "huber", "quantile")
"""Losses of boosting whose raw scores are log-odds, or the values themselves."""
_OTHERS = ("LGBMClassifier", "LGBMRegressor", "XGBClassifier", "XGBRegressor")
"""Estimators in scikit-learn's manner of libraries that have readers of their own."""


def from_sklearn(model: Any, *, wide: bool = False) -> Ensemble:
    """The trees of a fitted classifier or regressor: a decision tree, a forest, bagged decision trees (also
    imbalanced-learn's balanced ones), gradient boosting or histogram gradient boosting; of two classes, class 1 of
    `classes_` is positive. Those of LightGBM and XGBoost are read by `from_lightgbm` and `from_xgboost`. wide:
    for float64 rows where the estimator compares these as they are, as histogram gradient boosting and LightGBM do; all
    others round them to float32.

    scikit-learn compares x <= threshold in float64, as LightGBM does; see `decode_lightgbm`. A classifying forest's
    output is its mean probability, the leaves rounded to multiples of PROBABILITY_STEP. Raises UsageError for another
    estimator, one that is not fitted, several outputs, categories that are no whole numbers, another loss than those
    of _LOSSES, bagged pipelines that transform, and for trees that do not score as the estimator does: see
    `check_same_scores`.
    """
    ancestors = {ancestor.__name__ for ancestor in type(model).__mro__}
    if ancestors & set(_OTHERS):
        return (
            from_lightgbm(model, wide=wide) if any(one.startswith("LGBM") for one in ancestors) else from_xgboost(model)
        )
    name = type(model).__name__.removeprefix("Balanced")
    if name not in _KNOWN:
        raise UsageError(
            f"{type(model).__name__} is not a tree ensemble that can be read; expected {', '.join((*_KNOWN, *_OTHERS))}"
        )
    _check_fitted(model, name)
    try:
        ensemble = _ensemble(model, name, wide=wide)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"this {name} is not as scikit-learn keeps one ({type(error).__name__}: {error}); train it again with the "
            "version that is installed"
        ) from error

    def score(rows: FeatureRows) -> AnyFloats:
        if name.endswith("Regressor"):
            return np.asarray(model.predict(rows))
        if ensemble.output == "margin":
            return np.asarray(model.decision_function(rows))
        chances = np.asarray(model.predict_proba(rows))
        return np.asarray(chances[:, 1] if ensemble.targets == 1 else chances)

    check_same_scores(ensemble, score, name)
    return ensemble


def _check_fitted(model: Any, name: str) -> None:
    if not hasattr(model, "n_features_in_"):
        raise UsageError(f"this {name} is not fitted")
    classes = getattr(model, "classes_", ())
    outputs = len(classes) if isinstance(classes, list) else getattr(model, "n_outputs_", 1)
    if outputs != 1:
        raise UsageError(f"this {name} has {outputs} outputs; train one model for each")
    if len(classes) == 1:
        raise UsageError(f"this {name} has 1 classes; it decides nothing")
    if name in (*_HISTOGRAMS, *_BOOSTED) and model.loss not in _LOSSES:
        raise UsageError(f"this {name}'s loss is {model.loss}; expected one of {', '.join(_LOSSES)}")


def _ensemble(model: Any, name: str, *, wide: bool) -> Ensemble:
    features = int(model.n_features_in_)
    if name in _HISTOGRAMS:
        return histogram_ensemble(model, wide=wide)
    if name in _BOOSTED:
        return with_bases(
            [
                _tree(one.tree_, one.tree_.value[:, 0, 0] * model.learning_rate, target=target)
                for stage in model.estimators_
                for target, one in enumerate(stage)
            ],
            features,
            _initial(model, name),
        )
    if name in _TREES:
        own, columns = [model], [np.arange(features)]
    else:
        own = list(model.estimators_)
        columns = getattr(model, "estimators_features_", None) or [np.arange(features)] * len(own)
    if name in _VALUE_FORESTS:
        share = 1 / len(model.estimators_)
        return canonicalize(
            join([_tree(one.tree_, one.tree_.value[:, 0, 0] * share) for one in model.estimators_]), features
        )
    classes = range(len(model.classes_)) if len(model.classes_) > 2 else (1,)
    members = [
        _member(one, of, len(columns), wanted, target)
        for one, of in zip(own, columns, strict=True)
        for target, wanted in enumerate(classes)
    ]
    return canonicalize(join(members), features, output="probability")


def _member(estimator: Any, columns: Array, members: int, wanted: int, target: int) -> Nodes:
    """One tree of a forest or a bag, with its shares of one class; columns: the features that it was given."""
    if hasattr(estimator, "steps"):
        estimator = _last_step(estimator.steps)
    if type(estimator).__name__ not in _TREES:
        raise UsageError(f"the bagged estimators are {type(estimator).__name__}; expected decision trees")
    counts = estimator.tree_.value[:, 0, :]
    # A pipeline of a bag may have seen rows of some classes alone; classes are numbers in a bag.
    seen = np.flatnonzero(np.asarray(estimator.classes_) == wanted)
    share = counts[:, seen].sum(axis=1) / counts.sum(axis=1)
    return _tree(estimator.tree_, round_to_grid(share / members), np.asarray(columns), target)


def _last_step(steps: Any) -> Any:
    """The last step of imbalanced-learn's balanced bags: a sampler, which scoring skips, then the tree."""
    for _, step in steps[:-1]:
        if step is not None and step != "passthrough" and not hasattr(step, "fit_resample"):
            raise UsageError(
                f"the bagged estimators are pipelines in which {type(step).__name__} transforms the inputs before the "
                "tree; bag the trees alone, and transform the inputs before the bag"
            )
    return steps[-1][1]


def _tree(tree: Any, value: Floats, columns: Array | None = None, target: int = 0) -> Nodes:
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
        target=np.array([target]),
    )
    return all_left(nodes, ~is_leaf & np.isposinf(tree.threshold))


def _initial(model: Any, name: str) -> list[float]:
    """What the boosting started from: of each target, as its scores are."""
    if isinstance(model.init_, str) and model.init_ == "zero":
        return [0.0] * model.estimators_.shape[1]
    kind, strategy = type(model.init_).__name__, getattr(model.init_, "strategy", None)
    if kind == "DummyRegressor" and strategy in ("mean", "median", "quantile"):
        return [float(np.ravel(model.init_.constant_)[0])]
    if kind != "DummyClassifier" or strategy != "prior":
        which = f" of the strategy {strategy}" if strategy else ""
        raise UsageError(f"this {name} starts from {kind}{which}; expected init=None")
    shares = np.log(np.asarray(model.init_.class_prior_, np.float64))
    if len(shares) == 2:
        return [float(shares[1] - shares[0])]
    return [float(share) for share in shares - shares.mean()]
