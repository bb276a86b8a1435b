"""Average precision and its interval, from what each case weighs in it (infinitesimal jackknife: Efron and Tibshirani
1993, 21; on the logit scale, as Boyd, Eng and Page, ECML 2013, find best). Resamples of few positives that are ranked
perfectly are all perfect, and say that this is certain."""

from __future__ import annotations

import math

import numpy as np

from featherweight.core.arrays import Floats, Integers, Labels, Scores
from featherweight.core.statistics.cluster_kinds import Kinds, between_clusters, fewest_clusters, kinds_among, kinds_of
from featherweight.core.statistics.intervals import Interval, wilson_interval
from featherweight.core.statistics.resampling import average_precision


def average_precision_interval(scores: Scores, labels: Labels, clusters: Kinds = None) -> Interval | None:
    """95% interval on the logit scale, with Student's quantile of the positive cases, or of as many clusters as hold
    some; of a perfect ranking Wilson's interval of as many successes. None where a class has no case."""
    positive = labels == 1
    estimate = average_precision(scores, labels)
    if estimate is None or positive.all():
        return None
    independent = fewest_clusters(kinds_among(clusters, positive), int(positive.sum()))
    return logit_interval(estimate, precision_influence(scores, labels), clusters, independent)


def logit_interval(estimate: float, influence: Floats, clusters: Kinds, independent: int) -> Interval:
    """95% interval of a figure from 0 to 1 on the logit scale, with Student's quantile of `independent` cases, or
    clusters; where no case has any influence, or the figure is at an end, Wilson's of as many successes. influence: its
    derivative by the weight of each case [N]."""
    error = _standard_error(influence, clusters, independent)
    if error <= 1e-9 or not 0 < estimate < 1:
        perfect = wilson_interval(independent, independent)
        low = 0.0 if perfect is None else perfect.low
        return Interval(estimate, min(low, estimate), 1.0)
    middle, reach = math.log(estimate / (1 - estimate)), _student(independent) * error / (estimate * (1 - estimate))
    return Interval(estimate, *(1 / (1 + math.exp(-_bounded(middle + sign * reach))) for sign in (-1, 1)))


def _standard_error(influence: Floats, clusters: Kinds, independent: int) -> float:
    """independent: positive cases, or clusters of such."""

    def squared(place: Integers) -> float:
        return float(np.sum(np.bincount(place, influence) ** 2))

    variance = between_clusters(squared, clusters) if kinds_of(clusters) else float(influence @ influence)
    return math.sqrt(variance * independent / max(1, independent - 1))


def _student(independent: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1, independent - 1), 0.975))


def _bounded(logit: float) -> float:
    return min(700.0, max(-700.0, logit))


def precision_influence(scores: Scores, labels: Labels) -> Floats:
    """The derivative of average precision by the weight of each case [N]. Both classes must be present."""
    order = np.argsort(-scores, kind="stable")
    positive = labels[order] == 1
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    level = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    hits, alarms = np.cumsum(positive)[ends], np.cumsum(~positive)[ends]
    gained = np.diff(hits, prepend=0)
    precision, whole = hits / (hits + alarms), hits[-1]
    of_hits = np.cumsum((gained * alarms / (hits + alarms) ** 2)[::-1])[::-1]
    of_alarms = np.cumsum((gained * hits / (hits + alarms) ** 2)[::-1])[::-1]
    average = float((gained * precision).sum()) / whole
    found = np.empty(len(scores))
    found[order] = np.where(positive, precision[level] - average + of_hits[level], -of_alarms[level]) / whole
    return found
