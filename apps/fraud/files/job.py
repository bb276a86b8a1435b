"""`featherweight fraud score`: transactions of a file in, decisions into a file, no server needed."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import msgspec

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import Scorer
from featherweight.apps.fraud.features.engine import FeatureEngine, warm_up
from featherweight.apps.fraud.features.histories import LIMIT
from featherweight.apps.fraud.features.store import Store, open_store
from featherweight.apps.fraud.files.ordered import Clock, InTime, open_labels, open_transactions
from featherweight.apps.fraud.files.outputs import (
    _encode,
    _rejected_path,
    writing_decisions,
    writing_rejected,
)
from featherweight.apps.fraud.files.readers import RejectedRow
from featherweight.apps.fraud.files.sorting import sort_items
from featherweight.apps.fraud.files.summary import Summary
from featherweight.apps.fraud.labels import DAY_MS
from featherweight.apps.fraud.plausible import CONTINUED, ONCE, read_clock_ms
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.errors import OutputError, UsageError
from featherweight.core.files import is_file, write_errors, writing_alone

PROGRESS_EVERY = 2000
_decode = msgspec.json.Decoder(Decision).decode


@dataclass(frozen=True)
class Job:
    """input, output: None is standard input and output, in JSON lines; else a file. An output that ends in .parquet is
    Parquet, any other JSON lines. labels: each takes effect `delay_days` after its transaction. state: a folder with
    the histories of earlier runs, which this one continues. max_histories: of customers, and of terminals. allow_empty:
    an input without a row gives an output without one."""

    input: Path | None
    output: Path | None
    labels: Path | None = None
    state: Path | None = None
    max_histories: int = LIMIT
    allow_empty: bool = False


def score_file(
    job: Job, scorer: Scorer, *, on_progress: Callable[[int], None] = lambda done: None, now_ms: Clock = read_clock_ms
) -> Summary:
    """Score all transactions in the order of time, with their decisions in the order of the input. The output appears
    when it is whole, then the state is kept; a run that does not get there leaves both as they were.

    Raises UsageError (the model's features are given, not computed; another process uses the state or writes the
    output; a file is both read and written; there is no row, which is not allowed), DataError for files that cannot be
    read, a pipe that runs backwards or times in another unit, OutputError.
    """
    schema = scorer.schema
    if schema.source == "given":
        raise UsageError(f"{scorer.model}: its features are given, not computed from transactions; `serve` scores them")
    check_output(job)
    with writing_alone(job.output, "another --output") if job.output else contextlib.nullcontext():
        return _score_alone(job, scorer, on_progress, now_ms)


def _score_alone(job: Job, scorer: Scorer, on_progress: Callable[[int], None], now_ms: Clock) -> Summary:
    schema, summary = scorer.schema, Summary(scorer.model, labelled=job.labels is not None)
    folder = job.output.parent if job.output else Path(tempfile.gettempdir())
    start = time.monotonic()
    transactions = open_transactions(
        job.input, folder, now_ms, summary.unread, CONTINUED if job.state is not None else ONCE
    )
    labels = open_labels(job.labels, folder, now_ms, summary.unread) if job.labels else None
    summary.in_order = transactions.in_order
    looked_s = time.monotonic() - start
    warm_up(schema.delay_days)
    start = time.monotonic() - looked_s
    with opening_state(job.state, schema.delay_days, job.max_histories) as store:
        engine = store.engine if store else FeatureEngine(schema.delay_days, job.max_histories)
        with writing_rejected(job.output, summary) as reject, writing_decisions(job.output) as write:
            due = DueLabels(labels, schema.delay_days, partial(reject, summary.label_rows))
            read = transactions.read(partial(reject, summary.transaction_rows))
            decided = decide_in_time(read, due, Pipeline(scorer, engine), summary, on_progress)
            for decision in put_back(decided, folder) if not summary.in_order else map(itemgetter(1), decided):
                write(decision)
            summary.labels_waiting = due.count_rest()
            summary.transaction_rows.rows = summary.transactions + summary.transaction_rows.rejected
            summary.label_rows.rows = summary.labels + summary.labels_waiting + summary.label_rows.rejected
            if summary.transaction_rows.rows == 0 and not job.allow_empty:
                raise UsageError(
                    f"{job.input or 'standard input'}: holds no transactions to score; --allow-empty makes that a "
                    "result without rows"
                )
        if store is not None:
            store.snapshot()
        summary.evicted = engine.evicted
    summary.seconds = time.monotonic() - start
    return summary


def decide_in_time(
    numbered: Iterable[tuple[int, Transaction]],
    labels: DueLabels,
    pipeline: Pipeline,
    summary: Summary,
    on_progress: Callable[[int], None],
) -> Iterator[tuple[int, Decision]]:
    """Transactions in the order of time, each with its number in the input, and so their decisions."""
    for number, transaction in numbered:
        for label in labels.until(transaction.time_ms):
            summary.count_label(pipeline.apply_label(label))
        began = time.perf_counter_ns()
        decision = pipeline.process(transaction)
        summary.latencies.add(time.perf_counter_ns() - began)
        summary.decided(number, decision)
        yield number, decision
        if summary.transactions % PROGRESS_EVERY == 0:
            on_progress(summary.transactions)


def put_back(decided: Iterable[tuple[int, Decision]], folder: Path) -> Iterator[Decision]:
    """In the order of the input. Raises OutputError."""
    for _, content in sort_items(((number, _encode(decision)) for number, decision in decided), folder):
        yield _decode(content)


def check_output(job: Job) -> None:
    """Raise UsageError when a file that is read would be written over, OutputError for what is not a file: a device or
    pipe, which a file would take the place of."""
    if job.output is None:
        return
    if not job.output.name:
        raise OutputError(f"{job.output}: cannot be written (it is a folder)")
    for path in (job.output, _rejected_path(job.output)):
        with write_errors(path):
            if not path.exists():
                continue
            if not is_file(path):
                raise OutputError(
                    f"{path}: cannot be written (it is not a file); name another, or - for standard output"
                )
            if any(given is not None and given.exists() and given.samefile(path) for given in (job.input, job.labels)):
                raise UsageError(f"{path}: is read, and would be written over; choose another --output")


class DueLabels:
    """Labels in the order of time as they become known: each `delay_days` after its transaction, never before it."""

    def __init__(self, labels: InTime[Label] | None, delay_days: float, reject: Callable[[RejectedRow], None]) -> None:
        self._rows = labels.read(reject) if labels else iter(())
        self._delay_ms = round(delay_days * DAY_MS)
        self._next = next(self._rows, None)

    def until(self, time_ms: int) -> Iterator[Label]:
        """The labels that have become known by then, in their order."""
        due_ms = min(time_ms - self._delay_ms, time_ms - 1)  # without delay, the transaction itself comes first
        while self._next is not None and self._next[1].time_ms <= due_ms:
            yield self._next[1]
            self._next = next(self._rows, None)

    def count_rest(self) -> int:
        """Number of labels that have not become known; they are read to their end, so that invalid rows are
        reported."""
        return (self._next is not None) + sum(1 for _ in self._rows)


@contextlib.contextmanager
def opening_state(folder: Path | None, delay_days: float, limit: int) -> Iterator[Store | None]:
    """The histories of `--state`, closed at the end; None without a folder."""
    if folder is None:
        yield None
        return
    store = open_store(folder, delay_days, limit)
    try:
        yield store
    finally:
        store.close()
