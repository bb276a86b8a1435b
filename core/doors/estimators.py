"""scikit-learn's linear models, and its pipelines of scalers and imputers before a linear model or trees.

A linear model becomes a network of one layer. What a pipeline does to each column before trees is taken up into their
thresholds: a column is only ever moved and stretched, so that each split asks the same of the value before. The
thresholds are found by asking the pipeline itself, and are exact for every float32 number."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featherweight.core.arrays import AnyFloats, Array, Bools, FeatureRows, Floats, Probabilities, UInt64s
from featherweight.core.causes import describe_cause
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.scores import probabilities
from featherweight.core.doors.trees import (
    estimator_answer,
    feature_names,
    read_lightgbm,
    read_sklearn_trees,
    read_xgboost,
)
from featherweight.core.errors import DataError, FeatherweightError, UsageError
from featherweight.core.model import Model, trees_model
from featherweight.core.trees.canonical import canonicalize, nodes_of
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import INPUT, LEAF, Ensemble, tensor_specs

_LOGISTIC = ("LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis")
"""Linear models whose scores are log-odds."""
_LINEAR = (*_LOGISTIC, "SGDClassifier", "LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron")
_PER_COLUMN = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer")
"""Steps of a pipeline that treat each column for itself, and keep the order of its values."""
_MAX_MEMBERS, _MAX_UNPACKED = 100_000, 4 << 30


def read_estimator(model: Any) -> LoadedModel:
    """A fitted classifier of scikit-learn, or in its manner, for two classes. Raises UsageError for another one."""
    name = type(model).__name__
    if name == "Pipeline":
        return _pipeline(model)
    if name == "CalibratedClassifierCV":
        return _calibrated(model)
    if name in _LINEAR:
        return _linear(model, model, None)
    if name.startswith("LGBM"):
        return read_lightgbm(model)
    if name.startswith("XGB"):
        return read_xgboost(model)
    return read_sklearn_trees(model)


def read_skops(path: Path, content: bytes) -> LoadedModel:
    """A file that `skops.io.dump` wrote, of scikit-learn's own types alone. Raises UsageError for one that holds
    others, DataError for another file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS or sum(one.file_size for one in members) > _MAX_UNPACKED:
                raise DataError(f"{path}: has more than {_MAX_MEMBERS:,} entries or {_MAX_UNPACKED:,} bytes unpacked")
        from skops.io import get_untrusted_types, loads

        asked = get_untrusted_types(data=content)
        others = [kind for kind in asked if kind != "numpy.dtype" and not kind.startswith("sklearn.")]
        if others:
            raise UsageError(
                f"{path}: holds {', '.join(others[:3])}, and only scikit-learn's own types are read from such a file; "
                "save a model of another library in that library's format, or name the object as module:name"
            )
        model = loads(content, trusted=asked)
    except FeatherweightError:
        raise
    except Exception as error:  # skops' errors have no common class
        raise DataError(f"{path}: cannot be read by skops ({describe_cause(error)})") from error
    return read_estimator(model)


def _pipeline(model: Any) -> LoadedModel:
    steps = [(name, step) for name, step in model.steps if step is not None and step != "passthrough"]
    *before, (_, last) = steps
    for name, step in before:
        if type(step).__name__ not in _PER_COLUMN:
            raise UsageError(
                f"the pipeline's step {name!r} is {type(step).__name__}; before a model only {', '.join(_PER_COLUMN)} "
                "are read: apply it to the data before, and load the model alone"
            )
    if not before:
        return read_estimator(last)
    features = int(model.n_features_in_)
    if any(len(step.transform(np.zeros((1, _width(step)), np.float32))[0]) != features for _, step in before):
        raise UsageError(
            "the pipeline adds or removes columns; apply that to the data before, and load the model alone"
        )

    def transform(rows: Array) -> Array:
        for _, step in before:
            rows = step.transform(rows)
        return np.asarray(rows)

    if type(last).__name__ in _LINEAR:
        return _linear(model, last, transform)
    return _trees(model, read_estimator(last), transform)


def _width(step: Any) -> int:
    return int(step.n_features_in_)


def _calibrated(model: Any) -> LoadedModel:
    """A model with Platt's calibration behind it, which is sealed as the baseline's own."""
    members = getattr(model, "calibrated_classifiers_", None)
    if not members:
        raise UsageError("this CalibratedClassifierCV is not fitted")
    calibrators = members[0].calibrators
    if len(members) != 1 or len(calibrators) != 1 or not hasattr(calibrators[0], "a_"):
        raise UsageError(
            f"this CalibratedClassifierCV has {len(members)} calibrated models, with {type(calibrators[0]).__name__}; "
            "only one model with a sigmoid is read: fit it with method='sigmoid' and ensemble=False"
        )
    inner = members[0].estimator
    if type(inner).__name__ == "FrozenEstimator":
        inner = inner.estimator
    if not hasattr(inner, "decision_function"):
        raise UsageError(
            f"this CalibratedClassifierCV calibrates the probabilities of {type(inner).__name__}, which is not a "
            "calibration of its scores; load the model itself, which is calibrated anew here"
        )
    loaded = read_estimator(inner)

    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        return np.asarray(model.predict_proba(inputs[INPUT])[:, 1], np.float64)

    calibration = -float(calibrators[0].a_), -float(calibrators[0].b_)
    source = f"CalibratedClassifierCV of {loaded.source}"
    return replace(loaded, source=source, reference=reference, calibration=calibration, recalibrates=False)


# ---------------------------------------------------------------------------------------------------- linear models


class Linear(nn.Module):
    """Missing values filled in, then a weighted sum: float32 [N, F] to log-odds [N, 1]."""

    fill: Tensor

    def __init__(self, fill: Floats, weight: Floats, bias: float) -> None:
        super().__init__()
        self.register_buffer("fill", torch.from_numpy(fill.astype(np.float32)))
        self.layer = nn.Linear(len(weight), 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.from_numpy(weight[None].astype(np.float32)))
            self.layer.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, F] to [N, 1]."""
        found: Tensor = self.layer(torch.where(torch.isnan(x), self.fill, x))
        return found


def _linear(whole: Any, last: Any, transform: Callable[[Array], Array] | None) -> LoadedModel:
    """whole: the pipeline or the model itself."""
    name = type(last).__name__
    if not hasattr(last, "coef_"):
        raise UsageError(f"this {name} is not fitted")
    if len(last.classes_) != 2:
        raise UsageError(f"this {name} has {len(last.classes_)} classes; only binary models can be used")
    weight, bias = np.asarray(last.coef_, np.float64).reshape(-1), float(np.ravel(last.intercept_)[0])
    fill = np.zeros(len(weight))
    if transform is not None:
        fill, scale, offset = _affine(transform, len(weight))
        bias += float(weight @ offset)
        weight = weight * scale
    logistic = name in _LOGISTIC or (name == "SGDClassifier" and last.loss == "log_loss")

    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        return probabilities(np.asarray(whole.decision_function(inputs[INPUT]), np.float64))

    model = Model(Linear(fill, weight, bias).eval(), *tensor_specs(len(weight)))
    classes = [str(value) for value in last.classes_]
    return LoadedModel(
        model,
        name,
        "scikit-learn",
        reference,
        feature_names(whole),
        (classes[0], classes[1]),
        recalibrates=not logistic,
    )


def _affine(transform: Callable[[Array], Array], features: int) -> tuple[Floats, Floats, Floats]:
    """(what a missing value is, scale, offset) of each column, [F] each: transform(x) = scale * x + offset."""
    zero, one = (np.full((1, features), value, np.float64) for value in (0.0, 1.0))
    offset = np.asarray(transform(zero)[0], np.float64)
    scale = np.asarray(transform(one)[0], np.float64) - offset
    lost = np.asarray(transform(np.full((1, features), np.nan))[0], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        fill = np.where(scale != 0, (lost - offset) / scale, 0.0)
    return fill, scale, offset


# ---------------------------------------------------------------------------------------------------- trees


def _trees(whole: Any, read: LoadedModel, transform: Callable[[Array], Array]) -> LoadedModel:
    ensemble = read.model.ensemble("reading a pipeline")
    if ensemble.targets > 1 or len(ensemble.members):
        what = "categories" if len(ensemble.members) else "several classes"
        raise UsageError(
            f"the pipeline transforms columns before trees of {what}, which is not read; apply that to the data "
            "before, and load the model alone"
        )
    moved = _before_transform(ensemble, transform)

    def score(rows: FeatureRows) -> Floats:
        answer = estimator_answer(whole, rows, read.meaning)
        if read.meaning == "value" or moved.output == "probability":
            return answer
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(answer) - np.log1p(-answer))

    check_same_scores(moved, score, type(whole).__name__)

    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        return estimator_answer(whole, inputs[INPUT], read.meaning)

    columns = feature_names(whole) or read.columns
    return replace(
        read, model=trees_model(moved), source=f"Pipeline of {read.source}", reference=reference, columns=columns
    )


def _before_transform(ensemble: Ensemble, transform: Callable[[Array], Array]) -> Ensemble:
    """The same trees for float64 values as they are before `transform`, which treats each column for itself and keeps
    the order of its values."""
    splits = np.flatnonzero(ensemble.feature != LEAF)
    feature, threshold = ensemble.feature[splits], ensemble.threshold[splits]
    rank = np.zeros(len(splits), np.int64)
    for one in np.unique(feature):
        rank[feature == one] = np.arange(int((feature == one).sum()))
    rows = int(rank.max(initial=-1)) + 1

    def after(values: Floats) -> AnyFloats:
        """transform of one value for each split, in the column that it asks for."""
        table = np.zeros((rows, ensemble.features), np.float64)
        table[rank, feature] = values
        with np.errstate(all="ignore"):
            return np.asarray(transform(table)[rank, feature].astype(threshold.dtype))

    at = _least_not_below(lambda values: after(values) < threshold, len(splits))
    with np.errstate(invalid="ignore"):
        lost = after(np.full(len(splits), np.nan))
        missing_left = np.where(np.isnan(lost), ensemble.missing_left[splits], lost < threshold)
    nodes = nodes_of(ensemble)
    thresholds, missing = nodes.threshold.astype(np.float64), nodes.missing_left.copy()
    thresholds[splits], missing[splits] = at, missing_left
    moved = replace(nodes, threshold=thresholds, missing_left=missing)
    return canonicalize(moved, ensemble.features, ensemble.base, ensemble.output, wide=True)


def _least_not_below(below: Callable[[Floats], Bools], count: int) -> Floats:
    """For each of `count` conditions that hold up to some float64 number and not from there on, that number; infinity
    where it always holds. Found by halving the range of all float64 numbers in their order."""
    low, high = (np.full(count, _order(np.array([end]))[0], np.uint64) for end in (-np.inf, np.inf))
    while (low < high).any():
        middle = low + (high - low) // np.uint64(2)
        holds = below(_number(middle))
        low, high = (
            np.where((low < high) & holds, middle + np.uint64(1), low),
            np.where((low < high) & ~holds, middle, high),
        )
    return _number(low)


_SIGN = np.uint64(1 << 63)


def _order(values: Floats) -> UInt64s:
    """Whole numbers in the order of the float64 numbers."""
    bits = values.view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _number(order: UInt64s) -> Floats:
    return np.where(order & _SIGN, order & ~_SIGN, ~order).view(np.float64)
