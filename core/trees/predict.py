"""What an ensemble says of rows: the reference that every backend and pass is compared with."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Array, Bools, FeatureRows, Floats, Floats32, Int32s, Integers
from featherweight.core.trees.canonical import MAX_CATEGORIES
from featherweight.core.trees.ensemble import LEAF, Ensemble

SMALLEST_PROBABILITY = np.float32(2.0**-20)
"""A forest's mean probability is clipped to [this, 1 - this] before it becomes log-odds."""


def reached_leaves(ensemble: Ensemble, rows: FeatureRows) -> Int32s:
    """The node number of the leaf that each row [N, F] reaches in each tree: int32 [N, trees]."""
    found = np.empty((len(rows), len(ensemble.roots)), np.int32)
    every = np.arange(len(rows))
    keys = _member_keys(ensemble)
    for tree, root in enumerate(ensemble.roots):
        node, active = np.full(len(rows), root, np.int32), every
        while len(active):
            at = node[active]
            inner = ensemble.feature[at] != LEAF
            active, at = active[inner], at[inner]
            left = _goes_left(ensemble, keys, rows, active, at)
            node[active] = np.where(left, ensemble.left[at], ensemble.right[at])
        found[:, tree] = node
    return found


def goes_left(ensemble: Ensemble, rows: FeatureRows, row: Array, node: Array) -> Bools:
    """Whether row number `row` goes left at split `node`; both [M]."""
    return _goes_left(ensemble, _member_keys(ensemble), rows, row, node)


def _goes_left(ensemble: Ensemble, keys: Integers, rows: FeatureRows, row: Array, node: Array) -> Bools:
    x = rows[row, ensemble.feature[node]]
    left = x < ensemble.threshold[node]
    if len(keys):
        sets = ensemble.counts[node] > 0
        category = np.floor(x[sets])
        is_one = (category >= 0) & (category < MAX_CATEGORIES)
        key = node[sets].astype(np.int64) * MAX_CATEGORIES + np.where(is_one, category, 0).astype(np.int64)
        place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        left[sets] = is_one & (keys[place] == key)
    return np.asarray(left | (np.isnan(x) & ensemble.missing_left[node]))


def _member_keys(ensemble: Ensemble) -> Integers:
    """Each member with its split as one number, rising: int64 [M]."""
    owner = np.repeat(np.arange(len(ensemble.counts)), ensemble.counts)
    return np.asarray(owner * MAX_CATEGORIES + ensemble.members.astype(np.int64))


def predict(ensemble: Ensemble, rows: FeatureRows) -> Floats32:
    """Margins float32 [N] of rows [N, F], or [N, targets] of several targets. The rows are float32, of wide trees
    float64."""
    sums = np.empty((len(rows), ensemble.targets), np.float32)
    for start in range(0, len(rows), 4096):
        leaves = reached_leaves(ensemble, rows[start : start + 4096])
        sums[start : start + 4096] = target_sums(ensemble, ensemble.value[leaves].astype(np.float64))
    margins = as_margin(ensemble, sums)
    return margins[:, 0] if ensemble.targets == 1 else margins


def target_sums(ensemble: Ensemble, values: Floats) -> Floats:
    """values of leaves float64 [N, trees], summed with the base for each target: [N, targets]."""
    sums = [values[:, ensemble.target == target].sum(axis=1) for target in range(ensemble.targets)]
    return np.asarray(np.stack(sums, axis=1) + ensemble.base)


def as_margin(ensemble: Ensemble, sums: Floats32) -> Floats32:
    """Sums of leaves and base as log-odds, of several targets logarithms, in float32 throughout as the exported program
    does it. sums: float32 [N] or [N, targets], and so is the result."""
    if ensemble.output == "margin":
        return sums
    clipped = np.clip(sums, SMALLEST_PROBABILITY, np.float32(1) - SMALLEST_PROBABILITY)
    if ensemble.targets > 1:
        return np.asarray(np.log(clipped))
    return np.asarray(np.log(clipped) - np.log(np.float32(1) - clipped))


def borderline_rows(ensemble: Ensemble, count: int, seed: int = 0) -> FeatureRows:
    """Rows [count, F] that lie on the thresholds and just below, with NaN and infinities among them: where two
    implementations would differ first."""
    generator = np.random.default_rng(seed)
    rows = np.empty((count, ensemble.features), ensemble.threshold.dtype)
    lowest = np.float32(-np.inf)
    owner = np.repeat(ensemble.feature, ensemble.counts)
    for feature in range(ensemble.features):
        at = np.append(ensemble.threshold[(ensemble.feature == feature) & (ensemble.counts == 0)], np.float32(0))
        values = np.concatenate([at, np.nextafter(at, lowest)])
        known = np.unique(ensemble.members[owner == feature])
        if len(known):
            values = np.concatenate([known, known, np.setdiff1d([-1, 0, 1, known.max() + 1, known.max() + 999], known)])
        rows[:, feature] = generator.choice(values, count)
    odd = generator.random(rows.shape) < 0.1
    rows[odd] = generator.choice(np.array([np.nan, np.nan, np.inf, -np.inf], np.float32), int(odd.sum()))
    return rows
