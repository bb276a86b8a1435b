"""The measured part of a model card, in Markdown."""

from __future__ import annotations

from core.evidence import statistics as s
from core.evidence.measured import Measured
from core.evidence.report import Comparison, Evidence, compute_figures, summarize_latency


def render_figures(evidence: Evidence) -> str:
    """The section "Measured": metrics of the deciding cases, checks, speed and size, each beside the baseline's."""
    part = evidence.deciding
    lines = ["## Measured", "", _cases(part), "", *_metrics(evidence, part), ""]
    lines += ["Against the unpruned fp32 model, on the same cases:", ""]
    lines += [f"- {check.status}: {check.explanation}" for check in part.checks]
    lines += [
        "",
        *_costs(part),
        "",
        "`evidence.html` in this folder has the curves, the flipped decisions and the method.",
    ]
    return "\n".join(lines) + "\n"


def _cases(part: Comparison) -> str:
    labels = part.candidate.predictions.labels
    count, positives = len(labels), int(labels.sum())
    kind = "test cases, run once, after every choice was made" if part.split == "test" else "validation cases"
    return f"On {count} {kind} ({positives} positive), with 95% intervals:"


def _metrics(evidence: Evidence, part: Comparison) -> list[str]:
    figures = [
        compute_figures(one.predictions, samples=evidence.bootstrap_samples, seed=evidence.seed)
        for one in (part.candidate, part.baseline)
    ]
    rows = [
        f"| {name.replace('_', ' ')} | {_interval(figures[0][name])} | {_interval(figures[1][name])} |"
        for name in figures[0]
        if figures[0][name] is not None
    ]
    return ["| metric | this model | unpruned fp32 |", "|---|---|---|", *rows]


def _interval(found: s.Interval | None) -> str:
    return "-" if found is None else f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


def _costs(part: Comparison) -> list[str]:
    lines = []
    for name, one in (("This model", part.candidate), ("Unpruned fp32", part.baseline)):
        cost = _cost(one)
        if cost:
            lines.append(f"- {name}: {cost}")
    return lines


def _cost(measured: Measured) -> str:
    parts = []
    if measured.latency is not None:
        summary, conditions = summarize_latency(measured.latency), measured.latency.conditions
        threads = "1 thread" if conditions.threads == 1 else f"{conditions.threads} threads"
        parts.append(
            f"{summary.p50_ms:.3g} ms for a batch of {summary.batch} on {conditions.backend}, {threads} (median)"
        )
    if measured.size is not None:
        parts.append(f"{measured.size.bytes:,} bytes")
    return ", ".join(parts)
