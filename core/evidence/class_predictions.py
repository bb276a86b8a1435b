"""One program on cases of several classes: the largest of K scores decides. Each class against the rest is a yes or no,
so that all figures, bounds and limits of a yes or no are also those of a class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Self

import numpy as np

from featherweight.core.arrays import Bools, Floats, Integers, Probabilities, Scores
from featherweight.core.errors import DataError
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.softmax import softmax
from featherweight.core.target import Classes, LabelKind
from featherweight.core.task import HeldOut, Probability
from featherweight.core.thresholds import Outcomes

_LEAST = 1e-300
"""Of a probability: its logarithm is a number."""


def log_odds_against_rest(probabilities: Probabilities) -> Scores:
    """Log-odds [N, K] of each class against all others, of probabilities [N, K]. The others are summed, not taken from
    1: then classes that are nearly certain are still told apart."""
    nothing = np.zeros((len(probabilities), 1))
    before = np.cumsum(np.hstack([nothing, probabilities[:, :-1]]), axis=1)
    after = np.cumsum(np.hstack([nothing, probabilities[:, :0:-1]]), axis=1)[:, ::-1]
    return np.asarray(np.log(np.maximum(probabilities, _LEAST)) - np.log(np.maximum(before + after, _LEAST)))


@dataclass(frozen=True, eq=False)
class AgainstRest(Predictions):
    """One class against all others. scores: float64 [N], its log-odds; decided: bool [N], whether the program decides
    for it, which no threshold on the score says: it is the largest of all."""

    decided: Bools = field(default_factory=lambda: np.zeros(0, bool))

    def among(self, inside: Bools) -> Self:
        """See Predictions."""
        return replace(super().among(inside), decided=self.decided[inside])

    @cached_property
    def decisions(self) -> Bools:
        """See Predictions."""
        return self.decided

    @cached_property
    def outcome_places(self) -> Integers:
        """See Predictions."""
        return self.decided.astype(np.int64)


@dataclass(frozen=True, eq=False)
class ClassPredictions(Predictions):
    """One program on N cases of K classes that exclude each other.

    labels: int64 [N], places in `names`; scores: float64 [N, K], raw, of which the largest decides (the first of equal
    ones); probabilities: float64 [N, K], calibrated; names: of the classes. `threshold` means nothing, and there are no
    alerts and no further outcomes.
    """

    names: tuple[str, ...] = ()

    def _check_labels(self) -> None:
        count = len(self.names)
        if not ((self.labels >= 0) & (self.labels < count)).all():
            found = np.unique(self.labels)[:5].tolist()
            raise DataError(f"predictions: found labels {found}, expected 0 to {count - 1}")
        for array in (self.scores, self.probabilities):
            if array is not None and array.shape != (len(self.ids), count):
                raise DataError(f"predictions: found scores {list(array.shape)}, expected [{len(self.ids)}, {count}]")

    @property
    def label_kind(self) -> LabelKind:
        """See Predictions."""
        return "multi-class"

    @property
    def strata(self) -> tuple[tuple[str, Bools], ...]:
        """See Predictions."""
        return tuple((name, np.asarray(self.labels == place)) for place, name in enumerate(self.names))

    @cached_property
    def chances(self) -> Probabilities:
        """float64 [N, K]: the calibrated probabilities, or the softmax of the scores where there are none."""
        return softmax(self.scores) if self.probabilities is None else self.probabilities

    @cached_property
    def parts(self) -> tuple[tuple[str, Predictions], ...]:
        """See Predictions. Cases are ranked by the log-odds of the class, decided by the largest score."""
        odds, chances = log_odds_against_rest(self.chances), self.probabilities
        return tuple(
            (
                name,
                AgainstRest(
                    self.ids,
                    np.asarray(self.labels == place, np.int64),
                    odds[:, place],
                    0.0,
                    None if chances is None else chances[:, place].clip(0, 1),
                    self.groups,
                    self.clusters,
                    cross_clusters=self.cross_clusters,
                    cluster_noun=self.cluster_noun,
                    cross_cluster_noun=self.cross_cluster_noun,
                    decided=self.outcome_places == place,
                ),
            )
            for place, name in enumerate(self.names)
        )

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """See Predictions."""
        return self.names

    @cached_property
    def outcome_places(self) -> Integers:
        """See Predictions."""
        return np.asarray(self.scores.argmax(axis=1), np.int64)

    @cached_property
    def right(self) -> Bools:
        """See Predictions."""
        return np.asarray(self.outcome_places == self.labels)

    @cached_property
    def of_truth(self) -> Floats:
        """float64 [N]: the probability that each case's own class is given."""
        return np.asarray(self.chances[np.arange(len(self.labels)), self.labels])


def predictions_on(
    cases: HeldOut, scores: Scores, threshold: float, probability: Probability | None, outcomes: Outcomes | None
) -> Predictions:
    """A program's scores of `cases` with what is sealed beside it: its calibration and all that the app does."""
    target = cases.target
    kind = partial(ClassPredictions, names=target.names) if isinstance(target, Classes) else Predictions
    return kind(
        cases.ids,
        cases.labels,
        scores,
        threshold,
        None if probability is None else probability(scores),
        cases.groups,
        cases.clusters,
        cases.alerts,
        cases.cross_clusters,
        outcomes,
        cases.cluster_noun,
        cases.cross_cluster_noun,
    )
