"""The evidence as a page: self-contained HTML for a browser without network, in dark and light, and for paper."""

from __future__ import annotations

import hashlib
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
from featherweight.core.evidence.reports.costs import TIMES, CostRow, cost_rows
from featherweight.core.evidence.reports.in_force import describe_in_force
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.evidence.reports.planted import gate_part
from featherweight.core.evidence.reports.population import digest_rows, population_table
from featherweight.core.evidence.reports.templates_env import bytes_text, ms_text, open_templates
from featherweight.core.evidence.reports.words import (
    changed_words,
    choice_sentence,
    energy_methods,
    figure_titles,
    headline,
    limited_figure,
    measured_part,
    methods,
    notes,
    parity_sentence,
    purpose_sentence,
    tells_nothing,
)
from featherweight.core.evidence.subgroups import Subgroups
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics import resampling as r
from featherweight.core.terminal import counted

MAX_SHOWN_FLIPS = 100
"""Rows of the list of changed decisions; evidence.json lists more."""
MAX_CANDIDATES = 12
"""With more, those that are neither chosen nor on the front are folded away."""


def render_html(evidence: Evidence, document: bytes | None = None) -> str:
    """One page without scripts or outside references; all texts escaped. Takes as long as its bootstraps. document:
    what `encode_evidence` gives, where it is at hand; the page tells its digest."""
    digest = hashlib.sha256(encode_evidence(evidence) if document is None else document).hexdigest()
    if tells_nothing(evidence):
        return _render_refusal(evidence, digest)
    deciding, timed = evidence.deciding, measured_part(evidence)
    return (
        open_templates()
        .get_template("evidence.html.j2")
        .render(
            evidence=evidence,
            headline=headline(evidence),
            purpose=purpose_sentence(evidence),
            population=population_table(evidence),
            digest=digest,
            digests=digest_rows(evidence, digest),
            notes=notes(evidence),
            tiles=_tiles(evidence, timed),
            deciding=_split(evidence, deciding),
            validation=_split(evidence, evidence.validation) if evidence.test is not None else None,
            outcomes=compare_outcomes(
                deciding.baseline.predictions, deciding.candidate.predictions, seed=evidence.seed
            ),
            performance=cost_rows(timed, evidence.seed),
            energies=energy_methods(timed),
            conditions=_conditions(timed),
            pictures=_pictures(evidence),
            forests=_forests(evidence),
            group_figures=[metric.name for metric in _group_figures(evidence)],
            sensitivities=_sensitivities(evidence.chosen.steps if evidence.chosen else ()),
            parity=parity_sentence(evidence.parity) if evidence.parity is not None else "",
            gate=gate_part(evidence.gate, deciding.baseline.predictions.cluster_noun),
            choice=choice_sentence(evidence),
            candidates=_candidates(evidence.candidates),
            most_flips=MAX_SHOWN_FLIPS,
            figure_titles=figure_titles(),
            average_precision_limited=evidence.limits.of(AVERAGE_PRECISION) is not None,
            binary=deciding.baseline.predictions.label_kind == "binary",
            methods=methods(evidence),
            chosen=evidence.chosen,
            history=shown_history(evidence),
            in_force=describe_in_force(evidence),
        )
    )


def _render_refusal(evidence: Evidence, digest: str) -> str:
    """The verdict, the limits that were missed, the cases and what was compared; no figure of either model."""
    missed = [check for check in evidence.deciding.checks if check.status != "passed"]
    return (
        open_templates()
        .get_template("refused.html.j2")
        .render(
            evidence=evidence,
            part=evidence.deciding,
            cases=len(evidence.deciding.baseline.predictions.ids),
            headline=headline(evidence),
            purpose=purpose_sentence(evidence),
            missed=missed,
            notes=notes(evidence),
            population=population_table(evidence),
            history=shown_history(evidence),
            conditions=(),
            digest=digest,
            digests=digest_rows(evidence, digest),
        )
    )


@dataclass(frozen=True)
class _Tile:
    value: str
    label: str


def _tiles(evidence: Evidence, timed: Comparison) -> list[_Tile]:
    part = evidence.deciding
    tiles = []
    if timed.baseline.latency and (latency := timed.candidate.latency):
        ratio = r.median_ratio(timed.baseline.latency.samples_ms, latency.samples_ms, seed=evidence.seed)
        quick = ms_text(summarize_latency(latency).p50_ms)
        span = f"as fast [{ratio.low:.3g}, {ratio.high:.3g}]: now {quick} at batch {latency.batch}"
        tiles.append(_Tile(f"{ratio.estimate:.3g}{TIMES}", span))
    if timed.baseline.size and timed.candidate.size:
        old, new = (bytes_text(one.size.compressed_bytes) for one in (timed.baseline, timed.candidate) if one.size)
        tiles.append(_Tile(new, f"as shipped, was {old}"))
    metric, found = limited_figure(evidence), compared(evidence, part)
    now, was = found.candidate.metrics.get(metric.name), found.baseline.metrics.get(metric.name)
    if now is not None and was is not None:
        before, after = (f"[{one.low:.4f}, {one.high:.4f}]" for one in (was, now))
        told = f"{metric.phrase} {after} on the {part.split} cases, was {was.estimate:.4f} {before}"
        tiles.append(_Tile(f"{now.estimate:.4f}", told))
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
    changed: str
    groups: Subgroups


def _split(evidence: Evidence, part: Comparison) -> _Split:
    found = compared(evidence, part)
    rows = []
    for key, old in found.baseline.metrics.items():
        new, bound, metric = found.candidate.metrics[key], found.differences.get(key), metrics.metric_named(key)
        if old is None and new is None and metric.lacks:
            continue
        sign = -1 if metric.direction == "lower" else 1
        # No gain without its bound: what has none shows both figures with their intervals alone.
        known = old is not None and new is not None and bound is not None
        gain = sign * (new.estimate - old.estimate) if known and old is not None and new is not None else None
        rows.append(_MetricRow(metric.row_title, old, new, gain, None if bound is None else bound.low))
    flips = flipped_cases(part.baseline.predictions, part.candidate.predictions)
    limits = [_limit_row(part, check) for check in part.checks]
    return _Split(part, limits, rows, flips, changed_words(flips), subgroups(evidence, part))


def _limit_row(part: Comparison, check: Check) -> _LimitRow:
    of = part.baseline.predictions
    numbers = {"all": len(of.ids), **{name: int(inside.sum()) for name, inside in of.strata}}
    # Of several classes those of the worst one stand in the explanation.
    counted_on = "all" if of.label_kind != "binary" and check.metric.counted else check.metric.counted
    cases = "" if counted_on is None else f"{numbers[counted_on]:,}"
    return _LimitRow(check, cases, charts.margin_chart(check))


def _conditions(part: Comparison) -> list[CostRow]:
    """Who was compared, under what."""

    def words(measured: Measured) -> Mapping[str, str]:
        latency = measured.latency
        found = {"Program": measured.name}
        if measured.predictions.label_kind == "binary":
            found["Threshold on the raw score"] = f"{measured.predictions.threshold:.6g}"
        if latency is not None:
            c = latency.conditions
            found |= {"Precision": c.precision, "Runtime": c.backend, "Device": c.device, "Threads": str(c.threads)}
            found["Timing"] = "; ".join(
                (f"{counted(len(latency.samples_ms), 'runs')} at batch {latency.batch}", *latency.notes)
            )
        return found

    before, after = words(part.baseline), words(part.candidate)
    names = list(dict.fromkeys([*before, *after]))
    return [CostRow(name, before.get(name, "—"), after.get(name, "—")) for name in names]


def _pictures(evidence: Evidence) -> dict[str, Any]:
    part, timed = evidence.deciding, measured_part(evidence)
    before, after = part.baseline.predictions, part.candidate.predictions
    found = compared(evidence, part)
    if before.label_kind != "binary":
        reliable = charts.reliability_chart(found.baseline.reliability, found.candidate.reliability)
        return {"curves": [], "reliability": reliable, "slopes": _slopes(found), **_cost_pictures(evidence, timed)}
    curves = {
        "roc": charts.roc_chart(found, before, after),
        "precision_recall": charts.precision_recall_chart(found, before, after),
    }
    rare = before.confusion.positives < charts.RARE * len(before.ids)
    return {
        "curves": list(reversed(curves.items())) if rare else list(curves.items()),
        "reliability": charts.reliability_chart(found.baseline.reliability, found.candidate.reliability),
        "corner": charts.has_corner(found),
        "slopes": _slopes(found),
        "scatter": charts.scatter_chart(before, after),
        "thinned": max(before.confusion.positives, before.confusion.negatives) > charts.MAX_DOTS,
        **_cost_pictures(evidence, timed),
    }


def _cost_pictures(evidence: Evidence, timed: Comparison) -> dict[str, Any]:
    latency = timed.baseline.latency
    return {
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


def _candidates(candidates: Sequence[CandidateRecord]) -> list[tuple[str, list[CandidateRecord]]]:
    """Title and rows of each table."""
    if len(candidates) <= MAX_CANDIDATES:
        return [("", list(candidates))] if candidates else []
    best = [one for one in candidates if one.chosen or one.on_front]
    others = [one for one in candidates if not (one.chosen or one.on_front)]
    return [("", best), (f"The other {len(others)}", others)]
