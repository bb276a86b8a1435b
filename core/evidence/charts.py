"""The page's pictures: pure functions from figures to inline SVG. Colours come from the page's style sheet (classes
`baseline`, `candidate`, `grid` ...), so that dark, light and paper each have their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from core.evidence import resampling as r
from core.evidence import statistics as s
from core.evidence.measured import Predictions
from core.evidence.report import shown_threshold, shown_values
from core.measure import Latency

WIDTH, HEIGHT = 460, 380
MINUS = "\N{MINUS SIGN}"
MOST_DOTS = 1500
"""Dots of the scatter, beyond the flipped ones: a page of 50,000 dots would not open."""


@dataclass(frozen=True)
class _Axes:
    """Maps data to the picture. left, top, width, height: the frame, in the picture's units."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 52
    top: float = 14
    width: float = WIDTH - 70
    height: float = HEIGHT - 66
    log_x: bool = False

    def x(self, value: float) -> float:
        low, high = self.x_range
        if self.log_x:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / (high - low))

    def draw(self, x_label: str, y_label: str, *, ticks: int = 5) -> str:
        bottom, right = self.top + self.height, self.left + self.width
        parts = []
        for tick in _log_ticks(*self.x_range) if self.log_x else _ticks(*self.x_range, ticks):
            parts.append(_line("grid", self.x(tick), self.top, self.x(tick), bottom))
            parts.append(_text(self.x(tick), bottom + 15, _number(tick), "middle"))
        for tick in _ticks(*self.y_range, ticks):
            parts.append(_line("grid", self.left, self.y(tick), right, self.y(tick)))
            parts.append(_text(self.left - 6, self.y(tick) + 4, _number(tick), "end"))
        parts.append(
            f'<rect class="frame" x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}"/>'
        )
        parts.append(_text(self.left + self.width / 2, bottom + 36, x_label, "middle", "label"))
        if y_label:
            x, y = 13, self.top + self.height / 2
            parts.append(f'<g transform="rotate(-90 {x} {y:.1f})">{_text(x, y, y_label, "middle", "label")}</g>')
        return "".join(parts)

    def path(self, kind: str, xs: Iterable[float], ys: Iterable[float]) -> str:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        return f'<polyline class="curve {kind}" points="{points}"/>'


def roc_chart(baseline: Predictions, candidate: Predictions) -> Markup | None:
    """Both ROC curves with the operating points, and the upper left corner enlarged; None where a class is missing."""
    if not baseline.confusion.positives or not baseline.confusion.negatives:
        return None
    whole = _Axes((0, 1), (0, 1))
    corner = _Axes((0, 0.2), (0.8, 1), left=222, top=150, width=204, height=140)
    parts = [whole.draw(f"1 {MINUS} specificity", "sensitivity"), _line("diagonal", *_corners(whole))]
    curves = [("baseline", baseline), ("candidate", candidate)]
    parts += [whole.path(kind, *s.roc_points(p.scores, p.labels)) for kind, p in curves]
    parts += [_operating_point(whole, kind, p) for kind, p in curves]
    parts.append(f'<rect class="paper" x="{corner.left - 36}" y="{corner.top - 12}" width="248" height="176"/>')
    parts.append(corner.draw("", "", ticks=2))
    visible = f'<rect x="{corner.left}" y="{corner.top - 4}" width="{corner.width}" height="144"/>'
    inside = [corner.path(kind, *s.roc_points(p.scores, p.labels)) for kind, p in curves]
    inside += [_operating_point(corner, kind, p) for kind, p in curves]
    parts.append(f'<clipPath id="corner">{visible}</clipPath><g clip-path="url(#corner)">{"".join(inside)}</g>')
    return _picture("ROC curves of baseline and candidate", parts)


def _operating_point(axes: _Axes, kind: str, predictions: Predictions) -> str:
    counts = predictions.confusion
    x, y = counts.false_positives / counts.negatives, counts.true_positives / counts.positives
    if kind == "baseline":
        return f'<circle class="point {kind}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="5"/>'
    side = 8
    return (
        f'<rect class="point {kind}" x="{axes.x(x) - side / 2:.1f}" y="{axes.y(y) - side / 2:.1f}" '
        f'width="{side}" height="{side}"/>'
    )


def latency_chart(baseline: Latency | None, candidate: Latency | None) -> Markup | None:
    """Share of runs that took at most so long, time on a log scale; None where neither was measured."""
    measured = [(kind, part) for kind, part in (("baseline", baseline), ("candidate", candidate)) if part is not None]
    if not measured:
        return None
    low = min(float(part.samples_ms.min()) for _, part in measured)
    high = max(float(np.percentile(part.samples_ms, 99.5)) for _, part in measured)
    axes = _Axes((low / 1.15, max(high * 1.15, low * 1.5)), (0, 1), log_x=True)
    parts = [axes.draw("milliseconds for one run (log scale)", "share of runs")]
    for kind, part in measured:
        inside = np.sort(part.samples_ms)[: max(2, math.ceil(0.995 * len(part.samples_ms)))]
        keep = np.unique(np.linspace(0, len(inside) - 1, min(len(inside), 400)).astype(int))
        parts.append(axes.path(kind, inside[keep], (keep + 1) / len(part.samples_ms)))
        middle = float(np.median(part.samples_ms))
        parts.append(f'<circle class="point {kind}" cx="{axes.x(middle):.1f}" cy="{axes.y(0.5):.1f}" r="4"/>')
        near_right = axes.x(middle) > axes.left + axes.width * 0.7
        shift, anchor = (-9, "end") if near_right else (9, "start")
        parts.append(_text(axes.x(middle) + shift, axes.y(0.5) + 15, f"{middle:.3g} ms", anchor, kind))
    return _picture("Distribution of latency of baseline and candidate", parts)


def reliability_chart(baseline: Predictions, candidate: Predictions) -> Markup | None:
    """Share of positives over mean probability per bin, with 95% intervals; None without probabilities."""
    axes = _Axes((0, 1), (0, 1))
    parts = [axes.draw("mean probability in the bin", "share of positives"), _line("diagonal", *_corners(axes))]
    drawn = False
    for kind, shift, predictions in (("baseline", -2.5, baseline), ("candidate", 2.5, candidate)):
        if predictions.probabilities is None:
            continue
        drawn = True
        bins = r.reliability_bins(predictions.probabilities, predictions.labels)
        parts.append(axes.path(kind, [b.mean_probability for b in bins], [b.positives.estimate for b in bins]))
        for part in bins:
            x = axes.x(part.mean_probability) + shift
            parts.append(_line(f"whisker {kind}", x, axes.y(part.positives.low), x, axes.y(part.positives.high)))
            y, name = axes.y(part.positives.estimate), f"{part.cases} cases"
            parts.append(f'<circle class="point {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{name}</title></circle>')
    return _picture("Reliability of the probabilities of baseline and candidate", parts) if drawn else None


def scatter_chart(baseline: Predictions, candidate: Predictions) -> Markup:
    """Each case's value by the baseline and by the candidate, thresholds as lines, flipped decisions marked."""
    before, after = shown_values(baseline, candidate)
    probabilities = before is baseline.probabilities
    low, high = (
        (0.0, 1.0) if probabilities else (float(min(before.min(), after.min())), float(max(before.max(), after.max())))
    )
    margin = 0.0 if probabilities else 0.03 * (high - low or 1.0)
    axes = _Axes((low - margin, high + margin), (low - margin, high + margin))
    noun = "probability" if probabilities else "score"
    parts = [axes.draw(f"{noun}, baseline", f"{noun}, candidate"), _line("diagonal", *_corners(axes))]
    x, y = axes.x(shown_threshold(baseline, before)), axes.y(shown_threshold(candidate, after))
    parts.append(_line("threshold", x, axes.top, x, axes.top + axes.height))
    parts.append(_line("threshold", axes.left, y, axes.left + axes.width, y))
    flipped = baseline.decisions != candidate.decisions
    for index in _thinned(np.flatnonzero(~flipped)):
        kind = "positive" if baseline.labels[index] == 1 else "negative"
        x, y = axes.x(before[index]), axes.y(after[index])
        parts.append(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>')
    for index in np.flatnonzero(flipped)[:MOST_DOTS]:
        x, y, kind = (
            axes.x(before[index]),
            axes.y(after[index]),
            "positive" if baseline.labels[index] == 1 else "negative",
        )
        cross = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
        parts.append(f'<path class="flip {kind}" d="{cross}"><title>{escape(baseline.ids[index])}</title></path>')
    return _picture("Each case's value by baseline and candidate", parts)


def dots_drawn(cases: int) -> int:
    return min(cases, MOST_DOTS)


def _thinned(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    keep = np.linspace(0, len(indices) - 1, dots_drawn(len(indices))).astype(np.intp)
    return np.asarray(indices[keep])


def _picture(title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
    # Every text in `parts` went through escape() in _text or at its place; the rest are numbers and literals.
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704


def _corners(axes: _Axes) -> tuple[float, float, float, float]:
    return axes.x(axes.x_range[0]), axes.y(axes.y_range[0]), axes.x(axes.x_range[1]), axes.y(axes.y_range[1])


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.10g}".replace("-", MINUS)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    wide = math.log10(high / low) > 1.6
    found = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for factor in (1, 3) if wide else (1, 1.5, 2, 3, 4, 5, 7):
            value = factor * 10.0**power
            if low <= value <= high:
                found.append(value)
    return found
