"""Result tables as CSV (RFC 4180, UTF-8), streamed."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from featherweight.apps.imaging.writers.atomic import replace_result
from featherweight.apps.imaging.writers.rows import Columns, Row


def write_csv(path: Path, columns: Columns[Row], rows: Iterable[Row]) -> None:
    """Numbers stand as Python writes them, so that reading gives the same number back.

    Raises OutputError when the file cannot be written; it is then as it was.
    """
    with replace_result(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([column.value(row) for column in columns.values()] for row in rows)
