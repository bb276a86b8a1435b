"""A large table scored by a model of one's own: Parquet in, Parquet out, whole commands on all cores.

    python -m bench.predict_table [--rows 10000000] [--rounds 3] [--folder DIR] [--record bench/results/predict.json]

300 trees of depth 6 over 30 float32 columns, one value in fifty missing. `featherweight predict` on the artifact that
`featherweight optimize model.txt` made of them (no step, so that its scores are LightGBM's), against what its user
would write: batches of Parquet, `Booster.predict` on all cores, a Parquet file of scores. Both carry the column `id`
over. The scores of both are compared. The table has about 120 bytes a row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.timing import command, host, interleave, median, record, show

TREES, DEPTH, FEATURES = 300, 6, 30
GROUP = 1 << 20
"""Rows of a row group, as pyarrow writes them if it is not asked."""
NAMES = [f"x{place}" for place in range(FEATURES)]
PLAIN = """
import sys
import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

model, table, out = sys.argv[1:]
booster = lightgbm.Booster(model_file=model)
file = pq.ParquetFile(table)
columns = booster.feature_name()
writer = None
for batch in file.iter_batches(1 << 17):
    rows = np.column_stack([batch.column(name).to_numpy() for name in columns])
    chances = booster.predict(rows)
    scored = pa.record_batch({"id": batch.column("id"), "probability": chances, "decision": chances >= 0.5})
    writer = writer or pq.ParquetWriter(out, scored.schema)
    writer.write_batch(scored)
writer.close()
"""


def rows_of(generator: np.random.Generator, count: int) -> np.ndarray:
    """float32 [count, FEATURES]."""
    x = generator.normal(size=(count, FEATURES)).astype(np.float32)
    x[generator.random(x.shape, np.float32) < 0.02] = np.nan
    return x


def train(folder: Path) -> Path:
    """LightGBM's text of the trees."""
    import lightgbm

    generator = np.random.default_rng(0)
    x = rows_of(generator, 20_000)
    wanted = np.nansum(x[:, :10], axis=1) + 2 * np.sin(3 * np.nan_to_num(x[:, 10])) * np.nan_to_num(x[:, 11])
    y = (wanted + generator.normal(size=len(x)) > 1).astype(np.int64)
    options = {"objective": "binary", "num_leaves": 2**DEPTH, "max_depth": DEPTH, "learning_rate": 0.05}
    data = lightgbm.Dataset(x, y, feature_name=NAMES)
    model = folder / "model.txt"
    lightgbm.train({**options, "verbosity": -1, "seed": 0}, data, TREES).save_model(model)
    held = rows_of(generator, 3000)
    truth = (np.nansum(held[:, :10], axis=1) > 1).astype(np.int64)
    pq.write_table(pa.table({**dict(zip(NAMES, held.T, strict=True)), "y": truth}), folder / "cases.parquet")
    return model


def write_table(path: Path, rows: int) -> None:
    generator = np.random.default_rng(1)
    writer: Any = None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        columns = dict(zip(NAMES, rows_of(generator, count).T, strict=True))
        table = pa.table({"id": np.arange(start, start + count), **columns})
        writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
        writer.write_table(table, GROUP)
    writer.close()


def compare(ours: Path, theirs: Path) -> str:
    """Of the trees' own scores; the artifact's probability is calibrated anew."""
    one, other = pq.read_table(ours, columns=["id", "score"]), pq.read_table(theirs, columns=["id", "probability"])
    if not one["id"].equals(other["id"]):
        raise SystemExit("the outputs have other rows")
    found = np.abs(1 / (1 + np.exp(-one["score"].to_numpy())) - other["probability"].to_numpy())
    return f"largest difference {found.max():.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the table is kept, for another run")
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        featherweight, artifact = Path(sys.executable).with_name("featherweight"), folder / "artifact"
        model, table = train(folder), folder / f"rows-{asked.rows}.parquet"
        if not table.exists():
            write_table(table, asked.rows)
        data = folder / "cases.parquet"
        if not artifact.exists():
            wanted = ("--data", data, "--label", "y", "--limit", "auc_loss=0.1", "--force", "--out", artifact)
            command(featherweight, "optimize", model, *wanted)
        ours, theirs = folder / "ours.parquet", folder / "theirs.parquet"
        seconds = interleave(
            {
                "predict": lambda: command(featherweight, "predict", artifact, "--data", table, "--out", ours),
                "plain": lambda: command(sys.executable, "-c", PLAIN, model, table, theirs),
            },
            asked.rounds,
        )
        found = {name: median(values) for name, values in seconds.items()}
        columns = ("command", "seconds", "rows a second", "times LightGBM's")
        lines = [
            [title, f"{found[name]:.1f}", f"{asked.rows / found[name]:,.0f}", f"{found['plain'] / found[name]:.1f}x"]
            for title, name in (("featherweight predict", "predict"), ("LightGBM in a plain script", "plain"))
        ]
        title = f"{asked.rows:,} rows of {FEATURES} columns, {TREES} trees of depth {DEPTH}: {compare(ours, theirs)}"
        print(host())
        show(title, columns, lines)
        if asked.record:
            record(asked.record, {title: (columns, lines)})


if __name__ == "__main__":
    main()
