"""Tables from outside: CSV and Parquet, bounded before they are decoded, each column asked for by its name and kind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from featherweight.core.arrays import Bools, Floats
from featherweight.core.errors import DataError
from featherweight.core.files import is_file, read_errors
from featherweight.core.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES = 1 << 30
"""Of a file, and of what a Parquet file says that its columns hold."""
MAX_ROWS = 2_000_000
MAX_COLUMNS = 4096
MAX_TEXT = 500
"""Characters of an id, a label or a group's name."""
_BATCH_ROWS = 65_536
_NAMED = 5
"""Values that a message names."""
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True, eq=False)
class Table:
    """name: for messages; columns: name -> pyarrow array [rows], texts where the file is CSV."""

    name: str
    columns: Mapping[str, pa.Array]
    rows: int

    def texts(self, column: str, *, missing: str | None = None) -> list[str]:
        """A column of texts, whole numbers or truths, as texts. missing: what stands for a missing value; where it is
        None, a missing value is refused. Raises DataError."""
        import pyarrow as pa

        found = self._column(column)
        if not (_is_text(found.type) or pa.types.is_integer(found.type) or pa.types.is_boolean(found.type)):
            raise DataError(f"{self.name}: column {column!r} holds {found.type}; expected texts or whole numbers")
        values = [None if value is None else str(value).strip() or None for value in found.to_pylist()]
        lost = [row for row, value in enumerate(values, 1) if value is None]
        if lost and missing is None:
            raise DataError(
                f"{self.name}: column {column!r} is empty in {counted(len(lost), 'rows')} ({_some(lost)}); every case "
                "must have a value"
            )
        if any(len(value) > MAX_TEXT for value in values if value is not None):
            raise DataError(f"{self.name}: column {column!r} holds a text of more than {MAX_TEXT} characters")
        return [missing or "" if value is None else value for value in values]

    def numbers(self, column: str, *, may_lack: bool = False) -> Floats:
        """A column of finite numbers, float64 [rows]. may_lack: missing ones are NaN, and are refused otherwise. Raises
        DataError."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = self._column(column)
        if _is_text(found.type):
            stripped = pc.utf8_trim_whitespace(found)
            found = pc.if_else(pc.equal(stripped, ""), pa.scalar(None, pa.string()), stripped)
        elif not (
            pa.types.is_integer(found.type) or pa.types.is_floating(found.type) or pa.types.is_boolean(found.type)
        ):
            raise DataError(f"{self.name}: column {column!r} holds {found.type}; expected numbers")
        lost = np.asarray(found.is_null())
        try:
            values = np.array(pc.cast(found, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        except (pa.ArrowException, ValueError) as error:  # whose text quotes the value
            raise DataError(f"{self.name}: column {column!r} holds texts that are not numbers") from error
        self._check_finite(column, values, lost, may_lack)
        return values

    def _check_finite(self, column: str, values: Floats, lost: Bools, may_lack: bool) -> None:
        lost = lost | np.isnan(values)
        wrong = np.flatnonzero(np.isinf(values) if may_lack else lost | np.isinf(values)) + 1
        if len(wrong):
            raise DataError(
                f"{self.name}: column {column!r} is no finite number in {counted(len(wrong), 'rows')} "
                f"({_some(wrong.tolist())})"
            )

    def _column(self, name: str) -> pa.Array:
        if name not in self.columns:
            shown = ", ".join(ascii(one[:60]) for one in list(self.columns)[:20])
            more = ", ..." if len(self.columns) > 20 else ""
            raise DataError(f"{self.name}: there is no column {name!r}; found {shown or 'none'}{more}")
        return self.columns[name]


def _some(rows: Sequence[int]) -> str:
    noun = "row" if len(rows) == 1 else "rows"
    return f"{noun} {', '.join(map(str, rows[:_NAMED]))}{', ...' if len(rows) > _NAMED else ''}"


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_table(path: Path) -> bool:
    """Whether the name says that the file is a table."""
    return path.suffix.lower() in _SUFFIXES


def read_table(path: Path) -> Table:
    """A file named .csv, .parquet or .pq. Raises DataError for one that cannot be read or is too large."""
    with open_bounded(path) as file:
        if _SUFFIXES.get(path.suffix.lower()) == "csv":
            return _checked(str(path), _read_csv(path, file))
        return _checked(str(path), _read_parquet(path, file))


@contextmanager
def open_bounded(path: Path, most: int = MAX_BYTES) -> Iterator[BinaryIO]:
    """To read. Raises DataError for what is not a regular file of at most so many bytes."""
    with read_errors(path, remedy="check the path"):
        if os.path.exists(path) and not is_file(path):  # noqa: PTH110  (opening a pipe would wait for a writer)
            raise DataError(f"{path}: found a folder, pipe or device; expected a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise DataError(f"{path}: has {size:,} bytes; at most {most:,} are read")
            yield file


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
    return _checked(name, found)


def _checked(name: str, columns: Mapping[str, pa.Array]) -> Table:
    rows = len(next(iter(columns.values()))) if columns else 0
    if not rows:
        raise DataError(f"{name}: holds no rows")
    if rows > MAX_ROWS or len(columns) > MAX_COLUMNS:
        raise DataError(
            f"{name}: holds more than {MAX_ROWS:,} rows or {MAX_COLUMNS:,} columns; leave out what is not needed"
        )
    return Table(name, columns, rows)


def _read_csv(path: Path, file: BinaryIO) -> dict[str, pa.Array]:
    """Every column as texts, which is what a CSV holds."""
    import pyarrow as pa
    from pyarrow import csv

    names = _csv_header(path, file)
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
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowException as error:  # whose text quotes the row
        where = f"line {wrong[0]} has more or fewer cells than the header" if wrong else type(error).__name__
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({where}); expected one row a case") from error
    return {name: _joined(read.column(name)) for name in names}


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


def _read_parquet(path: Path, file: BinaryIO) -> dict[str, pa.Array]:
    """Columns of one value a row; a few bytes can stand for any number of equal rows, so that texts stay encoded until
    it is known how long they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, memory_map=False) as first:
            names = _named_once(path, list(first.schema_arrow.names))
            texts = [field.name for field in first.schema_arrow if _is_text(field.type)]
            _check_claims(path, first.metadata)
        file.seek(0)
        batches: list[pa.RecordBatch] = []
        rows = 0
        with pq.ParquetFile(file, memory_map=False, read_dictionary=texts) as whole:
            for batch in whole.iter_batches(_BATCH_ROWS):
                rows += batch.num_rows
                if rows > MAX_ROWS:
                    raise DataError(f"{path}: holds more than {MAX_ROWS:,} rows")
                batches.append(batch)
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:  # whose text may quote a value
        raise DataError(f"{path}: cannot be read as Parquet ({type(error).__name__}); is it damaged?") from error
    read = pa.Table.from_batches(batches) if batches else None
    return {} if read is None else {name: _decoded(path, name, _joined(read.column(name))) for name in names}


def _check_claims(path: Path, metadata: Any) -> None:
    """What the file says of itself, before a page of it is unpacked."""
    size = 0
    for group in range(min(metadata.num_row_groups, MAX_ROWS)):
        size += metadata.row_group(group).total_byte_size
    if metadata.num_rows > MAX_ROWS or size > MAX_BYTES:
        raise DataError(
            f"{path}: says that it holds {counted(metadata.num_rows, 'rows')} of {size:,} bytes; at most "
            f"{MAX_ROWS:,} and {MAX_BYTES:,} are read"
        )


def _decoded(path: Path, name: str, values: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(values.type):
        return values
    longest = pc.max(pc.binary_length(values.dictionary)).as_py() or 0
    if longest > 4 * MAX_TEXT:
        raise DataError(f"{path}: column {name!r} holds a text of {longest:,} bytes; at most {4 * MAX_TEXT:,} are read")
    return values.dictionary_decode()


def _joined(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # as some versions give it
        return found.chunk(0) if found.num_chunks else pa.array([], found.type)
    return found
