"""Every backend that runs trees, against the numpy reference and against the library that fitted them.

fp32: within 1e-5 of the largest score, because engines add the leaves in another order. int8: the same bits from every
backend for margins, whose sums are exact; of forests, whose sums go through a logarithm, within 1e-6.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from featherweight.core.backends.base import Backend, RowSession, row_function
from featherweight.core.backends.registry import NAMES, find_backend
from featherweight.core.errors import BackendError, BackendUnavailableError, TensorError
from featherweight.core.passes.quantize_trees import quantize_trees
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Precision, Program
from featherweight.core.trees.ensemble import INPUT, OUTPUT, Ensemble, tensor_specs
from featherweight.core.trees.lightgbm import decode_lightgbm
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from featherweight.core.trees.predict import as_margin, borderline_rows, predict
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import decode_xgboost

xgboost = pytest.importorskip("xgboost", reason="fits the trees of this suite")
lightgbm = pytest.importorskip("lightgbm", reason="fits the trees of this suite")
pytest.importorskip("sklearn", reason="fits the trees of this suite")
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier  # noqa: E402

Rows = npt.NDArray[np.float32]
FP32 = 1e-5
FOREST = 1e-6
FEATURES = 8
TREES = ("onnxruntime", "native")
"""The others run networks only: `test_backends_of_networks_refuse_trees`."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True)
class Case:
    """Trees with their programs and what the library that fitted them says of rows: margins float32 [N]."""

    trees: dict[Precision, Ensemble]
    library: Any

    def program(self, precision: Precision) -> Program:
        ensemble = self.trees[precision]
        return Program(encode_trees(ensemble), precision, *tensor_specs(ensemble.features), "trees")

    def tolerance(self, precision: Precision) -> float:
        forest = self.trees[precision].output == "probability"
        return FP32 if precision == "fp32" else FOREST if forest else 0.0


def _rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, FEATURES)).astype(np.float32)
    rows[:, 0] = np.round(rows[:, 0])  # -0.0 among them
    rows[generator.random(rows.shape) < 0.1] = np.nan
    return rows


def _labels(rows: Rows) -> npt.NDArray[np.int64]:
    return (np.nansum(rows[:, :4], axis=1) + np.isnan(rows[:, 5]) > 0.5).astype(np.int64)


def _xgboost(rows: Rows) -> tuple[Ensemble, Any]:
    options = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1, "base_score": 0.3}
    booster = xgboost.train(options, xgboost.DMatrix(rows, _labels(rows)), 60)
    return decode_xgboost(booster.save_raw("json")), lambda x: booster.predict(xgboost.DMatrix(x), output_margin=True)


def _lightgbm(rows: Rows) -> tuple[Ensemble, Any]:
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(options, lightgbm.Dataset(rows.astype(np.float64), _labels(rows)), 40)
    return decode_lightgbm(json.dumps(booster.dump_model())), lambda x: booster.predict(
        x.astype(np.float64), raw_score=True
    )


def _forest(rows: Rows) -> tuple[Ensemble, Any]:
    forest = RandomForestClassifier(20, random_state=0, n_jobs=1).fit(rows, _labels(rows))
    ensemble = from_sklearn(forest)
    return ensemble, lambda x: as_margin(ensemble, forest.predict_proba(x)[:, 1].astype(np.float32))


def _histogram(rows: Rows) -> tuple[Ensemble, Any]:
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(rows, _labels(rows))
    return from_sklearn(model), model.decision_function


FITTED: dict[str, Callable[[Rows], tuple[Ensemble, Any]]] = {
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "forest": _forest,
    "histogram": _histogram,
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    found = {}
    for name, fit in FITTED.items():
        ensemble, library = fit(_rows(1500, seed=0))
        plain = Program(encode_trees(ensemble), "fp32", *tensor_specs(FEATURES), "trees")
        small, _ = quantize_trees(plain, QuantizeStep(precision="int8"), [{INPUT: _rows(200, seed=10)}])
        found[name] = Case({"fp32": ensemble, "int8": decode_trees(small.content)}, library)
    return found


@pytest.fixture(params=list(FITTED))
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture(params=TREES)
def backend(request: pytest.FixtureRequest) -> Backend:
    found = find_backend(request.param)
    available = found.probe()
    if not available.available:
        pytest.skip(f"{request.param}: {available.reason}")
    return found


def score(backend: Backend, program: Program, rows: Rows, threads: int = 1) -> Rows:
    with backend.open(program, threads=threads) as session:
        found: Rows = session.run({INPUT: rows})[OUTPUT]
    return found


def distance(found: Rows, expected: npt.NDArray[Any]) -> float:
    return float(np.abs(found[:, 0] - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_scores_as_the_reference(backend: Backend, case: Case, precision: Precision) -> None:
    """On rows that lie on the thresholds and just below them, with missing values and infinities."""
    rows = np.concatenate([_rows(300, seed=1), borderline_rows(case.trees[precision], 700)])
    found = score(backend, case.program(precision), rows)
    assert found.dtype == np.float32
    assert distance(found, predict(case.trees[precision], rows)) <= case.tolerance(precision)


def test_same_scores_as_the_library_that_fitted_the_trees(backend: Backend, case: Case) -> None:
    rows = _rows(500, seed=2)
    assert np.isnan(rows).any()
    assert distance(score(backend, case.program("fp32"), rows), case.library(rows)) < FP32


def test_scores_depend_on_the_row_more_than_any_tolerance(case: Case) -> None:
    expected = predict(case.trees["int8"], _rows(50, seed=1))
    assert np.abs(expected[::-1] - expected).max() / np.abs(expected).max() > 0.1


def test_int8_backends_agree(case: Case) -> None:
    rows = _rows(300, seed=3)
    able = [find_backend(name) for name in NAMES if find_backend(name).probe().runs("trees", "int8")]
    first, *others = [score(backend, case.program("int8"), rows)[:, 0] for backend in able]
    for other in others:
        assert np.abs(first - other).max() <= case.tolerance("int8") * np.abs(first).max()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_batch_size_and_threads(backend: Backend, case: Case, precision: Precision) -> None:
    """300 rows are more than `native` gives to one thread."""
    rows = _rows(300, seed=4)
    program = case.program(precision)
    whole = score(backend, program, rows)
    with backend.open(program, threads=2) as session:
        for size in (1, 3, 64, 127, 128, 300):
            part = session.run({INPUT: rows[:size]})[OUTPUT]
            assert part.shape == (size, 1)
            assert np.abs(part - whole[:size]).max() <= 1e-6 * np.abs(whole).max()


def test_the_fast_path_for_one_row(backend: Backend, case: Case) -> None:
    rows = borderline_rows(case.trees["int8"], 40)
    with backend.open(case.program("int8")) as session:
        whole = session.run({INPUT: rows})[OUTPUT][:, 0]
        run_row = row_function(session)
        frozen = rows.copy()
        frozen.flags.writeable = False
        found = [(run_row(row), run_row(still)) for row, still in zip(rows, frozen, strict=True)]
    assert all(type(one) is float for pair in found for one in pair)
    np.testing.assert_allclose([one for one, _ in found], whole, rtol=1e-6)
    assert all(one == other for one, other in found)


def test_outputs_are_the_callers(backend: Backend, case: Case) -> None:
    rows, others = _rows(4, seed=5), _rows(4, seed=6)
    with backend.open(case.program("fp32")) as session:
        first = session.run({INPUT: rows})[OUTPUT]
        kept = first.copy()
        session.run({INPUT: others})
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(rows, _rows(4, seed=5))
    assert first.flags.writeable


def test_read_only_and_strided_input(backend: Backend, case: Case) -> None:
    rows = _rows(6, seed=7)
    frozen = rows.copy()
    frozen.flags.writeable = False
    with backend.open(case.program("fp32")) as session:
        expected = session.run({INPUT: rows})[OUTPUT]
        np.testing.assert_array_equal(session.run({INPUT: frozen})[OUTPUT], expected)
        np.testing.assert_allclose(session.run({INPUT: rows[::2]})[OUTPUT], expected[::2], rtol=1e-6)
        transposed = np.asfortranarray(rows)
        np.testing.assert_allclose(session.run({INPUT: transposed})[OUTPUT], expected, rtol=1e-6)


def test_wrong_rows_are_refused(backend: Backend, cases: dict[str, Case]) -> None:
    rows = _rows(2, seed=8)
    with backend.open(cases["xgboost"].program("fp32")) as session:
        for wrong in (rows[:, :7], rows[0], rows.astype(np.float64), rows[:0]):
            with pytest.raises(TensorError):
                session.run({INPUT: wrong})
        if isinstance(session, RowSession):
            with pytest.raises(ValueError, match="another number of values"):
                session.run_row(rows[0, :7])
            with pytest.raises(TypeError):
                session.run_row(rows[0].astype(np.float64))
            with pytest.raises(TypeError):
                session.run_row(rows[:, 0])


def test_closed_sessions_say_so(backend: Backend, cases: dict[str, Case]) -> None:
    rows = _rows(2, seed=9)
    session = backend.open(cases["xgboost"].program("fp32"), threads=2)
    run_row = row_function(session)
    run_row(rows[0])
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({INPUT: rows})
    with pytest.raises(BackendError, match="closed"):
        run_row(rows[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_damaged_programs_are_errors(backend: Backend, cases: dict[str, Case], precision: Precision) -> None:
    whole = cases["xgboost"].program(precision)
    for content in (b"", b"no model", whole.content[: len(whole.content) // 2], whole.content[:-1], bytes(1000)):
        with pytest.raises(BackendError):
            backend.open(dataclasses.replace(whole, content=content))


def test_specs_that_the_file_does_not_have(backend: Backend, cases: dict[str, Case]) -> None:
    program = cases["xgboost"].program("fp32")
    inputs, outputs = tensor_specs(FEATURES + 1)
    for wrong in (
        dataclasses.replace(program, inputs=inputs),
        dataclasses.replace(program, outputs=(dataclasses.replace(outputs[0], shape=(None, 2)),)),
        dataclasses.replace(program, outputs=(dataclasses.replace(outputs[0], name="margin"),)),
    ):
        with pytest.raises(BackendError, match=r"does not fit|do not fit"):
            backend.open(wrong)


def test_a_network_that_calls_itself_trees() -> None:
    """And trees that call themselves a network, and bfloat16: refused in words by the native backend."""
    native = find_backend("native")
    if not native.probe().available:
        pytest.skip(native.probe().reason)
    ensemble, _ = _xgboost(_rows(200, seed=0))
    trees = Program(encode_trees(ensemble), "fp32", *tensor_specs(FEATURES), "trees")
    with pytest.raises(BackendUnavailableError, match="small dense networks"):
        native.open(dataclasses.replace(trees, kind="network"))
    with pytest.raises(BackendUnavailableError, match="bf16"):
        native.open(dataclasses.replace(trees, precision="bf16"))


def test_backends_of_networks_refuse_trees(cases: dict[str, Case]) -> None:
    for name in NAMES:
        available = find_backend(name).probe()
        if available.available:
            assert ("trees" in available.kinds) == (name in TREES)
        if available.available and name not in TREES:
            with pytest.raises(BackendUnavailableError, match="cannot run trees"):
                find_backend(name).open(cases["xgboost"].program("fp32"))
