"""How far probabilities can be believed: Brier score, calibration error, reliability curve, calibration slope. Arrays
as in `core.statistics.intervals`; probabilities are of the positive class, 0..1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Floats, Indices, Labels, Probabilities
from featherweight.core.statistics.cluster_kinds import (
    Kinds,
    between_clusters,
    kinds_among,
    kinds_of,
    numbered_kinds,
)
from featherweight.core.statistics.intervals import (
    Z_TWO_SIDED,
    Interval,
    bisect,
    design_effect,
    standard_error,
    wilson_interval,
)

BINS = 10
_FEW = 10
"""Cases of a class below which no slope is fitted."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases whose probability lies in one bin: their mean probability and the share of positives with its interval."""

    cases: int
    mean_probability: float
    positives: Interval


@dataclass(frozen=True)
class Reliability:
    """slope and intercept: of a logistic regression of the outcome on the probability's logit (Cox, Biometrika 1958); 1
    and 0 are perfect, a slope below 1 is too sure of itself; None where a class is rare or the probabilities separate
    the classes."""

    bins: tuple[ReliabilityBin, ...]
    slope: Interval | None
    intercept: Interval | None


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Mean squared distance of the probability of the positive class from the outcome (Brier 1950, two classes)."""
    return float(np.mean((probabilities - labels) ** 2))


def brier_interval(probabilities: Probabilities, labels: Labels, clusters: Kinds = None) -> Interval:
    """The mean of the squared distances with its 95% normal interval."""
    squares = (probabilities - labels) ** 2
    mean, reach = float(squares.mean()), Z_TWO_SIDED * standard_error(squares, clusters)
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Mean over ten equally wide bins of |mean probability - share of positives|, weighted by cases (Naeini et al.
    2015, with the positive class's probability as confidence)."""
    return float(np.abs(_gaps(probabilities, labels).sum(axis=0)).sum())


def calibration_error_interval(
    probabilities: Probabilities, labels: Labels, clusters: Kinds = None, *, samples: int = 2000, seed: int
) -> Interval:
    """`expected_calibration_error` without what chance adds to it, and its 95% interval.

    Chance makes the bins' gaps larger than they are, so that the plain error of perfect probabilities is above 0, and
    resamples lie higher still. Here the gaps, sums over cases (or clusters), have the normal noise of the covariance
    seen in them; the true gaps are taken as the seen ones times a factor, and the interval holds the errors of those
    factors under which the plain error is neither among the 2.5% largest nor smallest, the estimate that of the factor
    under which it is the median (inverted tests: Davison & Hinkley 1997, 5.2). Of perfect probabilities the lower end
    is 0 in 97.5 cases of 100.
    """
    gaps = _gaps(probabilities, labels)
    sums = gaps.sum(axis=0)
    values, vectors = np.linalg.eigh(_covariance(gaps - gaps.mean(axis=0), clusters))
    spread = vectors * np.sqrt(np.maximum(values, 0))
    noise = np.random.default_rng(seed).normal(size=(samples, BINS)) @ spread.T
    plain = float(np.abs(sums).sum())

    def error_at(percent: float) -> float:
        """The error whose resamples lie below the plain one in `percent` of 100 cases."""

        def too_small(factor: float) -> bool:
            return float(np.percentile(np.abs(factor * sums + noise).sum(axis=1), percent)) < plain

        return min(1.0, bisect(too_small, 0.0, 4.0, steps=24) * plain) if too_small(0.0) else 0.0

    low, estimate, high = (error_at(percent) for percent in (97.5, 50, 2.5))
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _covariance(scores: Floats, clusters: Kinds) -> Floats:
    """float64 [K, K]: of the sum of scores [N, K] whose mean is 0, between clusters where there are any: of two kinds
    the joined one, or that of the kind that varies more where the joined one varies less."""
    if not kinds_of(clusters):
        return np.asarray(scores.T @ scores)
    found = []
    for place in numbered_kinds(clusters):
        sums = np.stack([np.bincount(place, column) for column in scores.T], axis=1)
        found.append(np.asarray(sums.T @ sums))
    if len(found) > 1:
        found[2:] = [found[0] + found[1] - found[2]]
    return max(found, key=lambda one: float(np.trace(one)))


def _gaps(probabilities: Probabilities, labels: Labels) -> Floats:
    """[N, BINS]: each case's share of the gap of its bin; the error is the sum over bins of |their sum|."""
    return np.asarray(np.eye(BINS)[_bin_of(probabilities)] * (probabilities - labels)[:, None] / len(labels))


def _bin_of(probabilities: Probabilities) -> Indices:
    return np.clip((probabilities * BINS).astype(np.intp), 0, BINS - 1)


def reliability(probabilities: Probabilities, labels: Labels, clusters: Kinds = None) -> Reliability:
    """The curve's bins that have cases, and the regression's slope and intercept."""
    slope, intercept = calibration_line(probabilities, labels, clusters)
    return Reliability(reliability_bins(probabilities, labels, clusters), slope, intercept)


def reliability_bins(
    probabilities: Probabilities, labels: Labels, clusters: Kinds = None
) -> tuple[ReliabilityBin, ...]:
    """The cases by their probability, with the share of positives in each bin. probabilities: float64 [N]; labels,
    clusters: int64 [N]."""
    which = _bin_of(probabilities)
    found = []
    for index in np.unique(which):
        inside = which == index
        hits = labels[inside] == 1
        effect = design_effect(hits.astype(np.float64), kinds_among(clusters, inside))
        share = wilson_interval(int(hits.sum()) / effect, int(inside.sum()) / effect)
        if share is not None:
            found.append(ReliabilityBin(int(inside.sum()), float(probabilities[inside].mean()), share))
    return tuple(found)


def calibration_line(
    probabilities: Probabilities, labels: Labels, clusters: Kinds = None
) -> tuple[Interval | None, Interval | None]:
    """Slope and intercept with 95% intervals from the robust (sandwich) variance, by Newton's method."""
    positives = int((labels == 1).sum())
    if min(positives, len(labels) - positives) < _FEW:
        return None, None
    clipped = np.clip(probabilities, 1e-9, 1 - 1e-9)
    design = np.stack([np.log(clipped / (1 - clipped)), np.ones(len(labels))], axis=1)
    found = np.array([1.0, 0.0])
    for _ in range(50):
        means = 1 / (1 + np.exp(-np.clip(design @ found, -500, 500)))
        information = design.T @ (design * (means * (1 - means))[:, None])
        if np.linalg.cond(information) > 1e12:
            return None, None
        step = np.linalg.solve(information, design.T @ (labels - means))
        found = found + step * min(1.0, 5 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    else:
        return None, None
    scores = (design * (labels - means)[:, None]) @ np.linalg.inv(information)
    errors = np.sqrt([_sum_variance(column, clusters) for column in scores.T])
    slope, intercept = (
        Interval(float(value), float(value - Z_TWO_SIDED * error), float(value + Z_TWO_SIDED * error))
        for value, error in zip(found, errors, strict=True)
    )
    return slope, intercept


def calibration_in_the_large(probabilities: Probabilities, labels: Labels, clusters: Kinds = None) -> Interval | None:
    """Intercept of the logistic recalibration whose slope is held at 1, with its 95% interval from the robust variance
    (Cox, Biometrika 1958; Van Calster et al., Journal of Clinical Epidemiology 2016): 0 where as many cases are
    positive as the probabilities say, above it where they say too few. In units of the logit; None where a class is
    rare. probabilities: float64 [N]; labels, clusters: int64 [N]."""
    positives = int((labels == 1).sum())
    if min(positives, len(labels) - positives) < _FEW:
        return None
    clipped = np.clip(probabilities, 1e-9, 1 - 1e-9)
    logits = np.log(clipped / (1 - clipped))

    def means_at(intercept: float) -> Floats:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits + intercept, -500, 500))))

    intercept = bisect(lambda at: float(means_at(at).sum()) < positives, -50.0, 50.0)
    means = means_at(intercept)
    scores, information = np.asarray(labels - means), float((means * (1 - means)).sum())
    if information <= 0:
        return None
    reach = Z_TWO_SIDED * math.sqrt(_sum_variance(scores, clusters)) / information
    return Interval(intercept, intercept - reach, intercept + reach)


def _sum_variance(values: Floats, clusters: Kinds) -> float:
    """Of the sum of `values` [N], which is 0."""
    if not kinds_of(clusters):
        return float(values @ values)
    return between_clusters(lambda place: float(np.sum(np.bincount(place, values) ** 2)), clusters)


def balanced_accuracy_interval(sensitivity: Interval | None, specificity: Interval | None) -> Interval | None:
    """The mean of two independent shares, their intervals' distances added as Zou & Donner do (Statistics in Medicine
    2008)."""
    if sensitivity is None or specificity is None:
        return None
    mean = (sensitivity.estimate + specificity.estimate) / 2
    below = math.hypot(sensitivity.estimate - sensitivity.low, specificity.estimate - specificity.low) / 2
    above = math.hypot(sensitivity.high - sensitivity.estimate, specificity.high - specificity.estimate) / 2
    return Interval(mean, max(0.0, mean - below), min(1.0, mean + above))
