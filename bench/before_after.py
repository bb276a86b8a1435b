"""Two checkouts side by side: whether a change made a path slower, against the path's own peer.

    python -m bench.before_after OLD NEW --images chest_xray_fullsize_200.zip [--rounds 7] [--only rest stream]

OLD and NEW are checkouts, each with its environment in .venv. In every round each path is measured once in both, in an
order shuffled anew, by the checkout's own `bench` scripts with few repetitions; a path with a peer counts as its ratio
to the peer in that same run. The table gives the medians, and the median of the rounds' NEW over OLD with the interval
of its order statistics (exact, distribution-free; Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from pathlib import Path

from bench.timing import median, show

Rows = Mapping[str, list[str]]
"""First cell of a table's row -> the other cells, of all tables that a script printed."""


@dataclass(frozen=True)
class Measured:
    """A path. words: of `python -m`; read: the figure from what was printed; unit says which way is better."""

    words: tuple[str, ...]
    read: Callable[[Rows], float]
    unit: str


def paths(images: Path | None) -> dict[str, Measured]:
    """Short runs: it is the rounds that average."""
    found = {
        "single row": Measured(
            ("bench.single_row", "--rounds", "30"),
            lambda rows: _cell(rows, "ONNX Runtime", 0) / _cell(rows, "native", 0),
            "x ONNX Runtime's speed, more is better",
        ),
        "transaction": Measured(
            ("bench.transaction", "--days", "20", "--customers", "1000", "--terminals", "2000"),
            lambda rows: _cell(rows, "whole", 0),
            "us at the median, less is better",
        ),
        "stream": Measured(
            ("bench.stream", "--count", "40000", "--rounds", "1", "--seconds", "3", "--only", "featherweight", "loop"),
            lambda rows: _cell(rows, "loop", 1),
            "x a plain loop's rate, more is better",
        ),
    }
    for name, service in (("REST, memory", "featherweight, in memory"), ("REST, journal", "featherweight, state kept")):
        found[name] = Measured(
            ("bench.rest", "--rounds", "2", "--requests", "6000"),
            lambda rows, service=service: _cell(rows, service, 2),  # type: ignore[misc]
            "x plain FastAPI's rate, more is better",
        )
    if images is not None:
        given = str(images.absolute())
        found["cold start"] = Measured(
            ("bench.cold_start", "--images", given, "--rounds", "2"),
            lambda rows: _cell(rows, "first result, s", 0),
            "s to the first result, less is better",
        )
        for kind in ("JPEG", "DICOM uncompressed", "DICOM JPEG-lossless", "DICOM JPEG 2000"):
            found[f"batch job, {kind}"] = Measured(
                ("bench.batch_job", "--images", given, "--copies", "1", "--rounds", "1"),
                lambda rows, kind=kind: _cell(rows, kind, 2),  # type: ignore[misc]
                "x a plain script's rate, more is better",
            )
    return found


def _cell(rows: Rows, name: str, column: int) -> float:
    row = rows[name] if name in rows else next(cells for title, cells in rows.items() if title.startswith(name))
    return float(row[column].rstrip("x%").replace(",", ""))


def parse_rows(printed: str) -> dict[str, list[str]]:
    """The rows of the tables that `bench.timing.show` draws; of two with one first cell the earlier one."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line.startswith("│"):
            name, *cells = [cell.strip() for cell in line.strip("│ \n").split("│")]
            found.setdefault(name, cells)
    return found


def run(checkout: Path, words: tuple[str, ...]) -> dict[str, list[str]]:
    python = checkout.absolute() / ".venv" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-m", *words],
        cwd=checkout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: python -m {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return parse_rows(done.stdout)


def median_interval(values: list[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(lowest, highest, coverage): the narrowest symmetric order statistics that cover the median with `confidence`,
    or the smallest and largest where there are too few values, with the coverage that these have."""
    ordered, count = sorted(values), len(values)
    outside, skip = 0.0, 0
    while skip < (count - 1) // 2:
        more = outside + 2 * comb(count, skip) / 2**count
        if 1 - more < confidence:
            break
        outside, skip = more, skip + 1
    at = max(skip - 1, 0)
    return ordered[at], ordered[count - 1 - at], 1 - (outside or 2 / 2**count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--images", type=Path, help="needed by the batch job and the cold start")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", help="beginnings of paths' names")
    options = parser.parse_args()
    wanted = {
        name: path
        for name, path in paths(options.images).items()
        if not options.only or name.startswith(tuple(options.only))
    }
    chance = random.Random(0)  # noqa: S311
    found: dict[str, dict[str, list[float]]] = {name: {"old": [], "new": []} for name in wanted}
    for number in range(options.rounds):
        scripts = list(dict.fromkeys(path.words for path in wanted.values()))
        for words in chance.sample(scripts, len(scripts)):
            for side in chance.sample(["old", "new"], 2):
                rows = run(getattr(options, side), words)
                for name, path in wanted.items():
                    if path.words == words:
                        found[name][side].append(path.read(rows))
                        print(f"round {number + 1}: {name}, {side}: {found[name][side][-1]:.3g}", file=sys.stderr)
    table = []
    for name, path in wanted.items():
        old, new = found[name]["old"], found[name]["new"]
        ratios = [after / before for before, after in zip(old, new, strict=True)]
        low, high, coverage = median_interval(ratios)
        change = f"{median(ratios):.2f} ({low:.2f} to {high:.2f}, {coverage:.0%})"
        table.append([name, f"{median(old):.3g}", f"{median(new):.3g}", change, path.unit])
    show(f"{options.rounds} rounds, interleaved", ["path", "old", "new", "new / old", "unit"], table)


if __name__ == "__main__":
    main()
