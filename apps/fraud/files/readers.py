"""Transactions and labels from files: the Fraud Detection Handbook's and the ULB cards' Parquet; JSON lines, CSV and
Parquet of our own form. All of them stream, but the cards, which are small."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featherweight.apps.fraud.decoding import COMMA, Decoder, Unread, check_columns
from featherweight.apps.fraud.transactions import Label, TimeMs, Transaction
from featherweight.core.arrays import FeatureRows, Floats, Integers, PartialLabels
from featherweight.core.errors import DataError
from featherweight.core.files import read_errors
from featherweight.core.terminal import counted


class Timed(msgspec.Struct, frozen=True, gc=False):
    """The time of a transaction or label, for a look at a file that leaves the rest unread."""

    time_ms: TimeMs


Row = TypeVar("Row", Transaction, Label, Timed)
Judge = Callable[[int, int], str | None]
"""(time_ms, line) -> why the row is refused, or None."""

LONGEST_LINE = 64 * 1024
"""Bytes; a longer line is no transaction."""
_TOO_LONG = f"longer than {LONGEST_LINE} bytes"
BATCH_ROWS = 4096
BOM = b"\xef\xbb\xbf"
"""Excel and others begin a file in UTF-8 with it."""
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes -> what has compressed a file."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
DELIMITERS = ",;\t"
_EXPONENT = re.compile(r"\d(?:[.,](\d{1,20}))?[eE]\+(\d{1,3})", re.ASCII)
_WANTED = {"float": "a number such as 57.16", "int": "a whole number", "bool": "true, false, 1 or 0"}
_ROUNDED = "{} is rounded, as spreadsheets write long numbers; save its column with all digits"

HANDBOOK_COLUMNS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")
CARD_FEATURES: tuple[str, ...] = ("Time", *(f"V{i}" for i in range(1, 29)), "Amount")


@dataclass(frozen=True)
class RejectedRow:
    """A row that is not a valid transaction or label."""

    source: str
    """The file that it stands in."""
    line: int
    """Its line, from 1 on; of Parquet the row."""
    reason: str
    """Why it was rejected, without the row's content."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Cards:
    """The ULB cards: features float32 [N, 30] in the order of CARD_FEATURES, labels int8 [N] (1 is fraud), time_s
    int64 [N] since the first transaction, amounts float64 [N]. In the order of time."""

    features: FeatureRows
    labels: PartialLabels
    time_s: Integers
    amounts: Floats


def read_rows(
    path: Path, kind: type[Row], *, judge: Judge | None = None, unread: Unread | None = None
) -> Generator[Row | RejectedRow]:
    """The transactions (or labels) of a file: Parquet by its first bytes, else CSV or JSON lines. Memory is bounded.
    judge: which times are believed; unread: counts the rows that have fields which are not known. Raises DataError when
    the file cannot be read."""
    unread = unread or Unread()
    with read_errors(path), path.open("rb") as file:
        head = file.peek(4)[:4]  # a pipe could not be read from its beginning again
        if head == b"PAR1":
            yield from _read_parquet(path, kind, judge, unread)
        else:
            is_csv = path.suffix.lower() == ".csv"
            yield from read_lines(file, str(path), kind, judge=judge, unread=unread, is_csv=is_csv)


def read_lines(
    file: BinaryIO,
    source: str,
    kind: type[Row],
    *,
    judge: Judge | None = None,
    unread: Unread | None = None,
    is_csv: bool = False,
) -> Iterator[Row | RejectedRow]:
    """The lines of an open file, or of standard input: JSON, or CSV where `is_csv` or the first line is the head of
    one. Blank lines are skipped. Raises DataError for what is not text, or a head without the columns."""
    unread = unread or Unread()
    lines = _number_lines(file)
    for number, line in lines:
        _check_text(source, line)
        line = line.removeprefix(BOM)
        if not line.strip():
            continue
        head = _find_head(source, line, kind, is_csv=is_csv)
        if head is not None:
            yield from _read_csv(lines, source, kind, judge, unread, *head)
        else:
            yield from _read_json(file, number, line, source, kind, judge, unread)
        return


def _number_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number from 1 on, line) of those that are not blank; of one that is longer than LONGEST_LINE, a byte more than
    that."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            _skip_rest(file, line)
        elif not line.strip():
            continue
        yield number, line


def _skip_rest(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(LONGEST_LINE)


def _check_text(source: str, line: bytes) -> None:
    """Raise DataError for the first line of what is not text in UTF-8."""
    for magic, packer in PACKED.items():
        if line.startswith(magic):
            raise DataError(
                f"{source}: is compressed with {packer}; unpack it first, for example: gzip -dc FILE | ... --input -"
            )
    if line.startswith(b"PAR1"):
        raise DataError(f"{source}: is Parquet, which can be read from a file only; name the file")
    if line.startswith(UTF_16):
        raise DataError(f"{source}: is UTF-16; save it as UTF-8")
    if line.count(0) * 4 > len(line):  # in UTF-16 it is every second byte
        raise DataError(f"{source}: begins with NUL bytes and is not text; if it is UTF-16, save it as UTF-8")
    text = line.removeprefix(BOM).strip()
    if text in (b"[", b"{") or text.startswith(b"[{"):  # row by row, the last object of an array would pass for a row
        wanted = "." if text == b"{" else ".[]"
        raise DataError(
            f"{source}: its JSON is not one object a line; make it so, for example: "
            f"jq -c '{wanted}' FILE | ... --input -"
        )


def _read_json(
    file: BinaryIO, number: int, line: bytes, source: str, kind: type[Row], judge: Judge | None, unread: Unread
) -> Iterator[Row | RejectedRow]:
    """From this line on, whose rest has been skipped if it is too long."""
    decoder = Decoder(kind)
    decode, commas = decoder.decode_known, decoder.commas
    while line:
        if len(line) > LONGEST_LINE:
            yield RejectedRow(source, number, _TOO_LONG)
        else:
            try:
                row: Row | RejectedRow | None = decode(line)
                if line.count(COMMA) != commas:
                    row = _look_again(decoder, line, unread, source, number)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                row = _look_again(decoder, line, unread, source, number)
            if row is not None:
                yield _judge(row, number, source, judge)
        line = file.readline(LONGEST_LINE + 1)
        number += 1
        if len(line) > LONGEST_LINE:
            _skip_rest(file, line)


def _judge(row: Row | RejectedRow, number: int, source: str, judge: Judge | None) -> Row | RejectedRow:
    if judge is None or isinstance(row, RejectedRow):
        return row
    reason = judge(row.time_ms, number)
    return row if reason is None else RejectedRow(source, number, reason)


def _look_again(
    decoder: Decoder[Row], line: bytes, unread: Unread, source: str, number: int
) -> Row | RejectedRow | None:
    """The row of a line, or why the line is not a valid row; None where it is blank."""
    if not line.strip():
        return None
    try:
        return decoder.decode(line, unread)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return RejectedRow(source, number, _describe(error))


def _find_head(source: str, line: bytes, kind: type[Row], *, is_csv: bool) -> tuple[list[str], str] | None:
    """(names of the columns, delimiter) of the head of a CSV, which has a name that is known, or one that only its
    capitals, blanks or quotes tell from it: that is not read, but told. None for another line. Raises DataError for
    another line of what must be CSV."""
    if line.lstrip().startswith((b"{", b"[")) and not is_csv:
        return None
    text = line[:LONGEST_LINE].decode(errors="replace").lower()
    known = set(kind.__struct_fields__)

    def count_known(delimiter: str) -> int:
        return len(known & {name.strip(" \"'\r\n") for name in text.split(delimiter)})

    delimiter = max(DELIMITERS, key=count_known)  # the first of equals
    likely = count_known(delimiter) > 0
    names = _split(line, delimiter) if likely or is_csv else None
    if isinstance(names, list) and likely:
        return names, delimiter
    if isinstance(names, list):
        check_columns(source, names, kind.__struct_fields__)
    if is_csv or likely:
        why = f" (found: {names})" if isinstance(names, str) else ""
        raise DataError(f"{source}: the first line must name the columns: {', '.join(kind.__struct_fields__)}{why}")
    return None


def _read_csv(
    lines: Iterator[tuple[int, bytes]],
    source: str,
    kind: type[Row],
    judge: Judge | None,
    unread: Unread,
    names: list[str],
    delimiter: str,
) -> Iterator[Row | RejectedRow]:
    """The rows below the head. A row is one line: no value that is known here needs more."""
    unknown = check_columns(source, names, kind.__struct_fields__)
    known = [(names.index(name), name) for name in kind.__struct_fields__]
    for number, line in lines:
        values = _split(line, delimiter)
        if isinstance(values, str):
            yield RejectedRow(source, number, values)
        elif len(values) != len(names):
            yield RejectedRow(
                source,
                number,
                f"has {counted(len(values), 'values')}, but the first line names {counted(len(names), 'columns')}",
            )
        else:
            try:
                # Text is all that a CSV has: not strict, so that 57.16 is a number, and true a truth.
                row = msgspec.convert({name: values[place] for place, name in known}, kind, strict=False)
                rounded = _find_rounded(known, values) if b"+" in line else None
                if rounded is not None:
                    raise msgspec.ValidationError(_ROUNDED.format(rounded))
            except msgspec.ValidationError as error:
                yield RejectedRow(source, number, _describe_text(error))
                continue
            if unknown:
                unread.add(unknown)
            yield _judge(row, number, source, judge)


def _describe_text(error: msgspec.ValidationError) -> str:
    """In a CSV all is text, and that it is would say nothing."""
    reason = _describe(error)
    for found, wanted in _WANTED.items():
        reason = reason.replace(f"`{found}`, got `str`", wanted)
    return reason


def _find_rounded(known: Sequence[tuple[int, str]], values: Sequence[str]) -> str | None:
    """The first time or identifier that lacks digits, as spreadsheets write a number of many: 1.52254E+12 may be hours
    off, and 4.55674E+15 is the card of many."""
    for place, name in known:
        found = None if name == "amount" else _EXPONENT.fullmatch(values[place])
        if found is not None and len(found[1] or "") < int(found[2]):
            return name
    return None


def _split(line: bytes, delimiter: str) -> list[str] | str:
    """The values of a line, or what is wrong with it."""
    if len(line) > LONGEST_LINE:
        return _TOO_LONG
    try:
        text = line.decode().rstrip("\r\n")
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except UnicodeDecodeError:
        return "not UTF-8"
    except csv.Error as error:  # says nothing of the content
        return f"not a line of CSV ({error})"


def _read_parquet(path: Path, kind: type[Row], judge: Judge | None, unread: Unread) -> Iterator[Row | RejectedRow]:
    """Columns are the fields of `kind`; others are left unread."""
    number = 0
    for batch in _batches(path, kind.__struct_fields__, unread):
        for row in _python_rows(batch):
            number += 1
            if row is None:
                yield RejectedRow(str(path), number, "holds text that is not UTF-8, or a time that is not valid")
                continue
            try:
                yield _judge(msgspec.convert(row, kind), number, str(path), judge)
            except msgspec.ValidationError as error:
                yield RejectedRow(str(path), number, _describe(error))


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
                if fraud not in (0, 1):  # a truth of anything else would be one in silence
                    raise DataError(f"{path}: row {number}: TX_FRAUD is neither 0 nor 1; correct or remove the row")
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


def _batches(path: Path, columns: tuple[str, ...], unread: Unread | None = None) -> Iterator[pa.RecordBatch]:
    """Raises DataError for what is not Parquet or lacks a column."""
    try:
        with read_errors(path), pq.ParquetFile(path) as file:
            unknown = check_columns(str(path), file.schema_arrow.names, columns)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                if unknown and unread is not None:
                    unread.add(unknown, len(batch))
                yield batch
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a sound Parquet file ({str(error).splitlines()[0]})") from error


def _describe(error: Exception) -> str:
    """msgspec says what is wrong and in which field, never the value."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
