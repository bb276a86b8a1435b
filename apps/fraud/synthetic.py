"""A seeded stream of card transactions after the published description of the Fraud Detection Handbook, chapter 3.

Customers and terminals lie on a plane of 100 x 100; a customer uses the terminals within a radius of 5, and has a mean
amount (uniform 5..100, deviation half of it) and a mean number of transactions a day (uniform 0..4; the number is
Poisson's). Times are normal around noon; those outside of the day are left out. Frauds come by three scenarios:

1. every amount above 220;
2. every day two terminals are compromised: all of their transactions of 28 days;
3. every day three customers are compromised: of their transactions of 14 days every third, its amount times five.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featherweight.apps.fraud.labels import DAY_MS, label_later
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.arrays import Floats, Integers
from featherweight.core.files import atomic_write, write_errors, writing_alone

START_MS = 1_522_540_800_000
"""2018-04-01, a Sunday: where the handbook's data begin."""
SIDE, RADIUS = 100.0, 5.0
NOON_S, SPREAD_S, DAY_S = 43_200, 20_000, 86_400
HIGH_AMOUNT = 220.0
TERMINALS_A_DAY, TERMINAL_DAYS = 2, 28
CUSTOMERS_A_DAY, CUSTOMER_DAYS, ABUSED_RATIO, ABUSED_FACTOR = 3, 14, 1 / 3, 5.0
_ROWS = 8192

Format = Literal["parquet", "jsonl"]
SCHEMAS = {
    kind: pa.schema(
        [
            *((name, pa.string()) for name in ("transaction_id", "customer_id", "terminal_id")),
            ("time_ms", pa.int64()),
            last,
        ]
    )
    for kind, last in ((Transaction, ("amount", pa.float64())), (Label, ("is_fraud", pa.bool_())))
}


@dataclass(frozen=True)
class Profiles:
    """Customers: mean_amount and mean_count [C]; the terminals of customer c are near[first[c] : first[c + 1]]."""

    mean_amount: Floats
    mean_count: Floats
    first: Integers
    near: Integers


@dataclass(frozen=True)
class Written:
    """What was written, and where."""

    transactions_path: Path
    labels_path: Path
    transactions: int
    frauds: int


def draw_profiles(customers: int, terminals: int, seed: int) -> Profiles:
    """Customers and terminals on a map, with how often and how much each customer spends."""
    generator = np.random.default_rng([seed, 0])
    homes = generator.uniform(0, SIDE, (customers, 2))
    mean_amount = generator.uniform(5, 100, customers)
    mean_count = generator.uniform(0, 4, customers)
    places = generator.uniform(0, SIDE, (terminals, 2))
    places = places[np.argsort(places[:, 0], kind="stable")]
    near = []
    for home in homes:
        begin, end = np.searchsorted(places[:, 0], (home[0] - RADIUS, home[0] + RADIUS))
        inside = ((places[begin:end] - home) ** 2).sum(axis=1) < RADIUS**2
        near.append(begin + np.flatnonzero(inside))
    first = np.cumsum([0, *map(len, near)])
    return Profiles(mean_amount, mean_count, first, np.concatenate(near))


def synthesize(customers: int, terminals: int, days: int, seed: int = 0) -> Iterator[tuple[Transaction, bool]]:
    """Transactions in the order of time, each with whether it is a fraud. `labels.label_later` makes a stream of them.
    The same arguments give the same stream; memory is bounded by a day."""
    profiles = draw_profiles(customers, terminals, seed)
    bad_terminals: deque[Integers] = deque(maxlen=TERMINAL_DAYS)
    bad_customers: deque[Integers] = deque(maxlen=CUSTOMER_DAYS)
    number = 0
    for day in range(days):
        generator = np.random.default_rng([seed, 1, day])
        bad_terminals.append(generator.choice(terminals, min(TERMINALS_A_DAY, terminals), replace=False))
        bad_customers.append(generator.choice(customers, min(CUSTOMERS_A_DAY, customers), replace=False))
        who, where, times, amounts = draw_day(profiles, generator)
        frauds = amounts > HIGH_AMOUNT
        frauds |= np.isin(where, np.concatenate(bad_terminals))
        abused = np.isin(who, np.concatenate(bad_customers)) & (generator.random(len(who)) < ABUSED_RATIO)
        amounts = np.where(abused, ABUSED_FACTOR * amounts, amounts).round(2)
        frauds |= abused
        columns = (who, where, times + START_MS + day * DAY_MS, amounts, frauds)
        for customer, terminal, time_ms, amount, fraud in zip(*(each.tolist() for each in columns), strict=True):
            yield (
                Transaction(
                    transaction_id=f"X{number}",
                    customer_id=f"C{customer}",
                    terminal_id=f"T{terminal}",
                    time_ms=time_ms,
                    amount=amount,
                ),
                fraud,
            )
            number += 1


def draw_day(profiles: Profiles, generator: np.random.Generator) -> tuple[Integers, Integers, Integers, Floats]:
    """(customers, terminals, milliseconds of the day, amounts) of a day's legitimate transactions, by time. Each is
    [N]."""
    has_terminal = np.diff(profiles.first) > 0
    counts = generator.poisson(profiles.mean_count) * has_terminal
    who = np.repeat(np.arange(len(counts)), counts)
    seconds = generator.normal(NOON_S, SPREAD_S, len(who))
    inside = (seconds > 0) & (seconds < DAY_S)
    who, times = who[inside], (seconds[inside] * 1000).astype(np.int64)
    mean = profiles.mean_amount[who]
    drawn = generator.normal(mean, mean / 2)
    amounts: Floats = np.where(drawn < 0, generator.uniform(0, 2 * mean), drawn).round(2)
    choice = generator.integers(0, np.diff(profiles.first)[who])
    where = profiles.near[profiles.first[who] + choice]
    order = np.argsort(times, kind="stable")
    return who[order], where[order], times[order], amounts[order]


def write_synthetic(
    directory: Path,
    customers: int,
    terminals: int,
    days: int,
    seed: int = 0,
    *,
    delay_days: float = 7.0,
    form: Format = "parquet",
    on_day: Callable[[int], None] = lambda done: None,
) -> Written:
    """Write transactions and labels, the latter in the order in which they arrive. `on_day` hears how many days are
    done. Raises OutputError, UsageError when another process writes there."""
    paths = directory / f"transactions.{form}", directory / f"labels.{form}"
    counts = [0, 0]
    with (
        writing_alone(directory, "another folder"),
        atomic_write(paths[0], make_folder=True) as first,
        atomic_write(paths[1]) as second,
        write_errors(directory),  # it may be either file that takes no more
        _Writer(first, form, Transaction) as transactions,
        _Writer(second, form, Label) as labels,
    ):
        for event in label_later(synthesize(customers, terminals, days, seed), delay_days):
            if isinstance(event, Label):
                counts[1] += event.is_fraud
                labels.write(event)
                continue
            counts[0] += 1
            transactions.write(event)
            if counts[0] % _ROWS == 0:
                on_day((event.time_ms - START_MS) // DAY_MS)
    return Written(*paths, transactions=counts[0], frauds=counts[1])


class _Writer:
    """Rows of one kind into a file."""

    def __init__(self, path: Path, form: Format, kind: type[Transaction] | type[Label]) -> None:
        self._schema, self._rows = SCHEMAS[kind], list[Transaction | Label]()
        self._parquet = pq.ParquetWriter(path, self._schema) if form == "parquet" else None
        self._lines = None if self._parquet else path.open("wb")

    def __enter__(self) -> _Writer:
        return self

    def write(self, row: Transaction | Label) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for file in (self._parquet, self._lines):
                if file is not None:
                    stack.callback(file.close)
            if kind is None:  # else what failed is told, and not that nothing more can be written after it
                self._flush()

    def _flush(self) -> None:
        if self._parquet is not None:
            rows = [msgspec.structs.asdict(row) for row in self._rows]
            self._parquet.write_table(pa.Table.from_pylist(rows, self._schema))
        elif self._lines is not None:
            self._lines.write(msgspec.json.Encoder().encode_lines(self._rows))
        self._rows.clear()
