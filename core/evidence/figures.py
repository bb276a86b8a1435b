"""All figures of two programs on the same cases at once: one set of resamples serves every interval, band and
difference. JSON, page and model card ask `compare` and so say the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from core.evidence import resampling as r
from core.evidence import statistics as s
from core.evidence.measured import Predictions
from core.evidence.paired import paired_share_difference


@dataclass(frozen=True)
class Band:
    """A curve with its pointwise 95% band, all float64 [points], x rising."""

    x: s.Floats
    estimate: s.Floats
    low: s.Floats
    high: s.Floats


@dataclass(frozen=True)
class Reliability:
    """How far one program's probabilities can be believed. slope and intercept: of a logistic regression of the outcome
    on the probability's logit (Cox 1958); 1 and 0 are perfect, a slope below 1 is too sure of itself."""

    bins: tuple[r.ReliabilityBin, ...]
    slope: s.Interval | None
    intercept: s.Interval | None


@dataclass(frozen=True)
class ProgramFigures:
    """metrics: in the order of a report, each with its 95% interval, None where the cases cannot give it; roc: over
    1 - specificity; precision_recall: precision over recall; None where a class is missing; reliability: None without
    probabilities."""

    metrics: Mapping[str, s.Interval | None]
    roc: Band | None
    precision_recall: Band | None
    reliability: Reliability | None


@dataclass(frozen=True)
class Compared:
    """differences: candidate minus baseline, paired, with one-sided 95% lower bounds (for `brier_score`, where less is
    better, baseline minus candidate: a gain is above 0 everywhere); methods: figure -> how its interval and bound were
    made, in a line each, among them whether cases or clusters were resampled."""

    baseline: ProgramFigures
    candidate: ProgramFigures
    differences: Mapping[str, s.Difference | None]
    methods: Mapping[str, str]


@lru_cache(maxsize=4)
def compare(baseline: Predictions, candidate: Predictions, *, samples: int = 2000, seed: int = 0) -> Compared:
    """Both programs' figures and their differences. metrics: auc, average_precision, card_precision, accuracy,
    balanced_accuracy, sensitivity, specificity, brier_score, calibration_error; differences: the same but for
    balanced_accuracy and calibration_error."""
    positive = baseline.labels == 1
    before, after = baseline.decisions == positive, candidate.decisions == positive
    differences = {
        "auc": s.roc_auc_difference(baseline.scores, candidate.scores, baseline.labels),
        "average_precision": r.average_precision_difference(baseline.scores, candidate.scores, baseline.labels),
        "card_precision": None,
        "accuracy": paired_share_difference(before, after),
        "sensitivity": paired_share_difference(before[positive], after[positive]),
        "specificity": paired_share_difference(before[~positive], after[~positive]),
        "brier_score": None,
    }
    figures = [_figures(one, samples, seed) for one in (baseline, candidate)]
    return Compared(figures[0], figures[1], differences, {})


def _figures(p: Predictions, samples: int, seed: int) -> ProgramFigures:
    drawn = r.bootstrap_intervals(p.labels, p.decisions, p.scores, p.probabilities, samples=samples, seed=seed)
    metrics = {
        "auc": s.roc_auc_interval(p.scores, p.labels),
        "average_precision": drawn.get("average_precision"),
        "card_precision": None,
        "accuracy": p.confusion.accuracy(),
        "balanced_accuracy": drawn.get("balanced_accuracy"),
        "sensitivity": p.confusion.sensitivity(),
        "specificity": p.confusion.specificity(),
        "brier_score": drawn.get("brier_score"),
        "calibration_error": drawn.get("calibration_error"),
    }
    if p.probabilities is None:
        return ProgramFigures(metrics, None, None, None)
    reliability = Reliability(r.reliability_bins(p.probabilities, p.labels), None, None)
    return ProgramFigures(metrics, None, None, reliability)
