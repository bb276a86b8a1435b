"""What changes for a site that keeps its threshold when the candidate takes the baseline's place.

Two programs may rank cases equally well and yet give them other scores: published systems that mark mammograms had
equal areas under the curve and best thresholds of 40, 47 and 20 in three versions. Whoever keeps a threshold then
decides otherwise, and no limit on a ranking notices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Integers, Scores
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.statistics.intervals import (
    Z_TWO_SIDED,
    Interval,
    design_effect,
    share_interval,
    standard_error,
)
from featherweight.core.statistics.paired import paired_share_difference

FigureName = Literal["sensitivity", "specificity", "alarms_per_1000"]
_CONFIDENCE = 0.975
"""Of each end, so that both together make a 95% interval."""
_CERTAIN, _MANY = 10.0, 200
"""Standard errors, and changed decisions, beyond which a difference is taken for shown."""
_POINTS = 400
"""Points of the curve of costs."""
_MARGIN = 0.005
"""Share of the scores at either end that the curve of costs leaves out: a few far away would squeeze the rest."""


@dataclass(frozen=True)
class Costs:
    """missed: what a missed positive case costs; alarm: what a false alarm costs; in one unit."""

    missed: float
    alarm: float


@dataclass(frozen=True)
class KeptFigure:
    """A figure of both programs at the threshold in force, with its paired difference, candidate minus baseline; each
    with a two-sided 95% interval. cases_needed: cases of the kind that it is counted on with which a difference as
    large as the one that was seen would be shown in four of five samples; None where none was seen, or it is shown."""

    name: FigureName
    baseline: Interval
    candidate: Interval
    difference: Interval
    cases_needed: int | None = None

    @property
    def shown(self) -> bool:
        """Whether the interval says that there is a difference, of either sign."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Reproduced:
    """The candidate's threshold that gives what the baseline gave, with a 95% interval, and what the candidate does
    there, on the same cases."""

    name: FigureName
    threshold: Interval
    sensitivity: float
    specificity: float
    alarms_per_1000: float


@dataclass(frozen=True)
class Cheapest:
    """The threshold at which a program costs least, and what 1,000 cases cost there; None where it is cheapest to call
    no case positive."""

    threshold: float | None
    cost: float


@dataclass(frozen=True)
class CostComparison:
    """What 1,000 cases cost in missed cases and false alarms, float64 [points] over `thresholds`; baseline, candidate,
    difference: at the threshold in force."""

    costs: Costs
    thresholds: Floats
    baseline_curve: Floats
    candidate_curve: Floats
    baseline: float
    candidate: float
    difference: Interval
    cheapest_baseline: Cheapest
    cheapest_candidate: Cheapest


@dataclass(frozen=True)
class InForce:
    """threshold: that the site keeps, on the raw score; prevalence: share of positive cases that alarms and costs are
    counted for; stated: whether it was stated, and is not simply that of the cases."""

    threshold: float
    prevalence: float
    stated: bool
    figures: tuple[KeptFigure, ...]
    reproduced: tuple[Reproduced, ...]
    costs: CostComparison | None = None


def judge_in_force(
    baseline: Predictions,
    candidate: Predictions,
    threshold: float,
    *,
    prevalence: float | None = None,
    costs: Costs | None = None,
) -> InForce:
    """Both programs at one threshold, on the same cases in the same order, of both classes. prevalence: above 0 and
    below 1; that of the cases where it is None."""
    before, after = (np.asarray(one.scores >= threshold) for one in (baseline, candidate))
    positive = baseline.labels == 1
    share = float(positive.mean()) if prevalence is None else prevalence
    found = _share_figure("sensitivity", before, after, positive, baseline.cluster_kinds)
    spared = _share_figure("specificity", ~before, ~after, ~positive, baseline.cluster_kinds)
    names: tuple[FigureName, FigureName] = "sensitivity", "specificity"
    reproduced = tuple(_reproduce(name, baseline, candidate, before, share) for name in names)
    at_costs = None
    if costs is not None:
        at_costs = _compare_costs(baseline, candidate, threshold, share, costs, found, spared)
    figures = found, spared, _alarms(found, spared, share)
    return InForce(threshold, share, prevalence is not None, figures, reproduced, at_costs)


def _share_figure(
    name: FigureName, before: Bools, after: Bools, inside: Bools, clusters: Sequence[Clusters]
) -> KeptFigure:
    """Of the share of right decisions among the cases `inside` [N]."""
    one, other = before[inside], after[inside]
    mine = [kind[inside] for kind in clusters]
    first = mine[0] if mine else None
    intervals = [share_interval(part, first) for part in (one, other)]
    found = paired_share_difference(one, other, mine, confidence=_CONFIDENCE)
    turned = paired_share_difference(other, one, mine, confidence=_CONFIDENCE)
    if found is None or turned is None or intervals[0] is None or intervals[1] is None:
        raise ValueError(f"{name}: there are no such cases")
    difference = Interval(found.estimate, found.low, -turned.low)
    shown = difference.low > 0 or difference.high < 0
    needed = None if shown else _needed(other.astype(np.float64) - one, first)
    return KeptFigure(name, intervals[0], intervals[1], difference, needed)


def _needed(changes: Floats, clusters: Clusters | None) -> int | None:
    """McNemar's sample size at 80% power and a two-sided 5% (Connor, Biometrics 1987), by the variance between
    clusters. changes: 1 gained, -1 lost, 0 neither [N]."""
    seen = float(changes.mean())
    if seen == 0:
        return None
    reach = Z_TWO_SIDED + NormalDist().inv_cdf(0.8)
    variance = float(np.abs(changes).mean()) - seen**2
    return max(len(changes) + 1, math.ceil(design_effect(changes, clusters) * reach**2 * variance / seen**2))


def _alarms(sensitivity: KeptFigure, specificity: KeptFigure, prevalence: float) -> KeptFigure:
    """Alarms per 1,000 cases of such a mix; false ones are what specificity lacks."""

    def joined(found: Interval, right: Interval, whole: float) -> Interval:
        false = Interval(whole - right.estimate, whole - right.high, whole - right.low)
        return _weighted_sum(found, 1000 * prevalence, false, 1000 * (1 - prevalence))

    return KeptFigure(
        "alarms_per_1000",
        joined(sensitivity.baseline, specificity.baseline, 1),
        joined(sensitivity.candidate, specificity.candidate, 1),
        joined(sensitivity.difference, specificity.difference, 0),
    )


def _weighted_sum(first: Interval, weight: float, second: Interval, other: float) -> Interval:
    """By MOVER (Zou and Donner, Statistics in Medicine 2008); both weights are 0 or more."""
    estimate = weight * first.estimate + other * second.estimate
    below = math.hypot(weight * (first.estimate - first.low), other * (second.estimate - second.low))
    above = math.hypot(weight * (first.high - first.estimate), other * (second.high - second.estimate))
    return Interval(estimate, estimate - below, estimate + above)


# ---------------------------------------------------------------------------------------------------- thresholds


def _reproduce(
    name: FigureName, baseline: Predictions, candidate: Predictions, alarms: Bools, prevalence: float
) -> Reproduced:
    """alarms: of the baseline at the threshold in force [N]."""
    positive, scores = baseline.labels == 1, candidate.scores
    inside = positive if name == "sensitivity" else ~positive
    clusters = [kind[inside] for kind in baseline.cluster_kinds]
    matching = _Matching(scores[inside], alarms[inside], clusters, np.unique(scores))
    found = matching.reaching() if name == "sensitivity" else matching.sparing()
    threshold = matching.interval(found)
    sensitivity = float((scores[positive] >= threshold.estimate).mean())
    specificity = float((scores[~positive] < threshold.estimate).mean())
    per_1000 = 1000 * (prevalence * sensitivity + (1 - prevalence) * (1 - specificity))
    return Reproduced(name, threshold, sensitivity, specificity, per_1000)


class _Matching:
    """The candidate's thresholds that call as many cases of one class positive as the baseline does. scores: of the
    class; alarms: the baseline's; levels: all scores that the candidate gives to any case, rising, so that thresholds
    of whole numbers stay such."""

    def __init__(self, scores: Scores, alarms: Bools, clusters: Sequence[Clusters], levels: Floats) -> None:
        self._scores, self._alarms, self._clusters = scores, alarms, clusters
        self._rising = np.sort(scores)
        self._levels = np.append(levels, np.nextafter(levels[-1], np.inf))  # from the last one on none is positive

    def _called(self) -> Integers:
        """How many of the class are called positive from each level on; falling."""
        return np.asarray(len(self._rising) - np.searchsorted(self._rising, self._levels, "left"), np.int64)

    def reaching(self) -> float:
        """The highest level that calls at least as many positive."""
        return float(self._levels[np.flatnonzero(self._called() >= self._alarms.sum())[-1]])

    def sparing(self) -> float:
        """The lowest level that calls at most as many positive."""
        return float(self._levels[np.flatnonzero(self._called() <= self._alarms.sum())[0]])

    def interval(self, estimate: float) -> Interval:
        """All thresholds at which the paired test shows no difference to the baseline: a bootstrap of so few cases as
        lie around a threshold covers it far too seldom. Between two levels nothing changes, so that the lower end is
        the level below the last one that is not excluded."""
        low = self._first(lambda level: not self._differs(level, more=True))
        high = self._first(lambda level: self._differs(level, more=False)) - 1
        ends = float(self._levels[max(0, low - 1)]), float(self._levels[high])
        return Interval(estimate, min(ends[0], estimate), max(ends[1], estimate))

    def _first(self, holds: Callable[[float], bool]) -> int:
        """The place of the first level at which it holds; it does from there on. One beyond the last where it never
        does."""
        low, high = 0, len(self._levels)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(float(self._levels[middle])) else (middle + 1, high)
        return low

    def _differs(self, level: float, *, more: bool) -> bool:
        """Whether it is shown that the candidate calls more, or fewer, of the class positive from this level on."""
        called = np.asarray(self._scores >= level)
        one, other = (self._alarms, called) if more else (called, self._alarms)
        changes = other.astype(np.float64) - one
        if changes.sum() <= 0:
            return False
        error = standard_error(changes, self._clusters[0] if self._clusters else None)
        if changes.mean() > _CERTAIN * error and np.abs(changes).sum() > _MANY:
            return True  # the exact bound takes a second for thousands of changes, and nothing hangs on it here
        found = paired_share_difference(one, other, self._clusters, confidence=_CONFIDENCE)
        return found is not None and found.low > 0


# ---------------------------------------------------------------------------------------------------- costs


def _compare_costs(
    baseline: Predictions,
    candidate: Predictions,
    threshold: float,
    prevalence: float,
    costs: Costs,
    sensitivity: KeptFigure,
    specificity: KeptFigure,
) -> CostComparison:
    missed, alarm = 1000 * prevalence * costs.missed, 1000 * (1 - prevalence) * costs.alarm
    both = np.concatenate([baseline.scores, candidate.scores])
    low, high = np.quantile(both, [_MARGIN, 1 - _MARGIN])
    thresholds = np.linspace(min(low, threshold), max(high, threshold), _POINTS)
    first, second = (_CostOf(one, missed, alarm) for one in (baseline, candidate))
    difference = _weighted_sum(_turned(sensitivity.difference), missed, _turned(specificity.difference), alarm)
    here = np.array([threshold])
    return CostComparison(
        costs,
        thresholds,
        first.at(thresholds),
        second.at(thresholds),
        float(first.at(here)[0]),
        float(second.at(here)[0]),
        difference,
        first.cheapest(),
        second.cheapest(),
    )


def _turned(found: Interval) -> Interval:
    return Interval(-found.estimate, -found.high, -found.low)


class _CostOf:
    """missed, alarm: what all positive cases of 1,000 would cost if missed, all negative ones if called positive."""

    def __init__(self, of: Predictions, missed: float, alarm: float) -> None:
        self._positive = np.sort(of.scores[of.labels == 1])
        self._negative = np.sort(of.scores[of.labels != 1])
        self._missed, self._alarm = missed, alarm

    def at(self, thresholds: Floats) -> Floats:
        """[points]."""
        lost = np.searchsorted(self._positive, thresholds, "left") / len(self._positive)
        alarms = 1 - np.searchsorted(self._negative, thresholds, "left") / len(self._negative)
        return np.asarray(self._missed * lost + self._alarm * alarms)

    def cheapest(self) -> Cheapest:
        levels = np.unique(np.concatenate([self._positive, self._negative]))
        found = self.at(levels)
        best = int(np.argmin(found))
        return (
            Cheapest(None, self._missed)
            if self._missed < found[best]
            else Cheapest(float(levels[best]), float(found[best]))
        )
