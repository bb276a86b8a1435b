"""Limits that refuse nothing: a program that gives all cases one score would keep them, or one that is far slower or
larger. They are pointed out, not refused: a recipe may be meant to measure only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from featherweight.core.evidence import metrics
from featherweight.core.evidence.absolute import (
    AUC_FLOOR,
    AVERAGE_PRECISION_FLOOR,
    CALIBRATION_IN_THE_LARGE,
    CALIBRATION_SLOPE,
    NEGATIVE_PREDICTIVE_VALUE,
    POSITIVE_PREDICTIVE_VALUE,
)
from featherweight.core.evidence.binary import among_negatives, among_positives, share_right
from featherweight.core.evidence.class_predictions import ClassPredictions
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.metrics import CHANGED_DECISIONS, Limits
from featherweight.core.evidence.predictions import Predictions, changed_outcomes
from featherweight.core.statistics.predictive_values import Sign, predictive_value

_HARDLY = 0.5
"""A ratio up to this asks for a program that may be twice as slow or large as the baseline."""
_HARDLY_IN_LOGITS = math.log(2)
"""From this distance on all odds may be twice, or half, what they should be."""


def absurd_limits(baseline: Predictions, limits: Limits) -> Iterator[str]:
    """A sentence for each limit that refuses next to nothing on such cases."""
    useless = _useless(baseline)
    for name, (metric, rule) in metrics.limits().items():
        if (limit := limits.get(name)) is None:
            continue
        if rule.unit == "times":
            if limit <= _HARDLY:
                yield f"The limit {name} = {limit:g} asks for nothing: the baseline itself is at 1."
        elif metric is CALIBRATION_IN_THE_LARGE and metric.is_for(baseline.label_kind):
            if limit >= _HARDLY_IN_LOGITS:
                yield (
                    f"The limit {name} = {limit:g} refuses next to nothing: probabilities whose odds are all "
                    f"{np.exp(limit):.1f} times what they should be would keep it."
                )
        elif (why := _kept_by_all(metric.whole or metric, limit, baseline, useless, limits.prevalence)) is not None:
            yield f"The limit {name} = {limit:g} refuses nothing: {why} would keep it on these cases."


def _useless(baseline: Predictions) -> list[Predictions]:
    """Programs that give all cases one score: all negative, all positive, or all of one class."""
    count = len(baseline.ids)
    if isinstance(baseline, ClassPredictions):
        classes = len(baseline.names)
        share = np.tile(np.bincount(baseline.labels, minlength=classes) / count, (count, 1))
        chances = None if baseline.probabilities is None else share
        return [replace(baseline, scores=np.tile(row, (count, 1)), probabilities=chances) for row in np.eye(classes)]
    outcomes = baseline.all_outcomes
    probabilities = None if baseline.probabilities is None else np.full(count, baseline.labels.mean())
    ends = (outcomes.thresholds[0] - 1, outcomes.thresholds[-1] + 1)
    # A threshold that is infinite leaves no score beyond it: then that decision is never, or always, made.
    scores = [score for score in ends if np.isfinite(score)] or [0.0]
    return [replace(baseline, scores=np.full(count, score), probabilities=probabilities) for score in scores]


def _kept_by_all(
    metric: Metric, limit: float, baseline: Predictions, useless: list[Predictions], prevalence: float | None
) -> str | None:
    """Of a limit that holds in each class: in all of them. None for a limit that is not for such labels."""
    if baseline.label_kind in metric.each:
        whys = [
            _kept_by(metric, limit, part, [one.parts[place][1] for one in useless], prevalence)
            for place, (_, part) in enumerate(baseline.parts)
        ]
        return whys[0] if all(whys) else None
    return _kept_by(metric, limit, baseline, useless, prevalence) if metric.is_for(baseline.label_kind) else None


def _kept_by(
    metric: Metric, limit: float, baseline: Predictions, useless: list[Predictions], prevalence: float | None
) -> str | None:
    """What program that is worth nothing would keep the limit, in words."""
    if metric is CHANGED_DECISIONS:
        changed = min(changed_outcomes(baseline, one).count for one in useless) / len(baseline.ids)
        return "a program that decides all cases alike" if limit >= changed else None
    if metric is AUC_FLOOR:
        return "a program that guesses" if limit <= 0.5 else None
    if metric is AVERAGE_PRECISION_FLOOR:
        return "a program that guesses" if limit <= float((baseline.labels == 1).mean()) else None
    if metric is CALIBRATION_SLOPE:
        return "one whose probabilities say nothing of the outcome (slope 0)" if limit >= 1 else None
    if metric in (POSITIVE_PREDICTIVE_VALUE, NEGATIVE_PREDICTIVE_VALUE):
        losses = [] if prevalence is None else list(_predictive_losses(metric, baseline, prevalence))
        return "a program that guesses" if losses and limit >= max(losses) else None
    was = None if metric.estimate is None or not metric.is_compared else metric.estimate(baseline)
    if metric.estimate is None or was is None:
        return None
    values = [value for one in useless if (value := metric.estimate(one)) is not None]
    losses = [was - value if metric.direction == "higher" else value - was for value in values]
    return "a program that gives all cases one score" if losses and limit >= max(losses) else None


def _predictive_losses(metric: Metric, baseline: Predictions, prevalence: float) -> Iterator[float]:
    """What a program that guesses loses against the baseline, at every threshold: its predictive values are the shares
    of the classes."""
    sign: Sign = "positive" if metric is POSITIVE_PREDICTIVE_VALUE else "negative"
    for one in baseline.at_thresholds:
        sensitivity, specificity = (share_right(one, inside(one)) for inside in (among_positives, among_negatives))
        if sensitivity is not None and specificity is not None:
            value = predictive_value(sign, sensitivity, specificity, prevalence)
            if value is not None:
                yield value - (prevalence if sign == "positive" else 1 - prevalence)
