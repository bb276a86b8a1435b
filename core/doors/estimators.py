"""scikit-learn's estimators: which reader each has, its pipelines before trees, its calibration, its files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.arrays import AnyFloats, Array, Floats, Probabilities
from featherweight.core.causes import describe_cause
from featherweight.core.doors.categories import before_columns
from featherweight.core.doors.columns import Columns, as_frame, read_columns
from featherweight.core.doors.linear import LINEAR, read_linear
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.trees import (
    estimator_answer,
    feature_names,
    read_lightgbm,
    read_sklearn_trees,
    read_xgboost,
)
from featherweight.core.errors import DataError, FeatherweightError, UsageError
from featherweight.core.model import trees_model
from featherweight.core.trees.comparison import check_same_scores
from featherweight.core.trees.ensemble import INPUT

_MAX_MEMBERS, _MAX_UNPACKED = 100_000, 4 << 30


def read_estimator(model: Any, *, wide: bool = True) -> LoadedModel:
    """A fitted model of scikit-learn, or in its manner. wide: whether trees that compare in float64 become such. Raises
    UsageError for another one."""
    name = type(model).__name__
    if name == "Pipeline":
        return _pipeline(model)
    if name == "CalibratedClassifierCV":
        return _calibrated(model)
    if name in LINEAR:
        return read_linear(model, model, None)
    if name.startswith("LGBM"):
        return read_lightgbm(model, wide=wide)
    if name.startswith("XGB"):
        return read_xgboost(model)
    return read_sklearn_trees(model, wide=wide)


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
    if not before:
        return read_estimator(last)
    try:
        columns = read_columns(before, int(model.n_features_in_), feature_names(model))
    except (ValueError, AttributeError, TypeError) as error:  # as scikit-learn's steps fail
        raise UsageError(f"the pipeline's steps cannot be asked ({describe_cause(error)}); is it fitted?") from error
    if type(last).__name__ in LINEAR:
        return read_linear(model, last, columns)
    # Thresholds before the steps are found among the float32 numbers.
    return _trees(model, read_estimator(last, wide=False), columns)


def _calibrated(model: Any) -> LoadedModel:
    """A model with Platt's calibration behind it, which is sealed as the baseline's own."""
    members = getattr(model, "calibrated_classifiers_", None)
    if not members:
        raise UsageError("this CalibratedClassifierCV is not fitted")
    calibrators = members[0].calibrators
    if len(model.classes_) > 2:
        raise UsageError(
            "this CalibratedClassifierCV has a calibrator for each of several classes, which no temperature stands "
            f"for; load the {type(members[0].estimator).__name__} itself, which is calibrated anew here"
        )
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


# ---------------------------------------------------------------------------------------------------- trees


def _trees(whole: Any, read: LoadedModel, columns: Columns) -> LoadedModel:
    ensemble = read.model.ensemble("reading a pipeline")
    if read.missing_value is not None:
        raise UsageError(
            f"the pipeline's model reads {read.missing_value:g} as missing, behind steps that change numbers; put NaN "
            "in its place before the pipeline, and train it so"
        )
    if ensemble.targets > 1 or len(ensemble.members):
        what = "categories" if len(ensemble.members) else "several classes"
        raise UsageError(
            f"the pipeline transforms columns before trees of {what}, which is not read; apply that to the data "
            "before, and load the model alone"
        )
    moved = before_columns(ensemble, columns)

    def score(rows: AnyFloats) -> Floats:
        # Beyond all thresholds a value is like any other there, and a power of it may be infinite.
        taken = np.clip(rows, -columns.largest, columns.largest)
        answer = estimator_answer(whole, as_frame(taken, columns.names), read.meaning)
        if read.meaning == "value" or moved.output == "probability":
            return answer
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(answer) - np.log1p(-answer))

    check_same_scores(moved, score, type(whole).__name__)

    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        return estimator_answer(whole, as_frame(inputs[INPUT], columns.names), read.meaning)

    named = feature_names(whole)
    return replace(
        read, model=trees_model(moved), source=f"Pipeline of {read.source}", reference=reference, columns=named
    )
