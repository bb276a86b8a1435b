"""Pictures of how two programs decide the same cases: pure functions from figures to inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from featherweight.core.arrays import Indices
from featherweight.core.evidence.figures import Band, Compared, Reliability
from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.report import shown_threshold, shown_values
from featherweight.core.evidence.reports.svg import MINUS, WIDTH, Axes, dots, line, picture, point, short, text
from featherweight.core.evidence.subgroups import Subgroup
from featherweight.core.statistics import intervals as s
from featherweight.core.terminal import counted

MAX_DOTS = 600
"""Dots of each class in the scatter, beyond the flipped ones: a page of 50,000 dots would not open."""
MAX_CROSSES = 300
MAX_NAMED = 40
"""With more crosses they have no names to point at."""
RARE = 0.1
"""Below this share of positives precision and recall tell more than a ROC curve (Saito & Rehmsmeier 2015)."""
_ROW = 22
_FINDINGS = {"not worse": "kept", "worse, not shown": "doubted", "shown worse": "missed"}


def roc_chart(compared: Compared, baseline: Predictions, candidate: Predictions) -> Markup | None:
    """Both ROC curves with bands and operating points, and the upper left corner enlarged; None without curves."""
    bands = [("baseline", compared.baseline.roc, baseline), ("candidate", compared.candidate.roc, candidate)]
    if any(band is None for _, band, _ in bands):
        return None
    whole = Axes((0, 1), (0, 1))
    corner = Axes((0, 0.2), (0.8, 1), left=222, top=150, width=204, height=140)
    parts = [whole.draw(f"1 {MINUS} specificity (false alarms)", "sensitivity"), whole.diagonal()]
    parts += _bands(whole, [(kind, band) for kind, band, _ in bands if band])
    parts += [_roc_point(whole, kind, p) for kind, _, p in bands]
    title = "ROC curves of baseline and candidate with 95% bands and operating points"
    if not has_corner(compared):
        return picture(title, parts)
    parts.append(f'<rect class="paper" x="{corner.left - 36}" y="{corner.top - 12}" width="248" height="176"/>')
    parts.append(corner.draw("", "", ticks=2))
    visible = f'<rect x="{corner.left}" y="{corner.top - 4}" width="{corner.width}" height="144"/>'
    inside = _bands(corner, [(kind, _until(band, 0.25)) for kind, band, _ in bands if band])
    inside += [_roc_point(corner, kind, p) for kind, _, p in bands]
    parts.append(f'<clipPath id="corner">{visible}</clipPath><g clip-path="url(#corner)">{"".join(inside)}</g>')
    return picture(title, parts)


def has_corner(compared: Compared) -> bool:
    """Whether the curve comes so near to the upper left corner that it is worth enlarging."""
    band = compared.baseline.roc
    return band is not None and float(np.interp(0.2, band.x, band.estimate)) > 0.85


def precision_recall_chart(compared: Compared, baseline: Predictions, candidate: Predictions) -> Markup | None:
    """Precision over recall with bands and operating points; the dashed line is what guessing gives. None without
    curves."""
    bands = [
        ("baseline", compared.baseline.precision_recall, baseline),
        ("candidate", compared.candidate.precision_recall, candidate),
    ]
    if any(band is None for _, band, _ in bands):
        return None
    axes = Axes((0, 1), (0, 1))
    share = baseline.confusion.positives / len(baseline.labels)
    parts = [axes.draw("recall (sensitivity)", "precision")]
    parts.append(line("diagonal", axes.left, axes.y(share), axes.right, axes.y(share)))
    parts += _bands(axes, [(kind, band) for kind, band, _ in bands if band])
    for kind, _, predictions in bands:
        counts = predictions.confusion
        alarms = counts.true_positives + counts.false_positives
        if alarms:
            recall, precision = counts.true_positives / counts.positives, counts.true_positives / alarms
            name = f"{kind} at its threshold: recall {recall:.3f}, precision {precision:.3f}"
            parts.append(point(kind, axes.x(recall), axes.y(precision), name, 5))
    return picture("Precision-recall curves of baseline and candidate with 95% bands and operating points", parts)


def _bands(axes: Axes, bands: Sequence[tuple[str, Band]]) -> list[str]:
    """Bands below, curves above."""
    areas = [axes.band(kind, band.x, band.low, band.high) for kind, band in bands]
    return areas + [axes.path(kind, band.x, band.estimate) for kind, band in bands]


def _until(band: Band, limit: float) -> Band:
    """The part up to `limit`, and one point more."""
    count = int(np.searchsorted(band.x, limit)) + 1
    return Band(band.x[:count], band.estimate[:count], band.low[:count], band.high[:count])


def _roc_point(axes: Axes, kind: str, predictions: Predictions) -> str:
    counts = predictions.confusion
    x, y = counts.false_positives / counts.negatives, counts.true_positives / counts.positives
    name = f"{kind} at its threshold: sensitivity {y:.3f}, specificity {1 - x:.3f}"
    return point(kind, axes.x(x), axes.y(y), name, 5)


def reliability_chart(baseline: Reliability | None, candidate: Reliability | None) -> Markup | None:
    """Share of positives over mean probability per bin, with 95% intervals; None without probabilities."""
    axes = Axes((0, 1), (0, 1))
    parts = [axes.draw("mean probability in the bin", "share of positives"), axes.diagonal()]
    if baseline is None and candidate is None:
        return None
    for kind, shift, found in (("baseline", -2.5, baseline), ("candidate", 2.5, candidate)):
        if found is None:
            continue
        parts.append(
            axes.path(kind, [b.mean_probability for b in found.bins], [b.positives.estimate for b in found.bins])
        )
        for part in found.bins:
            x = axes.x(part.mean_probability) + shift
            parts.append(line(f"whisker {kind}", x, axes.y(part.positives.low), x, axes.y(part.positives.high)))
            parts.append(point(kind, x, axes.y(part.positives.estimate), counted(part.cases, "cases"), 3))
    return picture("Reliability of the probabilities of baseline and candidate", parts)


def scatter_chart(baseline: Predictions, candidate: Predictions) -> Markup:
    """Each case's value by the baseline and by the candidate, thresholds as lines, flipped decisions marked."""
    before, after = shown_values(baseline, candidate)
    if baseline.confusion.positives < RARE * len(baseline.ids):  # their probabilities all lie in one corner
        before, after = baseline.scores, candidate.scores
    probabilities = before is baseline.probabilities
    low, high = (
        (0.0, 1.0) if probabilities else (float(min(before.min(), after.min())), float(max(before.max(), after.max())))
    )
    margin = 0.0 if probabilities else 0.03 * (high - low or 1.0)
    axes = Axes((low - margin, high + margin), (low - margin, high + margin))
    noun = "probability" if probabilities else "score"
    parts = [axes.draw(f"{noun}, baseline", f"{noun}, candidate"), axes.diagonal()]
    x, y = axes.x(shown_threshold(baseline, before)), axes.y(shown_threshold(candidate, after))
    parts.append(line("threshold", x, axes.top, x, axes.bottom))
    parts.append(line("threshold", axes.left, y, axes.right, y))
    flipped = baseline.outcome_places != candidate.outcome_places
    for kind, label in (("negative", 0), ("positive", 1)):
        mine = _thinned(np.flatnonzero(~flipped & (baseline.labels == label)))
        parts.append(dots(kind, [axes.x(value) for value in before[mine]], [axes.y(value) for value in after[mine]]))
    largest = np.flatnonzero(flipped)
    largest = largest[np.argsort(-np.abs(after - before)[largest], kind="stable")][:MAX_CROSSES]
    for kind, label in (("negative", 0), ("positive", 1)):
        mine = largest[baseline.labels[largest] == label]
        crosses = [f"M{axes.x(before[i]) - 4:.0f} {axes.y(after[i]) - 4:.0f}l8 8m0-8l-8 8" for i in mine]
        if len(largest) <= MAX_NAMED:
            names = [f"<title>{escape(baseline.ids[i])}</title>" for i in mine]
            parts += [
                f'<path class="flip {kind}" d="{d}">{name}</path>' for d, name in zip(crosses, names, strict=True)
            ]
        elif crosses:
            parts.append(f'<path class="flip {kind}" d="{"".join(crosses)}"/>')
    return picture("Each case's value by baseline and candidate, changed decisions crossed", parts)


def _thinned(indices: Indices) -> Indices:
    keep = np.linspace(0, len(indices) - 1, min(len(indices), MAX_DOTS)).astype(np.intp)
    return np.asarray(indices[keep])


def margin_chart(check: Check) -> Markup | None:
    """A loss on the way to its margin, one line high: from no loss (0) to the margin (the red line). The dot is what
    was seen, the bar reaches to its 95% bound. None for limits that are no losses."""
    if check.rule.kind != "loss" or check.found is None or check.limit <= 0:
        return None
    width, middle, estimate = 180, 11, check.seen
    reach = max(1.25, min(3.0, check.found / check.limit * 1.08))

    def place(loss: float) -> float:
        return 8 + (width - 16) * (min(max(loss / check.limit, -0.75), reach) + 0.75) / (reach + 0.75)

    kind = "kept" if check.status == "passed" else "missed"
    parts = [line("zero", place(0), 2, place(0), 20), line("margin", place(check.limit), 1, place(check.limit), 21)]
    start = place(check.found if estimate is None else estimate)
    parts.append(line(f"bound {kind}", start, middle, place(check.found), middle))
    parts.append(line(f"bound {kind}", place(check.found), middle - 5, place(check.found), middle + 5))
    if estimate is not None:
        parts.append(f'<circle class="seen {kind}" cx="{short(start)}" cy="{middle}" r="4"/>')
    words = f"loss at most {check.found:.4f} with 95% confidence, margin {check.limit:g}"
    head = f'<svg class="inline" viewBox="0 0 {width} 22" role="img">'
    return Markup(f"{head}<title>{words}</title>{''.join(parts)}</svg>")  # noqa: S704  (numbers and literals)


def forest_chart(rows: Sequence[Subgroup], metric: Metric, whole: s.Difference | None) -> Markup | None:
    """One figure's difference in each group with its lower bound, below them the whole. None where no group has it."""
    found = [
        (f"{_group(row)}{f' at {one.threshold}' if one.threshold else ''}", row.cases, one)
        for row in rows
        for one in row.figures
        if one.name == metric.name
    ]
    drawn = [(name, cases, one) for name, cases, one in found if one.difference is not None and one.low is not None]
    if not drawn:
        return None
    margin = drawn[0][2].margin
    ends = [value for _, _, one in drawn for value in (one.difference, one.low) if value is not None]
    ends += [0.0, -1.5 * margin] + ([whole.low, whole.estimate] if whole else [])
    low, high = max(min(ends), -1.0), max(ends)
    room = 0.06 * ((high - low) or 0.01)
    axes = Axes((low - room, high + room), (0, 1), left=215, top=8, width=WIDTH - 231, height=_ROW * (len(drawn) + 1))
    parts = [axes.draw_x(f"{metric.phrase}, candidate {MINUS} baseline", ticks=4)]
    parts.append(line("zero", axes.x(0), axes.top, axes.x(0), axes.bottom))
    if margin > 0:
        parts.append(line("margin", axes.x(-margin), axes.top, axes.x(-margin), axes.bottom))
    for index, (name, cases, one) in enumerate(drawn):
        y = axes.top + _ROW * (index + 0.5)
        parts.append(text(axes.left - 8, y + 4, f"{name} ({cases:,})", "label end"))
        kind = _FINDINGS.get(one.status, "open")
        parts += _bound(axes, y, one.difference or 0.0, one.low or 0.0, kind, one.status)
    if whole is not None:
        y = axes.top + _ROW * (len(drawn) + 0.5)
        parts.append(text(axes.left - 8, y + 4, "all cases", "label end"))
        parts += _bound(axes, y, whole.estimate, whole.low, "whole", "all cases")
    return picture(f"Difference of {metric.phrase} in each group of cases", parts, axes.bottom + 46)


def _bound(axes: Axes, y: float, estimate: float, low: float, kind: str, title: str) -> list[str]:
    left = short(axes.x(max(low, axes.x_range[0])))
    return [
        f'<path class="bound {kind}" d="M{short(axes.x(estimate))} {short(y)}H{left}m0 -5v10"/>',
        f'<circle class="seen {kind}" cx="{short(axes.x(estimate))}" cy="{short(y)}" r="4">'
        f"<title>{escape(title)}</title></circle>",
    ]


def _group(row: Subgroup) -> str:
    """Shorten a long name but keep its value, which tells rows apart."""
    value = row.value if len(row.value) <= 16 else f"{row.value[:15]}…"
    room = 22 - len(value)
    return f"{row.column if len(row.column) <= room else row.column[: room - 1] + '…'}: {value}"
