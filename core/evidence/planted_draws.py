"""What a judge is given in the trial of a gate: cases drawn from the user's own, with replacement, clusters whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Clusters, Indices, Integers
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.task import Alerts

MAX_CASES = 3000
"""Of more, so many are used: all clusters with a positive case up to half of this number, and of the others; of several
classes as many of each, those of the rarest first."""
MOST_CASES = 50_000
"""And up to so many where fewer cannot show that the limits are kept, though nothing is lost."""


@dataclass(frozen=True)
class Units:
    """What is drawn whole: cases, or clusters. order: places of the cases by unit; starts, sizes: of each unit's in
    `order`; strata: units with a positive case and the others, or by the rarest class of which they have a case."""

    order: Indices
    starts: Integers
    sizes: Integers
    strata: tuple[Indices, ...]
    clustered: bool

    @classmethod
    def of(cls, predictions: Predictions) -> Units:
        count, clusters = len(predictions.labels), predictions.clusters
        numbered = np.arange(count) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        sizes = np.bincount(numbered)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        order = np.argsort(numbered, kind="stable")
        return cls(order, starts, sizes, _strata(predictions, numbered), clusters is not None)

    def drawn(self, draw: np.random.Generator) -> tuple[Indices, Clusters | None]:
        """As many units as there are, with replacement, each copy a unit of its own."""
        return self._cases(np.concatenate([draw.choice(part, len(part)) for part in self.strata if len(part)]))

    def thinned(self, draw: np.random.Generator, most: int) -> tuple[Indices, Clusters | None]:
        """`most` of the cases, without replacement."""
        kept: list[Indices] = []
        for left, part in zip(range(len(self.strata), 0, -1), self.strata, strict=True):
            room = (most - sum(int(self.sizes[one].sum()) for one in kept)) // left
            mixed = draw.permutation(part)
            fitting = mixed[np.cumsum(self.sizes[mixed]) <= room]
            kept.append(fitting if len(fitting) else mixed[:1])
        return self._cases(np.sort(np.concatenate(kept)))

    def _cases(self, units: Indices) -> tuple[Indices, Clusters | None]:
        sizes = self.sizes[units]
        ends = np.cumsum(sizes)
        inside = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
        places = self.order[np.repeat(self.starts[units], sizes) + inside]
        return places, np.repeat(np.arange(len(units)), sizes) if self.clustered else None


def _strata(predictions: Predictions, numbered: Indices) -> tuple[Indices, ...]:
    """numbered: the unit of each case. The last stratum has the units that are in no other."""
    left, found = np.ones(int(numbered.max()) + 1, bool), []
    masks = sorted((inside for _, inside in predictions.strata), key=lambda inside: int(inside.sum()))
    for inside in masks if len(masks) > 2 else [predictions.labels == 1]:
        mine = left & (np.bincount(numbered, inside, len(left)) > 0)
        found.append(np.flatnonzero(mine))
        left &= ~mine
    return (*found, np.flatnonzero(left)) if len(masks) == 2 else tuple(found)


def take_cases(of: Predictions, places: Indices, clusters: Clusters | None) -> Predictions:
    """The cases at these places, some more than once, in these clusters."""
    alerts = of.alerts
    return replace(
        of,
        ids=tuple(map(str, range(len(places)))),
        labels=of.labels[places],
        scores=of.scores[places],
        probabilities=None if of.probabilities is None else of.probabilities[places],
        groups={name: values[places] for name, values in of.groups.items()},
        clusters=clusters,
        cross_clusters=None if of.cross_clusters is None else of.cross_clusters[places],
        alerts=None if alerts is None else Alerts(alerts.days[places], alerts.eligible[places], alerts.per_day),
    )


@dataclass(frozen=True, eq=False)
class Drawn:
    """places: of the cases that were drawn; before: the baseline's answers on them."""

    places: Indices
    before: Predictions

    @classmethod
    def of(cls, whole: Predictions, units: Units, seed: list[int]) -> Drawn:
        places, clusters = units.drawn(np.random.default_rng(seed))
        return cls(places, take_cases(whole, places, clusters))

    def after(self, planted: Predictions) -> Predictions:
        """The planted answers on them."""
        probabilities = None if planted.probabilities is None else planted.probabilities[self.places]
        return self.before.answered(
            planted.scores[self.places], probabilities, threshold=planted.threshold, outcomes=planted.outcomes
        )
