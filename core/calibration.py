"""From raw scores to a probability: what the apps' calibrations share."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Floats, Labels, Scores


def fit_platt(
    scores: Scores,
    labels: Labels,
    weight: Floats | float = 1.0,
) -> tuple[float, float]:
    """(slope, intercept) of Platt scaling (Platt, 1999, with his smoothed targets) of scores [N] with both labels,
    0 and 1; weight: of each case [N], or of all."""
    from sklearn.linear_model import LogisticRegression  # a second, which reading a wrong recipe need not take

    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # Soft targets as two weighted copies of each case, which LogisticRegression fits without a penalty.
    doubled = np.concatenate([scores, scores]).reshape(-1, 1)
    truth = np.concatenate([np.ones_like(labels), np.zeros_like(labels)])
    weights = np.concatenate([weight * target, weight * (1 - target)])
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(doubled, truth, sample_weight=weights)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
