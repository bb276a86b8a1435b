"""The tables of `fraud score`: decisions, and the rows that were rejected."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import asdict

from featherweight.apps.fraud.files.readers import RejectedRow
from featherweight.apps.fraud.files.summary import TOP, Summary, Tally
from featherweight.apps.fraud.transactions import Decision
from featherweight.core.errors import OutputError
from featherweight.core.files import atomic_write, write_errors

_ROWS = 4096


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
        ("late", pa.bool_()),
    ]
)


@contextlib.contextmanager
def writing_decisions(path: Path | None) -> Iterator[Callable[[Decision], object]]:
    """To standard output at once, or to a file that appears when it is whole. Raises OutputError."""
    if path is None:
        yield _print
    elif path.suffix != ".parquet":
        with atomic_path(path) as file:
            yield lambda decision: file.write(_encode(decision) + b"\n")
    else:
        with atomic_path(path) as file, pq.ParquetWriter(file, SCHEMA) as table:
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
    with write_errors("standard output", remedy=""):
        sys.stdout.buffer.write(_encode(decision) + b"\n")
        sys.stdout.buffer.flush()  # somebody may be waiting for this one


def _rejected_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.rejected.jsonl")


@contextlib.contextmanager
def writing_rejected(output: Path | None, summary: Summary) -> Iterator[Callable[[Tally, RejectedRow], None]]:
    """Rows that are no transactions go to OUTPUT.rejected.jsonl, if there are any; the summary has the first few."""
    path = _rejected_path(output) if output else None
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []

        def reject(tally: Tally, row: RejectedRow) -> None:
            tally.rejected += 1
            if len(summary.first_rejected) < TOP:
                summary.first_rejected.append(row)
            if path is not None:
                if not files:
                    files.append(stack.enter_context(atomic_path(path)))
                    summary.rejected_file = path
                files[0].write(_encode(row) + b"\n")

        yield reject
        if path is not None and not files:
            with write_errors(path):
                path.unlink(missing_ok=True)  # an earlier run's


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole and on the disk. Raises OutputError."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        yield file
