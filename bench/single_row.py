"""One row scored in process, one thread, all contenders interleaved in one run: microseconds that a caller waits.

    python -m bench.single_row [--rounds 200] [--model runs/card-fraud/model --artifact data/models/card-fraud]

Trees: 300 x depth 6 over 30 features, trained by LightGBM on synthetic data; the same trees on the native backend, in
LightGBM (`predict`, and its C interface's fast path for single rows), ONNX Runtime, lleaves and treelite. XGBoost,
scikit-learn and YDF have trees of their own, of the same number and depth. Networks: 30-128-64-1 with random
weights. With --model and --artifact: the unpruned trees of `fraud train` and those that were sealed, on rows at their
thresholds.

Each contender gets its rows in the form that it likes best, made beforehand. A package that is not installed, or does
not run here, is a line that says so.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.timing import show
from featherweight.core.backends.registry import find_backend
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from featherweight.core.trees.lightgbm import from_lightgbm
from featherweight.core.trees.onnx_file import encode_trees
from featherweight.core.trees.predict import predict

TREES, DEPTH, FEATURES = 300, 6, 30
ROWS, BLOCK, WARMUP = 512, 20, 2
NATIVE = "native"


@dataclass(frozen=True)
class Contender:
    """run(given[i]) scores row i. margins: whether the answer is the log-odds, a probability (False), or from other
    trees (None), which are not compared."""

    run: Callable[[Any], Any]
    given: Sequence[Any]
    margins: bool | None = True


def sample(contenders: dict[str, Contender], rounds: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Microseconds of single calls. A turn is WARMUP untimed calls, because the others filled the caches, and BLOCK
    timed ones, on another row each; the order of turns is shuffled in every round."""
    generator = random.Random(seed)  # noqa: S311
    samples: dict[str, list[int]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        generator.shuffle(names)
        for name in names:
            run, given, kept = contenders[name].run, contenders[name].given, samples[name]
            first = turn * BLOCK
            for index in range(first - WARMUP, first):
                run(given[index % ROWS])
            for index in range(first, first + BLOCK):
                row = given[index % ROWS]
                start = time.perf_counter_ns()
                run(row)
                kept.append(time.perf_counter_ns() - start)
    return {name: np.array(values) / 1000 for name, values in samples.items()}


def table(title: str, contenders: dict[str, Contender], absent: dict[str, str], rounds: int) -> None:
    samples = sample(contenders, rounds)
    best = float(np.median(samples[NATIVE]))
    rows = [
        [name, f"{np.median(found):.2f}", f"{np.percentile(found, 99):.2f}", f"{np.median(found) / best:.1f}x"]
        for name, found in sorted(samples.items(), key=lambda item: float(np.median(item[1])))
    ]
    rows += [[f"{name}: {reason}", "", "", ""] for name, reason in absent.items()]
    show(title, ["contender", "p50 us", "p99 us", "native is faster by"], rows)


def made_data(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [count, FEATURES] with two in a hundred missing, labels [count])."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, FEATURES)).astype(np.float32)
    x[generator.random(x.shape) < 0.02] = np.nan
    wanted = np.nansum(x[:, :10], axis=1) + 2 * np.sin(3 * np.nan_to_num(x[:, 10])) * np.nan_to_num(x[:, 11])
    return x, (wanted + generator.normal(size=len(x)) > 1).astype(np.int64)


def fitted_booster(x: np.ndarray, y: np.ndarray) -> Any:
    """LightGBM's trees, of which all that compare the same model are made."""
    import lightgbm

    options = {"objective": "binary", "num_leaves": 2**DEPTH, "max_depth": DEPTH, "min_data_in_leaf": 1}
    options |= {"min_sum_hessian_in_leaf": 0, "learning_rate": 0.05, "num_threads": 1, "verbosity": -1, "seed": 0}
    return lightgbm.train(options, lightgbm.Dataset(x.astype(np.float64), y), TREES)


def tree_contenders(folder: Path) -> tuple[dict[str, Contender], dict[str, str]]:
    x, y = made_data(10_000)
    rows = x[:ROWS]
    booster = fitted_booster(x, y)
    ensemble = from_lightgbm(booster)
    print(f"{TREES} trees of depth {DEPTH} by LightGBM: {ensemble.splits / TREES:.1f} of {2**DEPTH - 1} splits each")
    specs = (TensorSpec("features", "float32", (None, FEATURES)),), (TensorSpec("score", "float32", (None, 1)),)
    program = Program(encode_trees(ensemble), "fp32", *specs, "trees")
    wide = [np.ascontiguousarray(row[None], np.float64) for row in rows]
    feeds = [{"features": row[None]} for row in rows]
    contenders = {
        NATIVE: Contender(row_lane(program), list(rows)),
        "LightGBM predict": Contender(lambda row: booster.predict(row, raw_score=True, num_threads=1)[0], wide),
        "LightGBM, C single-row fast path": Contender(*lightgbm_fast(booster, wide)),
        "ONNX Runtime": Contender(onnxruntime_run(program), feeds),
    }
    path = folder / "model.txt"
    booster.save_model(path)
    absent: dict[str, str] = {}
    for name, make in (
        ("lleaves", lambda: lleaves_contender(path, wide)),
        ("treelite, compiled by tl2cgen", lambda: tl2cgen_contender(path, folder, rows)),
        ("treelite, GTIL", lambda: gtil_contender(path, rows)),
        ("XGBoost inplace_predict", lambda: xgboost_contender(x, y)),
        ("scikit-learn HistGradientBoosting", lambda: histogram_contender(x, y)),
        ("YDF, in Python", lambda: ydf_contender(x, y)),
    ):
        try:
            contenders[name] = make()
        except Exception as error:  # noqa: BLE001 - whatever keeps a competitor from running belongs into the table
            absent[name] = f"does not run here ({type(error).__name__}: {str(error).splitlines()[0][:90]})"
    check(contenders, predict(ensemble, rows))
    return contenders, absent


def row_lane(program: Program) -> Callable[[Any], float]:
    session: Any = find_backend("native").open(program)
    run_row: Callable[[Any], float] = session.run_row
    return run_row


def onnxruntime_run(program: Program) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.content, options, providers=["CPUExecutionProvider"])
    names = [program.outputs[0].name]
    return lambda feed: session.run(names, feed)[0][0, 0]


def lightgbm_fast(booster: Any, rows: Sequence[np.ndarray]) -> tuple[Callable[[Any], float], list[ctypes.c_void_p]]:
    """LGBM_BoosterPredictForMatSingleRowFast: https://lightgbm.readthedocs.io/en/stable/C-API.html"""
    from lightgbm.basic import _LIB, _safe_call

    config, length, result = ctypes.c_void_p(), ctypes.c_int64(), ctypes.c_double()
    raw_score, float64 = 1, 1
    handle = booster._handle if hasattr(booster, "_handle") else booster.handle
    _safe_call(
        _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            handle, raw_score, 0, -1, float64, ctypes.c_int32(FEATURES), b"num_threads=1", ctypes.byref(config)
        )
    )
    function, length_at, result_at = (
        _LIB.LGBM_BoosterPredictForMatSingleRowFast,
        ctypes.byref(length),
        ctypes.byref(result),
    )

    def run(row: ctypes.c_void_p) -> float:
        function(config, row, length_at, result_at)
        return result.value

    return run, [row.ctypes.data_as(ctypes.c_void_p) for row in rows]


def lleaves_contender(path: Path, rows: Sequence[np.ndarray]) -> Contender:
    """Its documentation advises one block of all trees for single rows, which LLVM now compiles for many minutes (the
    time grows with the square of the trees); so in blocks of 34, its default."""
    import lleaves
    from llvmlite import binding

    if not hasattr(binding, "PassManagerBuilder"):  # lleaves 1.3 asks for what newer versions of llvmlite replaced
        binding.PassManagerBuilder, binding.ModulePassManager = _Builder, _Passes
        binding.initialize = binding.initialize_native_target
    model = lleaves.Model(model_file=path)
    model.compile(raw_score=True, fcodemodel="small")
    return Contender(lambda row: model.predict(row, n_jobs=1)[0], rows)


class _Builder:
    """The pass manager that lleaves sets up, by the interface that llvmlite has now: the same level and threshold."""

    def populate(self, passes: Any) -> None: ...


class _Passes:
    def run(self, module: Any) -> None:
        from llvmlite import binding

        binding.initialize_native_target()
        machine = binding.Target.from_default_triple().create_target_machine(opt=3)
        options = binding.create_pipeline_tuning_options(speed_level=3)
        options.inlining_threshold = 1  # as lleaves sets it
        builder = binding.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)


def tl2cgen_contender(path: Path, folder: Path, rows: np.ndarray) -> Contender:
    import tl2cgen
    import treelite

    library = folder / "trees.so"
    model = treelite.frontend.load_lightgbm_model(path)
    tl2cgen.export_lib(model, "gcc", library, params={"parallel_comp": 8}, verbose=False)
    predictor = tl2cgen.Predictor(library, nthread=1)
    return Contender(lambda row: predictor.predict(tl2cgen.DMatrix(row))[0, 0, 0], [row[None] for row in rows], False)


def gtil_contender(path: Path, rows: np.ndarray) -> Contender:
    import treelite

    model = treelite.frontend.load_lightgbm_model(path)
    given = [row[None].astype(np.float64) for row in rows]
    return Contender(lambda row: treelite.gtil.predict(model, row, nthread=1)[0, 0, 0], given, False)


def xgboost_contender(x: np.ndarray, y: np.ndarray) -> Contender:
    import xgboost

    options = {"objective": "binary:logistic", "max_depth": DEPTH, "min_child_weight": 0, "eta": 0.05, "nthread": 1}
    booster = xgboost.train(options, xgboost.DMatrix(x, y), TREES)
    return Contender(booster.inplace_predict, [row[None] for row in x[:ROWS]], None)


def fitted_ydf(x: np.ndarray, y: np.ndarray) -> Any:
    """Trees of its own, of the same number and depth; YDF counts the root's level too."""
    import ydf

    ydf.verbose(0)
    learner = ydf.GradientBoostedTreesLearner(
        label="label",
        num_trees=TREES,
        max_depth=DEPTH + 1,
        shrinkage=0.05,
        min_examples=1,
        validation_ratio=0.0,
        early_stopping="NONE",
        num_threads=1,
    )
    return learner.train({**ydf_columns(x), "label": y})


def ydf_columns(x: np.ndarray) -> dict[str, np.ndarray]:
    return {f"f{place}": np.ascontiguousarray(x[:, place]) for place in range(x.shape[1])}


def ydf_contender(x: np.ndarray, y: np.ndarray) -> Contender:
    return Contender(fitted_ydf(x, y).predict, [ydf_columns(row[None]) for row in x[:ROWS]], None)


def histogram_contender(x: np.ndarray, y: np.ndarray) -> Contender:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_depth=DEPTH,
        max_leaf_nodes=2**DEPTH,
        min_samples_leaf=1,
        learning_rate=0.05,
        early_stopping=False,
    )
    model.fit(x, y)
    return Contender(model.predict_proba, [row[None] for row in x[:ROWS]], None)


def check(contenders: dict[str, Contender], expected: np.ndarray) -> None:
    """Those that run the same model give the same scores, or the comparison means nothing."""
    for name, one in contenders.items():
        if one.margins is not None:
            found = np.array([float(one.run(one.given[index])) for index in range(ROWS)])
            wanted = expected if one.margins else 1 / (1 + np.exp(-expected.astype(np.float64)))
            assert np.abs(found - wanted).max() < 1e-4, f"{name} gives other scores"


def network_contenders() -> tuple[dict[str, Contender], dict[str, str]]:
    import torch
    from torch import nn

    from featherweight.core.export import export
    from featherweight.core.model import Model

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1)).eval()
    specs = (TensorSpec("features", "float32", (None, FEATURES)),), (TensorSpec("score", "float32", (None, 1)),)
    program, _ = export(Model(network, *specs))
    rows = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    feeds = [{"features": row[None]} for row in rows]

    def eager(row: np.ndarray) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(row)))

    contenders = {
        NATIVE: Contender(row_lane(program), list(rows)),
        "ONNX Runtime": Contender(onnxruntime_run(program), feeds),
        "PyTorch": Contender(eager, [row[None] for row in rows]),
    }
    absent = {}
    openvino = find_backend("openvino")
    if openvino.probe().available:
        session = openvino.open(program)
        contenders["OpenVINO"] = Contender(lambda feed: session.run(feed)["score"][0, 0], feeds)
    else:
        absent["OpenVINO"] = openvino.probe().reason
    with torch.inference_mode():
        check(contenders, network(torch.from_numpy(rows))[:, 0].numpy())
    return contenders, absent


def sealed_contenders(model: Path, artifact: Path) -> dict[str, Contender]:
    from featherweight.apps.fraud.training.trained import read_trained
    from featherweight.core.artifact.store import read_artifact
    from featherweight.core.export import export
    from featherweight.core.trees.predict import borderline_rows

    trained = read_trained(model).core_model()
    plain, _ = export(trained)
    sealed = read_artifact(artifact)
    compressed = sealed.program(sealed.precisions[0])
    rows = np.ascontiguousarray(borderline_rows(trained.ensemble("the bench"), ROWS), dtype=np.float32)
    feeds = [{"features": row[None]} for row in rows]
    return {
        "native, sealed": Contender(row_lane(compressed), list(rows), None),
        NATIVE: Contender(row_lane(plain), list(rows), None),
        "ONNX Runtime, sealed": Contender(onnxruntime_run(compressed), feeds, None),
        "ONNX Runtime": Contender(onnxruntime_run(plain), feeds, None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help=f"turns of each contender, of {BLOCK} calls")
    parser.add_argument("--model", type=Path, help="folder of `fraud train`, with --artifact: those trees alone")
    parser.add_argument("--artifact", type=Path, help="what was sealed of it")
    options = parser.parse_args()
    if options.model and options.artifact:
        found = sealed_contenders(options.model, options.artifact)
        table(f"one row, one thread, {options.rounds * BLOCK} calls each, interleaved", found, {}, options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        contenders, absent = tree_contenders(Path(folder))
        calls = f"one thread, {options.rounds * BLOCK} calls each, interleaved"
        table(
            f"one row, {TREES} trees x depth {DEPTH} x {FEATURES} features, {calls}", contenders, absent, options.rounds
        )
    contenders, absent = network_contenders()
    table(f"one row, network {FEATURES}-128-64-1, {calls}", contenders, absent, options.rounds)


if __name__ == "__main__":
    main()
