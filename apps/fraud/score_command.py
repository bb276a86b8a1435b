"""`featherweight fraud score`: transactions of a file in, decisions into a file, no server needed."""

from __future__ import annotations

import contextlib
import heapq
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import asdict

from apps.fraud.decoding import Unread
from apps.fraud.labels import DAY_MS
from apps.fraud.pipeline import FeatureEngine, Pipeline, warm_up
from apps.fraud.readers import Rejected, read_lines, read_rows
from apps.fraud.scoring import Scorer
from apps.fraud.state import LIMIT
from apps.fraud.store import Store, open_store
from apps.fraud.transactions import Decision, Label, Transaction
from core.errors import DataError, OutputError, UsageError
from core.files import is_file, replacing

TOP = 5
PROGRESS_EVERY = 2000
_ROWS = 4096
_BIN_NS, _BINS = 100, 20_000
_encode = msgspec.json.Encoder().encode

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
    ]
)


@dataclass(frozen=True)
class Job:
    """input, output: None is standard input and output, in JSON lines; else a file. An output that ends in .parquet is
    Parquet, any other JSON lines. labels: each takes effect `delay_days` after its transaction. state: a folder with
    the histories of earlier runs, which this one continues. max_histories: of customers, and of terminals."""

    input: Path | None
    output: Path | None
    labels: Path | None = None
    state: Path | None = None
    max_histories: int = LIMIT


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
class Summary:
    """What a run did. highest: (probability, minus the transaction's number in the input, decision) of the TOP alerts,
    as a heap; first_rejected: a few."""

    model: str
    seconds: float = 0.0
    transactions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    conflicts: int = 0
    unread: Unread = field(default_factory=Unread)
    labels: int = 0
    labels_unknown: int = 0
    evicted: int = 0
    rejected: int = 0
    first_rejected: list[Rejected] = field(default_factory=list)
    rejected_file: Path | None = None
    latencies: Latencies = field(default_factory=Latencies)
    reasons: Counter[str] = field(default_factory=Counter)
    highest: list[tuple[float, int, Decision]] = field(default_factory=list)

    def decided(self, decision: Decision) -> None:
        self.transactions += 1
        self.outcomes[decision.outcome] += 1
        self.duplicates += decision.duplicate
        self.conflicts += decision.conflict
        if decision.outcome != "approve":
            self.reasons.update(reason.feature for reason in decision.reasons)
            put = heapq.heappush if len(self.highest) < TOP else heapq.heappushpop
            put(self.highest, (decision.probability or 0.0, -self.transactions, decision))

    def learned(self, found: bool) -> None:
        self.labels += 1
        self.labels_unknown += not found


def score_file(job: Job, scorer: Scorer, *, on_progress: Callable[[int], None] = lambda done: None) -> Summary:
    """Score all transactions in their order. The output appears when it is whole, then the state is kept; a run that
    does not get there leaves both as they were.

    Raises UsageError (the model's features are given, not computed; another process uses the state; a file is both
    read and written), DataError for files that cannot be read, OutputError.
    """
    schema, summary = scorer.schema, Summary(scorer.model)
    if schema.source == "given":
        raise UsageError(f"{scorer.model}: its features are given, not computed from transactions; `serve` scores them")
    check_output(job)
    warm_up(schema.delay_days)
    start = time.monotonic()
    with opening_state(job.state, schema.delay_days, job.max_histories) as store:
        engine = store.engine if store else FeatureEngine(schema.delay_days, job.max_histories)
        pipeline = Pipeline(scorer, engine)
        with writing_rejected(job.output, summary) as reject, writing_decisions(job.output) as write:
            labels = DueLabels(job.labels, schema.delay_days, reject, summary.unread)
            for row in read_input(job.input, summary.unread):
                if isinstance(row, Rejected):
                    reject(row)
                    continue
                for label in labels.until(row.time_ms):
                    summary.learned(pipeline.learn(label))
                began = time.perf_counter_ns()
                decision = pipeline.process(row)
                summary.latencies.add(time.perf_counter_ns() - began)
                summary.decided(decision)
                write(decision)
                if summary.transactions % PROGRESS_EVERY == 0:
                    on_progress(summary.transactions)
        if store is not None:
            store.snapshot()
        summary.evicted = engine.evicted
    summary.seconds = time.monotonic() - start
    return summary


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


def read_input(path: Path | None, unread: Unread) -> Iterator[Transaction | Rejected]:
    if path is not None:
        yield from read_rows(path, Transaction, unread=unread)
        return
    if sys.stdin is None:
        raise DataError("standard input: cannot be read (it is closed)")
    try:
        yield from read_lines(sys.stdin.buffer, "standard input", Transaction, unread=unread)
    except OSError as error:
        raise DataError(f"standard input: cannot be read ({error.strerror or error})") from error


class DueLabels:
    """A file's labels as they become known: each `delay_days` after its transaction, in the order of the file. One
    that stands behind a later one waits for it."""

    def __init__(
        self, path: Path | None, delay_days: float, reject: Callable[[Rejected], None], unread: Unread
    ) -> None:
        self._rows: Iterator[Label | Rejected] = read_rows(path, Label, unread=unread) if path else iter(())
        self._delay_ms = round(delay_days * DAY_MS)
        self._reject = reject
        self._next = self._read()

    def until(self, time_ms: int) -> Iterator[Label]:
        while self._next is not None and self._next.time_ms + self._delay_ms <= time_ms:
            yield self._next
            self._next = self._read()

    def _read(self) -> Label | None:
        for row in self._rows:
            if isinstance(row, Label):
                return row
            self._reject(row)
        return None


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
def writing_rejected(output: Path | None, summary: Summary) -> Iterator[Callable[[Rejected], None]]:
    """Rows that are no transactions go to OUTPUT.rejected.jsonl, if there are any; the summary has the first few."""
    path = _rejected_path(output) if output else None
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []

        def reject(row: Rejected) -> None:
            summary.rejected += 1
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
    """For a person. Names rows by their number in the input only."""
    rate = summary.transactions / summary.seconds if summary.seconds else 0.0
    lines = [
        f"{summary.transactions:,} transactions in {summary.seconds:.1f} s ({rate:,.0f}/s) by {summary.model}",
        "  " + ", ".join(f"{name} {summary.outcomes[name]:,}" for name in ("approve", "review", "decline")),
        f"  features, score and decision of one: p50 {summary.latencies.percentile_us(50):.1f}, "
        f"p99 {summary.latencies.percentile_us(99):.1f} microseconds",
    ]
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
        lines.append(f"  {summary.evicted:,} histories forgotten, the least recent: more than --max-histories")
    if summary.labels:
        lines.append(f"  {summary.labels:,} labels became known, {summary.labels_unknown:,} of unknown transactions")
    if summary.reasons:
        found = ", ".join(f"{name} {count:,}" for name, count in summary.reasons.most_common(TOP))
        lines.append(f"  alerts' most frequent reasons: {found}")
        lines.append("  the strongest, by their row in the input:")
    lines += [_render_alert(-number, decision) for _, number, decision in sorted(summary.highest, reverse=True)]
    if summary.rejected:
        lines.append(
            f"  {summary.rejected:,} rows rejected" + (f": {summary.rejected_file}" if summary.rejected_file else "")
        )
        lines += [f"    {row}" for row in summary.first_rejected]
    return "\n".join(lines)


def _render_alert(number: int, decision: Decision) -> str:
    values = {r.feature: "unknown" if r.value is None else f"{r.value:g}" for r in decision.reasons}
    reasons = ", ".join(f"{r.feature} {values[r.feature]} ({r.effect:+.2f})" for r in decision.reasons)
    probability = "without a score" if decision.probability is None else f"{decision.probability:.3f}"
    return f"    row {number:,}: {decision.outcome} {probability} {reasons}".rstrip()
