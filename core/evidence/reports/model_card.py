"""The measured part of a model card, in Markdown."""

from __future__ import annotations

from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.report import Comparison, Evidence, compared, subgroups, summarize_latency
from featherweight.core.evidence.reports.planted import gate_sentence
from featherweight.core.evidence.reports.population import population_table
from featherweight.core.evidence.reports.templates_env import joules_text, markdown_text
from featherweight.core.evidence.reports.words import (
    PROVENANCES,
    headline,
    limit_text,
    notes,
    numbers,
    parity_sentence,
    purpose_sentence,
)
from featherweight.core.statistics import intervals as s
from featherweight.core.terminal import counted


def render_figures(evidence: Evidence) -> str:
    """The section "Measured": verdict, limits and notes; then cases, metrics, speed and size beside the baseline's."""
    part, found = evidence.deciding, headline(evidence)
    lines = ["## Measured", "", f"{markdown_text(evidence.title)}. {markdown_text(purpose_sentence(evidence))}.", ""]
    lines += [f"**{found.text}.** {markdown_text(found.detail)}", ""]
    if part.checks:
        lines += ["| what must not get worse | verdict | seen | at worst (95%) | limit |", "|---|---|---|---|---|"]
        lines += [_limit_row(check) for check in part.checks]
        lines += ["", *(f"- {check.status}: {markdown_text(check.explanation)}" for check in part.checks), ""]
    lines += [f"**Note.** {markdown_text(note)}\n" for note in notes(evidence)]
    lines += [*_population(evidence), "", _cases(evidence, part), "", *_metrics(evidence, part), ""]
    lines += [
        *_costs(part),
        *_beyond(evidence, part),
        "",
        "`evidence.html` in this folder has the curves, the flipped decisions and the method; `CHANGE_RECORD.md` tells "
        "what changed, how it was checked and what that means.",
    ]
    return "\n".join(lines) + "\n"


def _limit_row(check: Check) -> str:
    seen, found, limit = (limit_text(check, value) for value in (check.seen, check.found, check.limit))
    sign = "≥" if check.rule.kind == "min" else "≤"
    seen = "-" if check.seen is None else seen
    return f"| {markdown_text(check.rule.title)} | {check.status} | {seen} | {found} | {sign} {limit} |"


def _population(evidence: Evidence) -> list[str]:
    table, statement = population_table(evidence), evidence.statement
    lines = [f"| | {' | '.join(table.splits)} |", "|---" * (1 + len(table.splits)) + "|"]
    lines += [f"| {markdown_text(name)} | {' | '.join(map(markdown_text, amounts))} |" for name, amounts in table.rows]
    standard = statement.reference_standard or "not stated by the task"
    source = f" ({markdown_text(statement.reference_source)})" if statement.reference_source else ""
    return [*lines, "", f"Reference standard: {markdown_text(standard)}{source}."]


def _cases(evidence: Evidence, part: Comparison) -> str:
    labels = part.candidate.predictions.labels
    count, positives = len(labels), int(labels.sum())
    tested = "test cases, run once in this run, after every choice was made"
    kind = tested if part.split == "test" else "validation cases"
    if part.baseline.predictions.label_kind != "binary":
        return f"On {count} {kind} ({markdown_text(numbers(evidence, part))}), with 95% intervals:"
    return f"On {count} {kind} ({positives} positive), with 95% intervals:"


def _metrics(evidence: Evidence, part: Comparison) -> list[str]:
    found = compared(evidence, part)
    rows = [
        f"| {name.replace('_', ' ')} | {_interval(figure)} | {_interval(found.baseline.metrics[name])} |"
        for name, figure in found.candidate.metrics.items()
        if figure is not None
    ]
    return ["| metric | this model | unpruned fp32 |", "|---|---|---|", *rows]


def _interval(found: s.Interval | None) -> str:
    return "-" if found is None else f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


def _costs(part: Comparison) -> list[str]:
    lines = []
    for name, one in (("This model", part.candidate), ("Unpruned fp32", part.baseline)):
        cost = _cost(one)
        if cost:
            lines.append(f"- {name}: {markdown_text(cost)}")
    return lines


def _beyond(evidence: Evidence, part: Comparison) -> list[str]:
    """Calibration, groups, parity and planted faults, a line each where they are known."""
    lines = []
    reliability = compared(evidence, part).candidate.reliability
    if reliability is not None and reliability.slope is not None and reliability.intercept is not None:
        slope, intercept = reliability.slope, reliability.intercept
        lines.append(f"- Calibration slope {_interval(slope)}, intercept {_interval(intercept)}; 1 and 0 are perfect.")
    groups = subgroups(evidence, part)
    if groups.rows:
        worse = [markdown_text(f"{row.column} {row.value}") for row in groups.rows if row.status == "shown worse"]
        lines.append(
            f"- Groups: {len(groups.rows)} compared with the baseline, shown worse: {', '.join(worse) or 'none'}."
        )
    if evidence.parity is not None:
        lines.append(f"- {markdown_text(parity_sentence(evidence.parity))}")
    if evidence.gate is not None:
        lines.append(f"- Would the limits notice? {markdown_text(gate_sentence(evidence.gate))}")
    return lines


def _cost(measured: Measured) -> str:
    parts = []
    if measured.latency is not None:
        summary, conditions = summarize_latency(measured.latency), measured.latency.conditions
        threads = counted(conditions.threads, "threads")
        parts.append(
            f"{summary.p50_ms:.3g} ms for a batch of {summary.batch} on {conditions.backend}, {threads} (median)"
        )
    if measured.size is not None:
        parts.append(f"{measured.size.compressed_bytes:,} bytes as shipped")
    energy = measured.energy
    if energy is not None and energy.joules is not None:
        parts.append(f"{joules_text(energy.joules)} a case ({PROVENANCES[energy.provenance]})")
    if measured.cost_per_million is not None:
        parts.append(f"{measured.cost_per_million:,.4g} a million decisions, in the unit of the stated price")
    return ", ".join(parts)
