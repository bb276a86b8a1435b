"""Every row of a large job in pages that link to each other: by decision and probability, by source, and what was not
classified. Files without scripts, so that they work from a disk, in any browser, with the keyboard and on paper; one of
them stays under a megabyte, however many there are. They lie beside index.html, which shows the first rows of all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from featherweight.apps.imaging.frames import Prediction, RejectedFrame
from featherweight.apps.imaging.journal import Journal
from featherweight.apps.imaging.writers.atomic import replace_result, result_errors
from featherweight.apps.imaging.writers.summary import Summary
from featherweight.apps.imaging.writers.templates import format_percent, read_template
from featherweight.core.errors import OutputError

FOLDER = "worklist"
ROWS = 1000
"""Rows of one page."""
_FILE = re.compile(r"(positive|negative|source|rejected)-\d{5,}\.html")


@dataclass(frozen=True)
class Listing:
    """key: in the names of its files; count: of its rows."""

    folder: ClassVar[str] = FOLDER
    key: str
    title: str
    count: int

    @property
    def pages(self) -> int:
        """How many pages the list takes."""
        return -(-self.count // ROWS)

    def file(self, number: int) -> str:
        """The name of page `number`, from 1 on."""
        return f"{self.key}-{number:05d}.html"


Contents = list[tuple[Listing, list[str]]]
"""Each listing with a few words on what each of its pages holds."""


def find_pages(directory: Path) -> list[str]:
    """The names, relative to the folder of the results, of the pages that are in it."""
    folder = directory / FOLDER
    try:
        found = [] if folder.is_symlink() else sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
    return [f"{FOLDER}/{name}" for name in found if _FILE.fullmatch(name)]


def plan_listings(summary: Summary, images: int, rejected: int) -> list[Listing]:
    """What index.html, which shows so many images and rejected frames, does not show all of."""
    negative, positive = summary.model.labels
    listings = []
    if summary.images > images:
        listings += [
            Listing("positive", positive, summary.decisions[positive]),
            Listing("negative", negative, summary.decisions[negative]),
            Listing("source", "all by source", summary.images),
        ]
    if summary.rejected > rejected:
        listings.append(Listing("rejected", "not classified", summary.rejected))
    return [listing for listing in listings if listing.count]


def write_listings(
    directory: Path,
    journal: Journal,
    summary: Summary,
    listings: Sequence[Listing],
    note_of: Callable[[Prediction], str],
) -> Contents:
    """Write the pages into the folder `worklist` and remove those of earlier runs. Raises OutputError."""
    folder = directory / FOLDER
    if listings:
        _make(folder)
    contents: Contents = []
    for listing in listings:
        places = []
        for number, rows in enumerate(_batches(_rows(listing, journal, summary)), start=1):
            with replace_result(folder / listing.file(number)) as partial:
                partial.write_text(_render(summary, listings, listing, number, rows, note_of), encoding="utf-8")
            places.append(_describe(listing, rows))
        contents.append((listing, places))
    written = {f"{FOLDER}/{listing.file(index + 1)}" for listing, places in contents for index in range(len(places))}
    with result_errors(folder):
        for name in find_pages(directory):
            if name not in written:
                (directory / name).unlink(missing_ok=True)
    return contents


def _make(folder: Path) -> None:
    if folder.is_symlink():
        raise OutputError(f"{folder}: found a link, expected a folder; remove it or choose another --out")
    with result_errors(folder):
        folder.mkdir(exist_ok=True)


def _rows(listing: Listing, journal: Journal, summary: Summary) -> Iterable[Any]:
    negative, positive = summary.model.labels
    match listing.key:
        case "positive":
            return journal.ranked(positive)
        case "negative":
            return journal.ranked(negative)
        case "source":
            return journal.predictions()
        case _:
            return journal.rejected()


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, ROWS)):
        yield batch


def _render(
    summary: Summary,
    listings: Sequence[Listing],
    listing: Listing,
    number: int,
    rows: Sequence[Prediction] | Sequence[RejectedFrame],
    note_of: Callable[[Prediction], str],
) -> str:
    return read_template("listing.html").render(
        summary=summary,
        listings=listings,
        listing=listing,
        number=number,
        rows=rows,
        first=(number - 1) * ROWS,
        positive=summary.model.labels[1],
        note_of=note_of,
    )


def _describe(listing: Listing, rows: Sequence[Any]) -> str:
    """What a page holds, for readers who look for a row: from which probability, or from which source on."""
    if listing.key in ("positive", "negative"):
        return f"{format_percent(rows[0].probability)} to {format_percent(rows[-1].probability)}"
    return f"from {rows[0].id.source} on"
