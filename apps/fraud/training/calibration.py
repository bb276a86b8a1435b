"""From margins to a calibrated probability and the two thresholds, fitted on validation days alone."""

from __future__ import annotations

import math

import numpy as np

from featherweight.apps.fraud.sealed import DecisionRule
from featherweight.core.arrays import Labels, Scores
from featherweight.core.calibration import fit_platt
from featherweight.core.errors import DataError, UsageError
from featherweight.core.platt import LARGEST_LOGIT, PlattScaling
from featherweight.core.terminal import counted

DECLINE_PROBABILITY = 0.9
"""From here on a transaction is declined: nine of ten like it are frauds."""


def fit_rule(
    scores: Scores,
    labels: Labels,
    *,
    days: float,
    alerts_per_day: float,
) -> DecisionRule:
    """Platt scaling (Platt, 1999, with his smoothed targets) of margins [N] of `days` validation days, at their own
    share of frauds; the review threshold lies between the last alert that `alerts_per_day` leave room for and the next
    transaction below it. Equal scores are alerts together: where they do not fit, none of them is, unless there would
    be no alert at all. Validation days are without known cards (`protocol`), so the capacity is for the others.

    Raises DataError when a class is missing, the scores do not rise with the label or their probabilities cannot be
    told apart at the threshold, UsageError when the capacity is no smaller than all transactions, or below one alert in
    all these days.
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if min(positives, negatives) == 0:
        raise DataError(
            f"calibration needs both kinds; the validation days have {counted(positives, 'frauds')} and "
            f"{counted(negatives, 'others')}"
        )
    room = round(alerts_per_day * days) if math.isfinite(alerts_per_day) else len(scores)
    if not 1 <= room < len(scores):
        raise UsageError(
            f"{alerts_per_day:g} alerts a day are {room} in {days:.3g} validation days of "
            f"{counted(len(scores), 'transactions')}; give --alerts-per-day a number "
            f"from {1 / days:.3g} to {(len(scores) - 1) / days:.3g}"
        )
    slope, intercept = fit_platt(scores, labels)
    if slope <= 0 or scores.min() == scores.max():
        raise DataError(
            "the model's scores do not rise with the label on the validation days; train on more days or check labels"
        )
    ranked = np.sort(scores)[::-1]
    falls = np.flatnonzero(ranked[:-1] > ranked[1:])  # the last alert of every threshold that can be
    last = int(falls[max(int(np.searchsorted(falls, room)) - 1, 0)])
    threshold = float((ranked[last] + ranked[last + 1]) / 2)
    if abs(slope * threshold + intercept) >= LARGEST_LOGIT:
        raise DataError(
            f"{alerts_per_day:g} alerts a day end at the score {threshold:g}, whose probability is 0 or 1 to the last "
            "digit, so that no threshold tells it from its neighbours; give another --alerts-per-day, or train on more "
            "days"
        )
    review = PlattScaling(slope=slope, intercept=intercept).probability(threshold)
    return DecisionRule(
        slope=slope,
        intercept=intercept,
        review_threshold=review,
        decline_threshold=max(DECLINE_PROBABILITY, review),
        chosen_for=f"{alerts_per_day:g} alerts a day; declined from a probability of {DECLINE_PROBABILITY:g} on",
    )


def raw_threshold(rule: DecisionRule) -> float:
    """The margin at which a transaction becomes an alert."""
    return rule.score_at(rule.review_threshold)
