"""From raw scores to a probability: what the apps' calibrations share."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Floats, Labels, Scores
from featherweight.core.errors import DataError
from featherweight.core.softmax import HIGHEST, LOWEST


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


def fit_temperature(scores: Scores, labels: Labels) -> float:
    """The temperature of core.softmax with the least log loss of scores [N, K] with labels 0..K-1, the truth as smooth
    as Platt's (1999): of N cases each is its own class with (N + 1) / (N + 2), so that there is a least one even where
    all are right. Raises DataError where an answer that is the same for all cases is better than these."""
    from scipy.optimize import minimize_scalar

    count, classes = scores.shape
    apart = scores - scores.max(axis=1, keepdims=True)
    own, sure = apart[np.arange(count), labels], (count + 1) / (count + 2)
    wanted = sure * own + (1 - sure) * (apart.sum(axis=1) - own) / (classes - 1)

    def loss(logarithm: float) -> float:
        sharpness = np.exp(logarithm)
        return float((np.log(np.exp(sharpness * apart).sum(axis=1)) - sharpness * wanted).mean())

    low, high = float(np.log(1 / HIGHEST)), float(np.log(1 / LOWEST))
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    if min(found - low, high - found) < 0.1:
        raise DataError("the scores say nothing of the classes on the validation cases")
    return float(np.exp(-found))
