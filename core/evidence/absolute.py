"""Limits on the candidate itself, whatever the baseline is, and on predictive values at a stated prevalence: entries of
the table in `core.evidence.metrics`, with what judges them. A baseline that guesses loses nothing to a candidate that
guesses; a floor refuses both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from featherweight.core.evidence import binary as b
from featherweight.core.evidence.metric import BINARY, Asked, Finding, Limit, Metric, Pair, Side, pair
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.statistics.intervals import Interval
from featherweight.core.statistics.predictive_values import PairedDecisions, Sign, predictive_value_difference
from featherweight.core.statistics.reliability import calibration_in_the_large, calibration_line

FLOOR_CASES = 20
"""Cases of a class, or clusters that hold some, below which no floor is shown: the interval of a nearly perfect ranking
of fewer fails too often (`bench/levels.py`)."""


def _judge_floor(
    interval: Callable[[Pair, Side], Interval | None],
    title: str,
    baseline: Measured,
    candidate: Measured,
    asked: Asked,
) -> Finding:
    both = pair(baseline.predictions, candidate.predictions, samples=asked.samples, seed=asked.seed)
    found, of = interval(both, "candidate"), candidate.predictions
    if found is None:
        return Finding(None, None, f"{title} of the candidate cannot be had from these cases.")
    for kind, inside in (("positive", of.labels == 1), ("negative", of.labels != 1)):
        independent = of.independent(inside)
        if independent < FLOOR_CASES:
            noun = min(of.counts_of_clusters(inside), default=(0, ""))[1]
            what = f"{kind} cases" if independent == inside.sum() else f"{noun} with {kind} cases"
            return Finding(
                None,
                found.estimate,
                f"{title} of the candidate is {found.estimate:.4f}; that it is at least {asked.limit:g} cannot be "
                f"shown with {independent} {what}: {FLOOR_CASES} are needed.",
            )
    return Finding(
        found.low,
        found.estimate,
        f"{title} of the candidate is {found.estimate:.4f}, 95% interval {found.low:.4f} to {found.high:.4f}, whose "
        f"lower end must reach {asked.limit:g}.",
    )


def _judge_calibration(
    measure: Callable[[Predictions], Interval | None],
    title: str,
    perfect: float,
    baseline: Measured,
    candidate: Measured,
    asked: Asked,
) -> Finding:
    found = measure(candidate.predictions)
    if found is None:
        why = "it has no probabilities, a class is rare, or they separate the classes"
        return Finding(None, None, f"{title} of the candidate cannot be had: {why}.")
    worst = max(abs(found.low - perfect), abs(found.high - perfect))
    return Finding(
        worst,
        abs(found.estimate - perfect),
        f"{title} of the candidate is {found.estimate:.3f} ({perfect:g} is perfect), 95% interval {found.low:.3f} to "
        f"{found.high:.3f}, no end of which may lie further than {asked.limit:g} from {perfect:g}.",
    )


def _in_the_large(of: Predictions) -> Interval | None:
    return None if of.probabilities is None else calibration_in_the_large(of.probabilities, of.labels, of.cluster_kinds)


def _slope(of: Predictions) -> Interval | None:
    return None if of.probabilities is None else calibration_line(of.probabilities, of.labels, of.cluster_kinds)[0]


def _judge_predictive_value(sign: Sign, baseline: Measured, candidate: Measured, asked: Asked) -> Finding:
    """At the threshold where it is worst, of all that the app acts on."""
    if asked.prevalence is None:
        return Finding(None, None, "No prevalence is stated: limits.prevalence.")
    before, after = baseline.predictions, candidate.predictions
    name = "Positive predictive value" if sign == "positive" else "Negative predictive value"
    outcomes = before.all_outcomes.names[1:]
    findings = []
    for outcome, one, other in zip(outcomes, before.at_thresholds, after.at_thresholds, strict=True):
        decided = PairedDecisions(one.labels == 1, one.decisions, other.decisions, one.cluster_kinds)
        found = predictive_value_difference(sign, decided, asked.prevalence)
        at = f" at the threshold of {outcome}" if len(outcomes) > 1 else ""
        if found is None:
            return Finding(None, None, f"{name}{at} cannot be compared: no case is decided so, or a class has none.")
        change = f"{'rose' if found.estimate > 0 else 'fell'} by {abs(found.estimate):.4f}"
        findings.append(
            Finding(
                0.0 - found.low,
                0.0 - found.estimate,
                f"{name}{at} at a prevalence of {asked.prevalence:.2%} {change if found.estimate else 'did not change'}"
                f"; with 95% confidence the loss is at most {0.0 - found.low:.4f}, and the limit is {asked.limit:.4f}.",
            )
        )
    return max(findings, key=lambda finding: finding.found or 0.0)


AUC_FLOOR = Metric(
    name="auc_floor",
    title="AUC of the candidate",
    phrase="AUC of the candidate",
    reads="ranking",
    labels=BINARY,
    limit=Limit(
        "auc_min",
        "min",
        "AUC of the candidate",
        judge=partial(_judge_floor, b.auc_floor, "AUC"),
        example=0.9,
        meaning="Smallest AUC of the candidate itself: the lower end of its 95% interval must reach it.",
    ),
)
AVERAGE_PRECISION_FLOOR = Metric(
    name="average_precision_floor",
    title="Average precision of the candidate",
    phrase="average precision of the candidate",
    reads="ranking",
    labels=BINARY,
    limit=Limit(
        "average_precision_min",
        "min",
        "Average precision of the candidate",
        judge=partial(_judge_floor, b.average_precision_interval, "Average precision"),
        example=0.5,
        meaning="Smallest average precision of the candidate itself: the lower end of its 95% interval must reach it.",
    ),
)
CALIBRATION_IN_THE_LARGE = Metric(
    name="calibration_in_the_large",
    title="Calibration in the large",
    phrase="calibration in the large",
    unit="logits",
    reads="probabilities",
    labels=BINARY,
    direction="lower",
    limit=Limit(
        "calibration_in_the_large_max",
        "max",
        "Calibration in the large",
        judge=partial(_judge_calibration, _in_the_large, "Calibration in the large", 0.0),
        example=0.2,
        meaning=(
            "Largest distance from 0, in logits, of the candidate's calibration in the large: the intercept of a "
            "logistic recalibration with slope 1. Both ends of its 95% interval must lie inside."
        ),
    ),
)
CALIBRATION_SLOPE = Metric(
    name="calibration_slope",
    title="Calibration slope",
    phrase="calibration slope",
    unit="distance from 1",
    reads="probabilities",
    labels=BINARY,
    direction="lower",
    limit=Limit(
        "calibration_slope_deviation_max",
        "max",
        "Distance of the calibration slope from 1",
        judge=partial(_judge_calibration, _slope, "Calibration slope", 1.0),
        example=0.2,
        meaning=(
            "Largest distance from 1 of the candidate's calibration slope: that of a logistic recalibration. Both ends "
            "of its 95% interval must lie inside."
        ),
    ),
)


def _predictive(sign: Sign, name: str, short: str) -> Metric:
    title = f"{sign.capitalize()} predictive value"
    return Metric(
        name=name,
        title=title,
        phrase=f"{sign} predictive value",
        reads="decisions",
        labels=BINARY,
        limit=Limit(
            short,
            "loss",
            f"Loss of {sign} predictive value",
            judge=partial(_judge_predictive_value, sign),
            meaning=f"Largest loss of the {sign} predictive value at the stated prevalence.",
        ),
        in_groups=False,
    )


POSITIVE_PREDICTIVE_VALUE = _predictive("positive", "positive_predictive_value", "ppv_loss")
NEGATIVE_PREDICTIVE_VALUE = _predictive("negative", "negative_predictive_value", "npv_loss")
