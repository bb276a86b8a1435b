"""Trees behind something that treats each column for itself: the same trees for the values before it.

Each split then asks the same of the value before; its threshold is found by asking what comes before the trees, and is
exact for every float32 number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from featherweight.core.arrays import Array, Bools, Floats32, Integers
from featherweight.core.trees.canonical import canonicalize, nodes_of
from featherweight.core.trees.ensemble import LEAF, Ensemble


def before_transform(ensemble: Ensemble, transform: Callable[[Array], Array]) -> Ensemble:
    """The same trees for values as they are before `transform` ([N, F] to [N, F]), which treats each column for itself
    and keeps the order of its values."""
    return with_thresholds(ensemble, transform, np.arange(ensemble.features), ensemble.features)


def with_thresholds(
    ensemble: Ensemble, transform: Callable[[Array], Array], origin: Integers, features: int
) -> Ensemble:
    """The same trees over the columns before `transform` ([N, features] to [N, F]). origin: int64 [F], the column that
    each one behind it is made of, in its order."""
    splits = np.flatnonzero(ensemble.feature != LEAF)
    feature, threshold = ensemble.feature[splits].astype(np.int64), ensemble.threshold[splits].astype(np.float32)
    at, missing_left = thresholds_before(feature, threshold, ensemble.missing_left[splits], transform, origin, features)
    nodes = nodes_of(ensemble)
    columns, thresholds, missing = nodes.feature.copy(), nodes.threshold.copy(), nodes.missing_left.copy()
    columns[splits], thresholds[splits], missing[splits] = origin[feature], at, missing_left
    moved = replace(nodes, feature=columns, threshold=thresholds, missing_left=missing)
    return canonicalize(moved, features, ensemble.base, ensemble.output)


def thresholds_before(
    feature: Integers,
    threshold: Floats32,
    missing_left: Bools,
    transform: Callable[[Array], Array],
    origin: Integers,
    features: int,
) -> tuple[Floats32, Bools]:
    """(thresholds, whether a missing value goes left) of the same splits before `transform`, all [splits]."""
    if not len(feature):
        return threshold, missing_left
    column = origin[feature]
    rank = np.zeros(len(feature), np.int64)
    for one in np.unique(column):
        rank[column == one] = np.arange(int((column == one).sum()))
    rows = int(rank.max(initial=-1)) + 1

    def after(values: Floats32) -> Floats32:
        """transform of one value for each split, in the column that it asks for."""
        table = np.zeros((rows, features), np.float32)
        table[rank, column] = values
        with np.errstate(all="ignore"):
            found = transform(table)[rank, feature]
        return np.asarray(found, np.float32)

    at = _least_not_below(lambda values: after(values) < threshold, len(feature))
    with np.errstate(invalid="ignore"):
        lost = after(np.full(len(feature), np.nan, np.float32))
        return at, np.asarray(np.where(np.isnan(lost), missing_left, lost < threshold))


def _least_not_below(below: Callable[[Floats32], Bools], count: int) -> Floats32:
    """For each of `count` conditions that hold up to some float32 number and not from there on, that number; infinity
    where it always holds. Found by halving the range of all float32 numbers in their order."""
    low = np.full(count, _order(np.float32(-np.inf)), np.int64)
    high = np.full(count, _order(np.float32(np.inf)), np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        holds = below(_number(middle))
        low, high = np.where((low < high) & holds, middle + 1, low), np.where((low < high) & ~holds, middle, high)
    return _number(low)


def _order(value: np.float32) -> int:
    """Whole numbers in the order of the float32 numbers."""
    bits = int(np.array(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _number(order: Integers) -> Floats32:
    bits = np.where(order >= 0, order, (-order) | -(1 << 31)).astype(np.int64).astype(np.int32)
    return bits.view(np.float32)
