"""What an ensemble says of rows: the reference that every backend and pass is compared with."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Array, Bools, FeatureRows, Floats32, Int32s
from featherweight.core.trees.ensemble import LEAF, Ensemble

SMALLEST_PROBABILITY = np.float32(2.0**-20)
"""A forest's mean probability is clipped to [this, 1 - this] before it becomes log-odds."""


def reached_leaves(ensemble: Ensemble, rows: FeatureRows) -> Int32s:
    """The node number of the leaf that each row [N, F] reaches in each tree: int32 [N, trees]."""
    found = np.empty((len(rows), len(ensemble.roots)), np.int32)
    every = np.arange(len(rows))
    for tree, root in enumerate(ensemble.roots):
        node, active = np.full(len(rows), root, np.int32), every
        while len(active):
            at = node[active]
            inner = ensemble.feature[at] != LEAF
            active, at = active[inner], at[inner]
            node[active] = np.where(goes_left(ensemble, rows, active, at), ensemble.left[at], ensemble.right[at])
        found[:, tree] = node
    return found


def goes_left(ensemble: Ensemble, rows: FeatureRows, row: Array, node: Array) -> Bools:
    """Whether row number `row` goes left at split `node`; both [M]."""
    x = rows[row, ensemble.feature[node]]
    return np.asarray((x < ensemble.threshold[node]) | (np.isnan(x) & ensemble.missing_left[node]))


def predict(ensemble: Ensemble, rows: FeatureRows) -> Floats32:
    """Margins (log-odds) float32 [N] of rows float32 [N, F]."""
    sums = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), 4096):
        leaves = reached_leaves(ensemble, rows[start : start + 4096])
        sums[start : start + 4096] = ensemble.value[leaves].sum(axis=1, dtype=np.float64) + ensemble.base
    return as_margin(ensemble, sums)


def as_margin(ensemble: Ensemble, sums: Floats32) -> Floats32:
    """Sums of leaves and base as log-odds, in float32 throughout as the exported program does it. sums: float32 [N],
    and so is the result."""
    if ensemble.output == "margin":
        return sums
    clipped = np.clip(sums, SMALLEST_PROBABILITY, np.float32(1) - SMALLEST_PROBABILITY)
    return np.asarray(np.log(clipped) - np.log(np.float32(1) - clipped))


def borderline_rows(ensemble: Ensemble, count: int, seed: int = 0) -> FeatureRows:
    """Rows [count, F] that lie on the thresholds and just below, with NaN and infinities among them: where two
    implementations would differ first."""
    generator = np.random.default_rng(seed)
    rows = np.empty((count, ensemble.features), np.float32)
    lowest = np.float32(-np.inf)
    for feature in range(ensemble.features):
        at = np.append(ensemble.threshold[ensemble.feature == feature], np.float32(0))
        values = np.concatenate([at, np.nextafter(at, lowest)])
        rows[:, feature] = generator.choice(values, count)
    odd = generator.random(rows.shape) < 0.1
    rows[odd] = generator.choice(np.array([np.nan, np.nan, np.inf, -np.inf], np.float32), int(odd.sum()))
    return rows
