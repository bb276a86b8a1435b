"""`featherweight fraud score`: transactions of a file in, decisions into a file, no server needed."""

from __future__ import annotations

import contextlib
import heapq
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import asdict

from apps.fraud.decoding import Unread
from apps.fraud.labels import DAY_MS
from apps.fraud.ordered import Clock, InTime, open_labels, open_transactions
from apps.fraud.pipeline import FeatureEngine, Pipeline, warm_up
from apps.fraud.plausible import CONTINUED, ONCE, read_clock_ms
from apps.fraud.readers import Rejected
from apps.fraud.scoring import Scorer
from apps.fraud.sorting import sort_items
from apps.fraud.state import CONFLICT, LIMIT, NEW
from apps.fraud.store import Store, open_store
from apps.fraud.transactions import Decision, Label, Transaction
from core.errors import OutputError, UsageError
from core.files import is_file, replacing
from core.terminal import counted

TOP = 5
PROGRESS_EVERY = 2000
_ROWS = 4096
_BIN_NS, _BINS = 100, 20_000
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Decision).decode

_REASON = pa.struct([("feature", pa.string()), ("value", pa.float64()), ("effect", pa.float64())])
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("transaction_id", "customer_id", "terminal_id")),
        ("time_ms", pa.int64()),
        ("amount", pa.float64()),
        ("outcome", pa.string()),
        ("probability", pa.float64()),
        ("model", pa.string()),
        ("reasons", pa.list_(_REASON)),
        ("duplicate", pa.bool_()),
        ("conflict", pa.bool_()),
        ("fallback", pa.bool_()),
        ("late", pa.bool_()),
    ]
)


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


class Latencies:
    """Nanoseconds in bins of a tenth of a microsecond, up to 2 milliseconds: bounded, however long the input is."""

    def __init__(self) -> None:
        self._counts = [0] * (_BINS + 1)

    def add(self, ns: int) -> None:
        self._counts[min(ns // _BIN_NS, _BINS)] += 1

    def percentile_us(self, percent: float) -> float:
        """Microseconds; 0 without any, 2000 for all above."""
        total = np.cumsum(self._counts)
        return int(np.searchsorted(total, total[-1] * percent / 100)) * _BIN_NS / 1000


@dataclass
class Tally:
    """Of what one source held: all its rows, and those that were rejected."""

    rows: int = 0
    rejected: int = 0


@dataclass
class Summary:
    """What a run did. in_order: whether the transactions were in the order of time; labelled: whether there are labels;
    labels_waiting: those that are not due by the last transaction; highest: (probability, minus the transaction's
    number in the input, decision) of the TOP alerts, as a heap; first_rejected: a few."""

    model: str
    in_order: bool = True
    labelled: bool = False
    seconds: float = 0.0
    transactions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    conflicts: int = 0
    late: int = 0
    unread: Unread = field(default_factory=Unread)
    labels: int = 0
    labels_unknown: int = 0
    labels_in_conflict: int = 0
    labels_waiting: int = 0
    evicted: int = 0
    transaction_rows: Tally = field(default_factory=Tally)
    label_rows: Tally = field(default_factory=Tally)
    first_rejected: list[Rejected] = field(default_factory=list)
    rejected_file: Path | None = None
    latencies: Latencies = field(default_factory=Latencies)
    reasons: Counter[str] = field(default_factory=Counter)
    highest: list[tuple[float, int, Decision]] = field(default_factory=list)

    def decided(self, number: int, decision: Decision) -> None:
        self.transactions += 1
        self.outcomes[decision.outcome] += 1
        self.duplicates += decision.duplicate
        self.conflicts += decision.conflict
        self.late += decision.late
        if decision.outcome != "approve":
            self.reasons.update(reason.feature for reason in decision.reasons)
            put = heapq.heappush if len(self.highest) < TOP else heapq.heappushpop
            put(self.highest, (decision.probability or 0.0, -number, decision))

    @property
    def rejected(self) -> int:
        return self.transaction_rows.rejected + self.label_rows.rejected

    def learned(self, known: int) -> None:
        """known: what the histories answer to a label."""
        self.labels += 1
        self.labels_unknown += known == NEW
        self.labels_in_conflict += known == CONFLICT


def score_file(
    job: Job, scorer: Scorer, *, on_progress: Callable[[int], None] = lambda done: None, now_ms: Clock = read_clock_ms
) -> Summary:
    """Score all transactions in the order of time, with their decisions in the order of the input. The output appears
    when it is whole, then the state is kept; a run that does not get there leaves both as they were.

    Raises UsageError (the model's features are given, not computed; another process uses the state; a file is both
    read and written; there is no row, which is not allowed), DataError for files that cannot be read, a pipe that runs
    backwards or times in another unit, OutputError.
    """
    schema, summary = scorer.schema, Summary(scorer.model, labelled=job.labels is not None)
    if schema.source == "given":
        raise UsageError(f"{scorer.model}: its features are given, not computed from transactions; `serve` scores them")
    check_output(job)
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
            summary.learned(pipeline.learn(label))
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
    """Raise UsageError when a file that is read would be written over, OutputError for what is no file: a device or
    pipe, which a file would take the place of."""
    if job.output is None:
        return
    if not job.output.name:
        raise OutputError(f"{job.output}: cannot be written (it is a folder)")
    for path in (job.output, _rejected_path(job.output)):
        with _writing(str(path)):
            if not path.exists():
                continue
            if not is_file(path):
                raise OutputError(f"{path}: cannot be written (it is no file); name another, or - for standard output")
            if any(given is not None and given.exists() and given.samefile(path) for given in (job.input, job.labels)):
                raise UsageError(f"{path}: is read, and would be written over; choose another --output")


class DueLabels:
    """Labels in the order of time as they become known: each `delay_days` after its transaction, never before it."""

    def __init__(self, labels: InTime[Label] | None, delay_days: float, reject: Callable[[Rejected], None]) -> None:
        self._rows = labels.read(reject) if labels else iter(())
        self._delay_ms = round(delay_days * DAY_MS)
        self._next = next(self._rows, None)

    def until(self, time_ms: int) -> Iterator[Label]:
        due_ms = min(time_ms - self._delay_ms, time_ms - 1)  # without delay, the transaction itself comes first
        while self._next is not None and self._next[1].time_ms <= due_ms:
            yield self._next[1]
            self._next = next(self._rows, None)

    def count_rest(self) -> int:
        """Those that have not become known; they are read to their end, so that rows that are no labels are told."""
        return (self._next is not None) + sum(1 for _ in self._rows)


@contextlib.contextmanager
def opening_state(folder: Path | None, delay_days: float, limit: int) -> Iterator[Store | None]:
    if folder is None:
        yield None
        return
    store = open_store(folder, delay_days, limit)
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def writing_decisions(path: Path | None) -> Iterator[Callable[[Decision], object]]:
    """To standard output at once, or to a file that appears when it is whole. Raises OutputError."""
    if path is None:
        yield _print
    elif path.suffix != ".parquet":
        with appearing(path) as file:
            yield lambda decision: file.write(_encode(decision) + b"\n")
    else:
        with appearing(path) as file, pq.ParquetWriter(file, SCHEMA) as table:
            rows: list[Decision] = []

            def write(decision: Decision) -> None:
                rows.append(decision)
                if len(rows) == _ROWS:
                    flush()

            def flush() -> None:
                table.write_batch(pa.RecordBatch.from_pylist([_columns(row) for row in rows], SCHEMA))
                rows.clear()

            yield write
            flush()


def _columns(decision: Decision) -> dict[str, Any]:
    return {**asdict(decision), "reasons": [asdict(reason) for reason in decision.reasons]}


def _print(decision: Decision) -> None:
    if sys.stdout is None:
        raise OutputError("standard output: cannot be written (it is closed)")
    with _writing("standard output"):
        sys.stdout.buffer.write(_encode(decision) + b"\n")
        sys.stdout.buffer.flush()  # somebody may be waiting for this one


def _rejected_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.rejected.jsonl")


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    """Raises OutputError; but that the reader of our output has left is no error of anybody's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{name}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def writing_rejected(output: Path | None, summary: Summary) -> Iterator[Callable[[Tally, Rejected], None]]:
    """Rows that are no transactions go to OUTPUT.rejected.jsonl, if there are any; the summary has the first few."""
    path = _rejected_path(output) if output else None
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []

        def reject(tally: Tally, row: Rejected) -> None:
            tally.rejected += 1
            if len(summary.first_rejected) < TOP:
                summary.first_rejected.append(row)
            if path is not None:
                if not files:
                    files.append(stack.enter_context(appearing(path)))
                    summary.rejected_file = path
                files[0].write(_encode(row) + b"\n")

        yield reject
        if path is not None and not files:
            with _writing(str(path)):
                path.unlink(missing_ok=True)  # an earlier run's


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole and on the disk. Raises OutputError."""
    with _writing(str(path)), replacing(path) as partial, partial.open("wb") as file:
        yield file


def render_summary(summary: Summary) -> str:
    """For a person. Names decisions by their number in the output only."""
    rate = summary.transactions / summary.seconds if summary.seconds else 0.0
    lines = [
        f"{counted(summary.transactions, 'transactions')} in {summary.seconds:.1f} s ({rate:,.0f}/s) by "
        f"{summary.model}",
        "  " + ", ".join(f"{name} {summary.outcomes[name]:,}" for name in ("approve", "review", "decline")),
        f"  features, score and decision of one: p50 {summary.latencies.percentile_us(50):.1f}, "
        f"p99 {summary.latencies.percentile_us(99):.1f} microseconds",
    ]
    if not summary.in_order:
        lines.append("  not in the order of time: sorted for the histories; decisions are in the order of the input")
    if summary.late:
        lines.append(
            f"  {summary.late:,} late: more than a day after younger ones of their customer or terminal; what their "
            "windows held may be forgotten in part"
        )
    if summary.duplicates:
        lines.append(f"  {summary.duplicates:,} seen before: answered, not counted again")
    if summary.conflicts:
        lines.append(
            f"  {summary.conflicts:,} in conflict: the id of another one, with another amount, customer, terminal or "
            "time"
        )
    if summary.unread.rows:
        lines.append(f"  {summary.unread}")
    if summary.evicted:
        lines.append(
            f"  {counted(summary.evicted, 'histories')} forgotten, the least recent: more than --max-histories"
        )
    if summary.labelled:
        waiting = f"; {summary.labels_waiting:,} not due yet" if summary.labels_waiting else ""
        lines.append(
            f"  {counted(summary.labels, 'labels')} became known, {summary.labels_unknown:,} of unknown "
            f"transactions{waiting}"
        )
    if summary.labels_in_conflict:
        lines.append(
            f"  {counted(summary.labels_in_conflict, 'labels')} not as their transaction: with another customer, "
            "terminal or time (time_ms is the transaction's own, and says when the label counts), or only one of the "
            "customer's and the terminal's history still has it"
        )
    if summary.reasons:
        found = ", ".join(f"{name} {count:,}" for name, count in summary.reasons.most_common(TOP))
        lines.append(f"  alerts' most frequent reasons: {found}")
        lines.append("  the strongest, by their row in the output:")
    lines += [_render_alert(-number, decision) for _, number, decision in sorted(summary.highest, reverse=True)]
    if summary.rejected:
        lines.append(
            f"  {counted(summary.rejected, 'rows')} rejected"
            + (f": {summary.rejected_file}" if summary.rejected_file else "")
        )
        lines += [f"    {row}" for row in summary.first_rejected]
    return "\n".join(lines)


def _render_alert(number: int, decision: Decision) -> str:
    values = {r.feature: "unknown" if r.value is None else f"{r.value:g}" for r in decision.reasons}
    reasons = ", ".join(f"{r.feature} {values[r.feature]} ({r.effect:+.2f})" for r in decision.reasons)
    probability = "without a score" if decision.probability is None else f"{decision.probability:.3f}"
    return f"    row {number:,}: {decision.outcome} {probability} {reasons}".rstrip()
