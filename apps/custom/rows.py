"""Tables that are scored row by row: read in parts, and turned into a program's rows, each of which may be unfit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featherweight.apps.custom.sealed import Schema
from featherweight.core.arrays import AnyFloats, Bools, Texts
from featherweight.core.errors import DataError
from featherweight.core.files import is_file, read_errors
from featherweight.core.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 16_384
"""Rows that are read, scored and written together: those of thirty columns fit into a processor's cache."""
_CSV_PART_BATCHES = 64
_CSV_BLOCK_BYTES = 4 << 20
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_SHOWN = 5


class TableSource(Protocol):
    """A table in parts, each of which can be scored for itself. rows: of all, None where that is not known before."""

    rows: int | None

    def parts(self) -> Iterator[Iterator[pa.RecordBatch]]:
        """Each part's batches of up to BATCH_ROWS rows. A part that is not iterated is skipped."""
        ...


def open_source(path: Path, columns: Sequence[str]) -> TableSource:
    """columns: those that are read. Raises DataError for a file that is no such table, or lacks a column."""
    if not is_file(path):
        raise DataError(f"{path}: there is no such file")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _ParquetSource(path, columns)
    if path.suffix.lower() == ".csv":
        return _CsvSource(path, columns)
    raise DataError(f"{path}: expected a table named .parquet or .csv")


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(f"{path}: lacks {counted(len(missing), 'columns')} ({', '.join(missing[:_SHOWN])}{more})")


class _ParquetSource:
    """A row group is a part."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path, self._columns = path, list(columns)
        with read_errors(path, "cannot be read as Parquet", also=(pa.ArrowException, ValueError)):
            self._file = pq.ParquetFile(path)
        _check_columns(path, self._file.schema_arrow.names, columns)
        self.rows: int | None = self._file.metadata.num_rows

    def parts(self) -> Iterator[Iterator[pa.RecordBatch]]:
        for group in range(self._file.num_row_groups):
            yield self._batches(group)

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with read_errors(self._path, "cannot be read as Parquet", also=(pa.ArrowException, ValueError)):
            yield from self._file.iter_batches(BATCH_ROWS, row_groups=[group], columns=self._columns)


class _CsvSource:
    """So many blocks of the file are a part. Every column is read as texts, so that one bad value spoils one row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, list(columns)
        self.rows: int | None = None
        with read_errors(path, also=(UnicodeDecodeError,)), path.open("rb") as file:
            import csv

            names = next(csv.reader([file.readline(1 << 20).decode("utf-8-sig")]), [])
        self._names = [name.strip() for name in names]
        _check_columns(path, self._names, columns)

    def parts(self) -> Iterator[Iterator[pa.RecordBatch]]:
        import pyarrow as pa
        from pyarrow import csv

        failures = (pa.ArrowException, ValueError)
        with read_errors(self._path, "cannot be read as CSV in UTF-8", also=failures):
            reader = csv.open_csv(
                self._path,
                csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, column_names=self._names, skip_rows=1),
                csv.ParseOptions(newlines_in_values=True),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(self._names, pa.string()),
                    include_columns=self._columns,
                    strings_can_be_null=False,
                ),
            )
        batches = iter(reader)
        ended: list[bool] = []

        def part() -> Iterator[pa.RecordBatch]:
            for _ in range(_CSV_PART_BATCHES):
                with read_errors(self._path, "cannot be read as CSV in UTF-8", also=failures):
                    batch = next(batches, None)
                if batch is None:
                    ended.append(True)
                    return
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(start, BATCH_ROWS)

        while not ended:
            found = part()
            yield found
            for _ in found:  # what was not asked for is passed over
                pass


@dataclass(frozen=True, eq=False)
class Prepared:
    """rows: [N, F], float32 or float64, as the program takes them, zeros where they are unfit; fit: bool [N];
    reasons: str [N], empty where a row is fit."""

    rows: AnyFloats
    fit: Bools
    reasons: Texts


def prepare(batch: pa.RecordBatch, schema: Schema, dtype: str = "float32") -> Prepared:
    """A table's batch as the program's rows, of the type `dtype`; each row that cannot be scored gets the first
    reason."""
    rows: AnyFloats = np.empty((batch.num_rows, len(schema.columns)), dtype)
    texts = np.zeros(0, bool)
    reasons: dict[int, str] = {}
    for place, name in enumerate(schema.columns):
        with np.errstate(over="ignore"):
            rows[:, place], texts = _numbers(batch.column(name))
        _note(reasons, texts, f"{name}: not a number")
    if schema.missing_value is not None:
        rows[rows == rows.dtype.type(schema.missing_value)] = np.nan
    strange = np.isinf(rows) if schema.missing else ~np.isfinite(rows)
    if strange.any():
        for place, name in enumerate(schema.columns):
            column = strange[:, place]
            if column.any():
                _note(reasons, column & np.isinf(rows[:, place]), f"{name}: infinite, or too large for {dtype}")
                _note(reasons, column & np.isnan(rows[:, place]), f"{name}: missing")
    for place in schema.categories:
        column = rows[:, place]
        with np.errstate(invalid="ignore"):
            part = np.isfinite(column) & (column != np.floor(column))
        _note(reasons, part, f"{schema.columns[place]}: not a whole number, and so no category")
    fit = np.ones(len(rows), bool)
    told = np.full(len(rows), "", object)
    for row, reason in reasons.items():
        fit[row], told[row] = False, reason
        rows[row] = 0
    return Prepared(rows, fit, told.astype(str))


def _note(reasons: dict[int, str], wrong: Bools, reason: str) -> None:
    for row in np.flatnonzero(wrong).tolist():
        reasons.setdefault(row, reason)


def _numbers(column: Any) -> tuple[AnyFloats, Bools]:
    """(values [N], NaN where there is none; which are texts that are no numbers, bool [N])."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    none = np.zeros(len(column), bool)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        empty = pc.is_in(pc.utf8_lower(texts), pa.array(["", "nan", "na", "null"]))
        good = pc.match_substring_regex(texts, _NUMBER)
        wrong = np.asarray(pc.fill_null(pc.and_not(pc.invert(good), empty), False))
        texts = pc.if_else(pc.fill_null(good, False), texts, pa.scalar(None, pa.string()))
        return np.asarray(pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False), np.float64), wrong
    if pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64(), safe=False)
    if any(of(kind) for of in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)):
        return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64), none
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), none
    return np.full(len(column), np.nan), ~none
