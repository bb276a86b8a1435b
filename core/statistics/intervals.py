"""The statistics of a comparison: pure functions of arrays, in numpy and the standard library alone.

Scores are float64 [N], larger is more positive; labels are 0 or 1, [N]; decisions are bool [N]. Intervals are
two-sided 95% unless said otherwise; bounds on a loss are one-sided 95%. A figure that the data cannot give (a
sensitivity without positives) is None, never a made-up number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from featherweight.core.arrays import Bools, Floats, Indices, Integers, Labels, Scores
from featherweight.core.statistics.cluster_kinds import Kinds, between_clusters, fewest_clusters, kinds_among, kinds_of

Z_TWO_SIDED = NormalDist().inv_cdf(0.975)
Z_ONE_SIDED = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided 95% interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline, and the one-sided 95% lower bound of it: the true difference is above `low` with 95%
    confidence."""

    estimate: float
    low: float


# ---------------------------------------------------------------------------------------------------- AUC


def roc_auc(scores: Scores, labels: Labels) -> float | None:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties counting half."""
    positive = labels == 1
    negatives = len(labels) - int(positive.sum())
    if negatives in (0, len(labels)):
        return None
    return float(((midranks(scores)[positive] - midranks(scores[positive])) / negatives).mean())


def roc_auc_interval(scores: Scores, labels: Labels, clusters: Kinds = None) -> Interval | None:
    """95% interval on the logit scale with DeLong's variance (DeLong et al., Biometrics 1988; logit: Pepe 2003, 5.2),
    or where cases come in clusters Obuchowski's (Biometrics 1997), of two kinds of clusters joined.

    Where that variance is zero (a perfect ranking, or a class of one case) it says nothing, and the score interval of
    Newcombe (Statistics in Medicine 2006, method 5) is used, of as many cases as there are clusters.
    """
    parts = _placements(scores, labels)
    if parts is None:
        return None
    auc, variance = parts.auc, parts.variance(labels, clusters)
    if variance <= _ROUNDING or not 0 < auc < 1:
        independent = _independent(labels, clusters)
        low = _newcombe_auc_low(auc, *independent, Z_TWO_SIDED)
        return Interval(auc, low, 1 - _newcombe_auc_low(1 - auc, *independent, Z_TWO_SIDED))
    middle = math.log(auc / (1 - auc))
    reach = Z_TWO_SIDED * math.sqrt(variance) / (auc * (1 - auc))
    return Interval(auc, _sigmoid(middle - reach), _sigmoid(middle + reach))


def roc_auc_floor(scores: Scores, labels: Labels, clusters: Kinds = None) -> Interval | None:
    """The same interval, whose lower end is no higher than that of Newcombe's, of as many cases as there are clusters:
    where few cases are ranked wrongly DeLong's variance hardly knows of them (`bench/levels.py`)."""
    found = roc_auc_interval(scores, labels, clusters)
    if found is None:
        return None
    low = _newcombe_auc_low(found.estimate, *_independent(labels, clusters), Z_TWO_SIDED)
    return Interval(found.estimate, min(found.low, low), found.high)


def _independent(labels: Labels, clusters: Kinds) -> tuple[int, int]:
    """Positive and negative cases, or clusters that hold some, of the kind that has the fewest."""
    positive, negative = (
        fewest_clusters(kinds_among(clusters, inside), int(inside.sum())) for inside in (labels == 1, labels != 1)
    )
    return positive, negative


def roc_auc_difference(
    baseline: Floats, candidate: Floats, labels: Labels, clusters: Kinds = None
) -> Difference | None:
    """Paired difference of two scorers' AUC on the same cases (DeLong et al. 1988; computed as Sun & Xu, IEEE Signal
    Processing Letters 2014; variance with clusters: Obuchowski 1997).

    Two scorers that order all cases alike differ by exactly 0. Two that both separate the classes perfectly but order
    the cases otherwise have no variance to judge by: the bound then is that of the candidate's AUC alone.
    """
    first, second = _placements(baseline, labels), _placements(candidate, labels)
    if first is None or second is None:
        return None
    estimate = second.auc - first.auc
    apart = _Placements(second.auc - first.auc, second.positive - first.positive, second.negative - first.negative)
    variance = apart.variance(labels, clusters)
    if variance > _ROUNDING:
        return Difference(estimate, max(-1.0, estimate - Z_ONE_SIDED * math.sqrt(variance)))
    if np.array_equal(midranks(baseline), midranks(candidate)):
        return Difference(estimate, estimate)
    low = _newcombe_auc_low(second.auc, len(second.positive), len(second.negative), Z_ONE_SIDED)
    return Difference(estimate, min(estimate, low - first.auc))


def auc_influence(scores: Scores, labels: Labels) -> Floats:
    """The derivative of AUC by the weight of each case [N]; the sum of their squares is DeLong's variance, but for
    Bessel's correction. Both classes must be present."""
    found, positive = np.empty(len(labels)), labels == 1
    parts = _placements(scores, labels)
    if parts is not None:
        found[positive] = (parts.positive - parts.auc) / len(parts.positive)
        found[~positive] = (parts.negative - parts.auc) / len(parts.negative)
    return found


_ROUNDING = 1e-18
"""Variances below this are zero but for rounding."""


@dataclass(frozen=True)
class _Placements:
    """DeLong's structural components: for each positive the share of negatives below it, for each negative the share
    of positives above it."""

    auc: float
    positive: Floats
    negative: Floats

    def variance(self, labels: Labels, clusters: Kinds) -> float:
        if min(len(self.positive), len(self.negative)) < 2:
            return 0.0
        if not kinds_of(clusters):
            return sum(float(np.var(values, ddof=1)) / len(values) for values in (self.positive, self.negative))
        return between_clusters(lambda place: self._between(labels, place), clusters)

    def _between(self, labels: Labels, place: Integers) -> float:
        """place: each case's cluster, numbered from 0."""
        number, found, sums = int(place.max()) + 1, 0.0, []
        for values, inside in ((self.positive, labels == 1), (self.negative, labels != 1)):
            apart = np.bincount(place[inside], values - values.mean(), number) / len(values)
            count = len(np.unique(place[inside]))
            if count < 2:
                return 0.0
            found += float(apart @ apart) * count / (count - 1)
            sums.append(apart)
        return found + 2 * float(sums[0] @ sums[1]) * number / max(1, number - 1)


def _placements(scores: Scores, labels: Labels) -> _Placements | None:
    is_positive = labels == 1
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if positives == 0 or negatives == 0:
        return None
    ranks = midranks(scores)
    positive = (ranks[is_positive] - midranks(scores[is_positive])) / negatives
    negative = 1 - (ranks[~is_positive] - midranks(scores[~is_positive])) / positives
    return _Placements(float(positive.mean()), positive, negative)


def midranks(values: Floats) -> Floats:
    """Ranks from 1; tied values share the mean of their ranks."""
    order = np.argsort(values)
    rising = values[order]
    starts = np.flatnonzero(np.append(True, rising[1:] != rising[:-1])[: len(rising)])
    counts = np.diff(starts, append=len(rising))
    ranks = np.empty(len(rising))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return ranks


def _newcombe_auc_low(auc: float, positives: int, negatives: int, z: float) -> float:
    """The smallest AUC that does not contradict `auc` at z standard errors of its own (Newcombe 2006, method 5)."""
    middle = (positives + negatives) / 2 - 1

    def contradicted(area: float) -> bool:
        spread = 1 + middle * (1 - area) / (2 - area) + middle * area / (1 + area)
        return auc - area > z * math.sqrt(area * (1 - area) * spread / (positives * negatives))

    return bisect(contradicted, 0.0, auc)


# ---------------------------------------------------------------------------------------------------- shares


@dataclass(frozen=True)
class Confusion:
    """Counts of right and wrong decisions of either kind."""

    true_positives: int
    false_negatives: int
    true_negatives: int
    false_positives: int

    @property
    def positives(self) -> int:
        """Cases whose label is 1."""
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> int:
        """Cases whose label is 0."""
        return self.true_negatives + self.false_positives

    def sensitivity(self) -> Interval | None:
        """Share of the positives that are found, with Wilson's 95% interval; None without positives."""
        return wilson_interval(self.true_positives, self.positives)

    def specificity(self) -> Interval | None:
        """Share of the negatives that are left alone, with Wilson's 95% interval; None without negatives."""
        return wilson_interval(self.true_negatives, self.negatives)

    def accuracy(self) -> Interval | None:
        """Share of right decisions, with Wilson's 95% interval; None without cases."""
        return wilson_interval(self.true_positives + self.true_negatives, self.positives + self.negatives)


def confusion(decisions: Bools, labels: Labels) -> Confusion:
    """Counts of the decisions, bool [N], by the labels, int64 [N] of 0 and 1."""
    positive = labels == 1
    return Confusion(
        true_positives=int((decisions & positive).sum()),
        false_negatives=int((~decisions & positive).sum()),
        true_negatives=int((~decisions & ~positive).sum()),
        false_positives=int((decisions & ~positive).sum()),
    )


def wilson_interval(successes: float, trials: float) -> Interval | None:
    """A share's score interval (Wilson, JASA 1927); None without trials. Of an effective number of trials both may be
    fractions."""
    if trials == 0:
        return None
    share = successes / trials
    low, high = (float(bound) for bound in wilson_bounds(np.float64(share), np.float64(trials)))
    return Interval(share, low, high)


def wilson_bounds(shares: Floats | np.float64, trials: Floats | np.float64) -> tuple[Floats, Floats]:
    """The ends of Wilson's 95% interval of each share seen among so many trials."""
    z2 = Z_TWO_SIDED**2
    middle = (shares + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = Z_TWO_SIDED / (1 + z2 / trials) * np.sqrt(shares * (1 - shares) / trials + z2 / (4 * trials**2))
    low = np.where(shares == 0, 0.0, np.maximum(0.0, middle - reach))
    high = np.where(shares == 1, 1.0, np.minimum(1.0, middle + reach))
    return low, high


def share_interval(hits: Bools, clusters: Kinds = None) -> Interval | None:
    """Wilson's interval of the share of `hits` [N], of as many independent cases as tell as much where they come in
    clusters (Rao & Scott, Biometrics 1992)."""
    effect = design_effect(hits.astype(np.float64), clusters)
    return wilson_interval(int(hits.sum()) / effect, len(hits) / effect)


def design_effect(values: Floats, clusters: Kinds) -> float:
    """How many times larger the variance of the mean of `values` [N] is for cases in clusters, of one kind or of two,
    than for independent ones; at least 1, and 1 where all values are the same."""
    if not kinds_of(clusters) or len(values) < 2:
        return 1.0
    apart, cases = values - values.mean(), len(values)
    single = float(apart @ apart) * cases / (cases - 1)

    def effect(place: Integers) -> float:
        sums = np.bincount(place, apart)
        count = len(sums)
        return 1.0 if count < 2 else float(sums @ sums) * count / (count - 1) / single

    return 1.0 if single == 0 else max(1.0, between_clusters(effect, clusters))


def standard_error(values: Floats, clusters: Kinds = None) -> float:
    """Standard error of the mean of `values` [N]; 0 for one value."""
    if len(values) < 2:
        return 0.0
    return math.sqrt(float(np.var(values, ddof=1)) / len(values) * design_effect(values, clusters))


def bisect(contradicted: Callable[[float], bool], low: float, high: float, *, steps: int = 60) -> float:
    """The border between values from `low` that are contradicted and values up to `high` that are not."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if contradicted(middle) else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Flips:
    """Indices of the cases whose decision changed."""

    to_positive: Indices
    to_negative: Indices

    @property
    def count(self) -> int:
        """How many decisions changed."""
        return len(self.to_positive) + len(self.to_negative)


def flipped_decisions(baseline: Bools, candidate: Bools) -> Flips:
    """Which decisions changed. baseline, candidate: bool [N]."""
    return Flips(np.flatnonzero(~baseline & candidate), np.flatnonzero(baseline & ~candidate))


def roc_points(scores: Scores, labels: Labels) -> tuple[Floats, Floats]:
    """(1 - specificity, sensitivity) at every distinct threshold, from (0, 0) to (1, 1), with points that lie on a
    straight line left out. Both classes must be present."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    hits = np.concatenate([[0], np.cumsum(labels[order] == 1)[ends]])
    alarms = np.concatenate([[0], np.cumsum(labels[order] != 1)[ends]])
    rises, runs = np.diff(hits), np.diff(alarms)
    corners = np.concatenate([[True], rises[1:] * runs[:-1] != rises[:-1] * runs[1:], [True]])
    return alarms[corners] / alarms[-1], hits[corners] / hits[-1]


# ---------------------------------------------------------------------------------------------------- timing


@dataclass(frozen=True)
class Quantiles:
    """In the unit of the samples."""

    p50: float
    p95: float
    p99: float


def quantiles(samples: Floats) -> Quantiles:
    """The empirical 50th, 95th and 99th percentile, linear between samples (numpy's default)."""
    p50, p95, p99 = (float(value) for value in np.percentile(samples, [50, 95, 99]))
    return Quantiles(p50, p95, p99)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
