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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Integers
from featherweight.core.statistics.cluster_kinds import joined, numbered_kinds
from featherweight.core.statistics.intervals import bisect

Unseen = Literal["as-seen", "lost"]
"""How bad the case that was not seen is taken to be: no worse than the worst one that was, or lost altogether."""

LARGEST_UNSEEN: Final = 0.1
"""Share of a class that may be lost altogether and not one of its cases be among those at hand."""
LEAST_AS_SEEN: Final = math.ceil(math.log(0.05) / math.log(1 - LARGEST_UNSEEN))
"""Cases, or clusters, of the rarer class, below which no bound of a ranking is believed that takes the unseen case for
no worse than the worst seen: 29. With n of them, a share p of the class that is lost altogether leaves no trace in
(1 - p)^n of all samples, and with fewer than 29 a tenth of it is missed in more than 5%."""


@dataclass(frozen=True)
class OwnLosses:
    """parts: float64 [N], of each case, in the unit of the metric: they add up to the loss, a gain is below 0; lost:
    the loss if one case that loses nothing were lost altogether; positive: bool [N]; clusters: the kinds of clusters,
    int64 [N] each, none where cases are independent of each other."""

    parts: Floats
    lost: float
    positive: Bools
    clusters: Sequence[Clusters] = ()
    grows: float = 0.0
    """So much more than in proportion one lost case costs among e times the cases, times their number."""

    @property
    def loss(self) -> float:
        return float(self.parts.sum())

    @cached_property
    def events(self) -> tuple[Events, ...]:
        """The parts as events: of cases, or of each kind of clusters, the intersections of two kinds last."""
        if not self.clusters:
            return (Events.of(self, np.arange(len(self.parts))),)
        return tuple(Events.of(self, places) for places in numbered_kinds(self.clusters))


def loss_upper_bound(own: OwnLosses, unseen: Unseen, *, confidence: float = 0.95) -> float:
    """The loss is at most this, with so much confidence one-sided. Never below the loss that was seen; 0 where no case
    changed and `unseen` is "as-seen": the two programs are then the same to these cases."""
    return own.loss + math.sqrt(joined([events.reach(unseen, confidence) ** 2 for events in own.events]))


def loss_lower_bound(own: OwnLosses, *, confidence: float = 0.95) -> float:
    """The loss is at least this, the case that was not seen being no better than the best that was."""
    return -loss_upper_bound(replace(own, parts=-own.parts), "as-seen", confidence=confidence)


def least_bound(own: OwnLosses, *, confidence: float = 0.95) -> float:
    """Of a candidate that loses nothing on such cases, where the one that was not seen is taken for lost: no margin
    below this can be kept."""
    return loss_upper_bound(replace(own, parts=np.zeros(len(own.parts))), "lost", confidence=confidence)


def p_value(own: OwnLosses, margin: float) -> float:
    """Of the hypothesis that the loss is `margin` or less, against a larger one: the level at which the lower bound
    reaches it; 1 where the loss that was seen does not."""
    if own.loss <= margin:
        return 1.0
    turned = replace(own, parts=-own.parts)

    def contradicted(level: float) -> bool:
        return -loss_upper_bound(turned, "as-seen", confidence=1 - level) <= margin

    return bisect(contradicted, 1e-9, 0.5, steps=30)


@dataclass(frozen=True)
class Events:
    """Sums of the losses and of the gains, and of their squares; the largest of either, and the largest if a whole
    cluster of a usual size is lost; few: clusters of the rarer class, None where every case is one of its own."""

    losses: float
    losses_squared: float
    gains: float
    gains_squared: float
    largest: float
    lost: float
    few: float | None
    grows: float

    @classmethod
    def of(cls, own: OwnLosses, places: Integers) -> Events:
        """places: the cluster of each case, numbered from 0."""
        parts, sizes = np.bincount(places, own.parts), np.bincount(places)
        losses, gains = np.maximum(parts, 0), np.maximum(-parts, 0)
        # The size that a case's cluster has on average: large ones hold more cases.
        usual = float((sizes**2).sum() / sizes.sum())
        few = None
        if len(sizes) < len(places):
            few = min(len(np.unique(places[inside])) for inside in (own.positive, ~own.positive) if inside.any())
        squares = float(losses @ losses), float(gains @ gains)
        largest = float(np.abs(parts).max())
        lost, grows = own.lost * usual, own.grows * usual
        return cls(float(losses.sum()), squares[0], float(gains.sum()), squares[1], largest, lost, few, grows)

    def of_more(self, times: float) -> Events:
        """Of so many times the cases, of the same kind: each has its part in a mean of more."""
        return Events(
            self.losses,
            self.losses_squared / times,
            self.gains,
            self.gains_squared / times,
            self.largest / times,
            (self.lost + self.grows * math.log(times)) / times,
            None if self.few is None else self.few * times,
            self.grows,
        )

    @property
    def balanced(self) -> Events:
        """As many changes, but as much gained as lost."""
        half, squared = (self.losses + self.gains) / 2, (self.losses_squared + self.gains_squared) / 2
        return replace(self, losses=half, gains=half, losses_squared=squared, gains_squared=squared)

    @property
    def unchanged(self) -> Events:
        """None of the cases loses or gains."""
        return replace(self, losses=0.0, gains=0.0, losses_squared=0.0, gains_squared=0.0, largest=0.0)

    def reach(self, unseen: Unseen, confidence: float = 0.95) -> float:
        """From the loss that was seen to its bound."""
        above, below = self._reaches(np.array([self.losses]), np.array([self.gains]), unseen, confidence)
        return float(np.hypot(above, below)[0]) * self._widening(confidence)

    def chance_within(self, margin: float, unseen: Unseen, confidence: float = 0.95) -> float:
        """The probability that the bound of another such sample is at most the margin: losses and gains as Poisson
        counts of equal weights, at the middles of equally probable parts of their distributions."""
        losses, gains = _likely(self.losses, self.losses_squared), _likely(self.gains, self.gains_squared)
        above, below = self._reaches(losses, gains, unseen, confidence)
        bounds = losses[:, None] - gains[None] + np.hypot(above[:, None], below[None]) * self._widening(confidence)
        return float((bounds <= margin).mean())

    def _reaches(self, losses: Floats, gains: Floats, unseen: Unseen, confidence: float) -> tuple[Floats, Floats]:
        """Of the losses upwards and of the gains downwards, if they add up to `losses` [N] and `gains` [M]; their
        weights are those of the sample."""
        worst = self.largest if unseen == "as-seen" else max(self.largest, self.lost)
        squares = [_weight(*of) * sums for of, sums in ((self._lost, losses), (self._gained, gains))]
        above = _gamma(losses + worst, squares[0] + worst**2, confidence) - losses
        return above, gains - _gamma(gains, squares[1], 1 - confidence)

    @property
    def _lost(self) -> tuple[float, float]:
        return self.losses, self.losses_squared

    @property
    def _gained(self) -> tuple[float, float]:
        return self.gains, self.gains_squared

    def _widening(self, confidence: float) -> float:
        """Student's quantile over the normal one: between few clusters the variance is hardly known."""
        from scipy.special import ndtri, stdtrit

        if self.few is None:
            return 1.0
        return float(stdtrit(max(1.0, self.few - 1), confidence) / ndtri(confidence))


def _weight(total: float, squared: float) -> float:
    """Of events that are all alike."""
    return squared / total if total > 0 else 0.0


def _likely(total: float, squared: float) -> Floats:
    """Sums [64] of such events, at the middles of equally probable parts of their distribution."""
    from scipy.special import pdtrik

    if total == 0:
        return np.zeros(1)
    weight = squared / total
    return np.asarray(np.ceil(pdtrik((np.arange(64) + 0.5) / 64, total / weight)) * weight)


def _gamma(mean: Floats, variance: Floats, share: float) -> Floats:
    """The quantiles of gamma variables of such means and variances (Fay and Feuer 1997, 2.2): of sums of Poisson
    counts, each with its weight, all seen once."""
    from scipy.special import gammaincinv

    some = variance > 0
    shapes = np.divide(mean**2, variance, out=np.ones_like(mean), where=some)
    scales = np.divide(variance, mean, out=np.zeros_like(mean), where=some)
    return np.asarray(gammaincinv(shapes, share) * scales)
