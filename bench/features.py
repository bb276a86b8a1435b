"""Update and read of a transaction's features, one at a time: the compiled histories against what a user would write.

    python -m bench.features [--days 60] [--customers 5000] [--terminals 10000] [--seed 0]

The stream is the synthetic one; all but the last day fill the histories, the last day is timed, each transaction by all
contenders in turn. `dict of lists` (bisect and sums) and `pandas` (one frame a key, masks) compute the handbook's 15
features only; the histories compute all of CATALOGUE. Memory is that of all histories over their number.
"""

from __future__ import annotations

import argparse
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pandas as pd

from bench.timing import show
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.labels import DAY_MS, label_later
from featherweight.apps.fraud.synthetic import START_MS, synthesize
from featherweight.apps.fraud.transactions import Label, Transaction

DELAY = 7 * DAY_MS
WINDOWS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)


class Lists:
    """A dict of lists a key, the obvious way; nothing is forgotten but what is older than any window."""

    def __init__(self) -> None:
        self.customers: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
        self.terminals: dict[str, tuple[list[int], list[str]]] = defaultdict(lambda: ([], []))
        self.frauds: set[str] = set()

    def advance(self, now: Transaction) -> list[float]:
        times, amounts = self.customers[now.customer_id]
        times.append(now.time_ms)
        amounts.append(now.amount)
        row = [now.amount, float((now.time_ms // DAY_MS + 3) % 7 >= 5), float(now.time_ms % DAY_MS < 7 * 3_600_000)]
        for window in WINDOWS:
            paid = amounts[bisect_right(times, now.time_ms - window) :]
            row += [len(paid), sum(paid) / len(paid)]
        moments, ids = self.terminals[now.terminal_id]
        moments.append(now.time_ms)
        ids.append(now.transaction_id)
        end = bisect_right(moments, now.time_ms - DELAY)
        for window in WINDOWS:
            known = ids[bisect_right(moments, now.time_ms - DELAY - window) : end]
            row += [len(known), sum(name in self.frauds for name in known) / len(known) if known else 0.0]
        for kept, others, horizon in ((times, amounts, WINDOWS[2]), (moments, ids, WINDOWS[2] + DELAY)):
            old = bisect_right(kept, now.time_ms - horizon)
            del kept[:old], others[:old]  # type: ignore[attr-defined]
        return row

    def apply_label(self, label: Label) -> None:
        if label.is_fraud:
            self.frauds.add(label.transaction_id)

    @property
    def used_bytes(self) -> int:
        total = sum(sys.getsizeof(name) for name in self.frauds) + sys.getsizeof(self.frauds)
        for histories in (self.customers, self.terminals):
            total += sys.getsizeof(histories)
            for key, (first, second) in histories.items():
                total += sys.getsizeof(key) + sys.getsizeof(first) + sys.getsizeof(second) + 72
                total += sum(map(sys.getsizeof, first)) + sum(map(sys.getsizeof, second))
        return total


class Frames:
    """A pandas frame a key, masks over it."""

    def __init__(self, past: Iterable[Transaction], frauds: set[str]) -> None:
        frame = pd.DataFrame([(t.customer_id, t.terminal_id, t.time_ms, t.amount, t.transaction_id) for t in past])
        frame.columns = pd.Index(["customer", "terminal", "time", "amount", "id"])
        frame["fraud"] = frame["id"].isin(frauds)
        self.customers = {key: part[["time", "amount"]] for key, part in frame.groupby("customer")}
        self.terminals = {key: part[["time", "fraud"]] for key, part in frame.groupby("terminal")}

    def advance(self, now: Transaction) -> list[float]:
        row = [now.amount, float((now.time_ms // DAY_MS + 3) % 7 >= 5), float(now.time_ms % DAY_MS < 7 * 3_600_000)]
        new = pd.DataFrame({"time": [now.time_ms], "amount": [now.amount]})
        mine = pd.concat([self.customers[now.customer_id], new]) if now.customer_id in self.customers else new
        self.customers[now.customer_id] = mine
        for window in WINDOWS:
            paid = mine["amount"][mine["time"] > now.time_ms - window]
            row += [len(paid), paid.mean()]
        new = pd.DataFrame({"time": [now.time_ms], "fraud": [False]})
        theirs = pd.concat([self.terminals[now.terminal_id], new]) if now.terminal_id in self.terminals else new
        self.terminals[now.terminal_id] = theirs
        age = now.time_ms - DELAY - theirs["time"]
        for window in WINDOWS:
            known = theirs["fraud"][(age >= 0) & (age < window)]
            row += [len(known), known.mean() if len(known) else 0.0]
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--customers", type=int, default=5000)
    parser.add_argument("--terminals", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pandas-rows", type=int, default=300)
    options = parser.parse_args()

    pairs = list(synthesize(options.customers, options.terminals, options.days, options.seed))
    last_day = START_MS + (options.days - 1) * DAY_MS
    engine, lists = FeatureEngine(), Lists()
    samples: dict[str, list[int]] = {"histories (ours)": [], "dict of lists": [], "pandas": []}
    past = [transaction for transaction, _ in pairs if last_day - 38 * DAY_MS <= transaction.time_ms < last_day]
    frames = Frames(past, {t.transaction_id for t, fraud in pairs if fraud and t.time_ms < last_day - DELAY})
    clock = time.perf_counter_ns
    for event in label_later(iter(pairs)):
        if isinstance(event, Label):
            engine.apply_label(event)
            lists.apply_label(event)
            continue
        timed = event.time_ms >= last_day
        start = clock()
        engine.advance(event)
        middle = clock()
        row = lists.advance(event)
        end = clock()
        if timed:
            samples["histories (ours)"].append(middle - start)
            samples["dict of lists"].append(end - middle)
            if len(samples["pandas"]) < options.pandas_rows:
                start = clock()
                also = frames.advance(event)
                samples["pandas"].append(clock() - start)
                assert np.allclose(row, also), "the contenders disagree"
            assert abs(engine.row[CATALOGUE.index("customer_mean_amount_30d")] - row[8]) < 0.01
    halves = engine.customers, engine.terminals
    count = sum(map(len, halves))
    memory = {
        "histories (ours)": f"{sum(half.used_bytes for half in halves) / count:.0f}",
        "dict of lists": f"{lists.used_bytes / count:.0f}",
    }
    rows = [
        [name, str(len(times)), *(f"{np.percentile(times, p) / 1000:.1f}" for p in (50, 99)), memory.get(name, "")]
        for name, times in samples.items()
    ]
    show(
        f"update + read of one transaction, {options.customers} customers, {options.terminals} terminals",
        ("contender", "transactions", "p50 microseconds", "p99", "bytes a history"),
        rows,
    )
    print(*(f"{type(half).__name__}: {half.used_bytes / len(half):.0f} bytes each" for half in halves), sep="; ")


if __name__ == "__main__":
    main()
