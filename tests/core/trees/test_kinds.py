"""Every kind of tree says what its own library says, by the numpy reference and by the backends that run trees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.core.backends.base import row_function
from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import DataError, TensorError
from featherweight.core.model import trees_model
from featherweight.core.passes.prune_trees import prune_trees
from featherweight.core.passes.quantize_trees import quantize_trees
from featherweight.core.passes.steps import PruneTreesStep, QuantizeStep
from featherweight.core.program import Program
from featherweight.core.trees.canonical import Nodes, canonicalize, levels_of, nodes_of, rearranged
from featherweight.core.trees.ensemble import INPUT, LEAF, OUTPUT, Ensemble, Output
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from featherweight.core.trees.predict import borderline_rows, predict
from tests.core.trees.kinds import CATEGORIES, KINDS, SECONDS, fitted, read

pytest.importorskip("numba", reason="compiles the native backend")
from featherweight.core.backends import native_kernels
from featherweight.core.backends import native_tree_kernels as kernels
from featherweight.core.backends.native_tree_packing import pack_blocks, pack_walk

BACKENDS = ("onnxruntime", "native")
LARGEST = 1e-5


def program(ensemble: Ensemble) -> Program:
    return Program(encode_trees(ensemble), "fp32", *ensemble.specs, "trees")


def scored(backend: str, of: Program, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with find_backend(backend).open(of) as session:
        found = np.concatenate([session.run({INPUT: rows[at : at + 5000]})[OUTPUT] for at in range(0, len(rows), 5000)])
    return found[:, 0] if found.shape[1] == 1 else found


def check(name: str, count: int, seed: int) -> None:
    kind, ensemble = KINDS[name], read(name)
    rows = kind.rows(count, seed)
    expected = np.asarray(kind.say(fitted(name), rows), np.float64)
    allowed = LARGEST * np.maximum(1, np.abs(expected))
    if ensemble.output == "probability":  # leaves are rounded to a grid, which small shares show
        allowed = allowed + len(ensemble.roots) * 2.0**-25 / np.exp(expected)
    for backend in BACKENDS:
        found = scored(backend, program(ensemble), rows)
        assert found.shape == expected.shape
        wrong = int((~(np.abs(found - expected) <= allowed)).sum())
        assert not wrong, f"{backend}: {wrong} of {expected.size} scores are not the library's"


@pytest.mark.parametrize("name", KINDS)
def test_two_thousand_rows_of_every_kind(name: str) -> None:
    """With missing values, categories that nobody knows, and of what compares float64 seconds since 1970."""
    check(name, 2000, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_hundred_thousand_rows_of_every_kind(name: str) -> None:
    check(name, 100_000, 6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["LightGBM", "LightGBM, several classes", "XGBoost"])
def test_any_batch_size_threads_and_single_rows(name: str, backend: str) -> None:
    ensemble, rows = read(name), KINDS[name].rows(300, 9)
    expected = predict(ensemble, rows).reshape(300, -1)
    with find_backend(backend).open(program(ensemble), threads=2) as session:
        for size in (1, 3, 64, 300):
            found = session.run({INPUT: rows[:size]})[OUTPUT]
            np.testing.assert_allclose(found, expected[:size], rtol=1e-5, atol=1e-5)
        with pytest.raises(TensorError):
            session.run({INPUT: rows.astype(np.float32 if ensemble.wide else np.float64)})
        if ensemble.targets == 1:
            run_row = row_function(session)
            np.testing.assert_allclose([run_row(row) for row in rows], expected[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not native_kernels.has_byte_permutes(), reason="needs AVX-512 VBMI")
@pytest.mark.parametrize("name", ["LightGBM, several classes", "XGBoost", "histogram boosting"])
def test_both_layouts_of_the_native_backend_agree(name: str) -> None:
    """Trees that fit into blocks, walked too: what processors without AVX-512 VBMI do."""
    ensemble, rows = pruned_to_depth(read(name), 6), KINDS[name].rows(500, 10)
    expected = predict(ensemble, rows).reshape(500, -1)
    for layout in ("blocks", "walk"):
        packed = {"blocks": pack_blocks, "walk": pack_walk}[layout](ensemble)
        assert packed is not None
        out = np.empty(expected.shape, np.float32)
        getattr(kernels, f"{layout}_rows")(packed, rows, out)
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def pruned_to_depth(ensemble: Ensemble, depth: int) -> Ensemble:
    """Everything below a depth is cut off."""
    nodes = nodes_of(ensemble)
    levels = levels_of(nodes)
    feature = nodes.feature.copy()
    feature[levels[min(depth, len(levels) - 1)]] = LEAF
    return rearranged(ensemble, replace(nodes, feature=feature))


@pytest.mark.parametrize("name", KINDS)
def test_files_hold_every_kind(name: str) -> None:
    ensemble = read(name)
    again = decode_trees(encode_trees(ensemble))
    assert encode_trees(again) == encode_trees(ensemble)
    assert (again.wide, again.targets, len(again.members)) == (ensemble.wide, ensemble.targets, len(ensemble.members))
    rows = KINDS[name].rows(200, 7)
    np.testing.assert_array_equal(predict(again, rows), predict(ensemble, rows))


@pytest.mark.parametrize("name", ["LightGBM", "XGBoost", "histogram boosting"])
def test_the_rows_show_categories_and_seconds(name: str) -> None:
    """What is compared would differ, were categories or float64 left out: the fault planted, and seen."""
    ensemble, rows = read(name), KINDS[name].rows(2000, 5)
    assert set(ensemble.categorical.tolist()) == set(CATEGORIES)
    assert SECONDS in ensemble.feature
    expected = predict(ensemble, rows)
    moved = replace(ensemble, members=(ensemble.members + 1).astype(np.float32))
    assert (np.abs(predict(moved, rows) - expected) > 1e-3).mean() > 0.2
    if ensemble.wide:
        rounded = rows.astype(np.float32).astype(np.float64)
        assert (np.abs(predict(ensemble, rounded) - expected) > 1e-3).mean() > 0.002


@pytest.mark.parametrize("name", ["LightGBM, several classes", "histogram boosting"])
def test_int8_leaves_and_pruning_of_every_kind(name: str) -> None:
    ensemble, rows = read(name), KINDS[name].rows(1500, 8)
    expected = predict(ensemble, rows)
    small, _ = quantize_trees(program(ensemble), QuantizeStep(precision="int8"), [{INPUT: rows}])
    for backend in BACKENDS:
        np.testing.assert_array_equal(scored(backend, small, rows), predict(decode_trees(small.content), rows))
    assert np.abs(predict(decode_trees(small.content), rows) - expected).max() < 0.1
    assert len(small.content) < len(program(ensemble).content)
    pruned, _ = prune_trees(trees_model(ensemble), PruneTreesStep(ratio=0.3), [{INPUT: rows}])
    found = pruned.ensemble("test")
    assert found.targets == ensemble.targets
    assert 0.65 * ensemble.splits < found.splits < 0.75 * ensemble.splits
    assert np.abs(predict(found, rows) - expected).mean() < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wide", [False, True])
def test_what_is_no_category_goes_right(backend: str, wide: bool) -> None:
    """A fraction belongs to the whole number below it, in every backend: ONNX Runtime's own sets differ in that."""
    none, kind = [LEAF, LEAF], np.float64 if wide else np.float32
    for members in ([3], [0, 3, 31, 32, 33, 64, 70_000]):
        nodes = Nodes(
            np.array([0]), np.array([1, *none]), np.zeros(3, kind), np.array([1, *none]), np.array([2, *none]),
            np.array([False] * 3), np.array([0, 1, -1]), np.array([len(members), 0, 0]), np.array(members),
        )  # fmt: skip
        ensemble = canonicalize(nodes, 2, wide=wide)
        values = [3, 3.5, 2.999, 33.5, -0.5, -0.0, 0, -1, 31, 63, 65, 4, np.inf, -np.inf, 3e9, 1e30, np.nan, 70_000]
        rows = np.array([[9, value] for value in values], kind)
        inside = [not np.isnan(value) and abs(value) < 1e6 and int(np.floor(value)) in members for value in values]
        expected = np.where(inside, 1.0, -1.0)
        np.testing.assert_array_equal(predict(ensemble, rows), expected)
        np.testing.assert_array_equal(scored(backend, program(ensemble), rows), expected)


@pytest.mark.parametrize(
    ("members", "counts", "part"),
    [
        ([3, 3], [2, 0, 0], "do not rise"),
        ([2.5], [1, 0, 0], "no whole number"),
        ([-1], [1, 0, 0], "no whole number"),
        ([1 << 24], [1, 0, 0], "no whole number"),
        ([1], [2, 0, 0], "do not belong"),
    ],
)
def test_categories_that_are_none_are_refused(members: list[float], counts: list[int], part: str) -> None:
    none = [LEAF, LEAF]
    with pytest.raises(DataError, match=part):
        canonicalize(
            Nodes(
                np.array([0]), np.array([1, *none]), np.zeros(3), np.array([1, *none]), np.array([2, *none]),
                np.array([False] * 3), np.array([0, 1, -1]), np.array(counts), np.array(members),
            ),
            2,
        )  # fmt: skip


def grown(seed: int, *, depth: int, categorical: int, targets: int, wide: bool, output: Output) -> Ensemble:
    """Random trees over six features, the first of which are categorical; leaves are multiples of 2**-12, so that sums
    are exact in whatever order they are made."""
    generator = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "left", "right", "value", "members")}

    def add(level: int) -> int:
        node = len(columns["feature"])
        for name, nothing in zip(columns, (LEAF, 0.0, LEAF, LEAF, 0.0, []), strict=True):
            columns[name].append(nothing)
        if level < depth and generator.random() < 0.9:
            feature = columns["feature"][node] = int(generator.integers(6))
            if feature < categorical:
                some = generator.choice(70, int(generator.integers(1, 12)), replace=False)
                columns["members"][node] = sorted(some.tolist())
            else:
                columns["threshold"][node] = float(np.float32(generator.normal()))
            columns["left"][node], columns["right"][node] = add(level + 1), add(level + 1)
        else:
            columns["value"][node] = round(float(generator.random()) / 12 * 4096) / 4096
        return node

    roots = [add(0) for _ in range(12)]
    feature, threshold, left, right, value = (np.array(columns[name]) for name in list(columns)[:5])
    counts, members = [len(some) for some in columns["members"]], [one for some in columns["members"] for one in some]
    nodes = Nodes(
        np.array(roots), feature, threshold, left, right, generator.random(len(feature)) < 0.5, value,
        np.array(counts), np.array(members, np.float32), np.arange(12) % targets,
    )  # fmt: skip
    return canonicalize(nodes, 6, 0.25 if targets == 1 else 0.0, output, wide=wide)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1 << 20), st.sampled_from([0, 3, 6, 11]), st.sampled_from([0, 2, 6]), st.integers(1, 3),
    st.booleans(), st.sampled_from(["margin", "probability"]),
)  # fmt: skip
def test_any_trees_run_everywhere(
    seed: int, depth: int, categorical: int, targets: int, wide: bool, output: Output
) -> None:
    ensemble = grown(seed, depth=depth, categorical=categorical, targets=targets, wide=wide, output=output)
    again = decode_trees(encode_trees(ensemble))
    assert encode_trees(again) == encode_trees(ensemble)
    rows = borderline_rows(ensemble, 70, seed)
    rows += np.random.default_rng(seed).choice([0, 0, 0.5], rows.shape).astype(rows.dtype)
    expected = predict(ensemble, rows)
    for backend in BACKENDS:
        found = scored(backend, program(ensemble), rows)
        if output == "margin":
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
