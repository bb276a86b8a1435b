"""What a bootstrap says of two rankings of the same cases: average precision, its difference, and bands of the ROC and
precision-recall curves. One set of resamples serves both programs and every figure.

Cases are drawn class by class (Efron & Tibshirani 1993); where they come in clusters, whole clusters are drawn, those
with a positive case and those without each by themselves (Field & Welsh, JRSS B 2007). Arrays as in
`core.statistics.intervals`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Draws, Floats, Indices, Int32s, Integers, Labels, Scores
from featherweight.core.statistics.intervals import Difference, Interval, wilson_bounds

GRID = np.linspace(0, 1, 101)
"""Where the bands are computed: shares of false alarms, and recalls."""


@dataclass(frozen=True)
class Band:
    """A curve with its pointwise 95% band, all float64 [points], x rising."""

    x: Floats
    estimate: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Ranking:
    """One program's. average_precision: percentile interval; roc: sensitivity over 1 - specificity; precision_recall:
    precision over recall."""

    average_precision: Interval
    roc: Band
    precision_recall: Band


@dataclass(frozen=True)
class Rankings:
    """difference: of average precision, candidate minus baseline; its bound is the 5th percentile."""

    baseline: Ranking
    candidate: Ranking
    difference: Difference


def average_precision(scores: Scores, labels: Labels) -> float | None:
    """Sum over distinct scores, falling, of (rise of recall) x precision: scikit-learn's, without interpolation."""
    positive = labels == 1
    if not positive.any():
        return None
    if positive.all():
        return 1.0
    levels, counts = np.unique(-scores[positive], return_counts=True)
    hits, alarms = np.cumsum(counts), np.searchsorted(np.sort(-scores[~positive]), levels, side="right")
    return float(_average_precision(hits[None].astype(np.float64), alarms[None].astype(np.float64))[0])


def average_precision_draws(
    scorers: Sequence[Floats], labels: Labels, clusters: Clusters | None = None, *, samples: int = 2000, seed: int
) -> list[Floats]:
    """Average precision of each of `scorers` in the same resamples [1 + samples], that of the cases themselves first.
    Both classes must be present."""
    units, curves = _units(scorers, labels == 1, clusters)
    drawn: list[list[Floats]] = [[] for _ in curves]
    for counts in units.draw(samples, seed):
        for curve, found in zip(curves, drawn, strict=True):
            found.append(_average_precision(*curve.count(counts)))
    return [np.concatenate(found) for found in drawn]


def average_precision_difference(
    baseline: Floats,
    candidate: Floats,
    labels: Labels,
    clusters: Clusters | None = None,
    *,
    samples: int = 2000,
    seed: int,
) -> Difference | None:
    """Paired difference of two scorers' average precision; its bound is the 5th percentile of the resamples. None when
    a class has no case."""
    if not 0 < (labels == 1).sum() < len(labels):
        return None
    before, after = average_precision_draws((baseline, candidate), labels, clusters, samples=samples, seed=seed)
    return lowest_percentile(after - before)


def compare_rankings(
    baseline: Floats,
    candidate: Floats,
    labels: Labels,
    clusters: Clusters | None = None,
    *,
    samples: int = 2000,
    seed: int,
) -> Rankings | None:
    """The difference is that of `average_precision_difference`; the intervals and bands come from the same resamples.
    None when a class has no case."""
    if not 0 < (labels == 1).sum() < len(labels):
        return None
    units, curves = _units((baseline, candidate), labels == 1, clusters)
    drawn: list[list[tuple[Floats, Floats, Floats]]] = [[], []]
    trials: list[Floats] = []
    for counts in units.draw(samples, seed):
        negatives = units.negatives(counts)
        for curve, found in zip(curves, drawn, strict=True):
            hits, alarms = curve.count(counts)
            precision, seen = _precision_at(hits, alarms)
            if len(found) == 0:  # the cases themselves
                trials.append(seen[0])
            found.append((_average_precision(hits, alarms), _sensitivity_at(hits, alarms, negatives), precision))
    first, second = ([np.concatenate(column) for column in zip(*found, strict=True)] for found in drawn)
    positives = np.full(len(GRID), float((labels == 1).sum()))
    one, other = (_ranking(parts, positives, seen) for parts, seen in zip((first, second), trials, strict=True))
    return Rankings(one, other, lowest_percentile(second[0] - first[0]))


def lowest_percentile(drawn: Floats) -> Difference:
    """drawn: [1 + samples], the estimate first. The bound never lies above the estimate."""
    estimate = float(drawn[0])
    return Difference(estimate, min(estimate, float(np.percentile(drawn[1:], 5))))


def _ranking(drawn: Sequence[Floats], positives: Floats, predicted: Floats) -> Ranking:
    precisions, roc, precision_recall = drawn
    interval = percentile_interval(float(precisions[0]), precisions[1:])
    return Ranking(interval, _band(roc, positives), _band(precision_recall, predicted))


def _band(drawn: Floats, trials: Floats) -> Band:
    """Percentiles, but never narrower than Wilson's interval of the share that was seen among so many: where a curve is
    at 0 or 1 all resamples are, and would say that it is certain."""
    low, high = np.percentile(drawn[1:], [2.5, 97.5], axis=0)
    wilson_low, wilson_high = wilson_bounds(drawn[0], trials)
    return Band(GRID, drawn[0], np.minimum(low, wilson_low), np.maximum(high, wilson_high))


class Units:
    """What is drawn, and how. groups: of each stratum the sizes of its units; a stratum's resample has as many members
    as the stratum. In the order of the strata, units are numbered from 0."""

    def __init__(self, groups: Sequence[Integers], negatives: Int32s) -> None:
        self._groups = groups
        self._negatives = negatives

    @property
    def count(self) -> int:
        """How many units there are."""
        return sum(len(sizes) for sizes in self._groups)

    def whole(self) -> Draws:
        """How often each unit [1, units] is there in the cases themselves."""
        return np.concatenate(self._groups)[None].astype(np.int32)

    def negatives(self, counts: Draws) -> Floats:
        """Negative cases in each resample [rows]."""
        return np.asarray(counts @ self._negatives, dtype=np.float64)

    def draw(self, samples: int, seed: int) -> Iterator[Draws]:
        """Yields how often each unit was drawn [rows, units]: the cases themselves first, then `samples` resamples."""
        generator = np.random.default_rng(seed)
        yield self.whole()
        owners = [np.repeat(np.arange(len(sizes)), sizes) for sizes in self._groups]
        for rows in chunks(samples, self.count):
            yield np.stack([self._one(owners, generator) for _ in range(rows)])

    def _one(self, owners: Sequence[Indices], generator: np.random.Generator) -> Int32s:
        parts = []
        for sizes, owner in zip(self._groups, owners, strict=True):
            if len(sizes) * 6 < len(owner):
                drawn = generator.multinomial(len(owner), sizes / len(owner))
            else:
                drawn = np.bincount(owner[generator.integers(len(owner), size=len(owner))], minlength=len(sizes))
            parts.append(drawn.astype(np.int32))
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Curve:
    """One program's ranking in units. positives: the unit of each positive case, scores falling; ends: the last of each
    distinct score; negatives: the unit of each lot of negatives that lie between the same positives, scores falling,
    and how many it holds; before: the lots that lie above or at each distinct score."""

    positives: Indices
    ends: Indices
    negatives: Indices
    sizes: Int32s | None
    before: Indices

    def count(self, counts: Draws) -> tuple[Floats, Floats]:
        """Positives and negatives above or at each distinct score of a positive, both [rows, scores]."""
        hits = np.cumsum(np.take(counts, self.positives, axis=1), axis=1, dtype=np.int32)
        if len(self.ends) < len(self.positives):
            hits = hits[:, self.ends]
        lots = np.take(counts, self.negatives, axis=1)
        if self.sizes is not None:
            lots *= self.sizes
        alarms = np.zeros((len(lots), lots.shape[1] + 1), np.int32)
        np.cumsum(lots, axis=1, dtype=np.int32, out=alarms[:, 1:])
        return hits.astype(np.float64), np.take(alarms, self.before, axis=1).astype(np.float64)


def _units(scorers: Sequence[Floats], positive: Bools, clusters: Clusters | None) -> tuple[Units, list[_Curve]]:
    return _by_case(scorers, positive) if clusters is None else _by_cluster(scorers, positive, clusters)


def _by_case(scorers: Sequence[Floats], positive: Bools) -> tuple[Units, list[_Curve]]:
    """No figure sees more of a negative than between which positives it falls: those that all scorers place alike are
    one unit, drawn as often as all of its cases together."""
    places = [_Places(scores[positive], scores[~positive]) for scores in scorers]
    joint = np.zeros(int((~positive).sum()), np.int64)
    for place in places:
        joint = joint * (len(place.levels) + 1) + place.place
    _, first, sizes = np.unique(joint, return_index=True, return_counts=True)
    positives = len(places[0].order)
    units = Units([np.ones(positives, np.intp), sizes], np.repeat([0, 1], [positives, len(sizes)]).astype(np.int32))
    return units, [
        place.curve(np.arange(positives), place.place[first], positives + np.arange(len(sizes)), None)
        for place in places
    ]


def cluster_units(clusters: Clusters, positive: Bools) -> tuple[Units, Indices]:
    """Whole clusters, those with a positive case first and drawn by themselves; and each case's unit [N]."""
    names, cluster = np.unique(clusters, return_inverse=True)
    hit = np.zeros(len(names), bool)
    hit[cluster[positive]] = True
    number = np.empty(len(names), np.intp)
    number[np.argsort(~hit, kind="stable")] = np.arange(len(names))
    unit = number[cluster]
    groups = [np.ones(count, np.intp) for count in (int(hit.sum()), int((~hit).sum())) if count]
    return Units(groups, np.bincount(unit[~positive], minlength=len(names)).astype(np.int32)), unit


def _by_cluster(scorers: Sequence[Floats], positive: Bools, clusters: Clusters) -> tuple[Units, list[_Curve]]:
    units, unit = cluster_units(clusters, positive)
    count = int(unit.max()) + 1
    curves = []
    for scores in scorers:
        place = _Places(scores[positive], scores[~positive])
        # Negatives of one cluster between the same positives are one lot; those below all positives are never seen.
        seen = place.place < len(place.levels)
        lots, sizes = np.unique(place.place[seen] * count + unit[~positive][seen], return_counts=True)
        curves.append(place.curve(unit[positive], lots // count, lots % count, sizes.astype(np.int32)))
    return units, curves


class _Places:
    """One scorer's distinct scores of positives, falling (levels), and for each negative the first of them that is at
    or below its own score (place)."""

    def __init__(self, positive: Floats, negative: Floats) -> None:
        self.levels, level = np.unique(-positive, return_inverse=True)
        self.order = np.argsort(level, kind="stable")
        self.ends = np.cumsum(np.bincount(level)) - 1
        self.place = np.searchsorted(self.levels, -negative)

    def curve(self, positives: Indices, place: Indices, units: Indices, sizes: Int32s | None) -> _Curve:
        """positives: each one's unit; place, units, sizes: of each lot of negatives."""
        order = np.argsort(place, kind="stable")
        before = np.searchsorted(place[order], np.arange(len(self.levels)), side="right")
        kept = order[: before[-1]]
        return _Curve(positives[self.order], self.ends, units[kept], None if sizes is None else sizes[kept], before)


def _average_precision(hits: Floats, alarms: Floats) -> Floats:
    rise = np.diff(hits, axis=1, prepend=0)
    precision = hits / np.maximum(hits + alarms, 1)
    return np.asarray(np.einsum("ij,ij->i", rise, precision) / hits[:, -1])


def _sensitivity_at(hits: Floats, alarms: Floats, negatives: Floats) -> Floats:
    """[rows, GRID]: the share of positives found before more than so large a share of the negatives is."""
    allowed = GRID * negatives[:, None] * (1 + 1e-12)
    found = _count_up_to(alarms, allowed, side="right")
    padded = np.concatenate([np.zeros((len(hits), 1)), hits], axis=1)
    sensitivity = np.take_along_axis(padded, found, axis=1) / hits[:, -1:]
    sensitivity[:, -1] = 1
    return sensitivity


def _precision_at(hits: Floats, alarms: Floats) -> tuple[Floats, Floats]:
    """[rows, GRID]: the precision where so large a share of the positives is found, and among how many cases."""
    wanted = np.maximum(GRID * hits[:, -1:] * (1 - 1e-12), 0.5)
    reached = np.minimum(_count_up_to(hits, wanted, side="left"), hits.shape[1] - 1)
    right, wrong = np.take_along_axis(hits, reached, axis=1), np.take_along_axis(alarms, reached, axis=1)
    return right / (right + wrong), right + wrong


def _count_up_to(rising: Floats, values: Floats, side: Literal["left", "right"]) -> Indices:
    """Row by row, how many of `rising` [rows, N] lie below `values` [rows, M]: one search in all rows end to end."""
    apart = (max(float(rising.max()), float(values.max())) + 1) * np.arange(len(rising))[:, None]
    found = np.searchsorted((rising + apart).ravel(), (values + apart).ravel(), side=side)
    return np.asarray(found.reshape(values.shape) - rising.shape[1] * np.arange(len(rising))[:, None])


def chunks(samples: int, width: int) -> Iterator[int]:
    """Numbers of resamples that fill about half a million values each."""
    chunk = max(1, min(samples, 500_000 // width))
    for start in range(0, samples, chunk):
        yield min(chunk, samples - start)


def median_ratio(baseline: Floats, candidate: Floats, *, samples: int = 2000, seed: int) -> Interval:
    """Median of `baseline` over median of `candidate` with a 95% bootstrap percentile interval."""
    return quantile_ratio(baseline, candidate, 50, samples=samples, seed=seed)


def quantile_ratio(baseline: Floats, candidate: Floats, quantile: float, *, samples: int = 2000, seed: int) -> Interval:
    """The same for another quantile, in percent (50 is the median)."""
    generator = np.random.default_rng(seed)

    def drawn(values: Floats) -> Floats:
        draws = (generator.integers(len(values), size=(size, len(values))) for size in chunks(samples, len(values)))
        return np.concatenate([np.percentile(values[draw], quantile, axis=1) for draw in draws])

    ratios = drawn(baseline) / drawn(candidate)
    estimate = float(np.percentile(baseline, quantile) / np.percentile(candidate, quantile))
    return percentile_interval(estimate, ratios)


def percentile_interval(estimate: float, drawn: Floats) -> Interval:
    """The middle 95% of what was drawn, float64 [B], widened to hold the estimate."""
    low, high = (float(value) for value in np.percentile(drawn, [2.5, 97.5]))
    return Interval(estimate, min(low, estimate), max(high, estimate))
