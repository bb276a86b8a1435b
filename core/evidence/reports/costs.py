"""Times, memory, sizes, energy and cost of baseline and candidate side by side, for the page."""

from __future__ import annotations

from dataclasses import dataclass

from featherweight.core.arrays import Floats
from featherweight.core.evidence.report import Comparison, summarize_latency
from featherweight.core.evidence.reports.templates_env import bytes_text, joules_text, ms_text
from featherweight.core.evidence.reports.words import PROVENANCES
from featherweight.core.measure.energy import Energy
from featherweight.core.statistics import resampling as r

TIMES = "\N{MULTIPLICATION SIGN}"
NO_INTERVAL = "measured once"
"""In place of a gain that has no interval."""


@dataclass(frozen=True)
class CostRow:
    """ratio: how many times better, with its 95% interval; without one only of what was counted."""

    name: str
    baseline: str
    candidate: str
    ratio: str = ""


def cost_rows(part: Comparison, seed: int) -> list[CostRow]:
    """Rows of all that was measured of both."""
    before, after = part.baseline, part.candidate
    rows = []
    if before.latency and after.latency:
        old, new = summarize_latency(before.latency), summarize_latency(after.latency)
        for name, quantile in (("p50", 50), ("p95", 95), ("p99", 99)):
            was, now = (ms_text(getattr(one, f"{name}_ms")) for one in (old, new))
            ratio = _quantile_ratio(before.latency.samples_ms, after.latency.samples_ms, quantile, seed)
            rows.append(CostRow(f"Latency {name}, batch {new.batch}", was, now, ratio))
    if before.throughput and after.throughput:
        was, now = (f"{one.cases_per_s:,.4g} cases/s" for one in (before.throughput, after.throughput))
        rows.append(CostRow(f"Throughput, batch {after.throughput.batch}", was, now, NO_INTERVAL))
    if before.memory and after.memory:
        was, now = (bytes_text(one.used_bytes) for one in (before.memory, after.memory))
        rows.append(CostRow("Peak memory above the interpreter", was, now, NO_INTERVAL))
    if before.size and after.size:
        rows.append(_size_row("Program, as shipped", before.size.compressed_bytes, after.size.compressed_bytes))
        rows.append(_size_row("The same, unpacked", before.size.bytes, after.size.bytes))
    if before.energy or after.energy:
        rows.append(_energy_row(before.energy, after.energy))
    if before.cost_per_million is not None or after.cost_per_million is not None:
        was, now = ("—" if one is None else f"{one:,.4g}" for one in (before.cost_per_million, after.cost_per_million))
        rows.append(CostRow("A million decisions, in the price's unit", was, now, NO_INTERVAL))
    return rows


def _quantile_ratio(before: Floats, after: Floats, quantile: int, seed: int) -> str:
    ratio = r.quantile_ratio(before, after, quantile, seed=seed)
    return f"{ratio.estimate:.2f}{TIMES} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _size_row(name: str, before: int, after: int) -> CostRow:
    saved = before - after
    told = f"{abs(saved):,} bytes {'less' if saved >= 0 else 'more'}, counted"
    return CostRow(name, bytes_text(before), bytes_text(after), told)


def _energy_row(before: Energy | None, after: Energy | None) -> CostRow:
    """A ratio only of two figures that come from the same kind of source and have intervals: it reaches from the ends
    that are worst for the candidate to those that are best for it."""

    def words(energy: Energy | None) -> str:
        if energy is None:
            return "not measured"
        if energy.joules is None:
            return PROVENANCES[energy.provenance]
        span = f" [{joules_text(energy.low)}, {joules_text(energy.high)}]" if energy.low and energy.high else ""
        return f"{joules_text(energy.joules)}{span}\n{PROVENANCES[energy.provenance]}"

    ratio = "—"
    if before and after and before.joules and after.joules:
        if before.provenance != after.provenance:
            ratio = "not comparable"
        elif before.low and before.high and after.low and after.high:
            ends = f"[{before.low / after.high:.2f}, {before.high / after.low:.2f}]"
            ratio = f"{before.joules / after.joules:.2f}{TIMES} {ends}"
        else:
            ratio = NO_INTERVAL
    return CostRow("Energy of a case", words(before), words(after), ratio)
