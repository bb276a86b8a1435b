"""The native backend's own parts: both layouts of trees, every layer of networks, what it refuses, its cache."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import BackendError, BackendUnavailableError, FeatherweightError
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from featherweight.core.trees.canonical import Nodes, canonicalize
from featherweight.core.trees.ensemble import INPUT, LEAF, OUTPUT, Ensemble, Output, tensor_specs
from featherweight.core.trees.predict import borderline_rows, predict

pytest.importorskip("numba", reason="the extra `fraud` brings the native backend")
onnx = pytest.importorskip("onnx", reason="the extra `fraud` brings the native backend")

from featherweight.core import compiled  # noqa: E402
from featherweight.core.backends import native_kernels as kernels  # noqa: E402
from featherweight.core.backends.native_trees import ordered, pack_blocks, pack_walk  # noqa: E402
from featherweight.core.trees.onnx_file import encode_trees  # noqa: E402

Rows = npt.NDArray[np.float32]
ODD = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38], np.float32)


def grow(
    seed: int, *, trees: int, depth: int, features: int, bins: int = 20, full: bool = False, output: Output = "margin"
) -> Ensemble:
    """Random trees whose leaves are multiples of 2**-12, so that sums are exact in whatever order they are made."""
    generator = np.random.default_rng(seed)
    limits = generator.normal(size=(features, bins)).astype(np.float32)
    limits[:, : len(ODD)] = ODD[:bins]
    feature: list[int] = []
    threshold, value = [], []
    left, right = [], []

    def add(level: int) -> int:
        node = len(feature)
        for column, nothing in ((feature, LEAF), (threshold, 0.0), (value, 0.0), (left, LEAF), (right, LEAF)):
            column.append(nothing)  # type: ignore[attr-defined]
        if level < depth and (full or generator.random() < 0.85):
            feature[node] = int(generator.integers(features))
            threshold[node] = limits[feature[node], generator.integers(bins)]
            left[node], right[node] = add(level + 1), add(level + 1)
        else:
            value[node] = round(float(generator.random()) / trees * 4096) / 4096
        return node

    roots = [add(0) for _ in range(trees)]
    missing = generator.random(len(feature)) < 0.5
    columns = (np.array(column) for column in (roots, feature, np.array(threshold, np.float32), left, right, missing))
    return canonicalize(Nodes(*columns, np.array(value, np.float32)), features, 0.25, output)


def scores(layout: str, ensemble: Ensemble, rows: Rows) -> Rows:
    """By the compiled functions themselves, for many rows and for one."""
    packed = {"blocks": pack_blocks, "walk": pack_walk}[layout](ensemble)
    assert packed is not None
    out = np.empty((len(rows), 1), np.float32)
    getattr(kernels, f"{layout}_rows")(packed, rows, out)
    alone = [getattr(kernels, f"{layout}_row")(packed, row) for row in rows]
    np.testing.assert_array_equal(np.array(alone, np.float32), out[:, 0])
    return out[:, 0]


LAYOUTS = ["walk", *(["blocks"] if kernels.has_byte_permutes() else [])]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=st.integers(0, 1 << 20), trees=st.integers(1, 20), depth=st.integers(0, 6), features=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_trees_score_as_the_reference(layout: str, seed: int, trees: int, depth: int, features: int) -> None:
    ensemble = grow(seed, trees=trees, depth=depth, features=features)
    rows = borderline_rows(ensemble, 50, seed)
    np.testing.assert_array_equal(scores(layout, ensemble, rows), predict(ensemble, rows))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("trees", [1, 7, 8, 63, 64, 65, 2000])
def test_any_number_of_trees(layout: str, trees: int) -> None:
    ensemble = grow(trees, trees=trees, depth=3, features=5)
    rows = borderline_rows(ensemble, 100)
    np.testing.assert_array_equal(scores(layout, ensemble, rows), predict(ensemble, rows))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_thresholds_than_a_slot_holds(layout: str) -> None:
    ensemble = grow(1, trees=60, depth=6, features=2, bins=700, full=True)
    assert len(np.unique(ensemble.threshold[ensemble.feature == 0])) > 2 * kernels.BINS
    rows = borderline_rows(ensemble, 500)
    np.testing.assert_array_equal(scores(layout, ensemble, rows), predict(ensemble, rows))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_forests_give_log_odds(layout: str) -> None:
    ensemble = grow(2, trees=10, depth=5, features=4, output="probability")
    rows = borderline_rows(ensemble, 200)
    np.testing.assert_allclose(scores(layout, ensemble, rows), predict(ensemble, rows), rtol=1e-6, atol=1e-7)
    certain = dataclasses.replace(ensemble, value=ensemble.value * 100)
    np.testing.assert_allclose(scores(layout, certain, rows), predict(certain, rows), rtol=1e-6)


def test_deep_trees_and_many_features_are_walked() -> None:
    deep = grow(3, trees=9, depth=14, features=6)
    many = grow(4, trees=300, depth=2, features=kernels.CODES + 1, full=True)
    for ensemble in (deep, many):
        assert pack_blocks(ensemble) is None
        rows = borderline_rows(ensemble, 100)
        np.testing.assert_array_equal(scores("walk", ensemble, rows), predict(ensemble, rows))
        np.testing.assert_array_equal(opened(trees_program(ensemble), rows), predict(ensemble, rows))


def test_what_a_walk_cannot_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = grow(5, trees=3, depth=6, features=9, full=True)
    for limit in ("LEFT_BITS", "SLOT_BITS"):
        with monkeypatch.context() as patched:
            patched.setattr(kernels, limit, 3)
            with pytest.raises(BackendUnavailableError, match="onnxruntime"):
                pack_walk(ensemble)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=20))
def test_keys_are_in_the_order_of_the_numbers(numbers: list[float]) -> None:
    x = np.array(numbers, np.float32)
    keys = ordered(x)
    assert ((keys[:, None] < keys) == (x[:, None] < x)).all()


def trees_program(ensemble: Ensemble) -> Program:
    return Program(encode_trees(ensemble), "fp32", *tensor_specs(ensemble.features), "trees")


def opened(program: Program, rows: Rows) -> Rows:
    with find_backend("native").open(program) as session:
        found: Rows = session.run({program.inputs[0].name: rows})[program.outputs[0].name]
    return found[:, 0] if program.kind == "trees" else found


Node = tuple[str, list[str], dict[str, Any]]
GENERATOR = np.random.default_rng(0)


def constant(*shape: int) -> Rows:
    return np.asarray(GENERATOR.normal(size=shape), np.float32)


def scalar(value: float) -> Rows:
    return np.array(value, np.float32)


W, B, V = constant(4, 3), constant(3), constant(4)


def network(nodes: list[Node], outputs: int = 4, **constants: npt.NDArray[Any]) -> Program:
    """A chain x -> v0 -> v1 ... -> y over rows of 4 values; '*' in a node's inputs is what the node before made."""
    names = ["x", *(f"v{index}" for index in range(len(nodes) - 1)), "y"]
    made = [
        onnx.helper.make_node(op, [names[i] if name == "*" else name for name in inputs], [names[i + 1]], **attributes)
        for i, (op, inputs, attributes) in enumerate(nodes)
    ]
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])
    wanted = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", outputs])
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(made, "chain", [given], [wanted], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    specs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, outputs)),)
    return Program(model.SerializeToString(), "fp32", *specs)


CHAINS: dict[str, Callable[[], Program]] = {
    "Gemm": lambda: network([("Gemm", ["*", "w", "b"], {})], 3, w=W, b=B),
    "Gemm transB": lambda: network([("Gemm", ["*", "w", "b"], {"transB": 1})], 3, w=W.T.copy(), b=B),
    "Gemm alpha, beta": lambda: network([("Gemm", ["*", "w", "b"], {"alpha": 0.5, "beta": 3.0})], 3, w=W, b=B),
    "Gemm, one bias": lambda: network([("Gemm", ["*", "w", "b"], {})], 3, w=W, b=B[:1]),
    "Gemm without bias": lambda: network([("Gemm", ["*", "w"], {})], 3, w=W),
    "MatMul and Add": lambda: network([("MatMul", ["*", "w"], {}), ("Add", ["b", "*"], {})], 3, w=W, b=B),
    "one output": lambda: network([("Gemm", ["*", "w", "b"], {})], 1, w=W[:, :1].copy(), b=B[:1]),
    "wide": lambda: network(
        [("Gemm", ["*", "w"], {}), ("Relu", ["*"], {}), ("MatMul", ["*", "v"], {})],
        2, w=constant(4, 77), v=constant(77, 2),
    ),
    "Add": lambda: network([("Add", ["*", "v"], {})], v=V),
    "Sub": lambda: network([("Sub", ["*", "v"], {})], v=V.reshape(1, 4)),
    "Sub from": lambda: network([("Sub", ["v", "*"], {})], v=V),
    "Mul by one": lambda: network([("Mul", ["v", "*"], {})], v=scalar(1.5)),
    "Div": lambda: network([("Div", ["*", "v"], {})], v=V),
    "Relu": lambda: network([("Relu", ["*"], {})]),
    "Sigmoid": lambda: network([("Sigmoid", ["*"], {})]),
    "Tanh": lambda: network([("Tanh", ["*"], {})]),
    "HardSigmoid": lambda: network([("HardSigmoid", ["*"], {})]),
    "HardSigmoid alpha, beta": lambda: network([("HardSigmoid", ["*"], {"alpha": 0.9, "beta": 0.1})]),
    "HardSwish": lambda: network([("HardSwish", ["*"], {})]),
    "LeakyRelu": lambda: network([("LeakyRelu", ["*"], {})]),
    "LeakyRelu alpha": lambda: network([("LeakyRelu", ["*"], {"alpha": 0.3})]),
    "Clip": lambda: network([("Clip", ["*", "l", "h"], {})], l=scalar(-0.5), h=scalar(1)),
    "Clip above": lambda: network([("Clip", ["*", "", "h"], {})], h=scalar(1)),
    "nothing": lambda: network([("Identity", ["*"], {}), ("Flatten", ["*"], {}), ("Dropout", ["*"], {})]),
    "BatchNormalization": lambda: network(
        [("BatchNormalization", ["*", "s", "v", "m", "q"], {"epsilon": 0.1})],
        s=constant(4), v=V, m=constant(4), q=constant(4) ** 2,
    ),
    "three layers": lambda: network(
        [("Gemm", ["*", "w", "b"], {}), ("Tanh", ["*"], {}), ("MatMul", ["*", "v"], {}), ("Sigmoid", ["*"], {})],
        5, w=W, b=B, v=constant(3, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CHAINS))
def test_networks_answer_as_onnx_runtime(name: str) -> None:
    program = CHAINS[name]()
    rows = np.random.default_rng(1).normal(scale=3, size=(150, 4)).astype(np.float32)
    with find_backend("onnxruntime").open(program) as session:
        expected = session.run({"x": rows})["y"]
    found = opened(program, rows)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected[1:] - expected[:-1]).max() > 1e-2 * np.abs(expected).max()
    if program.outputs[0].shape == (None, 1):
        with find_backend("native").open(program) as session:
            assert session.run_row(rows[3]) == found[3, 0]  # type: ignore[attr-defined]


FILLS: dict[str, Callable[[], Program]] = {
    "fill": lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "v", "x"], {})], v=V),
    "fill with one": lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "v", "x"], {})], v=scalar(1.5)),
    "fill, scale and dense": lambda: network(
        [
            *(("IsNaN", ["*"], {}), ("Where", ["*", "v", "x"], {}), ("Sub", ["*", "v"], {}), ("Mul", ["*", "s"], {})),
            *(("Clip", ["*", "l", "h"], {}), ("Gemm", ["*", "w", "b"], {})),
        ],
        1, v=V.reshape(1, 4), s=constant(4), l=scalar(-5), h=scalar(5), w=W[:, :1].copy(), b=B[:1],
    ),
    "fill amid a chain": lambda: network(
        [("Add", ["*", "s"], {}), ("IsNaN", ["*"], {}), ("Where", ["v1", "v", "v0"], {}), ("Gemm", ["*", "w"], {})],
        3, v=V, s=constant(4), w=W,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FILLS))
def test_missing_values_become_constants(name: str) -> None:
    """One row and a batch; infinities are values."""
    program = FILLS[name]()
    generator = np.random.default_rng(1)
    rows = generator.normal(scale=3, size=(150, 4)).astype(np.float32)
    rows[generator.random(rows.shape) < 0.3] = np.nan
    rows[7] = np.nan
    rows[8, 1] = np.inf
    with find_backend("onnxruntime").open(program) as session:
        expected = session.run({"x": rows})["y"]
    assert np.isfinite(expected[:8]).all()
    np.testing.assert_allclose(opened(program, rows), expected, rtol=1e-5, atol=1e-5)
    with find_backend("native").open(program) as session:
        for index in (0, 7, 8):
            alone = session.run({"x": rows[index : index + 1]})["y"][0]
            np.testing.assert_allclose(alone, expected[index], rtol=1e-5, atol=1e-5)
            if program.outputs[0].shape == (None, 1):
                assert session.run_row(rows[index]) == alone[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(CHAINS))
def test_a_missing_value_is_never_answered_with_a_number(name: str) -> None:
    rows = np.ones((3, 4), np.float32)
    rows[1] = np.nan
    found = opened(CHAINS[name](), rows)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (lambda: network([("Softmax", ["*"], {})]), "the operator Softmax"),
        (lambda: network([("Sigmoid", ["*"], {}), ("Mul", ["*", "x"], {})]), "Mul, which takes v0, x"),
        (lambda: network([("Mul", ["*", "*"], {})]), "Mul, which takes x, x"),
        (lambda: network([("Div", ["v", "*"], {})], v=V), "Div in this form"),
        (lambda: network([("MatMul", ["w", "*"], {})], w=constant(4, 4)), "MatMul in this form"),
        (lambda: network([("Gemm", ["*", "w"], {"transA": 1})], 3, w=W), "transA"),
        (lambda: network([("Flatten", ["*"], {"axis": 0})]), "Flatten in this form"),
        (lambda: network([("Gemm", ["*", "w"], {})], 5000, w=constant(4, 5000)), "4096 values wide"),
        (
            lambda: network(
                [("Gemm", ["*", "w"], {}), ("Gemm", ["*", "v"], {})], 1100, w=constant(4, 1100), v=constant(1100, 1100)
            ),
            "more than 1048576 weights",
        ),
        (lambda: network([("Relu", ["*"], {})] * 300), "256 layers long"),
        (lambda: network([("IsNaN", ["*"], {}), ("Cast", ["*"], {"to": 1})]), "Cast, which takes v0"),
        (lambda: network([("IsNaN", ["v"], {})], v=V), "IsNaN, which takes constants only"),
        (lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "x", "v"], {})], v=V), "Where in this form"),
        (lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "x", "x"], {})]), "Where, which takes v0, x, x"),
        (lambda: network([("Where", ["f", "v", "*"], {})], v=V, f=V > 0), "Where in this form"),
        (lambda: network([("Where", ["", "v", "*"], {})], v=V), "Where in this form"),
        (
            lambda: network([("IsNaN", ["x"], {}), ("Relu", ["x"], {}), ("Where", ["v0", "v", "*"], {})], v=V),
            "Where, which takes v0, v1",
        ),
        (
            lambda: network([("IsNaN", ["x"], {}), ("Where", ["*", "v", "x"], {}), ("Add", ["*", "x"], {})], v=V),
            "Add, which takes v1, x",
        ),
    ],
)  # fmt: skip
def test_networks_that_are_no_small_chain_are_refused(program: Callable[[], Program], said: str) -> None:
    with pytest.raises(BackendUnavailableError, match=said):
        find_backend("native").open(program())


@pytest.mark.parametrize(
    "program",
    [
        lambda: network([("Gemm", ["*", "w"], {})], 3, w=constant(5, 3)),
        lambda: network([("Gemm", ["*", "w", "b"], {})], 3, w=W, b=constant(2)),
        lambda: network([("Gemm", ["*", "w"], {})], 2, w=W),
        lambda: network([("Add", ["*", "v"], {})], v=constant(7)),
        lambda: network([("Add", ["*", "v"], {})], v=constant(2, 4)),
        lambda: network([("Clip", ["*", "v"], {})], v=V),
        lambda: network([("IsNaN", ["*"], {})]),
        lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "v", "x"], {})], v=constant(3)),
        lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "v", "x"], {})], v=V.astype(np.float64)),
        lambda: network([("IsNaN", ["*"], {}), ("Where", ["*", "", "x"], {})]),
        lambda: network([("Where", [], {})]),
        lambda: network([("BatchNormalization", ["*", "v"], {})], v=V),
        lambda: network([("Gemm", ["*"], {})]),
        lambda: network([("MatMul", ["*", "w"], {})], 3, w=W.astype(np.float64)),
        lambda: network([("Gemm", ["*", "w", "b"], {})], 3, w=W, b=B.astype(np.int64)),
        lambda: network([("Add", ["*", "v"], {})], v=np.array(["a", "b", "c", "d"])),
        lambda: network([("Gemm", ["*", "w", "b"], {"beta": [1.0, 2.0, 3.0]})], 1, w=W[:, :1].copy(), b=B[:1]),
        lambda: network([("HardSigmoid", ["*"], {"alpha": [1.0, 2.0], "beta": [1.0, 2.0]})]),
        lambda: network([("Constant", [], {"value": 5})]),
        lambda: network([]),
    ],
)
def test_networks_that_contradict_themselves_are_errors(program: Callable[[], Program]) -> None:
    with pytest.raises(BackendError):
        find_backend("native").open(program())


def test_rows_of_any_length_are_refused() -> None:
    """Compiled code would read and write beside its memory."""
    model = onnx.load_model_from_string(network([("MatMul", ["*", "w"], {})], 1, w=constant(0, 1)).content)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "M"
    specs = (TensorSpec("x", "float32", (None, None)),), (TensorSpec("y", "float32", (None, 1)),)
    with pytest.raises(BackendUnavailableError, match=r"float32 input \[N, F\]"):
        find_backend("native").open(Program(model.SerializeToString(), "fp32", *specs))


def test_constants_that_lie_about_their_size_are_errors() -> None:
    model = onnx.load_model_from_string(CHAINS["Gemm"]().content)
    program = CHAINS["Gemm"]()
    for sizes in ([4, 4], [1 << 40, 1 << 40], [-1, 3], [0, 0], []):
        tensor = model.graph.initializer[0]
        del tensor.dims[:]
        tensor.dims.extend(sizes)
        with pytest.raises(BackendError):
            find_backend("native").open(dataclasses.replace(program, content=model.SerializeToString()))


@pytest.mark.parametrize("kind", ["trees", "network"])
def test_flipped_bits_never_crash(kind: str) -> None:
    whole = trees_program(grow(6, trees=4, depth=3, features=3)) if kind == "trees" else CHAINS["three layers"]()
    rows = np.zeros((2, whole.inputs[0].shape[1] or 0), np.float32)
    generator = np.random.default_rng(3)
    for _ in range(400):
        content = bytearray(whole.content)
        content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        with contextlib.suppress(FeatherweightError):
            opened(dataclasses.replace(whole, content=bytes(content)), rows)


def test_compiled_code_is_kept_and_other_processors_walk(tmp_path: Path) -> None:
    """A second process compiles nothing; without AVX-512 trees are walked and give the same scores."""
    ensemble = grow(7, trees=20, depth=5, features=6)
    rows = borderline_rows(ensemble, 40)
    (tmp_path / "program").write_bytes(encode_trees(ensemble))
    np.save(tmp_path / "rows.npy", rows)
    code = (
        "import sys, pathlib\n"
        "import numpy as np\n"
        "from featherweight.core.backends import native_kernels\n"
        "from featherweight.core.backends.registry import find_backend\n"
        "from featherweight.core.program import Program\n"
        "from featherweight.core.trees.ensemble import tensor_specs\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "assert not native_kernels.has_byte_permutes()\n"
        "program = Program((folder / 'program').read_bytes(), 'fp32', *tensor_specs(6), 'trees')\n"
        "with find_backend('native').open(program) as session:\n"
        "    np.save(folder / 'scores.npy', session.run({'features': np.load(folder / 'rows.npy')})['score'])\n"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=250, env=environment)
        kept.append({path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.nb?")})
        np.testing.assert_array_equal(np.load(tmp_path / "scores.npy")[:, 0], predict(ensemble, rows))
        (tmp_path / "scores.npy").unlink()
    assert kept[0]
    assert kept[0] == kept[1]


def test_a_place_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the code is compiled in every process."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled.numba, "njit", refuse)
    assert compiled.compiled("float64(float64)")(abs) is abs
    assert compiled.compiled()(abs) is abs


def test_names_of_the_tensors() -> None:
    ensemble = grow(8, trees=2, depth=2, features=2)
    with find_backend("native").open(trees_program(ensemble)) as session:
        assert list(session.run({INPUT: np.zeros((1, 2), np.float32)})) == [OUTPUT]
