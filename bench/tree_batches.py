"""Trees in batches, one thread, all contenders interleaved in one run: microseconds a row.

    python -m bench.tree_batches [--rows 20000] [--rounds 15]

Trees: 300 x depth 6 over 30 features, trained by LightGBM on synthetic data; the same trees on the native backend, from
float32 rows and from float64 ones, in LightGBM and in ONNX Runtime. XGBoost and YDF have trees of their own, of the
same number and depth. YDF's time is what its own benchmark of its C++ engine says in each round, on columns that are
laid out for it beforehand. A ratio is of medians. A package that is not installed is a line that says so.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.single_row import FEATURES, TREES, fitted_booster, fitted_ydf, made_data, ydf_columns
from bench.timing import show
from featherweight.core.backends.registry import find_backend
from featherweight.core.program import Program
from featherweight.core.trees.ensemble import Ensemble
from featherweight.core.trees.lightgbm import from_lightgbm
from featherweight.core.trees.onnx_file import encode_trees
from featherweight.core.trees.predict import predict

NATIVE = "native, float32 rows"
_UNITS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}


def timed(run: Callable[[], Any], rows: int) -> Callable[[], float]:
    """Microseconds a row of one call."""

    def once() -> float:
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) / rows * 1e6

    return once


def session_run(backend: str, ensemble: Ensemble, rows: np.ndarray) -> Callable[[], Any]:
    session = find_backend(backend).open(Program(encode_trees(ensemble), "fp32", *ensemble.specs, "trees"))
    given = {"features": rows.astype(np.float64) if ensemble.wide else rows}
    found = session.run(given)["score"][:, 0]
    assert np.abs(found - predict(ensemble, given["features"])).max() < 1e-4, f"{backend} gives other scores"
    return lambda: session.run(given)


def xgboost_run(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Callable[[], Any]:
    import xgboost

    options = {"objective": "binary:logistic", "max_depth": 6, "min_child_weight": 0, "eta": 0.05, "nthread": 1}
    booster = xgboost.train(options, xgboost.DMatrix(x, y), TREES)
    return lambda: booster.inplace_predict(rows, predict_type="margin")


def ydf_once(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Callable[[], float]:
    """What YDF itself says: `model.benchmark` measures its C++ engine, without Python."""
    model = fitted_ydf(x, y)
    columns = {**ydf_columns(rows), "label": np.zeros(len(rows), np.int64)}

    def once() -> float:
        said = str(model.benchmark(columns, benchmark_duration=0.3, warmup_duration=0.05))
        found = re.search(r"Single-thread inference time per example: ([0-9.]+) (\w+)", said)
        assert found, f"YDF's benchmark says something else now: {said}"
        return float(found[1]) * _UNITS[found[2]]

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    options = parser.parse_args()
    x, y = made_data(10_000)
    rows = made_data(options.rows)[0]
    booster = fitted_booster(x, y)
    wide = rows.astype(np.float64)
    ensemble = from_lightgbm(booster)
    count = len(rows)
    contenders = {
        NATIVE: timed(session_run("native", ensemble, rows), count),
        "native, float64 rows": timed(session_run("native", from_lightgbm(booster, wide=True), rows), count),
        "ONNX Runtime": timed(session_run("onnxruntime", ensemble, rows), count),
        "LightGBM": timed(lambda: booster.predict(wide, raw_score=True, num_threads=1), count),
    }
    absent = {}
    for name, make in (
        ("XGBoost", lambda: timed(xgboost_run(x, y, rows), count)),
        ("YDF, C++ engine", lambda: ydf_once(x, y, rows)),
    ):
        try:
            contenders[name] = make()
        except ImportError as error:
            absent[name] = f"does not run here ({error})"
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    generator = np.random.default_rng(0)
    for _ in range(options.rounds):
        for name in generator.permutation(list(contenders)):
            samples[name].append(contenders[name]())
    best = float(np.median(samples[NATIVE]))
    table = [
        [name, f"{np.median(found):.2f}", f"{np.median(found) / best:.2f}x"]
        for name, found in sorted(samples.items(), key=lambda item: float(np.median(item[1])))
    ]
    table += [[f"{name}: {reason}", "", ""] for name, reason in absent.items()]
    title = f"{count:,} rows, {TREES} trees x depth 6 x {FEATURES} features, one thread, {options.rounds} turns"
    show(title, ["contender", "p50 us a row", "native is faster by"], table)


if __name__ == "__main__":
    main()
