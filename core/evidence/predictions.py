"""What is known of one program before anything is judged: its predictions on held-out cases and raw samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Integers, Labels, Probabilities, Scores, Texts
from featherweight.core.errors import DataError
from featherweight.core.measure.energy import Energy
from featherweight.core.measure.performance import Latency, Memory, Size, Throughput
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics.card_precision import Desk
from featherweight.core.statistics.cluster_kinds import fewest_clusters, kinds_among
from featherweight.core.target import LabelKind
from featherweight.core.task import Alerts
from featherweight.core.terminal import counted
from featherweight.core.thresholds import Outcomes


@dataclass(frozen=True, eq=False)
class Predictions:
    """One program on N labelled cases.

    ids: one text a case; labels: int64 [N], 1 is positive; scores: float64 [N], raw, larger is more positive;
    threshold: positive from this score on; probabilities: float64 [N], calibrated, of the positive class, or None when
    there are none (then nothing is said about calibration); groups, clusters, alerts, cross_clusters, cluster_noun,
    cross_cluster_noun: as in core.task.HeldOut; outcomes: all that the app does by thresholds on the score, `threshold`
    among them; None where it acts on that alone. Raises DataError when these do not fit together.
    """

    ids: tuple[str, ...]
    labels: Labels
    scores: Scores
    threshold: float
    probabilities: Probabilities | None = None
    groups: Mapping[str, Texts] = field(default_factory=dict)
    clusters: Clusters | None = None
    alerts: Alerts | None = None
    cross_clusters: Clusters | None = None
    outcomes: Outcomes | None = None
    cluster_noun: str = "clusters"
    cross_cluster_noun: str = "cross clusters"

    def __post_init__(self) -> None:
        lengths = {"ids": len(self.ids), "labels": len(self.labels), "scores": len(self.scores)}
        if self.probabilities is not None:
            lengths["probabilities"] = len(self.probabilities)
        if len(set(lengths.values())) != 1 or not self.ids:
            raise DataError(f"predictions: found lengths {lengths}, expected the same number of cases, at least one")
        self._check_labels()
        if math.isnan(self.threshold):
            raise DataError("predictions: the threshold is not a number")
        if self.outcomes is not None and self.threshold not in self.outcomes.thresholds:
            raise DataError(
                f"predictions: the threshold of the decision, {self.threshold}, is none of those of the outcomes, "
                f"{list(self.outcomes.thresholds)}"
            )
        self._check_finite("score", self.scores)
        if self.probabilities is not None:
            self._check_finite("probability", self.probabilities)
            if self.probabilities.min() < 0 or self.probabilities.max() > 1:
                raise DataError("predictions: found probabilities outside 0..1")

    def _check_labels(self) -> None:
        if not ((self.labels == 0) | (self.labels == 1)).all():
            raise DataError(f"predictions: found labels {np.unique(self.labels)[:5].tolist()}, expected only 0 and 1")

    def _check_finite(self, what: str, values: Floats) -> None:
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            first = bad[0]
            raise DataError(
                f"predictions: case {self.ids[first]} has the {what} {values[first]} ({len(bad)} such cases)"
            )

    @property
    def label_kind(self) -> LabelKind:
        return "binary"

    @property
    def strata(self) -> tuple[tuple[str, Bools], ...]:
        """The classes, by what they are called in a sentence, with their cases [N]."""
        return ("positive", self.labels == 1), ("negative", self.labels != 1)

    @property
    def parts(self) -> tuple[tuple[str, Predictions], ...]:
        """Of several classes each against the rest, as a yes or no; of a yes or no none."""
        return ()

    def among(self, inside: Bools) -> Self:
        """Those of the cases `inside` [N] alone, without groups and alerts: a desk looks at all cases."""
        return replace(
            self,
            ids=tuple(self.ids[place] for place in np.flatnonzero(inside)),
            labels=self.labels[inside],
            scores=self.scores[inside],
            probabilities=None if self.probabilities is None else self.probabilities[inside],
            groups={},
            clusters=None if self.clusters is None else self.clusters[inside],
            alerts=None,
            cross_clusters=None if self.cross_clusters is None else self.cross_clusters[inside],
        )

    def answered(
        self,
        scores: Scores,
        probabilities: Probabilities | None,
        *,
        threshold: float,
        outcomes: Outcomes | None,
    ) -> Self:
        """The same cases with other answers. What was prepared of the cases alone is shared."""
        found = replace(self, scores=scores, probabilities=probabilities, threshold=threshold, outcomes=outcomes)
        found.__dict__["desk"] = self.desk
        return found

    @cached_property
    def desk(self) -> Desk | None:
        """What card precision ranks; None without alerts and clusters."""
        alerts, clusters = self.alerts, self.clusters
        if alerts is None or clusters is None:
            return None
        return Desk(self.labels, clusters, days=alerts.days, eligible=alerts.eligible, per_day=alerts.per_day)

    @cached_property
    def card_draws(self) -> dict[tuple[int, int], Floats]:
        """(samples, seed) -> card precision in these resamples of the desk, of those that were drawn already."""
        return {}

    def sealed_with(self, other: Predictions) -> Self:
        """The same scores with the thresholds of another: an artifact has one set of them, whatever runs it."""
        return replace(self, threshold=other.threshold, outcomes=other.outcomes)

    @cached_property
    def all_outcomes(self) -> Outcomes:
        """What the app does; of an app with one threshold yes or no."""
        return self.outcomes or Outcomes(("negative", "positive"), (self.threshold,))

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """Those of `all_outcomes`."""
        return self.all_outcomes.names

    @cached_property
    def outcome_places(self) -> Integers:
        """int64 [N]: which of `all_outcomes` each case gets."""
        found = np.searchsorted(np.asarray(self.all_outcomes.thresholds), self.scores, side="right")
        return found.astype(np.int64)

    @cached_property
    def at_thresholds(self) -> tuple[Predictions, ...]:
        """The same with each threshold of `all_outcomes` as the only one; with the decision's this object itself."""
        return tuple(
            self if at == self.threshold else replace(self, threshold=at, outcomes=None)
            for at in self.all_outcomes.thresholds
        )

    @cached_property
    def cluster_kinds(self) -> tuple[Clusters, ...]:
        """The clusters of the first kind and of the second; none where cases are independent of each other."""
        return tuple(kind for kind in (self.clusters, self.cross_clusters) if kind is not None)

    def counts_of_clusters(self, inside: Bools) -> list[tuple[int, str]]:
        """How many clusters of each kind hold the cases `inside` [N], and what they are called."""
        kinds = ((self.clusters, self.cluster_noun), (self.cross_clusters, self.cross_cluster_noun))
        return [(len(np.unique(kind[inside])), noun) for kind, noun in kinds if kind is not None]

    def independent(self, inside: Bools) -> int:
        """How many of the cases `inside` [N] there are, or clusters with such, of the kind with the fewest."""
        return fewest_clusters(kinds_among(self.cluster_kinds, inside), int(inside.sum()))

    @property
    def rarer_class(self) -> int:
        """Cases of the class with the fewest, or clusters where cases come in such, of the kind with the fewest."""
        return min(self.independent(inside) for _, inside in self.strata)

    @cached_property
    def decisions(self) -> Bools:
        """bool [N]: whether a score reaches the threshold."""
        return np.asarray(self.scores >= self.threshold)

    @cached_property
    def right(self) -> Bools:
        """bool [N]: whether the decision is as the label says."""
        return np.asarray(self.decisions == (self.labels == 1))

    @cached_property
    def confusion(self) -> s.Confusion:
        """The decisions against the labels."""
        return s.confusion(self.decisions, self.labels)


@dataclass(frozen=True)
class Measured:
    """A program's predictions with what was measured of running it; None where nothing was."""

    name: str
    predictions: Predictions
    latency: Latency | None = None
    throughput: Throughput | None = None
    memory: Memory | None = None
    size: Size | None = None
    energy: Energy | None = None
    cost_per_million: float | None = None
    """Cost of a million decisions, in the unit of the recipe's price; None without a price."""
    description: str = ""
    """What `name` stands for: the steps that made it and where it runs."""
    program_sha256: str = ""
    """Digest of the program's file; empty where that is not known."""


@dataclass(frozen=True)
class ParityRun:
    """The program run another way: on another backend, batch, number of threads or instruction set.

    instructions: "all" or "avx2" (restricted to AVX2, and checked to be). difference: the largest of a raw score
    against the reference run; flips: decisions that changed; None where it was not run. reason: why it was not, or not
    on all cases, or why it is not the same though no decision changed.
    """

    backend: str
    precision: str
    threads: int
    batch: int
    instructions: Literal["all", "avx2"]
    difference: float | None
    flips: int | None
    reason: str = ""


@dataclass(frozen=True)
class Parity:
    """reference: the run that all are compared with; cases: how many; tolerance: largest difference of a raw score that
    is called the same, relative to the largest score; probes: how many reference inputs were among the cases."""

    reference: ParityRun
    runs: tuple[ParityRun, ...]
    cases: int
    probes: int
    tolerance: float


def check_same_cases(baseline: Predictions, candidate: Predictions) -> None:
    """Raises DataError unless both were made on the same cases in the same order: all comparisons are paired."""
    if baseline.ids != candidate.ids or not np.array_equal(baseline.labels, candidate.labels):
        raise DataError(
            f"baseline ({counted(len(baseline.ids), 'cases')}) and candidate "
            f"({counted(len(candidate.ids), 'cases')}) were not run on the same cases in the same order, so "
            "that they cannot be compared; run both on one HeldOut"
        )
    before, after = baseline.outcome_names, candidate.outcome_names
    if before != after:
        raise DataError(
            f"the baseline leads to the outcomes {', '.join(before)} and the candidate to {', '.join(after)}, so that "
            "they cannot be compared; a task states both alike (StatesOutcomes and SealedFiles.outcomes)"
        )


def changed_outcomes(baseline: Predictions, candidate: Predictions) -> s.Flips:
    """The cases with another outcome: those that rose (to positive, from review to decline) and those that fell."""
    before, after = baseline.outcome_places, candidate.outcome_places
    return s.Flips(np.flatnonzero(after > before), np.flatnonzero(after < before))


def outcome_table(baseline: Predictions, candidate: Predictions) -> Integers:
    """int64 [K, K]: cases by their outcome before (rows) and after (columns), in the order of `outcome_names`."""
    count = len(baseline.outcome_names)
    places = baseline.outcome_places * count + candidate.outcome_places
    return np.bincount(places, minlength=count * count).astype(np.int64).reshape(count, count)
