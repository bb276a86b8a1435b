"""Pictures of speed, size and sensitivity: pure functions from figures to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from featherweight.core.evidence.judge import all_passed
from featherweight.core.evidence.report import CandidateRecord
from featherweight.core.evidence.reports.svg import Axes, line, number, picture, point, short, text
from featherweight.core.evidence.reports.templates_env import bytes_text, ms_text
from featherweight.core.measure.performance import Latency

_ROW = 18
MAX_BARS = 40


def latency_chart(baseline: Latency | None, candidate: Latency | None) -> Markup | None:
    """Share of runs that took at most so long, time on a log scale; None where neither was measured."""
    measured = [(kind, part) for kind, part in (("baseline", baseline), ("candidate", candidate)) if part is not None]
    if not measured:
        return None
    low = min(float(part.samples_ms.min()) for _, part in measured)
    high = max(float(np.percentile(part.samples_ms, 99.5)) for _, part in measured)
    axes = Axes((low / 1.15, max(high * 1.15, low * 1.5)), (0, 1), log_x=True)
    parts = [axes.draw("milliseconds for one run (log scale)", "share of runs")]
    for kind, part in measured:
        inside = np.sort(part.samples_ms)[: max(2, math.ceil(0.995 * len(part.samples_ms)))]
        keep = np.unique(np.linspace(0, len(inside) - 1, min(len(inside), 400)).astype(int))
        parts.append(axes.path(kind, inside[keep], (keep + 1) / len(part.samples_ms)))
        middle = float(np.median(part.samples_ms))
        parts.append(point(kind, axes.x(middle), axes.y(0.5)))
        near_right = axes.x(middle) > axes.left + axes.width * 0.7
        shift, side = (-9, " end") if near_right else (9, "")
        parts.append(text(axes.x(middle) + shift, axes.y(0.5) + 15, ms_text(middle), kind + side))
    return picture("Distribution of latency of baseline and candidate", parts)


def pareto_chart(
    candidates: Sequence[CandidateRecord], baseline_ms: float | None, margin: float | None
) -> Markup | None:
    """Every candidate's loss over its latency, as large as its file, with its name; the front is
    joined. None where fewer than two candidates were measured."""
    drawn = [
        (one, one.latency.p50_ms, one.loss) for one in candidates if one.latency is not None and one.loss is not None
    ]
    if len(drawn) < 2:
        return None
    times = [ms for _, ms, _ in drawn] + ([baseline_ms] if baseline_ms else [])
    losses = [loss for _, _, loss in drawn] + [0.0] + ([margin] if margin else [])
    # One candidate that lost everything would press all others onto the axis: it is drawn at the edge.
    most = max(3 * margin, float(np.median(losses))) if margin else max(losses)
    low, high = min(losses), min(max(losses), most)
    room = 0.08 * ((high - low) or 0.01)
    axes = Axes((min(times) / 1.25, max(times) * 1.25), (low - room, high + room), log_x=True, left=62, width=380)
    parts = [axes.draw("median latency in milliseconds (log scale)", "loss against the baseline")]
    if margin:
        parts.append(line("margin", axes.left, axes.y(margin), axes.right, axes.y(margin)))
    front = sorted((ms, loss) for one, ms, loss in drawn if one.on_front and loss <= high)
    if len(front) > 1:
        parts.append(axes.path("front", [ms for ms, _ in front], [loss for _, loss in front]))
    if baseline_ms:
        parts.append(point("baseline", axes.x(baseline_ms), axes.y(0), f"baseline, {ms_text(baseline_ms)}", 5))
    largest = max((one.size_bytes or 0 for one, *_ in drawn), default=0) or 1
    for one, ms, loss in sorted(drawn, key=lambda found: found[0].chosen):
        x, y = axes.x(ms), axes.y(min(loss, high + room / 2))
        size = 2.5 + 5 * math.sqrt((one.size_bytes or largest) / largest)
        kept = all_passed(one.checks)
        kind = "candidate chosen" if one.chosen else "candidate kept" if kept else "candidate missed"
        found = bytes_text(one.size_bytes) if one.size_bytes is not None else "size unknown"
        parts.append(point(kind, x, y, f"{one.name}: {ms_text(ms)}, {found}, loss {loss:.4f}; {one.outcome}", size))
        if not kept and not one.chosen:
            parts.append(f'<path class="miss" d="M{short(x - 3)} {short(y - 3)}l6 6m0 -6l-6 6"/>')
        parts.append(text(x + size + 2, y - size, one.name, "label" if one.chosen else ""))
    return picture("Loss and latency of every candidate", parts)


def bars_chart(title: str, values: Mapping[str, float], label: str) -> Markup | None:
    """One bar a name, the largest first; None without values."""
    found = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:MAX_BARS]
    if not found or found[0][1] <= 0:
        return None
    axes = Axes((0, found[0][1] * 1.12), (0, 1), left=170, top=6, width=270, height=_ROW * len(found) + 6)
    parts = [axes.draw_x(label, ticks=4)]
    for index, (name, value) in enumerate(found):
        y = axes.top + 3 + _ROW * index
        parts.append(text(axes.left - 8, y + 13, name if len(name) <= 24 else f"…{name[-23:]}", "label end"))
        width = max(0.0, axes.x(value) - axes.left)
        parts.append(
            f'<rect class="bar" x="{short(axes.left)}" y="{short(y + 3)}" width="{short(width)}" height="{_ROW - 6}">'
            f"<title>{number(round(value, 6))}</title></rect>"
        )
    return picture(title, parts, axes.bottom + (46 if label else 24))
