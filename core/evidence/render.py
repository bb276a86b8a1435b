"""The evidence as a page: self-contained HTML for a browser without network, in dark and light, and for paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.evidence import charts
from core.evidence import resampling as r
from core.evidence import statistics as s
from core.evidence.judge import Check, warnings
from core.evidence.measured import Measured
from core.evidence.pages import bytes_text, ms_text, open_templates
from core.evidence.report import (
    Comparison,
    Evidence,
    FlippedCase,
    compute_differences,
    compute_figures,
    flipped_cases,
    summarize_latency,
)

TIMES = "\N{MULTIPLICATION SIGN}"
MOST_FLIPS = 200
"""Rows of the list of flipped decisions; the JSON has them all."""

METRIC_NAMES = {
    "auc": "AUC (area under the ROC curve)",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier_score": "Brier score (smaller is better)",
    "calibration_error": "Expected calibration error (smaller is better)",
}

CHECK_NAMES = {
    "auc_loss": "Loss of AUC",
    "average_precision_loss": "Loss of average precision",
    "sensitivity_loss": "Loss of sensitivity",
    "specificity_loss": "Loss of specificity",
    "flip_ratio_max": "Changed decisions",
    "latency_ratio_min": "Times as fast",
    "size_ratio_min": "Times smaller",
}


def render_html(evidence: Evidence) -> str:
    """One page without scripts or outside references; all texts escaped. Takes as long as its bootstraps."""
    deciding = evidence.deciding
    splits = [_split(evidence, part) for part in (evidence.test, evidence.validation) if part is not None]
    return (
        open_templates()
        .get_template("evidence.html.j2")
        .render(
            evidence=evidence,
            headline=_headline(evidence),
            warnings=warnings(deciding.baseline, deciding.candidate),
            tiles=_tiles(deciding),
            deciding=deciding,
            splits=splits,
            performance=_performance(_measured_part(evidence)),
            conditions=_conditions(_measured_part(evidence)),
            pictures=_pictures(evidence),
            most_flips=MOST_FLIPS,
            check_names=CHECK_NAMES,
            chosen=evidence.chosen,
        )
    )


@dataclass(frozen=True)
class _Headline:
    good: bool
    text: str
    detail: str


def _headline(evidence: Evidence) -> _Headline:
    parts = [part for part in (evidence.test, evidence.validation) if part is not None]
    missed = [(part.split, check) for part in parts for check in part.checks if check.status != "passed"]
    splits = " and on ".join(f"the {part.split} cases" for part in parts)
    count = len(evidence.deciding.checks)
    if not count:
        return _Headline(False, "Not judged", "The recipe sets no limit, so nothing was decided; the figures follow.")
    if not missed:
        limits = "the limit" if count == 1 else f"all {count} limits"
        return _Headline(True, "Passed", f"The candidate kept {limits} on {splits}.")
    names = "; ".join(f"{_check_name(check)} ({split}: {check.status})" for split, check in missed)
    forced = " It was sealed all the same, because that was asked for by force." if evidence.forced else ""
    return _Headline(False, "Not passed", f"Limits not kept: {names}.{forced}")


def _check_name(check: Check) -> str:
    return CHECK_NAMES.get(check.name, check.name)


@dataclass(frozen=True)
class _Tile:
    value: str
    label: str


def _tiles(part: Comparison) -> list[_Tile]:
    before, after = part.baseline, part.candidate
    tiles = []
    if before.latency and after.latency:
        ratio = r.median_ratio(before.latency.samples_ms, after.latency.samples_ms)
        tiles.append(_Tile(f"{ratio.estimate:.3g}{TIMES}", f"as fast (median, batch {after.latency.batch})"))
    if before.size and after.size:
        tiles.append(
            _Tile(f"{before.size.bytes / after.size.bytes:.3g}{TIMES}", f"smaller: now {bytes_text(after.size.bytes)}")
        )
    # The figure that the recipe limits; with frauds or other rare cases that is the average precision.
    name, figure = "AUC", s.roc_auc
    if any(check.name == "average_precision_loss" for check in part.checks):
        name, figure = "average precision", r.average_precision
    now = figure(after.predictions.scores, after.predictions.labels)
    was = figure(before.predictions.scores, before.predictions.labels)
    if now is not None and was is not None:
        tiles.append(_Tile(f"{now:.4f}", f"{name} on {part.split}, was {was:.4f}"))
    flips = s.flipped_decisions(before.predictions.decisions, after.predictions.decisions)
    tiles.append(_Tile(f"{flips.count}", f"of {len(before.predictions.ids):,} decisions changed"))
    return tiles


@dataclass(frozen=True)
class _MetricRow:
    name: str
    baseline: s.Interval | None
    candidate: s.Interval | None
    difference: float | None
    low: float | None


@dataclass(frozen=True)
class _Split:
    comparison: Comparison
    rows: list[_MetricRow]
    flips: tuple[FlippedCase, ...]
    became_wrong: int


def _split(evidence: Evidence, part: Comparison) -> _Split:
    options = {"samples": evidence.bootstrap_samples, "seed": evidence.seed}
    before = compute_figures(part.baseline.predictions, **options)
    after = compute_figures(part.candidate.predictions, **options)
    bounds = compute_differences(part.baseline.predictions, part.candidate.predictions)
    rows = []
    for key, name in METRIC_NAMES.items():
        old, new, bound = before[key], after[key], bounds.get(key)
        difference = None if old is None or new is None else new.estimate - old.estimate
        rows.append(_MetricRow(name, old, new, difference, None if bound is None else bound.low))
    flips = flipped_cases(part.baseline.predictions, part.candidate.predictions)
    return _Split(part, rows, flips, sum(not case.now_right for case in flips))


def _measured_part(evidence: Evidence) -> Comparison:
    """Where latency was measured: a run on the test cases may have left it out."""
    has_latency = evidence.deciding.candidate.latency is not None
    return evidence.deciding if has_latency else evidence.validation


@dataclass(frozen=True)
class _PerformanceRow:
    name: str
    baseline: str
    candidate: str
    ratio: str


def _performance(part: Comparison) -> list[_PerformanceRow]:
    """Times, memory and sizes side by side; ratios are always 'how many times better'."""
    before, after = part.baseline, part.candidate
    rows = []
    if before.latency and after.latency:
        old, new = summarize_latency(before.latency), summarize_latency(after.latency)
        ratio = r.median_ratio(before.latency.samples_ms, after.latency.samples_ms)
        text = f"{ratio.estimate:.2f}{TIMES} [{ratio.low:.2f}, {ratio.high:.2f}]"
        batch = f"batch {new.batch}"
        rows.append(_PerformanceRow(f"Latency p50, {batch}", ms_text(old.p50_ms), ms_text(new.p50_ms), text))
        for name in ("p95", "p99"):
            was, now = getattr(old, f"{name}_ms"), getattr(new, f"{name}_ms")
            rows.append(_PerformanceRow(f"Latency {name}, {batch}", ms_text(was), ms_text(now), _times(was, now)))
    if before.throughput and after.throughput:
        was, now = before.throughput.cases_per_s, after.throughput.cases_per_s
        name = f"Throughput, batch {after.throughput.batch}"
        rows.append(_PerformanceRow(name, f"{was:,.4g} cases/s", f"{now:,.4g} cases/s", _times(now, was)))
    if before.memory and after.memory:
        was, now = before.memory.used_bytes, after.memory.used_bytes
        rows.append(
            _PerformanceRow("Peak memory above the interpreter", bytes_text(was), bytes_text(now), _times(was, now))
        )
    if before.size and after.size:
        rows.append(_size_row("Program file", before.size.bytes, after.size.bytes))
        rows.append(_size_row("The same, gzipped", before.size.compressed_bytes, after.size.compressed_bytes))
    return rows


def _size_row(name: str, before: int, after: int) -> _PerformanceRow:
    return _PerformanceRow(name, bytes_text(before), bytes_text(after), _times(before, after))


def _times(before: float, after: float) -> str:
    return f"{before / after:.2f}{TIMES}" if after > 0 else "—"


def _conditions(part: Comparison) -> list[_PerformanceRow]:
    """Who was compared, under what; the ratio column stays empty."""

    def words(measured: Measured) -> Mapping[str, str]:
        latency = measured.latency
        found = {"Program": measured.name, "Threshold on the raw score": f"{measured.predictions.threshold:.6g}"}
        if latency is not None:
            c = latency.conditions
            found |= {"Precision": c.precision, "Runtime": c.backend, "Device": c.device, "Threads": str(c.threads)}
            found["Timing"] = "; ".join((f"{len(latency.samples_ms)} runs at batch {latency.batch}", *latency.notes))
        return found

    before, after = words(part.baseline), words(part.candidate)
    names = list(dict.fromkeys([*before, *after]))
    return [_PerformanceRow(name, before.get(name, "—"), after.get(name, "—"), "") for name in names]


def _pictures(evidence: Evidence) -> dict[str, Any]:
    before, after = evidence.deciding.baseline.predictions, evidence.deciding.candidate.predictions
    timed = _measured_part(evidence)
    return {
        "roc": charts.roc_chart(before, after),
        "latency": charts.latency_chart(timed.baseline.latency, timed.candidate.latency),
        "reliability": charts.reliability_chart(before, after),
        "scatter": charts.scatter_chart(before, after),
        "dots": charts.dots_drawn(len(before.ids)),
    }
