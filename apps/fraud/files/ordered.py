"""Transactions and labels in the order of time, whatever order they are in: one look at a file's times says what is
plausible and whether it must be sorted; a pipe is taken as it comes."""

from __future__ import annotations

import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Generic

import msgspec

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.files.readers import (
    BATCH_ROWS,
    LONGEST_LINE,
    Judge,
    RejectedRow,
    Row,
    Timed,
    read_lines,
    read_rows,
)
from featherweight.apps.fraud.files.sorting import sort_items
from featherweight.apps.fraud.plausible import ONCE, Bound, Margin, Times, judge_ordered, judge_pipe, refuse_live
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import DataError
from featherweight.core.files import read_errors

Pair = tuple[Transaction, bool]
Clock = Callable[[], int]

_BLOCK_BYTES: Final = 1 << 18
_decode_row = msgspec.json.Decoder(Timed).decode


@dataclass(frozen=True)
class TimeOrder:
    """ordered: whether the times never run backwards; bound: of what is plausible."""

    source: str
    ordered: bool
    bound: Bound

    def judge(self, time_ms: int, line: int) -> str | None:
        """Which rows are believed, in whatever order they come."""
        return self.bound.refuse(time_ms)

    def judge_in_order(self) -> Judge:
        """Those of a second reading of what is ordered."""
        return judge_ordered(self.source, self.bound)


def check_order(times: Iterator[int], source: str, now_ms: int) -> TimeOrder:
    """Raises DataError when those of most rows are in another unit."""
    return _check_order(iter(lambda: list(islice(times, BATCH_ROWS)), []), source, now_ms)


def _check_order(batches: Iterable[Sequence[int]], source: str, now_ms: int, margin: Margin = ONCE) -> TimeOrder:
    found = Times()
    for times in batches:
        found.add(times)
    return TimeOrder(source, found.ordered, found.find_bound(source, now_ms, margin))


def check_file_order(path: Path, kind: type[Row], now_ms: int, margin: Margin = ONCE) -> TimeOrder:
    """Nothing but the times is decoded. Raises DataError, also when the file cannot be read, or is not of that kind."""
    return _check_order(_read_times(path, kind), str(path), now_ms, margin)


def _read_times(path: Path, kind: type[Row]) -> Iterator[list[int]]:
    """The times of a file's rows, many at once; rows without one are left out."""
    with read_errors(path), path.open("rb") as file:
        if file.peek(1)[:1] == b"{":
            yield from _read_json_times(file)
            return
    with closing(read_rows(path, kind)) as first:
        next(first, None)  # where columns are missing, it is said of all of them
    rows = read_rows(path, Timed)
    while batch := list(islice(rows, BATCH_ROWS)):
        yield [row.time_ms for row in batch if isinstance(row, Timed)]


def _read_json_times(file: BinaryIO) -> Iterator[list[int]]:
    """Whole blocks of lines are decoded at once, which takes a third of the time; those of a block with a line that is
    no row one by one."""
    decode, rest = msgspec.json.Decoder(Timed).decode_lines, b""
    while block := file.read(_BLOCK_BYTES):
        lines, newline, rest = (rest + block).rpartition(b"\n")
        rest = rest[: LONGEST_LINE + 1]  # enough to be too long
        yield _decode_times(decode, lines + newline)
    yield _decode_times(decode, rest)


def _decode_times(decode: Callable[[bytes], list[Timed]], lines: bytes) -> list[int]:
    try:
        return [row.time_ms for row in decode(lines)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [time_ms for line in lines.split(b"\n") for time_ms in _decode_time(line)]


def _decode_time(line: bytes) -> Iterator[int]:
    """None for a line that is not a row, which is reported when the rows are read."""
    if len(line) <= LONGEST_LINE:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield _decode_row(line).time_ms


class InTime(Generic[Row]):
    """The rows of one source in the order of time, those of the same time in the source's. Made, it has looked at a
    file and reads it once more."""

    def __init__(
        self,
        read: Callable[[Judge], Iterator[Row | RejectedRow]],
        kind: type[Row],
        judge: Judge,
        sorting_in: Path | None,
    ) -> None:
        """sorting_in: a folder for what does not fit into memory; None for what is in order."""
        self.in_order = sorting_in is None
        self._read: Callable[[Judge], Iterator[Row | RejectedRow]] = read
        self._kind: type[Row] = kind
        self._judge, self._sorting_in = judge, sorting_in

    def read(self, reject: Callable[[RejectedRow], None]) -> Iterator[tuple[int, Row]]:
        """(number among the rows that are sound, from 1 on, in the source's order; row). Raises DataError,
        OutputError."""
        numbered = self._number(reject)
        return numbered if self._sorting_in is None else self._sort(numbered, self._sorting_in)

    def _sort(self, numbered: Iterator[tuple[int, Row]], folder: Path) -> Iterator[tuple[int, Row]]:
        encode, decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(tuple[int, self._kind]).decode  # type: ignore[name-defined]
        items = ((row.time_ms, encode((number, row))) for number, row in numbered)
        for _, content in sort_items(items, folder):
            yield decode(content)

    def _number(self, reject: Callable[[RejectedRow], None]) -> Iterator[tuple[int, Row]]:
        number = 0
        for row in self._read(self._judge):
            if isinstance(row, RejectedRow):
                reject(row)
            else:
                number += 1
                yield number, row


def open_transactions(
    path: Path | None, sorting_in: Path, now_ms: Clock, unread: Unread, margin: Margin = ONCE
) -> InTime[Transaction]:
    """path: None for standard input, which like any pipe is taken in its own order; unread: counts rows with fields
    that are not known; margin: of a file. Raises DataError."""
    if path is None:
        read = partial(_read_standard_input, unread=unread)
        return InTime(read, Transaction, judge_pipe("standard input", now_ms), None)
    if _is_pipe(path):
        return _take(path, Transaction, judge_pipe(str(path), now_ms), None, unread)
    return _open_file(path, Transaction, sorting_in, now_ms, unread, margin)


def open_labels(path: Path, sorting_in: Path, now_ms: Clock, unread: Unread) -> InTime[Label]:
    """As of a file, a pipe's are sorted too: they are all there before the first of them counts. Raises DataError."""
    if _is_pipe(path):
        return _take(path, Label, lambda time_ms, line: refuse_live(time_ms, now_ms()), sorting_in, unread)
    return _open_file(path, Label, sorting_in, now_ms, unread)


def _open_file(
    path: Path, kind: type[Row], sorting_in: Path, now_ms: Clock, unread: Unread, margin: Margin = ONCE
) -> InTime[Row]:
    order = check_file_order(path, kind, now_ms(), margin)
    if order.ordered:
        return _take(path, kind, order.judge_in_order(), None, unread)
    return _take(path, kind, order.judge, sorting_in, unread)


def _take(path: Path, kind: type[Row], judge: Judge, sorting_in: Path | None, unread: Unread) -> InTime[Row]:
    return InTime(lambda judging: read_rows(path, kind, judge=judging, unread=unread), kind, judge, sorting_in)


def _is_pipe(path: Path) -> bool:
    """Whether it can be read once only, like <(...) of a shell."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _read_standard_input(judge: Judge, unread: Unread) -> Iterator[Transaction | RejectedRow]:
    if sys.stdin is None:
        raise DataError("standard input: cannot be read (it is closed)")
    with read_errors("standard input"):
        yield from read_lines(sys.stdin.buffer, "standard input", Transaction, judge=judge, unread=unread)


def sort_labelled(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Transactions with whether they are frauds, in the order of time, for training. What does not fit into memory goes
    into the system's folder for temporary files. Raises OutputError."""
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(Pair).decode
    items = ((pair[0].time_ms, encode(pair)) for pair in pairs)
    for _, content in sort_items(items, Path(tempfile.gettempdir())):
        yield decode(content)
