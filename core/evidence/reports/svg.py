"""Inline SVG: axes, lines and texts. Colours come from the page's style sheet (classes `baseline`, `candidate`,
`grid` ...), so that dark, light and paper each have their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from featherweight.core.arrays import Floats

WIDTH, HEIGHT = 460, 380
MINUS = "\N{MINUS SIGN}"
_TOLERANCE = 0.35
"""Tolerance of a curve in the picture's units, a third of a pixel: what nobody sees is not written."""


@dataclass(frozen=True)
class Axes:
    """Maps data to the picture. left, top, width, height: the frame, in the picture's units."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 52
    top: float = 14
    width: float = WIDTH - 70
    height: float = HEIGHT - 66
    log_x: bool = False

    def x(self, value: float) -> float:
        """The horizontal place of a value, in the picture's units."""
        low, high = self.x_range
        if self.log_x:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """The vertical place of a value, in the picture's units."""
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / (high - low))

    @property
    def bottom(self) -> float:
        """The vertical place of the x axis."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The horizontal place of the right edge."""
        return self.left + self.width

    def draw(self, x_label: str, y_label: str, *, ticks: int = 5) -> str:
        """The axes with their marks and labels."""
        marks = _ticks(*self.y_range, ticks)
        lines = "".join(f"M{short(self.left)} {short(self.y(tick))}H{short(self.right)}" for tick in marks)
        texts = "".join(text(self.left - 6, self.y(tick) + 4, number(tick)) for tick in marks)
        x, y = 13, self.top + self.height / 2
        label = (
            f'<g transform="rotate(-90 {x} {short(y)})">{text(x, y, y_label, "label middle")}</g>' if y_label else ""
        )
        return f'<path class="grid" d="{lines}"/><g class="end">{texts}</g>{label}{self.draw_x(x_label, ticks=ticks)}'

    def draw_x(self, x_label: str, *, ticks: int = 5) -> str:
        """The frame and the axis below it alone: for pictures whose rows are names."""
        marks = _log_ticks(*self.x_range) if self.log_x else _ticks(*self.x_range, ticks)
        lines = "".join(f"M{short(self.x(tick))} {short(self.top)}V{short(self.bottom)}" for tick in marks)
        texts = "".join(text(self.x(tick), self.bottom + 15, number(tick)) for tick in marks)
        frame = (
            f'<rect class="frame" x="{short(self.left)}" y="{short(self.top)}" width="{short(self.width)}" '
            f'height="{short(self.height)}"/>'
        )
        label = text(self.left + self.width / 2, self.bottom + 36, x_label, "label middle") if x_label else ""
        return f'<path class="grid" d="{lines}"/><g class="middle">{texts}</g>{frame}{label}'

    def diagonal(self) -> str:
        """A line from the lower left to the upper right corner."""
        return line("diagonal", self.left, self.bottom, self.right, self.top)

    def path(self, kind: str, xs: Iterable[float], ys: Iterable[float]) -> str:
        """A curve through the points; `kind` is its class in the style sheet."""
        return f'<polyline class="curve {kind}" points="{self._points(xs, ys)}"/>'

    def band(self, kind: str, xs: Floats, low: Floats, high: Floats) -> str:
        """The area between two curves. xs, low, high: float64 [N]."""
        outline = self._points(np.concatenate([xs, xs[::-1]]), np.concatenate([low, high[::-1]]))
        return f'<polygon class="band {kind}" points="{outline}"/>'

    def _points(self, xs: Iterable[float], ys: Iterable[float]) -> str:
        points = np.array([(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)])
        return " ".join(f"{short(x)},{short(y)}" for x, y in simplified(points))


def simplified(points: Floats) -> Floats:
    """The points [N, 2] of a curve without those that lie on it anyway (Douglas & Peucker 1973)."""
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        inside, along = points[first + 1 : last] - points[first], points[last] - points[first]
        share = np.clip(inside @ along / max(float(along @ along), 1e-12), 0, 1)
        away = np.linalg.norm(inside - share[:, None] * along, axis=1)
        farthest = int(np.argmax(away))
        if away[farthest] > _TOLERANCE:
            middle = first + 1 + farthest
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return np.asarray(points[keep])


def picture(title: str, parts: Sequence[str], height: float = HEIGHT) -> Markup:
    """A whole `<svg>` element of these parts."""
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img"><title>{escape(title)}</title>'
    # Every text in `parts` went through escape() in text() or at its place; the rest are numbers and literals.
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704


def point(kind: str, x: float, y: float, title: str = "", size: float = 4) -> str:
    """Round for the baseline, square for the candidate: told apart without colours too."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    if "candidate" in kind:
        place = f'x="{short(x - size * 0.9)}" y="{short(y - size * 0.9)}"'
        side = short(1.8 * size)
        return f'<rect class="point {kind}" {place} width="{side}" height="{side}">{inside}</rect>'
    return f'<circle class="point {kind}" cx="{short(x)}" cy="{short(y)}" r="{short(size)}">{inside}</circle>'


def dots(kind: str, xs: Iterable[float], ys: Iterable[float]) -> str:
    """Many dots in one path: strokes of no length with round ends; those that would cover one another once."""
    places = sorted({(round(x), round(y)) for x, y in zip(xs, ys, strict=True)})
    return f'<path class="dot {kind}" d="{"".join(f"M{x} {y}h0" for x, y in places)}"/>' if places else ""


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line in the picture's units."""
    return f'<line class="{kind}" x1="{short(x1)}" y1="{short(y1)}" x2="{short(x2)}" y2="{short(y2)}"/>'


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """kind: its classes; `middle` and `end` say where x is, the start otherwise."""
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{short(x)}" y="{short(y)}">{escape(words)}</text>'


def short(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def number(value: float) -> str:
    """A number as a label, with a true minus."""
    return f"{value:.10g}".replace("-", MINUS)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    wide = math.log10(high / low)
    factors = (1,) if wide > 3.2 else (1, 3) if wide > 1.6 else (1, 1.5, 2, 3, 4, 5, 7)
    found = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for factor in factors:
            value = factor * 10.0**power
            if low <= value <= high:
                found.append(value)
    return found
