"""Evidence: everything that was compared, in one value, and its JSON form.

Whoever optimizes fills an Evidence from raw samples and predictions; the figures are computed here and nowhere else,
so that the JSON and the page say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from core.evidence import resampling as r
from core.evidence import statistics as s
from core.evidence.judge import Check, Limits, all_passed, warnings
from core.evidence.measured import Measured, Parity, Predictions
from core.measure import Conditions, Latency

SCHEMA = "featherweight-evidence/1"

Step = Mapping[str, object]
"""What one pass did: `name`, `settings` and `facts`, the last two being mappings of plain values."""


@dataclass(frozen=True)
class LatencySummary:
    """Milliseconds of one run of `batch` cases."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    batch: int


def summarize_latency(latency: Latency) -> LatencySummary:
    found = s.quantiles(latency.samples_ms)
    return LatencySummary(found.p50, found.p95, found.p99, len(latency.samples_ms), latency.batch)


@dataclass(frozen=True)
class CandidateRecord:
    """One candidate that was tried, chosen or not. settings: its choices among the recipe's (`{"prune.ratio": 0.5}`);
    steps: its lineage, in order; latency and checks are those on the validation cases; reason: why it was not chosen
    where the checks alone do not say so (it could not be built, or it passed and another was faster)."""

    name: str
    settings: Mapping[str, object]
    steps: tuple[Step, ...] = ()
    checks: tuple[Check, ...] = ()
    size_bytes: int | None = None
    latency: LatencySummary | None = None
    auc: float | None = None
    average_precision: float | None = None
    chosen: bool = False
    reason: str = ""
    threads: int = 1
    loss: float | None = None
    """The point loss of the figure that the recipe limits first (AUC, average precision), against the baseline."""
    on_front: bool = False
    """No other candidate is at once as fast, as small and as good, and better in one of these."""
    advice: str = ""
    """What would let it pass, where it missed a limit."""
    slower_int8: str = ""
    """Why int8 is slower here than the same in fp32, where it is; names the operators."""

    @property
    def outcome(self) -> str:
        """One line: chosen, or why not."""
        missed = [check.name for check in self.checks if check.status != "passed"]
        parts = ["chosen"] if self.chosen else []
        parts += [f"missed {', '.join(missed)}"] if missed else []
        parts += [self.reason] if self.reason else []
        return "; ".join(parts) or "passed, not chosen"


@dataclass(frozen=True)
class Search:
    """How the candidates were found. budget_s: None when all of the recipe's were tried; tried: in this and in earlier
    runs; kept: of them, those taken from earlier runs; skipped: names of those not tried, with the reason."""

    budget_s: float | None
    elapsed_s: float
    tried: int
    kept: int
    skipped: tuple[tuple[str, str], ...] = ()
    stopped: str = ""


@dataclass(frozen=True)
class Comparison:
    """Baseline and candidate on the same cases. split: `validation`, where the choice was made, so that its figures are
    a little too good; or `test`, which was run once, after the choice."""

    split: Literal["validation", "test"]
    baseline: Measured
    candidate: Measured
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Evidence:
    """title: what the model does; created: ISO 8601, UTC; host: names and values; versions: package -> version;
    facts: further lines for the page (data set, source of the weights); forced: sealed though a limit was missed."""

    title: str
    created: str
    limits: Limits
    validation: Comparison
    test: Comparison | None
    candidates: tuple[CandidateRecord, ...]
    labels: tuple[str, str] = ("negative", "positive")
    host: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    recipe_sha256: str = ""
    forced: bool = False
    bootstrap_samples: int = 2000
    seed: int = 0
    search: Search | None = None
    parity: Parity | None = None

    @property
    def deciding(self) -> Comparison:
        """The comparison whose checks decide: the test cases', or without any the validation cases'."""
        return self.test or self.validation

    @property
    def passed(self) -> bool:
        return all(all_passed(part.checks) for part in (self.validation, self.test) if part is not None)

    @property
    def chosen(self) -> CandidateRecord | None:
        return next((candidate for candidate in self.candidates if candidate.chosen), None)


Figures = dict[str, s.Interval | None]


@lru_cache(maxsize=8)
def compute_figures(predictions: Predictions, *, samples: int = 2000, seed: int = 0) -> Figures:
    """The metrics of one program, in the order of a report, each with its 95% interval; None where the cases cannot
    give it. JSON, page and model card ask for the same, and on tens of thousands of cases it takes seconds."""
    p = predictions
    drawn = r.bootstrap_intervals(p.labels, p.decisions, p.scores, p.probabilities, samples=samples, seed=seed)
    return {
        "auc": s.roc_auc_interval(p.scores, p.labels),
        "average_precision": drawn.get("average_precision"),
        "accuracy": p.confusion.accuracy(),
        "balanced_accuracy": drawn.get("balanced_accuracy"),
        "sensitivity": p.confusion.sensitivity(),
        "specificity": p.confusion.specificity(),
        "brier_score": drawn.get("brier_score"),
        "calibration_error": drawn.get("calibration_error"),
    }


@lru_cache(maxsize=4)
def compute_differences(baseline: Predictions, candidate: Predictions) -> dict[str, s.Difference | None]:
    """Candidate minus baseline, paired, with one-sided 95% lower bounds."""
    positive = baseline.labels == 1
    before, after = baseline.decisions == positive, candidate.decisions == positive
    return {
        "auc": s.roc_auc_difference(baseline.scores, candidate.scores, baseline.labels),
        "average_precision": r.average_precision_difference(baseline.scores, candidate.scores, baseline.labels),
        "accuracy": s.paired_share_difference(before, after),
        "sensitivity": s.paired_share_difference(before[positive], after[positive]),
        "specificity": s.paired_share_difference(before[~positive], after[~positive]),
    }


@dataclass(frozen=True)
class FlippedCase:
    """A case whose decision changed; the values are probabilities, or raw scores where there are none."""

    id: str
    label: int
    baseline: float
    candidate: float
    to_positive: bool

    @property
    def now_right(self) -> bool:
        return self.to_positive == (self.label == 1)


def flipped_cases(baseline: Predictions, candidate: Predictions) -> tuple[FlippedCase, ...]:
    """Every case whose decision changed: those that became wrong first, the largest change first."""
    flips = s.flipped_decisions(baseline.decisions, candidate.decisions)
    before, after = shown_values(baseline, candidate)
    cases = [
        FlippedCase(baseline.ids[i], int(baseline.labels[i]), float(before[i]), float(after[i]), to_positive)
        for group, to_positive in ((flips.to_positive, True), (flips.to_negative, False))
        for i in group
    ]
    return tuple(sorted(cases, key=lambda case: (case.now_right, -abs(case.candidate - case.baseline), case.id)))


def shown_values(baseline: Predictions, candidate: Predictions) -> tuple[s.Floats, s.Floats]:
    """What a reader compares case by case: probabilities where both programs have them, raw scores otherwise."""
    if baseline.probabilities is not None and candidate.probabilities is not None:
        return baseline.probabilities, candidate.probabilities
    return baseline.scores, candidate.scores


def shown_threshold(predictions: Predictions, values: s.Floats) -> float:
    """The threshold on the scale that is shown: scores carry it over to probabilities, which rise with them."""
    if values is predictions.scores:
        return float(np.clip(predictions.threshold, values.min(), values.max()))
    order = np.argsort(predictions.scores, kind="stable")
    return float(np.interp(predictions.threshold, predictions.scores[order], values[order]))


def evidence_as_dict(evidence: Evidence) -> dict[str, Any]:
    """Plain values only, keys in a fixed order; `schema` names the format, and a change that breaks readers gets a new
    number."""
    return {
        "schema": SCHEMA,
        "title": evidence.title,
        "created": evidence.created,
        "passed": evidence.passed,
        "forced": evidence.forced,
        "decided_on": evidence.deciding.split,
        "recipe_sha256": evidence.recipe_sha256,
        "labels": list(evidence.labels),
        "limits": asdict(evidence.limits),
        "warnings": list(warnings(evidence.deciding.baseline, evidence.deciding.candidate)),
        "validation": _comparison(evidence, evidence.validation),
        "test": None if evidence.test is None else _comparison(evidence, evidence.test),
        "candidates": [_candidate(candidate) for candidate in evidence.candidates],
        "host": dict(evidence.host),
        "versions": dict(evidence.versions),
        "facts": dict(evidence.facts),
        "method": {"interval": 0.95, "bootstrap_samples": evidence.bootstrap_samples, "seed": evidence.seed},
    }


def encode_evidence(evidence: Evidence) -> bytes:
    """UTF-8 JSON, indented; the same evidence gives the same bytes. Numbers that are not finite are refused."""
    text = json.dumps(evidence_as_dict(evidence), indent=2, allow_nan=False, ensure_ascii=False, default=_plain)
    return text.encode() + b"\n"


def _comparison(evidence: Evidence, part: Comparison) -> dict[str, Any]:
    before, after = part.baseline.predictions, part.candidate.predictions
    differences = compute_differences(before, after)
    return {
        "cases": len(before.ids),
        "positives": before.confusion.positives,
        "negatives": before.confusion.negatives,
        "checks": [asdict(check) for check in part.checks],
        "baseline": _measured(evidence, part.baseline),
        "candidate": _measured(evidence, part.candidate),
        "differences": {name: None if found is None else asdict(found) for name, found in differences.items()},
        "flipped": [asdict(case) for case in flipped_cases(before, after)],
    }


def _measured(evidence: Evidence, measured: Measured) -> dict[str, Any]:
    predictions = measured.predictions
    figures = compute_figures(predictions, samples=evidence.bootstrap_samples, seed=evidence.seed)
    latency, throughput, memory = measured.latency, measured.throughput, measured.memory
    return {
        "name": measured.name,
        "threshold": predictions.threshold,
        "confusion": asdict(predictions.confusion),
        "metrics": {name: None if found is None else asdict(found) for name, found in figures.items()},
        "latency": None
        if latency is None
        else {
            **asdict(summarize_latency(latency)),
            "samples_ms": [round(float(sample), 4) for sample in latency.samples_ms],
            "notes": list(latency.notes),
            "conditions": _conditions(latency.conditions),
        },
        "throughput": None
        if throughput is None
        else {
            "cases_per_s": throughput.cases_per_s,
            "batch": throughput.batch,
            "elapsed_s": throughput.elapsed_s,
            "conditions": _conditions(throughput.conditions),
        },
        "memory": None
        if memory is None
        else {
            "used_bytes": memory.used_bytes,
            "peak_bytes": memory.peak_bytes,
            "baseline_bytes": memory.baseline_bytes,
            "batch": memory.batch,
            "conditions": _conditions(memory.conditions),
        },
        "size": None if measured.size is None else asdict(measured.size),
    }


def _conditions(conditions: Conditions) -> dict[str, Any]:
    return {
        "backend": conditions.backend,
        "precision": conditions.precision,
        "threads": conditions.threads,
        "device": conditions.device,
        "host": dict(conditions.host),
    }


def _candidate(candidate: CandidateRecord) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "chosen": candidate.chosen,
        "outcome": candidate.outcome,
        "settings": dict(candidate.settings),
        "steps": [dict(step) for step in candidate.steps],
        "checks": [asdict(check) for check in candidate.checks],
        "size_bytes": candidate.size_bytes,
        "latency": None if candidate.latency is None else asdict(candidate.latency),
        "auc": candidate.auc,
        "average_precision": candidate.average_precision,
    }


def _plain(value: object) -> object:
    """Steps and settings come from passes, which may put mappings, tuples and numpy's numbers into them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set | frozenset):
        return sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
