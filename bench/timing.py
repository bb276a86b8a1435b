"""What the benchmarks share: the host in one line, tables and their record, interleaved times of whole commands."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from featherweight.core.backends.opening import installed_version
from featherweight.core.hardware import read_hardware


def host() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python {platform.python_version()}"


def interleave(actions: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Seconds of every action in every round; the order is shuffled each round so that noise hits all alike."""
    generator = random.Random(seed)  # noqa: S311
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        names = list(actions)
        generator.shuffle(names)
        for name in names:
            start = time.perf_counter()
            actions[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def command(*words: str | Path, accept: Sequence[int] = (0,)) -> None:
    """Run a command to its end; its output is shown only when it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        raise SystemExit(f"{' '.join(map(str, words))}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def record(path: Path, tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]]) -> None:
    """Write tables (title -> columns, rows) as JSON, with what a reader needs to judge them: the command, the day, the
    host and the versions of the runtimes."""
    runtimes = ("onnxruntime", "onnxruntime-gpu", "openvino", "torch", "numba", "mlcommons-loadgen")
    installed = {name: installed_version(name) for name in runtimes}
    found = {
        "command": " ".join(["python", "-m", *sys.orig_argv[sys.orig_argv.index("-m") + 1 :]]),
        "date": datetime.now(UTC).date().isoformat(),
        "host": read_hardware().facts(),
        "versions": {name: version for name, version in installed.items() if version},
        "tables": {
            title: [dict(zip(columns, row, strict=True)) for row in rows] for title, (columns, rows) in tables.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    console.print(table)
    console.print(f"host: {host()}", style="dim")
