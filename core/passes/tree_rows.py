"""Unlabelled rows for the passes that look at what trees do, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from featherweight.core.arrays import FeatureRows, Floats, Int32s
from featherweight.core.errors import DataError
from featherweight.core.tensors import Tensors
from featherweight.core.trees.ensemble import INPUT, Ensemble

SMALLEST_WEIGHT = 1e-3
"""Minimum of p(1-p): rows that the model is sure of count a little, too."""


def join_rows(batches: Iterable[Tensors], kind: str) -> FeatureRows:
    """All batches as one [N, F], of the type that they have. Raises DataError when there is none; `kind` names the
    step."""
    parts = [batch[INPUT] for batch in batches]
    if not parts:
        raise DataError(f"{kind}: the task gives no calibration inputs; its training set is empty")
    return np.concatenate(parts)


def leaf_sums(ensemble: Ensemble, leaves: Int32s) -> Floats:
    """base and leaves [N, trees] summed, in float64."""
    return np.asarray(ensemble.value[leaves].sum(axis=1, dtype=np.float64) + ensemble.base)


def row_weights(ensemble: Ensemble, sums: Floats) -> Floats:
    """What a squared move of each sum costs by a second-order view of the log loss: p(1-p) for log-odds, so 1/p(1-p)
    for probabilities. The mean is 1. sums: float64 [N], and so is the result."""
    if ensemble.output == "margin":
        chance = 1 / (1 + np.exp(-np.clip(sums, -30, 30)))
        found = np.maximum(chance * (1 - chance), SMALLEST_WEIGHT)
    else:
        chance = np.clip(sums, 0, 1)
        found = 1 / np.maximum(chance * (1 - chance), SMALLEST_WEIGHT)
    return np.asarray(found / found.mean())
