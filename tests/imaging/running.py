"""The command in a process of its own, as a person or a service runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

COMMAND = (sys.executable, "-c", "from featherweight.core.cli import main; main()", "imaging", "classify")


def start(source: Path, out: Path, model: Path, *options: str) -> subprocess.Popen[str]:
    """Start the job with its messages captured, in a session of its own: signals reach only what they are sent to."""
    return subprocess.Popen(_words(source, out, model, options), **_captured(), start_new_session=True)


def run(source: Path, out: Path, model: Path, *options: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_words(source, out, model, options), **_captured(), timeout=timeout)


def _words(source: Path, out: Path, model: Path, options: Sequence[str]) -> list[str]:
    return [*COMMAND, str(source), "--out", str(out), "--model", str(model), *options]


def _captured() -> dict[str, Any]:
    return {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def read_rows(out: Path) -> list[dict[str, Any]]:
    """results.parquet without the columns of times."""
    rows: list[dict[str, Any]] = (
        pq.read_table(out / "results.parquet").drop_columns(["decode_ms", "inference_ms"]).to_pylist()
    )
    return rows
