"""From raw logits to a calibrated probability and a decision, fitted on validation data alone."""

from __future__ import annotations

import numpy as np

from featherweight.apps.imaging.sealed import DecisionRule
from featherweight.core.arrays import Labels, Scores
from featherweight.core.calibration import fit_platt
from featherweight.core.errors import DataError


def fit_decision(logits: Scores, labels: Labels, prevalence: float = 0.5) -> DecisionRule:
    """Platt scaling (Platt, 1999, with his smoothed targets) of logits [N] for the stated prevalence.

    Both classes weigh as the prevalence says, however many there are of each: the validation set's own mix says
    nothing about the next hospital's. The threshold is one half: with both errors equally bad it is the decision with
    the smallest expected loss, and unlike the best point of an empirical curve it does not hang on a few cases.
    Raises DataError when a class is missing or the logits do not rise with the label.
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if min(positives, negatives) == 0:
        raise DataError(
            f"calibration needs both classes; the validation part has {positives} positive, {negatives} negative"
        )
    weight = np.where(labels == 1, prevalence / positives, (1 - prevalence) / negatives) * len(labels)
    slope, intercept = fit_platt(logits, labels, weight)
    if slope <= 0:
        raise DataError(
            "the network's scores do not rise with the label on the validation part; train longer or check labels"
        )
    return DecisionRule(slope=slope, intercept=intercept, threshold=0.5, prevalence=prevalence)


def raw_threshold(decision: DecisionRule) -> float:
    """The logit at which the calibrated probability reaches the decision's threshold."""
    return decision.score_at(decision.threshold)
