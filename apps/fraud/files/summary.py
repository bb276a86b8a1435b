"""What a scored file comes to: counts, times and the highest scores."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.features.histories import CONFLICT, NEW
from featherweight.apps.fraud.files.readers import RejectedRow
from featherweight.apps.fraud.transactions import Decision
from featherweight.core.terminal import counted

TOP = 5


_BIN_NS, _BINS = 100, 20_000


class Latencies:
    """Nanoseconds in bins of a tenth of a microsecond, up to 2 milliseconds: bounded, however long the input is."""

    def __init__(self) -> None:
        self._counts = [0] * (_BINS + 1)

    def add(self, ns: int) -> None:
        """Count one, in nanoseconds."""
        self._counts[min(ns // _BIN_NS, _BINS)] += 1

    def percentile_us(self, percent: float) -> float:
        """Microseconds; 0 without any, 2000 for all above."""
        total = np.cumsum(self._counts)
        return int(np.searchsorted(total, total[-1] * percent / 100)) * _BIN_NS / 1000


@dataclass
class Tally:
    """Rows of one source: all of them, and those that were rejected."""

    rows: int = 0
    rejected: int = 0


@dataclass
class Summary:
    """What a run did. in_order: whether the transactions were in the order of time; labelled: whether there are labels;
    labels_waiting: those that are not due by the last transaction; highest: (probability, minus the transaction's
    number in the input, decision) of the TOP alerts, as a heap; first_rejected: a few."""

    model: str
    in_order: bool = True
    labelled: bool = False
    seconds: float = 0.0
    transactions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    conflicts: int = 0
    late: int = 0
    unread: Unread = field(default_factory=Unread)
    labels: int = 0
    labels_unknown: int = 0
    labels_in_conflict: int = 0
    labels_waiting: int = 0
    evicted: int = 0
    transaction_rows: Tally = field(default_factory=Tally)
    label_rows: Tally = field(default_factory=Tally)
    first_rejected: list[RejectedRow] = field(default_factory=list)
    rejected_file: Path | None = None
    latencies: Latencies = field(default_factory=Latencies)
    reasons: Counter[str] = field(default_factory=Counter)
    highest: list[tuple[float, int, Decision]] = field(default_factory=list)

    def decided(self, number: int, decision: Decision) -> None:
        """Count a decision; number: its row in the output."""
        self.transactions += 1
        self.outcomes[decision.outcome] += 1
        self.duplicates += decision.duplicate
        self.conflicts += decision.conflict
        self.late += decision.late
        if decision.outcome != "approve":
            self.reasons.update(reason.feature for reason in decision.reasons)
            put = heapq.heappush if len(self.highest) < TOP else heapq.heappushpop
            put(self.highest, (decision.probability or 0.0, -number, decision))

    @property
    def rejected(self) -> int:
        """Rows of transactions and of labels that were not read."""
        return self.transaction_rows.rejected + self.label_rows.rejected

    def count_label(self, known: int) -> None:
        """known: what `apply_label` returned for the label."""
        self.labels += 1
        self.labels_unknown += known == NEW
        self.labels_in_conflict += known == CONFLICT


def render_summary(summary: Summary) -> str:
    """For a person. Names decisions by their number in the output only."""
    rate = summary.transactions / summary.seconds if summary.seconds else 0.0
    lines = [
        f"{counted(summary.transactions, 'transactions')} in {summary.seconds:.1f} s ({rate:,.0f}/s) by "
        f"{summary.model}",
        "  " + ", ".join(f"{name} {summary.outcomes[name]:,}" for name in ("approve", "review", "decline")),
        f"  features, score and decision of one: p50 {summary.latencies.percentile_us(50):.1f}, "
        f"p99 {summary.latencies.percentile_us(99):.1f} microseconds",
    ]
    if not summary.in_order:
        lines.append("  not in the order of time: sorted for the histories; decisions are in the order of the input")
    if summary.late:
        lines.append(
            f"  {summary.late:,} late: more than a day after younger ones of their customer or terminal; what their "
            "windows held may be forgotten in part"
        )
    if summary.duplicates:
        lines.append(f"  {summary.duplicates:,} seen before: answered, not counted again")
    if summary.conflicts:
        lines.append(
            f"  {summary.conflicts:,} in conflict: the id of another one, with another amount, customer, terminal or "
            "time"
        )
    if summary.unread.rows:
        lines.append(f"  {summary.unread}")
    if summary.evicted:
        lines.append(
            f"  {counted(summary.evicted, 'histories')} forgotten, the least recent: more than --max-histories"
        )
    if summary.labelled:
        waiting = f"; {summary.labels_waiting:,} not due yet" if summary.labels_waiting else ""
        lines.append(
            f"  {counted(summary.labels, 'labels')} became known, {summary.labels_unknown:,} of unknown "
            f"transactions{waiting}"
        )
    if summary.labels_in_conflict:
        lines.append(
            f"  {counted(summary.labels_in_conflict, 'labels')} not as their transaction: with another customer, "
            "terminal or time (time_ms is the transaction's own, and says when the label counts), or only one of the "
            "customer's and the terminal's history still has it"
        )
    if summary.reasons:
        found = ", ".join(f"{name} {count:,}" for name, count in summary.reasons.most_common(TOP))
        lines.append(f"  alerts' most frequent reasons: {found}")
        lines.append("  the strongest, by their row in the output:")
    lines += [_render_alert(-number, decision) for _, number, decision in sorted(summary.highest, reverse=True)]
    if summary.rejected:
        lines.append(
            f"  {counted(summary.rejected, 'rows')} rejected"
            + (f": {summary.rejected_file}" if summary.rejected_file else "")
        )
        lines += [f"    {row}" for row in summary.first_rejected]
    return "\n".join(lines)


def _render_alert(number: int, decision: Decision) -> str:
    values = {r.feature: "unknown" if r.value is None else f"{r.value:g}" for r in decision.reasons}
    reasons = ", ".join(f"{r.feature} {values[r.feature]} ({r.effect:+.2f})" for r in decision.reasons)
    probability = "without a score" if decision.probability is None else f"{decision.probability:.3f}"
    return f"    row {number:,}: {decision.outcome} {probability} {reasons}".rstrip()
