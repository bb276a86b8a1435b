"""index.html: one file without scripts or anything fetched, for a screen, in the dark, and on paper. Where there are
more rows than it can hold it leads to the pages of `listings`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.apps.imaging.frames import Prediction
from featherweight.apps.imaging.journal import Journal
from featherweight.apps.imaging.writers.atomic import replace_result
from featherweight.apps.imaging.writers.listings import Contents, plan_listings, write_listings
from featherweight.apps.imaging.writers.rows import own_notes
from featherweight.apps.imaging.writers.summary import Summary
from featherweight.apps.imaging.writers.templates import format_percent, read_template

__all__ = ["PAGE_ROWS", "REJECTED_ROWS", "format_percent", "render_page", "write_page"]

PAGE_ROWS = 1000
"""Frames on the page, those of highest probability; with thumbnails of some 2 kB the page stays under 5 MB."""
REJECTED_ROWS = 500
BINS = 40
_WIDTH, _HEIGHT = 800.0, 160.0


@dataclass(frozen=True)
class WorklistRow:
    """rank, source_order, decode_order: 0-based places in the three orders that the page offers."""

    prediction: Prediction
    rank: int
    source_order: int
    decode_order: int
    thumbnail: str
    note: str


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram in the drawing's units; `positive` tells its colour."""

    x: float
    y: float
    width: float
    height: float
    positive: bool
    title: str


def write_page(
    path: Path, journal: Journal, summary: Summary, note_of: Callable[[Prediction], str] = own_notes
) -> None:
    """The page and, beside it, those that it leads to. note_of: what is to be said of a row. Raises OutputError when
    one cannot be written; that file is then as it was."""
    listings = plan_listings(summary, PAGE_ROWS, REJECTED_ROWS)
    contents = write_listings(path.parent, journal, summary, listings, note_of)
    content = render_page(
        summary,
        list(journal.highest(PAGE_ROWS)),
        [(r.id.source, r.id.frame, r.reason, r.message) for r in journal.rejected(REJECTED_ROWS)],
        journal.histogram(BINS),
        contents,
        note_of,
    )
    with replace_result(path) as partial:
        partial.write_text(content, encoding="utf-8")


def render_page(
    summary: Summary,
    highest: Sequence[tuple[Prediction, bytes | None]],
    rejected: Sequence[tuple[str, int, str, str]],
    histogram: Mapping[str, Sequence[int]],
    contents: Contents | None = None,
    note_of: Callable[[Prediction], str] = own_notes,
) -> str:
    """The page's HTML.

    highest: the frames to show with their JPEG thumbnails; rejected: (source, frame, reason, message); contents: the
    listings that hold what is not shown.
    """
    return read_template("page.html").render(
        summary=summary,
        contents=contents or [],
        rows=_worklist(highest, note_of),
        rejected=rejected,
        bars=_bars(histogram, summary.model.labels),
        tallest=max((sum(counts) for counts in zip(*histogram.values(), strict=True)), default=0),
        chart=(_WIDTH, _HEIGHT),
    )


def _places(predictions: Sequence[Prediction], key: Callable[[Prediction], tuple[str | float, ...]]) -> list[int]:
    places = [0] * len(predictions)
    for place, index in enumerate(sorted(range(len(predictions)), key=lambda index: key(predictions[index]))):
        places[index] = place
    return places


def _worklist(
    highest: Sequence[tuple[Prediction, bytes | None]], note_of: Callable[[Prediction], str]
) -> list[WorklistRow]:
    predictions = [prediction for prediction, _ in highest]
    by_source = _places(predictions, lambda p: (p.id.source, p.id.frame))
    by_decode = _places(predictions, lambda p: (-p.decode_ms, p.id.source, p.id.frame))
    return [
        WorklistRow(
            prediction,
            rank,
            by_source[rank],
            by_decode[rank],
            base64.b64encode(jpeg or b"").decode(),
            note_of(prediction),
        )
        for rank, (prediction, jpeg) in enumerate(highest)
    ]


def _bars(histogram: Mapping[str, Sequence[int]], labels: tuple[str, str]) -> list[Bar]:
    """Bars over equal bins of 0..1, the two decisions on top of each other where the threshold splits a bin."""
    tallest = max((sum(counts) for counts in zip(*histogram.values(), strict=True)), default=0)
    width = _WIDTH / BINS
    bars: list[Bar] = []
    base = [0.0] * BINS
    for label in labels:
        for index, count in enumerate(histogram.get(label, ())):
            if count == 0:
                continue
            height = max(1.5, count / tallest * _HEIGHT)
            base[index] += height
            title = f"{count} {label}, probability {index / BINS:.3f} to {(index + 1) / BINS:.3f}"
            bars.append(Bar(index * width + 1, _HEIGHT - base[index], width - 2, height, label == labels[1], title))
    return bars
