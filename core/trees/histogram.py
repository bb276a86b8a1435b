"""scikit-learn's histogram gradient boosting to an Ensemble, its categories too.

Its own encoder numbers the values of a categorical column and puts these columns first; a value that it does not know
goes where missing ones go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.core.arrays import Array, Bools, Floats, Integers
from featherweight.core.errors import UsageError
from featherweight.core.trees.canonical import MAX_CATEGORIES, Nodes, all_left, strict_thresholds, with_bases
from featherweight.core.trees.ensemble import LEAF, Ensemble


@dataclass(frozen=True, eq=False)
class _Columns:
    """place: the feature of each column that the trees see, int64; categories: of the first columns, the value of each
    code."""

    place: Integers
    categories: list[Floats]


def histogram_ensemble(model: Any, *, wide: bool) -> Ensemble:
    """The trees of a fitted HistGradientBoostingClassifier or -Regressor. Raises UsageError for categories that are no
    whole numbers."""
    columns = _columns(model)
    trees = [
        _tree(predictor, columns, target, wide=wide)
        for stage in model._predictors
        for target, predictor in enumerate(stage)
    ]
    bases = [float(base) for base in np.ravel(model._baseline_prediction)]
    return with_bases(trees, int(model.n_features_in_), bases, wide=wide)


def _columns(model: Any) -> _Columns:
    features = int(model.n_features_in_)
    if model.is_categorical_ is None:
        return _Columns(np.arange(features), [])
    chosen = np.asarray(model.is_categorical_, bool)
    encoder = model._preprocessor.named_transformers_["encoder"]
    found = []
    for feature, values in zip(np.flatnonzero(chosen), encoder.categories_, strict=True):
        try:
            numbers = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"column {feature} of this model has categories that are texts; train on numbers"
            ) from error
        numbers = numbers[~np.isnan(numbers)]
        if not ((numbers >= 0) & (numbers < MAX_CATEGORIES) & (numbers == np.floor(numbers))).all():
            raise UsageError(
                f"column {feature} of this model has categories that are no whole numbers from 0 to "
                f"{MAX_CATEGORIES - 1}; train on such numbers"
            )
        found.append(numbers)
    return _Columns(np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)]), found)


def _tree(predictor: Any, columns: _Columns, target: int, *, wide: bool) -> Nodes:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    is_set = nodes["is_categorical"].astype(bool) & ~is_leaf
    missing_left = nodes["missing_go_to_left"].astype(bool)
    left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    counts, members = _members(predictor, is_set, missing_left, columns)
    # What is unknown goes right here: where missing values go left, the categories that go right are the members.
    exchanged = is_set & missing_left
    found = Nodes(
        roots=np.array([0]),
        feature=np.where(is_leaf, LEAF, columns.place[np.where(is_leaf, 0, nodes["feature_idx"].astype(np.int64))]),
        threshold=strict_thresholds(nodes["num_threshold"], wide=wide),
        left=np.where(exchanged, right, left),
        right=np.where(exchanged, left, right),
        missing_left=missing_left & ~is_set,
        value=nodes["value"],
        counts=counts,
        members=members,
        target=np.array([target]),
    )
    return all_left(found, ~is_leaf & ~is_set & np.isposinf(nodes["num_threshold"]))


def _members(predictor: Any, is_set: Bools, missing_left: Bools, columns: _Columns) -> tuple[Integers, Floats]:
    """(how many categories each node has; those of all): the ones that go left, or right where missing values go
    left."""
    counts = np.zeros(len(is_set), np.int64)
    parts: list[Array] = [np.zeros(0)]
    for node in np.flatnonzero(is_set):
        row = predictor.nodes[node]
        words = np.asarray(predictor.raw_left_cat_bitsets[row["bitset_idx"]], "<u4")
        goes_left = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
        values = columns.categories[int(row["feature_idx"])]
        chosen = values[goes_left[: len(values)] != missing_left[node]]
        counts[node] = len(chosen)
        parts.append(chosen)
    return counts, np.concatenate(parts)
