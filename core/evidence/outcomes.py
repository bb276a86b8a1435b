"""Every threshold that an app acts on, and every class: which cases changed between which outcomes, and sensitivity and
specificity at each threshold, baseline and candidate each at its own sealed one; of several classes the figures of each
against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from featherweight.core.evidence.figures import BOUND_SAMPLES
from featherweight.core.evidence.metric import Metric, Pair, pair
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, SENSITIVITY, SPECIFICITY
from featherweight.core.evidence.predictions import Predictions, outcome_table
from featherweight.core.statistics.intervals import Difference, Interval


@dataclass(frozen=True)
class ThresholdFigure:
    """metric: sensitivity or specificity, of the cases that reach the threshold; difference: the candidate's gain,
    paired, with its one-sided 95% lower bound; loss_at_least: the other end of a loss. None where a class has no
    case."""

    metric: Metric
    baseline: Interval | None
    candidate: Interval | None
    difference: Difference | None
    loss_at_least: float | None


@dataclass(frozen=True)
class ThresholdFigures:
    """outcome: the name of what begins at the threshold; baseline, candidate: their thresholds on the raw score;
    is_decision: whether it is the one that all other figures of decisions are made with."""

    outcome: str
    baseline: float
    candidate: float
    is_decision: bool
    figures: tuple[ThresholdFigure, ...]


@dataclass(frozen=True)
class ClassFigures:
    """One class against the rest. cases: that are of it."""

    name: str
    cases: int
    figures: tuple[ThresholdFigure, ...]


@dataclass(frozen=True)
class OutcomeComparison:
    """names: of the outcomes, the lowest first, or of the classes; moves: cases by their outcome before (rows) and
    after (columns); thresholds: one fewer than names, none of classes; classes: of several classes one each, else
    none."""

    names: tuple[str, ...]
    moves: tuple[tuple[int, ...], ...]
    thresholds: tuple[ThresholdFigures, ...]
    classes: tuple[ClassFigures, ...] = ()

    @property
    def changed(self) -> int:
        """Cases with another outcome."""
        return sum(count for i, row in enumerate(self.moves) for j, count in enumerate(row) if i != j)


@lru_cache(maxsize=4)
def compare_outcomes(baseline: Predictions, candidate: Predictions, *, seed: int) -> OutcomeComparison:
    """All outcomes of two programs on the same cases. seed: as of the bounds of the checks, which are the same."""
    both = pair(baseline, candidate, samples=BOUND_SAMPLES, seed=seed)
    moves = tuple(tuple(row) for row in outcome_table(baseline, candidate).tolist())
    if baseline.label_kind != "binary":
        classes = tuple(_of_class(name, one) for name, one in both.parts)
        return OutcomeComparison(baseline.outcome_names, moves, (), classes)
    thresholds = tuple(_at(name, one, both) for name, one in both.at_thresholds)
    return OutcomeComparison(baseline.all_outcomes.names, moves, thresholds)


def _at(outcome: str, one: Pair, whole: Pair) -> ThresholdFigures:
    figures = _figures(one, (SENSITIVITY, SPECIFICITY))
    return ThresholdFigures(outcome, one.baseline.threshold, one.candidate.threshold, one is whole, figures)


def _of_class(name: str, one: Pair) -> ClassFigures:
    metrics = (SENSITIVITY, SPECIFICITY, AUC, AVERAGE_PRECISION)
    return ClassFigures(name, int(one.baseline.labels.sum()), _figures(one, metrics))


def _figures(one: Pair, metrics: Sequence[Metric]) -> tuple[ThresholdFigure, ...]:
    return tuple(
        ThresholdFigure(
            metric,
            None if metric.interval is None else metric.interval(one, "baseline"),
            None if metric.interval is None else metric.interval(one, "candidate"),
            one.difference(metric, "as-seen"),
            one.loss_at_least(metric),
        )
        for metric in metrics
    )
