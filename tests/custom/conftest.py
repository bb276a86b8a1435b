"""A model of LightGBM and its cases, and the artifact that the command line makes of them, once for all tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COUNT = 3000


def run(folder: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "featherweight.core.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.txt of LightGBM and cases.parquet, whose columns stand in another order."""
    path = tmp_path_factory.mktemp("custom")
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(COUNT, 4))
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] + generator.normal(0, 0.5, COUNT) > 0.3).astype(int)
    rows[generator.random(rows.shape) < 0.03] = np.nan
    names = ["age", "dose", "weight", "height"]
    data = lightgbm.Dataset(rows[:1200], labels[:1200], feature_name=names)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 30}
    lightgbm.train(parameters, data, 20).save_model(path / "model.txt")
    table: dict[str, Any] = {name: rows[:, place] for place, name in reversed(list(enumerate(names)))}
    table |= {"y": np.where(labels, "ill", "well"), "patient": [f"p{place // 2}" for place in range(COUNT)]}
    table |= {"split": np.array(["train", "validation", "test"])[np.minimum(np.arange(COUNT) // 1200, 2)]}
    table |= {"site": np.where(np.arange(COUNT) % 3 == 0, "north", "south"), "remark": ["none"] * COUNT}
    pq.write_table(pa.table(table), path / "cases.parquet", row_group_size=500)
    return path


MEANT = ("--label", "y", "--positive", "ill", "--split", "split", "--cluster", "patient", "--groups", "site")


@pytest.fixture(scope="session")
def artifact(folder: Path) -> Path:
    limits = ("--limit", "auc_loss=0.03", "--limit", "flip_ratio_max=0.08")
    said = run(
        folder,
        "optimize",
        "model.txt",
        "--data",
        "cases.parquet",
        *MEANT,
        *limits,
        "--steps",
        "int8",
        "--out",
        "models/x",
    )
    assert "The model agrees with LightGBM on 3,000 rows" in said
    return folder / "models" / "x"
