"""One figure compared within one group of cases, before any correction for how many are compared.

Bound and p-value are computed however few cases a group has: both are exact for shares, and a group of few is wide, not
silent. What few cases cannot do is to show that a limit is kept; `GroupTest.confidence` says how sure they can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from featherweight.core.arrays import Bools, Clusters
from featherweight.core.evidence import metrics
from featherweight.core.evidence.class_metrics import CLASS_BRIER_SCORE, TOP_1_ACCURACY
from featherweight.core.evidence.metric import Metric, Pair
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, BRIER_SCORE, SENSITIVITY, SPECIFICITY, Limits
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics.cluster_kinds import fewest_clusters
from featherweight.core.statistics.loss_bounds import LEAST_AS_SEEN, OwnLosses, Unseen, least_bound, loss_upper_bound
from featherweight.core.statistics.loss_bounds import p_value as loss_p_value
from featherweight.core.statistics.paired import (
    at_effective_counts,
    exact_bound,
    exact_p_value,
    paired_share_difference,
)

SMALL_GROUP = 20
"""Fewer cases of a class are few: that nothing was lost among them says little."""
MIN_CONFIDENCE = 0.95
_STEPS = 8
_UNKNOWN = float("inf")


def _never(confidence: float) -> float:
    return _UNKNOWN


@dataclass(frozen=True)
class GroupMargins:
    """What may be lost in the groups of one column."""

    limits: Limits
    column: str

    def of(self, metric: Metric) -> float | None:
        return self.limits.in_group(metric, self.column)

    def holds(self, metric: Metric) -> bool:
        """Whether a limit of [limits.groups] holds here, which makes the figure one that is judged."""
        return self.limits.holds_in_groups(metric, self.column)

    @property
    def any_holds(self) -> bool:
        """Whether a limit of [limits.groups] holds in this column."""
        return any(self.holds(metric) for metric, _ in metrics.limits().values())


@dataclass(frozen=True)
class GroupTest:
    """threshold: the outcome that begins at it, of a figure of decisions at another threshold than the decision's;
    limited: whether a loss has a limit, the `margin`; held: whether that limit is one of groups; few: whether a class
    has fewer than SMALL_GROUP cases. low: the bound of the gain at a confidence, p_value: of a loss beyond the margin,
    both None where the metric has no bound for so few cases; least: the bound of the loss, at a confidence, of a
    candidate that loses nothing here."""

    metric: Metric
    before: float
    after: float
    margin: float
    limited: bool
    held: bool
    few: bool
    low: Callable[[float], float] | None = None
    p_value: float | None = None
    least: Callable[[float], float] = _never
    threshold: str = ""

    @property
    def gain(self) -> float:
        change = self.after - self.before
        return change if self.metric.direction == "higher" else -change

    def confidence(self, wanted: float) -> float | None:
        """The confidence, `wanted` or less, with which these cases could show that the margin is kept if nothing were
        lost; None where that is below 95%. The more comparisons are corrected for the larger `wanted` is: a group that
        could be judged without them is judged with them, so that no column excuses another one's groups."""
        if not self.limited or self.least(MIN_CONFIDENCE) > self.margin:
            return None
        if self.least(wanted) <= self.margin:
            return wanted
        sure, unsure = MIN_CONFIDENCE, wanted
        for _ in range(_STEPS):
            middle = (sure + unsure) / 2
            sure, unsure = (middle, unsure) if self.least(middle) <= self.margin else (sure, middle)
        return sure


def tests_in_group(both: Pair, inside: Bools, limits: GroupMargins) -> Iterator[GroupTest]:
    """AUC unless the recipe limits average precision in its place, sensitivity and specificity at every threshold that
    the app acts on, the error of the probabilities where there are any, and every other metric whose loss the recipe
    limits. A group that holds one class only (a subtype of it) is ranked against all cases of the other class; its
    probabilities are judged on its own cases."""
    if both.baseline.label_kind != "binary":
        yield from _of_classes(both, inside, limits)
        return
    positive = both.baseline.labels == 1
    hits, misses = bool((inside & positive).any()), bool((inside & ~positive).any())
    ranked = inside if hits and misses else inside | (~positive if hits else positive)
    both_classes = 0 < (ranked & positive).sum() < ranked.sum()
    if both_classes and (limits.of(AUC) is not None or limits.of(AVERAGE_PRECISION) is None):
        yield _by_own_losses(AUC, both, ranked, limits)
    if both_classes and limits.of(AVERAGE_PRECISION) is not None:
        yield _by_own_losses(AVERAGE_PRECISION, both, ranked, limits)
    for metric, part in ((SENSITIVITY, inside & positive), (SPECIFICITY, inside & ~positive)):
        if part.any():
            yield from _shares(metric, both, part, limits)
    if limits.of(BRIER_SCORE) is not None or both.own_losses(BRIER_SCORE) is not None:
        yield _by_own_losses(BRIER_SCORE, both, inside, limits)
    of_their_own = (AUC, AVERAGE_PRECISION, SENSITIVITY, SPECIFICITY, BRIER_SCORE)
    for metric, _ in metrics.limits("binary").values():
        limited = metric.is_compared and metric.in_groups and limits.of(metric) is not None
        if both_classes and limited and metric not in of_their_own:
            yield (_by_error if metric.own_losses is None else _by_own_losses)(metric, both, ranked, limits)


def _of_classes(both: Pair, inside: Bools, limits: GroupMargins) -> Iterator[GroupTest]:
    """Of several classes accuracy, the error of the probabilities where there are any, and every other metric of all of
    them whose loss is limited."""
    yield from _shares(TOP_1_ACCURACY, both, inside, limits)
    if limits.of(CLASS_BRIER_SCORE) is not None or both.own_losses(CLASS_BRIER_SCORE) is not None:
        yield _by_own_losses(CLASS_BRIER_SCORE, both, inside, limits)
    for metric, _ in metrics.limits("multi-class").values():
        limited = metric.is_compared and metric.in_groups and limits.of(metric) is not None
        if limited and not metric.each and metric not in (TOP_1_ACCURACY, CLASS_BRIER_SCORE):
            yield (_by_error if metric.own_losses is None else _by_own_losses)(metric, both, inside, limits)


def _is_few(of: Predictions, inside: Bools) -> bool:
    """Of the classes that there are cases of."""
    counts = [int((inside & one).sum()) for _, one in of.strata]
    return min(count for count in counts if count) < SMALL_GROUP


def _rarer_of_those_there(of: Predictions) -> int:
    """As `rarer_class`, but of the classes that have a case."""
    return min(of.independent(inside) for _, inside in of.strata if inside.any())


def _untested(metric: Metric, part: Pair, limits: GroupMargins, few: bool) -> GroupTest:
    was, now = (
        0.0 if metric.estimate is None else metric.estimate(one) or 0.0 for one in (part.baseline, part.candidate)
    )
    limit = limits.of(metric)
    return GroupTest(metric, was, now, limit or 0.0, limit is not None, limits.holds(metric), few)


def _by_own_losses(metric: Metric, both: Pair, inside: Bools, limits: GroupMargins) -> GroupTest:
    """The unseen case is what the limits say of it, in the bound as in what so few cases could show at best."""
    part = Pair(both.baseline.among(inside), both.candidate.among(inside), both.samples, both.seed)
    few, own, asked = _is_few(both.baseline, inside), part.own_losses(metric), limits.limits.unseen_case
    unknown = _untested(metric, part, limits, few)
    if own is None:
        return unknown
    margin = unknown.margin
    unbelieved = _rarer_of_those_there(part.baseline) < LEAST_AS_SEEN

    def unseen(confidence: float) -> Unseen:
        if asked != "lost-where-possible":
            return asked
        return "lost" if least_bound(own, confidence=confidence) <= margin else "as-seen"

    def low(confidence: float) -> float:
        return max(-1.0, -loss_upper_bound(own, unseen(confidence), confidence=confidence))

    def least(confidence: float) -> float:
        if unseen(confidence) == "as-seen":  # then nothing lost is a bound of nothing, which few cases cannot carry
            return _UNKNOWN if unbelieved else 0.0
        return least_bound(own, confidence=confidence)

    return replace(unknown, low=low, p_value=loss_p_value(own, margin), least=least)


def _by_error(metric: Metric, both: Pair, inside: Bools, limits: GroupMargins) -> GroupTest:
    """From the error that the metric's own bound of the difference is made with, which few cases do not give."""
    part = Pair(both.baseline.among(inside), both.candidate.among(inside), both.samples, both.seed)
    unknown = _untested(metric, part, limits, _is_few(both.baseline, inside))
    difference = part.difference(metric, "as-seen")
    if difference is None or unknown.few:
        return unknown
    error, normal = (difference.estimate - difference.low) / s.Z_ONE_SIDED, NormalDist()
    beyond = -unknown.gain - unknown.margin

    def low(confidence: float) -> float:
        return max(-1.0, unknown.gain - normal.inv_cdf(confidence) * error)

    p_value = (1.0 if beyond <= 0 else 0.0) if error == 0 else normal.cdf(-beyond / error)
    return replace(unknown, low=low, p_value=p_value, least=lambda confidence: 0.0)


def _shares(metric: Metric, both: Pair, part: Bools, limits: GroupMargins) -> Iterator[GroupTest]:
    """At the threshold of the decision, then at the others."""
    before, after = both.baseline, both.candidate
    yield _share(metric, before, after, part, limits)
    if before.label_kind != "binary":
        return
    for name, one, other in zip(before.all_outcomes.names[1:], before.at_thresholds, after.at_thresholds, strict=True):
        if one is not before:
            yield replace(_share(metric, one, other, part, limits), threshold=name)


def _share(metric: Metric, before: Predictions, after: Predictions, part: Bools, limits: GroupMargins) -> GroupTest:
    limit = limits.of(metric)
    right_before, right_after = (one.right[part] for one in (before, after))
    was, now, margin = float(right_before.mean()), float(right_after.mean()), limit or 0.0
    kinds, trials = [kind[part] for kind in before.cluster_kinds], len(right_before)
    independent = fewest_clusters(kinds, trials)

    def low(confidence: float) -> float:
        found = paired_share_difference(right_before, right_after, kinds, confidence=confidence)
        return -1.0 if found is None else found.low

    return GroupTest(
        metric,
        was,
        now,
        margin,
        limit is not None,
        limits.holds(metric),
        trials < SMALL_GROUP,
        low,
        _share_p_value(right_before, right_after, kinds, margin) if was - now > margin else 1.0,
        lambda confidence: -exact_bound(independent, 0, 0, confidence),
    )


def _share_p_value(right_before: Bools, right_after: Bools, kinds: list[Clusters], margin: float) -> float:
    """Of the hypothesis that the margin or less is lost."""
    lost, gained = int((right_before & ~right_after).sum()), int((right_after & ~right_before).sum())
    changes = right_after.astype(np.float64) - right_before

    def of_losses(trials: int, gains: int, losses: int) -> float:
        return exact_p_value(trials, losses, gains, margin)  # their number plays the part of the gains

    found = at_effective_counts(of_losses, len(changes), gained, lost, s.design_effect(changes, kinds))
    if kinds:
        own = OwnLosses(-changes / len(changes), 1 / len(changes), np.ones(len(changes), bool), kinds)
        found = max(found, loss_p_value(own, margin))
    return found
