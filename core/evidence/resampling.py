"""Figures whose intervals come from a bootstrap, and calibration; arrays as in `core.evidence.statistics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.evidence.statistics import Bools, Difference, Floats, Interval, Labels, wilson_interval

RELIABILITY_BINS = 10


def average_precision(scores: Floats, labels: Labels) -> float | None:
    """Sum over distinct scores, falling, of (rise of recall) x precision: scikit-learn's, without interpolation."""
    if not (labels == 1).any():
        return None
    return float(_weighted_average_precision(scores, labels)(np.ones((1, len(labels))))[0])


def brier_score(probabilities: Floats, labels: Labels) -> float:
    """Mean squared distance of the probability of the positive class from the outcome (Brier 1950, two classes)."""
    return float(np.mean((probabilities - labels) ** 2))


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Mean over ten equally wide bins of |mean probability - share of positives|, weighted by cases (Naeini et al.
    2015, with the positive class's probability as confidence)."""
    return float(_weighted_calibration_error(probabilities, labels)(np.ones((1, len(labels))))[0])


def bootstrap_intervals(
    labels: Labels,
    decisions: Bools,
    scores: Floats,
    probabilities: Floats | None,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """95% percentile intervals from a bootstrap stratified by class (Efron & Tibshirani 1993), one set of resamples
    for all figures: `balanced_accuracy`, `average_precision`, and with probabilities `brier_score` and
    `calibration_error`. Empty when a class has no case. The calibration error's interval lies high where the error is
    small: noise in the bins only ever adds to it.
    """
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
    if not len(positive) or not len(negative):
        return {}
    right = (decisions == (labels == 1)).astype(np.float64)
    halves = right * np.where(labels == 1, 0.5 / len(positive), 0.5 / len(negative))
    figures: dict[str, Callable[[Floats], Floats]] = {
        "balanced_accuracy": lambda weights: weights @ halves,
        "average_precision": _weighted_average_precision(scores, labels),
    }
    if probabilities is not None:
        squares = (probabilities - labels) ** 2 / len(labels)
        figures["brier_score"] = lambda weights: weights @ squares
        figures["calibration_error"] = _weighted_calibration_error(probabilities, labels)
    whole = np.ones((1, len(labels)))
    drawn: dict[str, list[Floats]] = {name: [] for name in figures}
    for weights in _resamples(positive, negative, samples, seed):
        for name, figure in figures.items():
            drawn[name].append(figure(weights))
    return {name: _percentile_interval(float(figures[name](whole)[0]), np.concatenate(drawn[name])) for name in figures}


def average_precision_difference(
    baseline: Floats, candidate: Floats, labels: Labels, *, samples: int = 2000, seed: int = 0
) -> Difference | None:
    """Paired difference of two scorers' average precision; the bound is the 5th percentile of a bootstrap of the cases,
    stratified by class (Efron & Tibshirani 1993). None when a class has no case.

    Average precision sees of the negatives only between which positives they fall, so those that both scorers place
    alike are drawn together, from a multinomial distribution: the same as drawing cases, in a fraction of the time.
    """
    positive = labels == 1
    if positive.all() or not positive.any():
        return None
    scorers = [_Ranked(scores[positive], scores[~positive]) for scores in (baseline, candidate)]
    cells, sizes = np.unique([scorer.place for scorer in scorers], axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    positives, negatives = int(positive.sum()), int((~positive).sum())

    def difference(hits: Floats, alarms: Floats) -> Floats:
        first, second = (
            scorer.average_precision(hits, alarms, cell) for scorer, cell in zip(scorers, cells, strict=True)
        )
        return second - first

    drawn = []
    for count in _chunks(samples, positives + len(sizes)):
        hits = generator.multinomial(positives, np.full(positives, 1 / positives), size=count)
        alarms = generator.multinomial(negatives, sizes / negatives, size=count)
        drawn.append(difference(hits.astype(np.float64), alarms.astype(np.float64)))
    estimate = float(difference(np.ones((1, positives)), sizes[None].astype(np.float64))[0])
    return Difference(estimate, min(estimate, float(np.percentile(np.concatenate(drawn), 5))))


class _Ranked:
    """One scorer's distinct scores of positives, falling, and for each negative the first of them that it reaches."""

    def __init__(self, positive: Floats, negative: Floats) -> None:
        levels, level = np.unique(-positive, return_inverse=True)
        self._order = np.argsort(level, kind="stable")
        self._ends = np.cumsum(np.bincount(level)) - 1
        self.place = np.searchsorted(levels, -negative)

    def average_precision(self, hits: Floats, alarms: Floats, cell: npt.NDArray[np.intp]) -> Floats:
        """[samples], for how often each positive was drawn [samples, positives] and how many negatives of each kind
        [samples, kinds]; cell: each kind's place."""
        order = np.argsort(cell, kind="stable")
        before = np.searchsorted(cell[order], np.arange(len(self._ends)), side="right")
        found = np.cumsum(hits[:, self._order], axis=1)[:, self._ends]
        wrong = np.cumsum(alarms[:, order], axis=1)
        wrong = np.concatenate([np.zeros((len(wrong), 1)), wrong], axis=1)[:, before]
        rise = np.diff(found, axis=1, prepend=0) / found[:, -1:]
        return np.asarray((rise * found / np.maximum(found + wrong, 1)).sum(axis=1))


def _chunks(samples: int, width: int) -> Iterator[int]:
    """Numbers of resamples that fill about a million values each."""
    chunk = max(1, min(samples, 1_000_000 // width))
    for start in range(0, samples, chunk):
        yield min(chunk, samples - start)


def _resamples(
    positive: npt.NDArray[np.intp], negative: npt.NDArray[np.intp], samples: int, seed: int
) -> Iterator[Floats]:
    """Yields weights [chunk, N]: how often each case was drawn, each class with its own count kept."""
    generator = np.random.default_rng(seed)
    cases = len(positive) + len(negative)
    for rows in _chunks(samples, cases):
        offsets = cases * np.arange(rows)[:, None]
        drawn = [
            group[generator.integers(len(group), size=(rows, len(group)))] + offsets for group in (positive, negative)
        ]
        counts = np.bincount(np.concatenate([part.ravel() for part in drawn]), minlength=rows * cases)
        yield counts.reshape(rows, cases).astype(np.float64)


def _weighted_average_precision(scores: Floats, labels: Labels) -> Callable[[Floats], Floats]:
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    is_positive = (labels[order] == 1).astype(np.float64)

    def figure(weights: Floats) -> Floats:
        drawn = weights[:, order]
        predicted = np.cumsum(drawn, axis=1)[:, ends]
        hits = np.cumsum(drawn * is_positive, axis=1)[:, ends]
        precision = hits / np.maximum(predicted, 1)
        rise = np.diff(hits, axis=1, prepend=0) / hits[:, -1:]
        return np.asarray((rise * precision).sum(axis=1), dtype=np.float64)

    return figure


def _weighted_calibration_error(probabilities: Floats, labels: Labels) -> Callable[[Floats], Floats]:
    bins = np.eye(RELIABILITY_BINS)[_bin_of(probabilities)]
    gaps = bins * (probabilities - labels)[:, None] / len(labels)
    return lambda weights: np.abs(weights @ gaps).sum(axis=1)


def _bin_of(probabilities: Floats) -> npt.NDArray[np.intp]:
    return np.clip((probabilities * RELIABILITY_BINS).astype(np.intp), 0, RELIABILITY_BINS - 1)


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases whose probability lies in one bin: their mean probability and the share of positives with its interval."""

    cases: int
    mean_probability: float
    positives: Interval


def reliability_bins(probabilities: Floats, labels: Labels) -> tuple[ReliabilityBin, ...]:
    """The bins of `expected_calibration_error` that have cases."""
    which = _bin_of(probabilities)
    found = []
    for index in np.unique(which):
        inside = which == index
        share = wilson_interval(int((labels[inside] == 1).sum()), int(inside.sum()))
        if share is not None:
            found.append(ReliabilityBin(int(inside.sum()), float(probabilities[inside].mean()), share))
    return tuple(found)


def median_ratio(baseline: Floats, candidate: Floats, *, samples: int = 2000, seed: int = 0) -> Interval:
    """Median of `baseline` over median of `candidate` with a 95% bootstrap percentile interval."""
    generator = np.random.default_rng(seed)

    def medians(values: Floats) -> Floats:
        draws = (generator.integers(len(values), size=(size, len(values))) for size in _chunks(samples, len(values)))
        return np.concatenate([np.median(values[draw], axis=1) for draw in draws])

    ratios = medians(baseline) / medians(candidate)
    return _percentile_interval(float(np.median(baseline) / np.median(candidate)), ratios)


def _percentile_interval(estimate: float, drawn: Floats) -> Interval:
    low, high = (float(value) for value in np.percentile(drawn, [2.5, 97.5]))
    return Interval(estimate, low, high)
