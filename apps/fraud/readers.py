"""Transactions and labels from files: the Fraud Detection Handbook's and the ULB cards' Parquet, JSON lines and Parquet
of our own form. All of them stream, but the cards, which are small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from apps.fraud.transactions import Label, TimeMs, Transaction
from core.errors import DataError


class Timed(msgspec.Struct, frozen=True, gc=False):
    """The time of a transaction or label, for a look at a file that leaves the rest unread."""

    time_ms: TimeMs


Row = TypeVar("Row", Transaction, Label, Timed)
Judge = Callable[[int, int], str | None]
"""(time_ms, line) -> why the row is refused, or None."""

LONGEST_LINE = 64 * 1024
"""Bytes; a longer line is no transaction."""
BATCH_ROWS = 4096

HANDBOOK_COLUMNS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")
CARD_FEATURES: tuple[str, ...] = ("Time", *(f"V{i}" for i in range(1, 29)), "Amount")


@dataclass(frozen=True)
class Rejected:
    """A row that is none. line: 1-based (of Parquet: the row); reason: without the row's content."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Cards:
    """The ULB cards: features float32 [N, 30] in the order of CARD_FEATURES, labels int8 [N] (1 is fraud), time_s
    int64 [N] since the first transaction, amounts float64 [N]. In the order of time."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    time_s: npt.NDArray[np.int64]
    amounts: npt.NDArray[np.float64]


def read_rows(path: Path, kind: type[Row], *, judge: Judge | None = None) -> Iterator[Row | Rejected]:
    """The transactions (or labels) of a file: Parquet by its first bytes, else JSON lines. Memory is bounded. judge:
    which times are believed. Raises DataError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.peek(4)[:4]  # a pipe could not be read from its beginning again
            if head[:2] == b"\x1f\x8b":
                raise DataError(f"{path}: is compressed with gzip; unpack it first, or: gzip -dc FILE | ... --input -")
            if head == b"PAR1":
                yield from _read_parquet(path, kind, judge)
            else:
                yield from read_lines(file, str(path), kind, judge=judge)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_lines(file: BinaryIO, source: str, kind: type[Row], *, judge: Judge | None = None) -> Iterator[Row | Rejected]:
    """JSON lines of an open file, or of standard input; blank lines are skipped."""
    decoder = msgspec.json.Decoder(kind)
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            yield Rejected(source, number, f"longer than {LONGEST_LINE} bytes")
        elif line.strip():
            try:
                row = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield Rejected(source, number, _describe(error))
                continue
            reason = judge(row.time_ms, number) if judge else None
            yield row if reason is None else Rejected(source, number, reason)


def _read_parquet(path: Path, kind: type[Row], judge: Judge | None) -> Iterator[Row | Rejected]:
    """Columns are the fields of `kind`; others are left unread."""
    number = 0
    for batch in _batches(path, kind.__struct_fields__):
        for row in _python_rows(batch):
            number += 1
            if row is None:
                yield Rejected(str(path), number, "holds text that is not UTF-8, or a time that is none")
                continue
            try:
                found = msgspec.convert(row, kind)
            except msgspec.ValidationError as error:
                yield Rejected(str(path), number, _describe(error))
                continue
            reason = judge(found.time_ms, number) if judge else None
            yield found if reason is None else Rejected(str(path), number, reason)


def _python_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """None for a row with a value that Python cannot hold."""
    try:
        rows: list[dict[str, Any] | None] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        if len(batch) == 1:
            return [None]
        half = len(batch) // 2
        return _python_rows(batch.slice(0, half)) + _python_rows(batch.slice(half))
    return rows


def read_handbook(path: Path, judge: Judge | None = None) -> Iterator[tuple[Transaction, bool]]:
    """The handbook's transactions, each with whether it is a fraud; in the order of time `labels.label_later` makes a
    stream of them. Raises DataError for a file that is not theirs, and for a time that is not believed."""
    number = 0
    for batch in _batches(path, HANDBOOK_COLUMNS):
        try:
            ids, times, customers, terminals, amounts, frauds = (
                batch.column(HANDBOOK_COLUMNS[0]),
                batch.column(HANDBOOK_COLUMNS[1]).cast(pa.timestamp("ms")).cast(pa.int64()),
                *(batch.column(name) for name in HANDBOOK_COLUMNS[2:]),
            )
            columns = [column.to_pylist() for column in (ids, times, customers, terminals, amounts, frauds)]
            for identity, time_ms, customer, terminal, amount, fraud in zip(*columns, strict=True):
                number += 1
                row = {
                    "transaction_id": None if identity is None else str(identity),
                    "customer_id": None if customer is None else str(customer),
                    "terminal_id": None if terminal is None else str(terminal),
                    "time_ms": time_ms,
                    "amount": amount,
                }
                transaction = msgspec.convert(row, Transaction)
                reason = judge(transaction.time_ms, number) if judge else None
                if reason:
                    raise DataError(f"{path}: row {number}: {reason}; correct or remove the row")
                yield transaction, bool(fraud)
        except (msgspec.ValidationError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{path}: not the handbook's transactions (after row {number - 1}: {error})") from error


def read_cards(path: Path) -> Cards:
    """The ULB card data. Raises DataError for a file that is not it."""
    batches = list(_batches(path, (*CARD_FEATURES, "Class")))
    if not batches:
        raise DataError(f"{path}: holds no transaction")
    table = pa.Table.from_batches(batches)
    try:
        *columns, labels = (table.column(name).to_numpy().astype(np.float64) for name in (*CARD_FEATURES, "Class"))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: a column does not hold numbers ({error})") from error
    if not (np.isfinite(columns[0]) & np.isfinite(columns[-1]) & np.isin(labels, (0, 1))).all():
        raise DataError(f"{path}: a row lacks its Time or Amount, or its Class is neither 0 nor 1")
    time_s = columns[0].astype(np.int64)
    order = np.argsort(time_s, kind="stable")
    return Cards(
        features=np.stack(columns, axis=1).astype(np.float32)[order],
        labels=labels.astype(np.int8)[order],
        time_s=time_s[order],
        amounts=columns[-1][order],
    )


def _batches(path: Path, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Raises DataError for what is not Parquet or lacks a column."""
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            twice = [name for name in columns if file.schema_arrow.names.count(name) > 1]
            if twice:
                raise DataError(f"{path}: has more than one column {', '.join(twice)}; one of each is expected")
            if missing:
                raise DataError(f"{path}: has no column {', '.join(missing)}; expected {', '.join(columns)}")
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a sound Parquet file ({str(error).splitlines()[0]})") from error


def _describe(error: Exception) -> str:
    """msgspec says what is wrong and in which field, never the value."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
