"""The largest loss that the cases leave possible, where every case has its own part of the loss.

A loss is the sum of its cases' parts: some cases lose, others gain, most of them nothing. How many of either kind
another sample of cases would hold is taken for Poisson distributed, each case with its own weight. Fay and Feuer's
gamma limits (Statistics in Medicine 1997) bound the sum of the losses from above, with one case more than was seen,
and that of the gains from below; Zou and Donner (Statistics in Medicine 2008) join the two. The limits hold where few
cases carry the whole loss, which is where a standard error, of whatever kind, is too small.

What is one event is the cluster (patient, card), whose parts are summed. Where cases lie in clusters of two kinds
(cards and terminals) the squared reaches of both are added and that of their intersections is taken off (Cameron,
Gelbach and Miller, Journal of Business & Economic Statistics 2011).

No sample shows how bad the case is that it does not hold. `Unseen` says what is assumed; `bench/levels.py` simulates
how often either bound fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from featherweight.core.statistics.intervals import Bools, Floats, Labels

Unseen = Literal["as-seen", "lost"]
"""How bad the case that was not seen is taken to be: no worse than the worst one that was, or lost altogether."""


@dataclass(frozen=True)
class OwnLosses:
    """parts: float64 [N], of each case, in the unit of the metric: they add up to the loss, a gain is below 0; lost:
    the loss if one case that loses nothing were lost altogether; positive: bool [N]; clusters: the kinds of clusters,
    int64 [N] each, none where cases are independent of each other."""

    parts: Floats
    lost: float
    positive: Bools
    clusters: Sequence[Labels] = ()

    @property
    def loss(self) -> float:
        return float(self.parts.sum())


def loss_upper_bound(own: OwnLosses, unseen: Unseen, *, confidence: float = 0.95) -> float:
    """The loss is at most this, with so much confidence one-sided. Never below the loss that was seen; 0 where no case
    changed and `unseen` is "as-seen": the two programs are then the same to these cases."""
    if not own.clusters:
        return own.loss + _reach(own, np.arange(len(own.parts)), unseen, confidence)
    kinds = [_numbered(clusters) for clusters in own.clusters]
    reaches = [_reach(own, places, unseen, confidence) for places in kinds]
    if len(kinds) == 1:
        return own.loss + reaches[0]
    both = _reach(own, _numbered(np.unique(np.stack(kinds), axis=1, return_inverse=True)[1]), unseen, confidence)
    squared = sum(reach**2 for reach in reaches) - both**2
    return own.loss + max(*reaches, math.sqrt(max(0.0, squared)))


def _numbered(clusters: Labels) -> Labels:
    return np.asarray(np.unique(clusters, return_inverse=True)[1].reshape(-1), np.int64)


def _reach(own: OwnLosses, places: Labels, unseen: Unseen, confidence: float) -> float:
    """From the loss to its bound. places: the cluster of each case, numbered from 0."""
    parts = np.bincount(places, own.parts)
    sizes = np.bincount(places)
    worst = float(np.abs(parts).max())
    if unseen == "lost":
        # Of clusters the size that a case's cluster has on average: large ones are lost as often as they are there.
        worst = max(worst, own.lost * float((sizes**2).sum() / sizes.sum()))
    losses, gains = np.maximum(parts, 0), np.maximum(-parts, 0)
    above = _upper(losses, worst, confidence) - float(losses.sum())
    below = float(gains.sum()) - _lower(gains, 1 - confidence)
    reach = math.hypot(above, below)
    if len(sizes) == len(places):
        return reach
    few = min(len(np.unique(places[inside])) for inside in (own.positive, ~own.positive))
    return reach * _widening(few, confidence)


def _widening(clusters: int, confidence: float) -> float:
    """Student's quantile over the normal one: between few clusters the variance is hardly known."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(max(1, clusters - 1), confidence) / ndtri(confidence))


def _upper(weights: Floats, unseen: float, confidence: float) -> float:
    """Of a sum of Poisson counts, each with its weight, all seen once, and one unseen event."""
    return _gamma(float(weights.sum()) + unseen, float(weights @ weights) + unseen**2, confidence)


def _lower(weights: Floats, share: float) -> float:
    return _gamma(float(weights.sum()), float(weights @ weights), share)


def _gamma(mean: float, variance: float, share: float) -> float:
    """The quantile of a gamma variable of such mean and variance (Fay and Feuer 1997, 2.2)."""
    from scipy.special import gammaincinv

    return 0.0 if variance == 0 else float(gammaincinv(mean**2 / variance, share)) * variance / mean
