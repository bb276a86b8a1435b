"""The training, validation and test parts of a data set: by days where histories make the features, by share of the
rows where the features are given."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.files.ordered import check_file_order, check_order, sort_labelled
from featherweight.apps.fraud.files.readers import (
    CARD_FEATURES,
    Judge,
    RejectedRow,
    read_cards,
    read_handbook,
    read_rows,
)
from featherweight.apps.fraud.labels import DAY_MS, label_later
from featherweight.apps.fraud.plausible import read_clock_ms
from featherweight.apps.fraud.training.description import SplitDays
from featherweight.apps.fraud.training.protocol import held_out_rows
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.arrays import Clusters, FeatureRows, Integers, Labels
from featherweight.core.datasets.catalogue import local_copy
from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import is_file, is_there
from featherweight.core.terminal import counted

if TYPE_CHECKING:
    from featherweight.apps.fraud.training.replay import Rows

Reader = Literal["handbook", "records", "ulb"]
READERS: tuple[Reader, ...] = get_args(Reader)
FORMS = (".jsonl", ".csv", ".parquet")
log = logging.getLogger("featherweight.fraud")

EPOCH = date(1970, 1, 1)
CARD_COLUMNS = tuple(name for name in CARD_FEATURES if name != "Time")
"""Without the seconds since the data began, which no other data has."""

Row = TypeVar("Row", Transaction, Label)


@dataclass(frozen=True)
class SplitRows:
    """Rows that a model is fitted or judged on. rows: their numbers in the data, in the order of time; days: since
    1970-01-01; customers, terminals: numbers that stand for them; span_days: the time that the part covers."""

    rows: Integers
    features: FeatureRows
    labels: Labels
    days: Integers
    customers: Clusters
    terminals: Clusters
    span_days: float

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Split:
    """names: the columns; source: as in `FeatureSchema`."""

    train: SplitRows
    validation: SplitRows
    test: SplitRows
    names: tuple[str, ...]
    source: Literal["histories", "given"]


def find_data(data: str, reader: str) -> Path:
    """Where they are. Raises UsageError for an unknown reader, DataError when there is no such data."""
    if reader not in READERS:
        raise UsageError(f"data format {reader!r} is not one of {', '.join(READERS)}")
    path = Path(data) if is_there(Path(data)) else local_copy(data)
    if path is None:
        raise DataError(f"{data}: neither a path nor a fetched data set; see: featherweight data list")
    if reader == "records":
        for name in ("labels", "transactions"):
            _find(path, name)
    return path


def read_parts(
    data: str,
    reader: str,
    layout: SplitDays,
    names: tuple[str, ...],
    on_progress: Callable[[int], None] = lambda done: None,
) -> Split:
    """data: a path or the catalogue's name of a fetched set; names: which features of histories to take; on_progress
    hears how many transactions are done.

    Raises UsageError for an unknown reader, DataError when there is no such data, it is not what it should be, or it is
    shorter than the layout.
    """
    path = find_data(data, reader)
    if reader == "ulb":
        return split_cards(path)
    labelled = read_in_time(path, reader)
    from featherweight.apps.fraud.training.replay import replay  # compiled code, which takes a second to load

    rows = replay(label_later(labelled, layout.delay_days), layout.delay_days, on_progress=on_progress)
    if rows.conflicts:
        log.warning(
            "%s: %s with the id of another one, and another amount, customer, terminal or time: left out",
            path,
            counted(rows.conflicts, "transactions"),
        )
    return split_days(rows, layout, names)


def read_in_time(path: Path, reader: str) -> Iterator[tuple[Transaction, bool]]:
    """Transactions in the order of time, each with whether it is a fraud, whatever order the files are in. Raises
    DataError, also for a time that the others make implausible."""
    now_ms = read_clock_ms()
    if reader == "handbook":
        order = check_order((transaction.time_ms for transaction, _ in read_handbook(path)), str(path), now_ms)
    else:
        order = check_file_order(_find(path, "transactions"), Transaction, now_ms)
    judge = order.judge_in_order() if order.ordered else order.judge
    labelled = read_handbook(path, judge) if reader == "handbook" else read_labelled(path, judge)
    return labelled if order.ordered else sort_labelled(labelled)


def split_days(rows: Rows, layout: SplitDays, names: tuple[str, ...]) -> Split:
    """By days, counted back from the layout's last one; the known cards leave validation and test (`protocol`)."""
    days = rows.time_ms // DAY_MS
    labels = (rows.labels == 1).astype(np.int64)
    test_from = _last_day(days, layout) - layout.test_days + 1
    validation_from = test_from - layout.delay_days - layout.validation_days
    train_from = validation_from - layout.delay_days - layout.train_days
    if train_from < days.min():
        raise DataError(
            f"the data begins on {_iso(int(days.min()))}, but {layout.train_days} training days, {layout.delay_days} "
            f"until their labels are known, {layout.validation_days} validation days, {layout.delay_days} again and "
            f"{layout.test_days} test days begin on {_iso(train_from)}; take fewer days or more data"
        )
    columns = np.array([CATALOGUE.index(name) for name in names])

    def part(index: Integers, span_days: float) -> SplitRows:
        features = np.ascontiguousarray(rows.features[np.ix_(index, columns)])
        identities = rows.customers[index], rows.terminals[index]
        return SplitRows(index, features, labels[index], days[index], *identities, span_days)

    def held_out(first: int, count: int) -> SplitRows:
        return part(
            held_out_rows(
                days,
                rows.customers,
                labels,
                first=first,
                count=count,
                known_from=train_from,
                delay_days=layout.delay_days,
            ),
            count,
        )

    def checked(name: str, found: SplitRows) -> SplitRows:
        if len(found) == 0:
            raise DataError(
                f"no transaction is left in the {name} days, without the cards that are known as compromised by then; "
                "take other days or more data"
            )
        return found

    train = np.flatnonzero((days >= train_from) & (days < train_from + layout.train_days))
    return Split(
        checked("training", part(train, layout.train_days)),
        checked("validation", held_out(validation_from, layout.validation_days)),
        checked("test", held_out(test_from, layout.test_days)),
        names,
        "histories",
    )


def split_cards(path: Path) -> Split:
    """The ULB cards: the first 70% train, the next 10% validate, the last 20% test. They have no customers
    and no terminals: every transaction is its own card."""
    cards = read_cards(path)
    columns = [CARD_FEATURES.index(name) for name in CARD_COLUMNS]
    count = len(cards.labels)
    edges = [0, count * 7 // 10, count * 8 // 10, count]

    def part(start: int, end: int) -> SplitRows:
        index = np.arange(start, end)
        span_s = int(cards.time_s[end - 1] - cards.time_s[start])
        return SplitRows(
            index,
            np.ascontiguousarray(cards.features[start:end][:, columns]),
            cards.labels[start:end].astype(np.int64),
            cards.time_s[start:end] // 86_400,
            index,
            index,
            span_s / 86_400,
        )

    train, validation, test = (part(start, end) for start, end in itertools.pairwise(edges))
    return Split(train, validation, test, CARD_COLUMNS, "given")


def read_labelled(folder: Path, judge: Judge | None = None) -> Iterator[tuple[Transaction, bool]]:
    """Our own form: a folder with `transactions.jsonl`, `.csv` or `.parquet`, and `labels` likewise. Where a
    transaction has several labels, the last one in the file counts, as when serving. A transaction without a label is
    no fraud; frauds without a transaction are reported. judge: which times of transactions are believed. Raises
    DataError, with the place, for a row that is not valid."""
    frauds = set[tuple[str, str]]()
    labels = _find(folder, "labels")
    for label in _read_sound(labels, Label, check_file_order(labels, Label, read_clock_ms()).judge):
        change = frauds.add if label.is_fraud else frauds.discard
        change((label.transaction_id, label.customer_id))
    unmet = frauds.copy()
    for transaction in _read_sound(_find(folder, "transactions"), Transaction, judge):
        key = (transaction.transaction_id, transaction.customer_id)
        unmet.discard(key)
        yield transaction, key in frauds
    if unmet:
        log.warning(
            "%s: %s that it calls fraud cannot be found by transaction_id and customer_id, and "
            "training does not use that",
            labels,
            counted(len(unmet), "transactions"),
        )


def _read_sound(path: Path, kind: type[Row], judge: Judge | None) -> Iterator[Row]:
    unread = Unread()
    for row in read_rows(path, kind, judge=judge, unread=unread):
        if isinstance(row, RejectedRow):
            raise DataError(f"{row}; a model is trained on sound data only: correct or remove the row")
        yield row
    if unread.rows:
        log.warning("%s: %s", path, unread)


def _find(folder: Path, name: str) -> Path:
    found = [folder / (name + suffix) for suffix in FORMS if is_file(folder / (name + suffix))]
    if len(found) > 1:
        raise DataError(f"{folder}: has {' and '.join(path.name for path in found)}; leave the one that is meant")
    if not found:
        forms = ", no ".join(name + suffix for suffix in FORMS)
        raise DataError(f"{folder}: no {forms}; reader `records` wants transactions and labels")
    return found[0]


def _last_day(days: Integers, layout: SplitDays) -> int:
    """The layout's, or the last that the data holds whole: the one before its last."""
    if not len(days):
        raise DataError("the data holds no transaction")
    until = layout.last_day()
    if until is None:
        return int(days.max()) - 1
    last = (until - EPOCH).days
    if last > days.max():
        raise DataError(f"the data ends on {_iso(int(days.max()))}, before --until {layout.until}")
    return last


def _iso(day: int) -> str:
    ordinal = EPOCH.toordinal() + day
    return date.fromordinal(ordinal).isoformat() if ordinal > 0 else "a day before the year 1"
