"""The job's outputs, one file each, all made from the journal and written atomically."""

from __future__ import annotations

from pathlib import Path

from featherweight.apps.imaging.journal import Journal
from featherweight.apps.imaging.writers.atomic import result_errors
from featherweight.apps.imaging.writers.csv import write_csv
from featherweight.apps.imaging.writers.listings import find_pages
from featherweight.apps.imaging.writers.page import write_page
from featherweight.apps.imaging.writers.parquet import write_parquet
from featherweight.apps.imaging.writers.rows import noting_repeated, rejected_columns, result_columns
from featherweight.apps.imaging.writers.summary import Summary, write_summary

OUTPUTS = ("summary.json", "results.parquet", "results.csv", "rejected.parquet", "rejected.csv", "index.html")
"""summary.json is removed first and written last: while it is there, all the others are there and of one run."""


def find_outputs(directory: Path) -> tuple[str, ...]:
    """OUTPUTS, and the names of the pages that lie in the folder."""
    return *OUTPUTS, *find_pages(directory)


def write_outputs(directory: Path, journal: Journal, summary: Summary) -> None:
    """Write results and rejected tables, the page, then summary.json. Raises OutputError."""
    with result_errors(directory / "summary.json"):
        (directory / "summary.json").unlink(missing_ok=True)
    note_of = noting_repeated(journal.repeated() if summary.repeated_instances else {})
    results, rejected = result_columns(summary.model.sha256, note_of), rejected_columns()
    write_parquet(directory / "results.parquet", results, journal.predictions())
    write_csv(directory / "results.csv", results, journal.predictions())
    write_parquet(directory / "rejected.parquet", rejected, journal.rejected())
    write_csv(directory / "rejected.csv", rejected, journal.rejected())
    write_page(directory / "index.html", journal, summary, note_of)
    write_summary(directory / "summary.json", summary)
