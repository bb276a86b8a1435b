"""All figures of two programs on the same cases at once: one set of resamples serves every interval, band and
difference. JSON, page and model card ask `compare` and so say the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from featherweight.core.evidence import metrics
from featherweight.core.evidence.binary import resampled
from featherweight.core.evidence.class_metrics import confidence
from featherweight.core.evidence.metric import Pair, Side, pair
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.statistics.intervals import Difference, Interval
from featherweight.core.statistics.loss_bounds import Unseen
from featherweight.core.statistics.reliability import Reliability, reliability
from featherweight.core.statistics.resampling import Band

__all__ = ["BOUND_SAMPLES", "Band", "Compared", "ProgramFigures", "Reliability", "compare"]

BOUND_SAMPLES = 2000
"""Resamples behind every bound of a difference, however many the intervals have: a check and its report name one."""


_BOUND = "the bound of the loss from each case's own part of it (Fay and Feuer's gamma limits, joined by MOVER)"
_UNSEEN: dict[Unseen, str] = {
    "as-seen": (
        "the case that was not seen taken for no worse than the worst seen. Simulated, it passes 2 to 4% of "
        "candidates at the margin where all scores changed slightly, and up to four in five where so few cases are "
        "lost altogether that most samples hold none of them"
    ),
    "lost": (
        "the case that was not seen taken for lost altogether. Simulated, it passes at most 4% of candidates at the "
        "margin, whatever changed, from 30 cases of the rarer class on"
    ),
}


@dataclass(frozen=True)
class ProgramFigures:
    """metrics: in the order of the table, each with its 95% interval, None where the cases cannot give it; roc: over
    1 - specificity; precision_recall: precision over recall; None where a class is missing; reliability: None without
    probabilities."""

    metrics: Mapping[str, Interval | None]
    roc: Band | None
    precision_recall: Band | None
    reliability: Reliability | None


@dataclass(frozen=True)
class Compared:
    """differences: of each metric that has one the candidate's gain, paired, with its one-sided 95% lower bound (where
    less is better, baseline minus candidate: a gain is above 0 everywhere); methods: figure -> how its interval and
    bound were made, in a line each, among them whether cases or clusters were resampled; losses_at_least: the loss at
    the other end, one-sided 95%, of the metrics that lost: above 0 the candidate is shown to be worse."""

    baseline: ProgramFigures
    candidate: ProgramFigures
    differences: Mapping[str, Difference | None]
    methods: Mapping[str, str]
    losses_at_least: Mapping[str, float | None]


@lru_cache(maxsize=4)
def compare(
    baseline: Predictions, candidate: Predictions, *, samples: int, seed: int, unseen: Unseen = "as-seen"
) -> Compared:
    """Both programs' figures and their differences: of all metrics of the table that are for such labels. unseen: as
    in `Pair.difference`."""
    both, bounds = (pair(baseline, candidate, samples=count, seed=seed) for count in (samples, BOUND_SAMPLES))
    wanted = metrics.figures(baseline.label_kind)
    differences = {one.name: bounds.difference(one, unseen) for one in wanted if one.is_compared}
    # At the other end no limit is kept or missed: where nothing was lost, there is nothing to show.
    lost = [one for one in wanted if (found := differences.get(one.name)) is not None and found.estimate < 0]
    return Compared(
        _figures(both, "baseline"),
        _figures(both, "candidate"),
        differences,
        _methods(baseline, samples, unseen),
        {one.name: bounds.loss_at_least(one) for one in lost},
    )


def _figures(both: Pair, side: Side) -> ProgramFigures:
    of, rankings = both.side(side), both.rankings if both.baseline.label_kind == "binary" else None
    found = {
        one.name: None if one.interval is None else one.interval(both, side)
        for one in metrics.figures(both.baseline.label_kind)
    }
    lines = _reliability(of)
    if rankings is None:
        return ProgramFigures(found, None, None, lines)
    ranking = rankings.baseline if side == "baseline" else rankings.candidate
    return ProgramFigures(found, ranking.roc, ranking.precision_recall, lines)


def _reliability(of: Predictions) -> Reliability | None:
    """Of several classes that of the class that is decided for."""
    if of.probabilities is None:
        return None
    if of.label_kind == "binary":
        return reliability(of.probabilities, of.labels, of.cluster_kinds)
    sure = confidence(of)
    return None if sure is None else reliability(sure, of.right.astype(np.int64), of.cluster_kinds)


def _methods(of: Predictions, samples: int, unseen: Unseen) -> Mapping[str, str]:
    """Figure -> how its interval and the bound of its difference are made."""
    wanted = metrics.figures(of.label_kind)
    found = {one.name: one.method(of, samples) for one in wanted if one.method is not None}
    for one in wanted:
        if one.own_losses is not None:
            found[one.name] += f"; {_BOUND}, {_UNSEEN[unseen]}"
    if of.label_kind != "binary":
        return found
    band = f"pointwise band, {resampled(of, samples)}"
    return {**found, "roc": band, "precision_recall": band}
