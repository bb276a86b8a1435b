"""Cases and two models' predictions of them as tables on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

Columns = Mapping[str, Any]


def write(path: Path, columns: Columns) -> Path:
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def drawn(count: int = 400, noise: float = 0.05, seed: int = 0) -> tuple[Columns, Columns, Columns]:
    """Cases, and the predictions of A and of B, which is nearly the same."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 5 < 2).astype(int)
    old = generator.normal(size=count) + 2.5 * labels
    new = old + noise * generator.normal(size=count)
    ids = [f"case-{place}" for place in range(count)]
    cases = {
        "id": ids,
        "y": labels,
        "patient": [f"p{place // 2}" for place in range(count)],
        "site": np.array(["north", "south"])[np.arange(count) // 7 % 2],
    }
    return cases, {"id": ids, "score": old}, {"id": ids, "score": new}


def shuffled(columns: Columns, seed: int) -> dict[str, list[Any]]:
    order = np.random.default_rng(seed).permutation(len(columns["id"]))
    return {name: [values[place] for place in order] for name, values in columns.items()}
