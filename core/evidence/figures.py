"""All figures of two programs on the same cases at once: one set of resamples serves every interval, band and
difference. JSON, page and model card ask `compare` and so say the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.evidence import statistics as s
from core.evidence.alerts import card_precision_draws
from core.evidence.measured import Predictions
from core.evidence.paired import paired_share_difference
from core.evidence.reliability import (
    Reliability,
    balanced_accuracy_interval,
    brier_gain,
    brier_interval,
    calibration_error_interval,
    reliability,
)
from core.evidence.resampling import (
    Band,
    Ranking,
    average_precision_difference,
    compare_rankings,
    lowest_percentile,
    percentile_interval,
)
from core.terminal import counted

__all__ = [
    "Band",
    "Compared",
    "ProgramFigures",
    "Reliability",
    "card_precision_difference",
    "compare",
    "ranking_difference",
    "right_difference",
]


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
    labels, clusters = baseline.labels, baseline.clusters
    rankings = compare_rankings(baseline.scores, candidate.scores, labels, clusters, samples=samples, seed=seed)
    cards = _card_draws(baseline, candidate, samples, seed)
    figures = [
        _figures(
            program,
            None if rankings is None else (rankings.baseline, rankings.candidate)[index],
            None if cards is None else cards[index],
            samples,
            seed,
        )
        for index, program in enumerate((baseline, candidate))
    ]
    return Compared(figures[0], figures[1], compute_differences(baseline, candidate, seed), methods(baseline, samples))


@lru_cache(maxsize=64)
def compute_differences(
    baseline: Predictions, candidate: Predictions, seed: int = 0
) -> Mapping[str, s.Difference | None]:
    """Those of `Compared`; always from 2,000 resamples, so that a check and its report name one bound."""
    labels, clusters, positive = baseline.labels, baseline.clusters, baseline.labels == 1
    return {
        "auc": s.roc_auc_difference(baseline.scores, candidate.scores, labels, clusters),
        "average_precision": ranking_difference(baseline, candidate, seed),
        "card_precision": card_precision_difference(baseline, candidate, seed),
        "accuracy": right_difference(baseline, candidate, np.ones(len(labels), bool)),
        "sensitivity": right_difference(baseline, candidate, positive),
        "specificity": right_difference(baseline, candidate, ~positive),
        "brier_score": None
        if baseline.probabilities is None or candidate.probabilities is None
        else brier_gain(baseline.probabilities, candidate.probabilities, labels, clusters),
    }


@lru_cache(maxsize=64)
def ranking_difference(baseline: Predictions, candidate: Predictions, seed: int = 0) -> s.Difference | None:
    """Of average precision, from 2,000 resamples."""
    labels, clusters = baseline.labels, baseline.clusters
    return average_precision_difference(baseline.scores, candidate.scores, labels, clusters, seed=seed)


def right_difference(baseline: Predictions, candidate: Predictions, inside: s.Bools) -> s.Difference | None:
    """Of the share of right decisions among the cases `inside` [N]."""
    positive = baseline.labels == 1
    before, after = baseline.decisions == positive, candidate.decisions == positive
    clusters = None if baseline.clusters is None else baseline.clusters[inside]
    return paired_share_difference(before[inside], after[inside], clusters)


def card_precision_difference(baseline: Predictions, candidate: Predictions, seed: int = 0) -> s.Difference | None:
    """Of the mean share of compromised cards among each day's alerts; its bound is the 5th percentile of 2,000
    resamples of the cards. None without alerts and clusters, and where no
    compromised card can raise an alert: 0 against 0 would prove nothing."""
    drawn = _card_draws(baseline, candidate, 2000, seed)
    return None if drawn is None else lowest_percentile(drawn[1] - drawn[0])


@lru_cache(maxsize=4)
def _card_draws(baseline: Predictions, candidate: Predictions, samples: int, seed: int) -> list[s.Floats] | None:
    alerts, clusters = baseline.alerts, baseline.clusters
    if alerts is None or clusters is None or not (baseline.labels[alerts.eligible] == 1).any():
        return None
    scorers = (baseline.scores, candidate.scores)
    return card_precision_draws(scorers, baseline.labels, clusters, alerts, samples=samples, seed=seed)


def _figures(
    p: Predictions, ranking: Ranking | None, cards: s.Floats | None, samples: int, seed: int
) -> ProgramFigures:
    labels, clusters, positive = p.labels, p.clusters, p.labels == 1
    right = p.decisions == positive

    def share(inside: s.Bools) -> s.Interval | None:
        return s.share_interval(right[inside], None if clusters is None else clusters[inside])

    sensitivity, specificity = share(positive), share(~positive)
    brier = error = lines = None
    if p.probabilities is not None:
        brier = brier_interval(p.probabilities, labels, clusters)
        error = calibration_error_interval(p.probabilities, labels, clusters, samples=samples, seed=seed)
        lines = reliability(p.probabilities, labels, clusters)
    metrics = {
        "auc": s.roc_auc_interval(p.scores, labels, clusters),
        "average_precision": None if ranking is None else ranking.average_precision,
        "card_precision": None if cards is None else percentile_interval(float(cards[0]), cards[1:]),
        "accuracy": share(np.ones(len(labels), bool)),
        "balanced_accuracy": balanced_accuracy_interval(sensitivity, specificity),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "brier_score": brier,
        "calibration_error": error,
    }
    roc, recall = (None, None) if ranking is None else (ranking.roc, ranking.precision_recall)
    return ProgramFigures(metrics, roc, recall, lines)


def methods(predictions: Predictions, samples: int = 2000) -> Mapping[str, str]:
    """Figure -> how its interval and the bound of its difference are made."""
    clusters = predictions.clusters
    count = 0 if clusters is None else len(np.unique(clusters))
    drawn = f"{samples:,} bootstrap resamples " + (
        "of the cases, class by class" if clusters is None else f"of the {counted(count, 'clusters')} (patients, cards)"
    )
    area = (
        "DeLong's variance over cases"
        if clusters is None
        else f"Obuchowski's variance over {counted(count, 'clusters')}"
    )
    shares = "exact unconditional bound of the paired difference (Tango's ordering, Berger and Boos); Wilson's interval"
    errors = "normal, paired over cases"
    if clusters is not None:
        shares += f", both for the effective number of cases in {counted(count, 'clusters')} (Rao and Scott)"
        errors = f"normal, paired, variance between {counted(count, 'clusters')}"
    ranks = f"percentiles of {drawn}"
    cards = f"percentiles of {samples:,} bootstrap resamples of the cards; the days are fixed"
    return {
        "auc": area,
        "average_precision": ranks,
        "card_precision": cards,
        "accuracy": shares,
        "balanced_accuracy": "from the intervals of sensitivity and specificity (Zou and Donner)",
        "sensitivity": shares,
        "specificity": shares,
        "brier_score": errors,
        "calibration_error": "ten bins, without what chance adds; tests of the bins' gaps, inverted",
        "roc": f"pointwise band, {ranks}",
        "precision_recall": f"pointwise band, {ranks}",
    }
