"""How long until `imaging classify` has its first result, and how much memory its main process holds.

    python -m bench.cold_start --images chest_xray_fullsize_200.zip [--rounds 5]

First result: from the start of the process until the log of the job's journal holds a row, looked at every 5 ms.
Memory: the largest resident set of the main process while it classifies all images.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import psutil

from bench.timing import median, show

FEATHERWEIGHT = Path(sys.executable).with_name("featherweight")


def has_row(out: Path) -> bool:
    """Whether the journal's log holds a result, that is, an image's name. The job alone may open its journal as a
    database, but anybody can look at the bytes that it has written."""
    try:
        return b".jpeg" in (out / "journal.sqlite-wal").read_bytes()
    except FileNotFoundError:  # not made yet
        return False


def measure(folder: Path, out: Path, model: list[str]) -> tuple[float, float]:
    """(seconds to the first row, peak resident MB of the main process)."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    words = [str(FEATHERWEIGHT), "imaging", "classify", str(folder), "--out", str(out), *model]
    first, peak = 0.0, 0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        process = psutil.Process(job.pid)
        while job.poll() is None:
            if not first and has_row(out):
                first = time.perf_counter() - start
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.005 if not first else 0.05)
    if not first:
        raise SystemExit(f"the job gave no result: {' '.join(words)}")
    return first, peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        with zipfile.ZipFile(options.images) as archive:
            archive.extractall(folder)
        model = ["--model", str(options.model)] if options.model else []
        runs = [measure(folder, Path(name) / "out", model) for _ in range(options.rounds)]
    show(
        f"`imaging classify` from a cold start, {options.rounds} runs",
        ["", "median", "worst"],
        [
            [
                "first result, s",
                f"{median([first for first, _ in runs]):.2f}",
                f"{max(first for first, _ in runs):.2f}",
            ],
            [
                "peak resident memory of the main process, MB",
                f"{median([rss for _, rss in runs]):.0f}",
                f"{max(rss for _, rss in runs):.0f}",
            ],
        ],
    )


if __name__ == "__main__":
    main()
