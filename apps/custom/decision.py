"""From scores to calibrated probabilities and, of a yes or no, a threshold, fitted on validation cases alone."""

from __future__ import annotations

import numpy as np

from featherweight.apps.custom.sealed import ClassRule, DecisionRule
from featherweight.core.arrays import Labels, Scores
from featherweight.core.calibration import fit_platt, fit_temperature
from featherweight.core.errors import DataError
from featherweight.core.platt import LARGEST_LOGIT, PlattScaling


def own_rule(scores: Scores, labels: Labels, threshold: float, calibration: tuple[float, float] | None) -> DecisionRule:
    """The baseline's own decision on its validation scores [N]. threshold: the probability from which on it says yes,
    by its own calibration (slope and intercept); a model without probabilities says yes from the score 0 on.

    Raises DataError where it says yes to all validation cases or to none: no decision could then be compared.
    """
    if calibration is not None:
        slope, intercept = calibration
        rule = DecisionRule(
            slope=slope, intercept=intercept, threshold=threshold, chosen_for="the model's own threshold"
        )
    else:
        slope, intercept = fit_platt(scores, labels)
        scaling = PlattScaling(slope=slope, intercept=intercept)
        rule = DecisionRule(
            slope=slope, intercept=intercept, threshold=scaling.probability(0.0), chosen_for="the model's own decision"
        )
    positive = scores >= rule.score_at(rule.threshold)
    if positive.all() or not positive.any():
        said = "all" if positive.all() else "none"
        proposed = rule.probability(float(np.quantile(scores, 1 - labels.mean(), method="higher")))
        raise DataError(
            f"at the threshold {threshold:g} the model says yes to {said} of the {len(scores):,} validation cases, so "
            "that no decision could be compared; set `threshold` to the probability that you act on (at "
            f"{proposed:.3g} it says yes as often as the labels do)"
        )
    return rule


def fit_rule(scores: Scores, labels: Labels, positive_share: float) -> DecisionRule:
    """Platt scaling of a candidate's scores [N], and the threshold at which as large a share of the cases is positive
    as by the baseline's own: the work that follows from a yes stays as much. labels: int64 [N].

    Raises DataError where the scores do not rise with the label, or cannot be told apart at the threshold.
    """
    slope, intercept = fit_platt(scores, labels)
    if slope <= 0 or scores.min() == scores.max():
        raise DataError("the scores do not rise with the label on the validation cases")
    ranked = np.sort(scores)[::-1]
    falls = np.flatnonzero(ranked[:-1] > ranked[1:]) + 1  # how many are positive at each threshold that can be
    wanted = round(positive_share * len(scores))
    count = int(falls[np.argmin(np.abs(falls - wanted))])
    cut = float((ranked[count - 1] + ranked[count]) / 2)
    if abs(slope * cut + intercept) >= LARGEST_LOGIT:
        raise DataError("the scores are so steep that no probability tells the threshold from its neighbours")
    threshold = PlattScaling(slope=slope, intercept=intercept).probability(cut)
    return DecisionRule(
        slope=slope,
        intercept=intercept,
        threshold=threshold,
        chosen_for=f"as many positive validation cases as the baseline has ({positive_share:.4g} of all)",
    )


def own_class_rule(scores: Scores, labels: Labels, *, recalibrates: bool) -> ClassRule:
    """The baseline's own probabilities of its validation scores [N, K]: their softmax, or where they are no logarithms
    of probabilities that with the temperature that fits. Raises DataError where it decides all cases alike."""
    if len(np.unique(scores.argmax(axis=1))) < 2:
        raise DataError(
            f"the model decides all {len(scores):,} validation cases for one class, so that no decision could be "
            "compared; are the classes named in the order of its outputs?"
        )
    if recalibrates:
        return fit_class_rule(scores, labels)
    return ClassRule(temperature=1.0, chosen_for="the model's own probabilities")


def fit_class_rule(scores: Scores, labels: Labels) -> ClassRule:
    """The temperature that fits the scores [N, K] of the validation cases. Raises DataError where they say nothing."""
    temperature = fit_temperature(scores, labels)
    return ClassRule(temperature=temperature, chosen_for="the least log loss on the validation cases")
