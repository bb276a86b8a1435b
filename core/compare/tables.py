"""Tables from outside: CSV and Parquet, bounded before they are decoded, each column asked for by its name and kind."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from featherweight.core.arrays import Bools, Floats
from featherweight.core.compare.bounded import LARGEST_WHOLE, MAX_COLUMNS, MAX_ROWS, MAX_TEXT, open_bounded
from featherweight.core.compare.parquet import is_text, read_parquet
from featherweight.core.errors import DataError
from featherweight.core.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

_NAMED = 5
"""Rows and columns that a message names."""
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True, eq=False)
class Table:
    """name: for messages; columns: name -> pyarrow array [rows], texts where the file is CSV; sha256: of the file, or
    of the columns of a table in memory; others: names of columns that were not asked for, and so not read."""

    name: str
    columns: Mapping[str, pa.Array]
    rows: int
    sha256: str = ""
    others: tuple[str, ...] = ()

    def texts(self, column: str, *, missing: str | None = None) -> list[str]:
        """A column of texts, whole numbers or truths, as texts. missing: what stands for a missing value; where it is
        None, a missing value is refused. Raises DataError."""
        import pyarrow as pa

        found = self._column(column)
        if not (is_text(found.type) or pa.types.is_integer(found.type) or pa.types.is_boolean(found.type)):
            raise DataError(f"{self.name}: column {column!r} holds {found.type}; expected texts or whole numbers")
        values = [None if value is None else str(value).strip() or None for value in found.to_pylist()]
        lost = [row for row, value in enumerate(values, 1) if value is None]
        if lost and missing is None:
            raise DataError(
                f"{self.name}: column {column!r} is empty in {counted(len(lost), 'rows')} ({some_rows(lost)}); every "
                "case must have a value"
            )
        if any(len(value) > MAX_TEXT for value in values if value is not None):
            raise DataError(f"{self.name}: column {column!r} holds a text of more than {MAX_TEXT} characters")
        return [missing or "" if value is None else value for value in values]

    def numbers(self, column: str, *, may_lack: bool = False) -> Floats:
        """A column of finite numbers, float64 [rows]. may_lack: missing ones are NaN, and are refused otherwise. Whole
        numbers that float64 does not have are refused too: nothing is changed silently. Raises DataError."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = self._column(column)
        if is_text(found.type):
            stripped = pc.utf8_trim_whitespace(found)
            found = pc.if_else(pc.equal(stripped, ""), pa.scalar(None, pa.string()), stripped)
        elif not (
            pa.types.is_integer(found.type) or pa.types.is_floating(found.type) or pa.types.is_boolean(found.type)
        ):
            raise DataError(f"{self.name}: column {column!r} holds {found.type}; expected numbers")
        lost = np.asarray(found.is_null())
        self._check_whole(column, found)
        try:
            values = np.array(pc.cast(found, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        except (pa.ArrowException, ValueError) as error:  # whose text quotes the value
            raise DataError(f"{self.name}: column {column!r} holds texts that are not numbers") from error
        self._check_finite(column, values, lost, may_lack)
        return values

    def _check_whole(self, column: str, found: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_integer(found.type):
            ends = pc.min_max(found).as_py()
            large = any(abs(end) > LARGEST_WHOLE for end in ends.values() if end is not None)
        elif is_text(found.type):
            digits = pc.filter(found, pc.match_substring_regex(found, r"^[+-]?[0-9]{16,}$"))
            large = any(abs(int(text)) > LARGEST_WHOLE for text in digits.to_pylist() if len(text) < MAX_TEXT)
        else:
            return
        if large:
            raise DataError(
                f"{self.name}: column {column!r} holds whole numbers beyond {LARGEST_WHOLE:,}, which are not exact as "
                "numbers with a fraction; is it a column of ids? Scale it, or leave it out"
            )

    def _check_finite(self, column: str, values: Floats, lost: Bools, may_lack: bool) -> None:
        lost = lost | np.isnan(values)
        wrong = np.flatnonzero(np.isinf(values) if may_lack else lost | np.isinf(values)) + 1
        if len(wrong):
            raise DataError(
                f"{self.name}: column {column!r} is no finite number in {counted(len(wrong), 'rows')} "
                f"({some_rows(wrong.tolist())})"
            )

    def _column(self, name: str) -> pa.Array:
        if name not in self.columns:
            names = [*self.columns, *self.others]
            shown = ", ".join(ascii(one[:60]) for one in names[:20])
            more = ", ..." if len(names) > 20 else ""
            raise DataError(f"{self.name}: there is no column {name!r}; found {shown or 'none'}{more}")
        return self.columns[name]


def some_rows(rows: Sequence[int]) -> str:
    """Numbers of rows, from 1, for a message; ids and labels may be patients' and are never told."""
    noun = "row" if len(rows) == 1 else "rows"
    return f"{noun} {', '.join(map(str, rows[:_NAMED]))}{', ...' if len(rows) > _NAMED else ''}"


def is_table(path: Path) -> bool:
    """Whether the name says that the file is a table."""
    return path.suffix.lower() in _SUFFIXES


def read_table(path: Path, wanted: Collection[str] | None = None) -> Table:
    """A file named .csv, .parquet or .pq; of its columns those that are wanted, where they are there, and all where it
    is None. Raises DataError for one that cannot be read or is too large."""
    with open_bounded(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        if _SUFFIXES.get(path.suffix.lower()) == "csv":
            names, columns, rows = _read_csv(path, file, wanted)
        else:
            names, columns, rows = read_parquet(path, file, wanted)
            _named_once(path, names)
    others = tuple(name for name in names if name not in columns)
    return _checked(Table(str(path), columns, rows, digest, others))


def table_of(name: str, columns: Mapping[str, Any]) -> Table:
    """A table in memory: a dict or DataFrame of column -> values [rows]. Raises DataError."""
    import pyarrow as pa

    found = {}
    for key in list(columns.keys())[: MAX_COLUMNS + 1]:
        try:
            found[str(key)] = pa.array(np.asarray(columns[key]), from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"{name}: column {str(key)[:60]!r} is not one value a row ({type(error).__name__})"
            ) from error
    sizes = {len(values) for values in found.values()}
    if len(sizes) > 1:
        found_sizes = ", ".join(map(str, sorted(sizes)[:5]))
        raise DataError(f"{name}: the columns have different numbers of rows ({found_sizes})")
    rows = len(next(iter(found.values()))) if found else 0
    return _checked(Table(name, found, rows, _digest(found)))


def _digest(columns: Mapping[str, pa.Array]) -> str:
    """Of the columns in the order of their names: the same data have the same one."""
    import pyarrow as pa

    found = hashlib.sha256()
    for name in sorted(columns):
        batch = pa.record_batch([columns[name]], names=[name])
        found.update(batch.schema.serialize())
        found.update(batch.serialize())
    return found.hexdigest()


def _checked(table: Table) -> Table:
    if not table.rows or not (table.columns or table.others):
        raise DataError(f"{table.name}: holds no rows")
    if table.rows > MAX_ROWS or len(table.columns) + len(table.others) > MAX_COLUMNS:
        raise DataError(
            f"{table.name}: holds more than {MAX_ROWS:,} rows or {MAX_COLUMNS:,} columns; leave out what is not needed"
        )
    return table


def _read_csv(path: Path, file: BinaryIO, wanted: Collection[str] | None) -> tuple[list[str], dict[str, pa.Array], int]:
    """Every column as texts, which is what a CSV holds."""
    import pyarrow as pa
    from pyarrow import csv

    names = _csv_header(path, file)
    read_names = [name for name in names if wanted is None or name in wanted]
    wrong: list[int] = []

    def refuse(row: Any) -> str:
        wrong.append(row.number or 0)
        return "error"

    file.seek(0)
    try:
        read = csv.read_csv(
            file,
            csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            csv.ParseOptions(invalid_row_handler=refuse, newlines_in_values=True),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                include_columns=read_names or names[:1],
            ),
        )
        return names, {name: _whole(read.column(name)) for name in read_names}, read.num_rows
    except pa.ArrowException as error:  # whose text quotes the row
        where = f"line {wrong[0]} has more or fewer cells than the header" if wrong else type(error).__name__
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({where}); expected one row a case") from error


def _csv_header(path: Path, file: BinaryIO) -> list[str]:
    import csv

    first = file.readline(MAX_COLUMNS * 100)
    try:
        text = first.decode("utf-8-sig")
        names = [name.strip() for name in next(csv.reader([text], strict=True), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the first line is no header of CSV in UTF-8 ({type(error).__name__})") from error
    if not names:
        raise DataError(f"{path}: the first line is empty; expected the names of the columns")
    other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
    if other:
        raise DataError(f"{path}: its columns are separated by {other!r}; expected commas")
    return _named_once(path, names)


def _named_once(path: Path, names: list[str]) -> list[str]:
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(names) <= MAX_COLUMNS else []
    if not all(names) or doubled or len(names) > MAX_COLUMNS:
        shown = ", ".join(ascii(name[:60]) for name in doubled[:_NAMED])
        why = f"names {shown} twice" if doubled else f"has a column without a name, or more than {MAX_COLUMNS:,}"
        raise DataError(f"{path}: the header {why}")
    return names


def _whole(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # as some versions give it
        return found.chunk(0) if found.num_chunks else pa.array([], found.type)
    return found
