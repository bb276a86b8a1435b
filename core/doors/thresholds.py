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
    splits = np.flatnonzero(ensemble.feature != LEAF)
    feature, threshold = ensemble.feature[splits], ensemble.threshold[splits]
    rank = np.zeros(len(splits), np.int64)
    for one in np.unique(feature):
        rank[feature == one] = np.arange(int((feature == one).sum()))
    rows = int(rank.max(initial=-1)) + 1

    def after(values: Floats32) -> Floats32:
        """transform of one value for each split, in the column that it asks for."""
        table = np.zeros((rows, ensemble.features), np.float32)
        table[rank, feature] = values
        with np.errstate(all="ignore"):
            found = transform(table)[rank, feature]
        return np.asarray(found, np.float32)

    at = _least_not_below(lambda values: after(values) < threshold, len(splits))
    with np.errstate(invalid="ignore"):
        lost = after(np.full(len(splits), np.nan, np.float32))
        missing_left = np.where(np.isnan(lost), ensemble.missing_left[splits], lost < threshold)
    nodes = nodes_of(ensemble)
    thresholds, missing = nodes.threshold.copy(), nodes.missing_left.copy()
    thresholds[splits], missing[splits] = at, missing_left
    moved = replace(nodes, threshold=thresholds, missing_left=missing)
    return canonicalize(moved, ensemble.features, ensemble.base, ensemble.output)


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
