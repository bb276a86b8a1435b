"""The evidence as a page: self-contained HTML for a browser without network, in dark and light, and for paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from featherweight.core.evidence import metrics
from featherweight.core.evidence.figures import Compared
from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.metrics import AVERAGE_PRECISION
from featherweight.core.evidence.outcomes import compare_outcomes
from featherweight.core.evidence.predictions import Measured, changed_outcomes
from featherweight.core.evidence.report import (
    CandidateRecord,
    Comparison,
    Evidence,
    FlippedCase,
    Step,
    compared,
    flipped_cases,
    subgroups,
    summarize_latency,
)
from featherweight.core.evidence.reports import charts, cost_charts
from featherweight.core.evidence.reports.case_history import shown_history
from featherweight.core.evidence.reports.planted import gate_part
from featherweight.core.evidence.reports.templates_env import bytes_text, joules_text, ms_text, open_templates
from featherweight.core.evidence.reports.words import (
    PROVENANCES,
    choice_sentence,
    energy_methods,
    figure_titles,
    headline,
    limited_figure,
    measured_part,
    methods,
    notes,
    parity_sentence,
)
from featherweight.core.evidence.subgroups import Subgroups
from featherweight.core.measure.energy import Energy
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics import resampling as r
from featherweight.core.terminal import counted

TIMES = "\N{MULTIPLICATION SIGN}"
MAX_SHOWN_FLIPS = 100
"""Rows of the list of changed decisions; evidence.json lists more."""
MAX_CANDIDATES = 12
"""With more, those that are neither chosen nor on the front are folded away."""


def render_html(evidence: Evidence) -> str:
    """One page without scripts or outside references; all texts escaped. Takes as long as its bootstraps."""
    deciding, timed = evidence.deciding, measured_part(evidence)
    return (
        open_templates()
        .get_template("evidence.html.j2")
        .render(
            evidence=evidence,
            headline=headline(evidence),
            notes=notes(evidence),
            tiles=_tiles(evidence, timed),
            deciding=_split(evidence, deciding),
            validation=_split(evidence, evidence.validation) if evidence.test is not None else None,
            outcomes=compare_outcomes(
                deciding.baseline.predictions, deciding.candidate.predictions, seed=evidence.seed
            ),
            performance=_performance(timed, evidence.seed),
            energies=energy_methods(timed),
            conditions=_conditions(timed),
            pictures=_pictures(evidence),
            forests=_forests(evidence),
            group_figures=[metric.name for metric in _group_figures(evidence)],
            sensitivities=_sensitivities(evidence.chosen.steps if evidence.chosen else ()),
            parity=parity_sentence(evidence.parity) if evidence.parity is not None else "",
            gate=gate_part(evidence.gate),
            choice=choice_sentence(evidence),
            candidates=_candidates(evidence.candidates),
            most_flips=MAX_SHOWN_FLIPS,
            figure_titles=figure_titles(),
            average_precision_limited=evidence.limits.of(AVERAGE_PRECISION) is not None,
            methods=methods(evidence),
            chosen=evidence.chosen,
            history=shown_history(evidence),
        )
    )


@dataclass(frozen=True)
class _Tile:
    value: str
    label: str


def _tiles(evidence: Evidence, timed: Comparison) -> list[_Tile]:
    part = evidence.deciding
    before, after = timed.baseline, timed.candidate
    tiles = []
    if before.latency and after.latency:
        ratio = r.median_ratio(before.latency.samples_ms, after.latency.samples_ms, seed=evidence.seed)
        quick = ms_text(summarize_latency(after.latency).p50_ms)
        tiles.append(_Tile(f"{ratio.estimate:.3g}{TIMES}", f"as fast: now {quick} at batch {after.latency.batch}"))
    if before.size and after.size:
        smaller = f"{before.size.compressed_bytes / after.size.compressed_bytes:.3g}{TIMES}"
        tiles.append(_Tile(smaller, f"smaller: now {bytes_text(after.size.compressed_bytes)}"))
    metric, found = limited_figure(evidence), compared(evidence, part)
    now, was = found.candidate.metrics.get(metric.name), found.baseline.metrics.get(metric.name)
    if now is not None and was is not None:
        tiles.append(_Tile(f"{now.estimate:.4f}", f"{metric.phrase} on the {part.split} cases, was {was.estimate:.4f}"))
    flips = changed_outcomes(part.baseline.predictions, part.candidate.predictions)
    tiles.append(_Tile(f"{flips.count:,}", f"of {counted(len(part.baseline.predictions.ids), 'decisions')} changed"))
    return tiles


@dataclass(frozen=True)
class _LimitRow:
    """cases: those that the limit is judged on."""

    check: Check
    cases: str
    picture: Markup | None


@dataclass(frozen=True)
class _MetricRow:
    name: str
    baseline: s.Interval | None
    candidate: s.Interval | None
    gain: float | None
    low: float | None


@dataclass(frozen=True)
class _Split:
    comparison: Comparison
    limits: list[_LimitRow]
    metrics: list[_MetricRow]
    flips: tuple[FlippedCase, ...]
    became_wrong: int
    groups: Subgroups


def _split(evidence: Evidence, part: Comparison) -> _Split:
    found = compared(evidence, part)
    rows = []
    for key, old in found.baseline.metrics.items():
        new, bound, metric = found.candidate.metrics[key], found.differences.get(key), metrics.metric_named(key)
        if old is None and new is None and metric.lacks:
            continue
        sign = -1 if metric.direction == "lower" else 1
        gain = None if old is None or new is None else sign * (new.estimate - old.estimate)
        rows.append(_MetricRow(metric.row_title, old, new, gain, None if bound is None else bound.low))
    flips = flipped_cases(part.baseline.predictions, part.candidate.predictions)
    wrong = sum(not case.now_right for case in flips)
    limits = [_limit_row(part, check) for check in part.checks]
    return _Split(part, limits, rows, flips, wrong, subgroups(evidence, part))


def _limit_row(part: Comparison, check: Check) -> _LimitRow:
    counts = part.baseline.predictions.confusion
    numbers = {
        "all": counts.positives + counts.negatives,
        "positive": counts.positives,
        "negative": counts.negatives,
    }
    cases = "" if check.metric.counted is None else f"{numbers[check.metric.counted]:,}"
    return _LimitRow(check, cases, charts.margin_chart(check))


@dataclass(frozen=True)
class _Row:
    name: str
    baseline: str
    candidate: str
    ratio: str = ""


def _performance(part: Comparison, seed: int) -> list[_Row]:
    """Times, memory, sizes, energy and cost side by side; ratios are always 'how many times better'."""
    before, after = part.baseline, part.candidate
    rows = []
    if before.latency and after.latency:
        old, new = summarize_latency(before.latency), summarize_latency(after.latency)
        ratio = r.median_ratio(before.latency.samples_ms, after.latency.samples_ms, seed=seed)
        text = f"{ratio.estimate:.2f}{TIMES} [{ratio.low:.2f}, {ratio.high:.2f}]"
        batch = f"batch {new.batch}"
        rows.append(_Row(f"Latency p50, {batch}", ms_text(old.p50_ms), ms_text(new.p50_ms), text))
        for name in ("p95", "p99"):
            was, now = getattr(old, f"{name}_ms"), getattr(new, f"{name}_ms")
            rows.append(_Row(f"Latency {name}, {batch}", ms_text(was), ms_text(now), _times(was, now)))
    if before.throughput and after.throughput:
        was, now = before.throughput.cases_per_s, after.throughput.cases_per_s
        name = f"Throughput, batch {after.throughput.batch}"
        rows.append(_Row(name, f"{was:,.4g} cases/s", f"{now:,.4g} cases/s", _times(now, was)))
    if before.memory and after.memory:
        was, now = before.memory.used_bytes, after.memory.used_bytes
        rows.append(_Row("Peak memory above the interpreter", bytes_text(was), bytes_text(now), _times(was, now)))
    if before.size and after.size:
        rows.append(_size_row("Program, as shipped", before.size.compressed_bytes, after.size.compressed_bytes))
        rows.append(_size_row("The same, unpacked", before.size.bytes, after.size.bytes))
    if before.energy or after.energy:
        rows.append(_energy_row(before.energy, after.energy))
    if before.cost_per_million is not None or after.cost_per_million is not None:
        rows.append(_cost_row(before.cost_per_million, after.cost_per_million))
    return rows


def _size_row(name: str, before: int, after: int) -> _Row:
    return _Row(name, bytes_text(before), bytes_text(after), _times(before, after))


def _energy_row(before: Energy | None, after: Energy | None) -> _Row:
    """A ratio only of two figures that come from the same kind of source."""

    def words(energy: Energy | None) -> str:
        if energy is None:
            return "not measured"
        if energy.joules is None:
            return PROVENANCES[energy.provenance]
        span = f" [{joules_text(energy.low)}, {joules_text(energy.high)}]" if energy.low and energy.high else ""
        return f"{joules_text(energy.joules)}{span}\n{PROVENANCES[energy.provenance]}"

    ratio = "—"
    if before and after and before.joules and after.joules:
        same = before.provenance == after.provenance
        ratio = _times(before.joules, after.joules) if same else "not comparable"
    return _Row("Energy of a case", words(before), words(after), ratio)


def _cost_row(before: float | None, after: float | None) -> _Row:
    was, now = ("—" if cost is None else f"{cost:,.4g}" for cost in (before, after))
    return _Row(
        "A million decisions, in the price's unit", was, now, _times(before, after) if before and after else "—"
    )


def _times(before: float, after: float) -> str:
    return f"{before / after:.2f}{TIMES}" if after > 0 else "—"


def _conditions(part: Comparison) -> list[_Row]:
    """Who was compared, under what."""

    def words(measured: Measured) -> Mapping[str, str]:
        latency = measured.latency
        found = {"Program": measured.name, "Threshold on the raw score": f"{measured.predictions.threshold:.6g}"}
        if latency is not None:
            c = latency.conditions
            found |= {"Precision": c.precision, "Runtime": c.backend, "Device": c.device, "Threads": str(c.threads)}
            found["Timing"] = "; ".join(
                (f"{counted(len(latency.samples_ms), 'runs')} at batch {latency.batch}", *latency.notes)
            )
        return found

    before, after = words(part.baseline), words(part.candidate)
    names = list(dict.fromkeys([*before, *after]))
    return [_Row(name, before.get(name, "—"), after.get(name, "—")) for name in names]


def _pictures(evidence: Evidence) -> dict[str, Any]:
    part, timed = evidence.deciding, measured_part(evidence)
    before, after = part.baseline.predictions, part.candidate.predictions
    found = compared(evidence, part)
    curves = {
        "roc": charts.roc_chart(found, before, after),
        "precision_recall": charts.precision_recall_chart(found, before, after),
    }
    rare = before.confusion.positives < charts.RARE * len(before.ids)
    latency = timed.baseline.latency
    return {
        "curves": list(reversed(curves.items())) if rare else list(curves.items()),
        "reliability": charts.reliability_chart(found.baseline.reliability, found.candidate.reliability),
        "corner": charts.has_corner(found),
        "slopes": _slopes(found),
        "scatter": charts.scatter_chart(before, after),
        "thinned": max(before.confusion.positives, before.confusion.negatives) > charts.MAX_DOTS,
        "latency": cost_charts.latency_chart(latency, timed.candidate.latency),
        "pareto": cost_charts.pareto_chart(
            evidence.candidates,
            None if latency is None else summarize_latency(latency).p50_ms,
            evidence.limits.of(limited_figure(evidence)),
        ),
    }


def _slopes(found: Compared) -> str:
    """Cox's recalibration in words, where it could be fitted."""
    words = []
    for name, program in (("baseline", found.baseline), ("candidate", found.candidate)):
        known = program.reliability
        if known is not None and known.slope is not None and known.intercept is not None:
            low, high = known.slope.low, known.slope.high
            words.append(f"{name} {known.slope.estimate:.2f} [{low:.2f}, {high:.2f}], {known.intercept.estimate:+.2f}")
    return f"Slope and intercept (1 and 0 are perfect): {'; '.join(words)}." if words else ""


def _forests(evidence: Evidence) -> list[Markup]:
    """One picture for each figure of the groups that the recipe limits, or for one where it limits none of them."""
    part = evidence.deciding
    rows, whole = subgroups(evidence, part).rows, compared(evidence, part).differences
    found = _group_figures(evidence)
    limited = [metric for metric in found if evidence.limits.of(metric) is not None]
    pictures = [charts.forest_chart(rows, metric, whole.get(metric.name)) for metric in limited or found[:1]]
    return [picture for picture in pictures if picture is not None]


def _group_figures(evidence: Evidence) -> list[Metric]:
    """The limited ones first."""
    rows = subgroups(evidence, evidence.deciding).rows
    names = dict.fromkeys(figure.name for row in rows for figure in row.figures)
    return sorted(map(metrics.metric_named, names), key=lambda metric: evidence.limits.of(metric) is None)


def _sensitivities(steps: Sequence[Step]) -> list[tuple[str, Markup]]:
    """A picture for every fact of a step that tells of each layer how much it matters or errs."""
    found = []
    for step in steps:
        facts = step.get("facts")
        for key, fact in facts.items() if isinstance(facts, Mapping) else ():
            if isinstance(fact, Mapping) and any(word in key for word in ("sensitivity", "error")):
                values = {str(name): value for name, one in fact.items() if (value := _amount(one)) is not None}
                title = f"{step.get('name')}: {str(key).replace('_', ' ')}"
                curves = any(isinstance(one, Mapping) for one in fact.values())
                label = "change of the outputs when half of the channels go" if curves else ""
                picture = cost_charts.bars_chart(title, values, label)
                found += [(title, picture)] if picture is not None else []
    return found


def _amount(found: object) -> float | None:
    """A number, or of what narrowing a layer costs (`channels` falling, `damage`) the damage at half of them."""
    if isinstance(found, int | float):
        return float(found)
    if isinstance(found, Mapping) and found.get("channels") and found.get("damage"):
        channels, damage = found["channels"], found["damage"]
        return float(np.interp(-channels[0] / 2, [-count for count in channels], damage))
    return None


def _candidates(candidates: Sequence[CandidateRecord]) -> list[tuple[str, list[tuple[int, CandidateRecord]]]]:
    """Title and rows of each table, every candidate with its number in the picture."""
    rows = list(enumerate(candidates, 1))
    if len(rows) <= MAX_CANDIDATES:
        return [("", rows)] if rows else []
    best = [(place, one) for place, one in rows if one.chosen or one.on_front]
    others = [(place, one) for place, one in rows if not (one.chosen or one.on_front)]
    return [("", best), (f"The other {len(others)}", others)]
