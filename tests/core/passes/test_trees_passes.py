"""Pruning and quantizing trees: what leaves, what stays as it was, and what the scores say afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import DataError, UsageError
from featherweight.core.export import export
from featherweight.core.model import trees_model
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.prune_trees import prune_trees
from featherweight.core.passes.prune_weights import prune_weights
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.recover import recover
from featherweight.core.passes.steps import (
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
)
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors
from featherweight.core.trees.canonical import PROBABILITY_STEP, Nodes, canonicalize, nodes_of
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.onnx_file import decode_trees
from featherweight.core.trees.predict import borderline_rows, predict
from featherweight.core.trees.sklearn import from_sklearn
from tests.fakes import fitted_trees, rows, trained_model

TEST, LABELS = rows(3000, seed=5)


def batches(count: int = 2000) -> Iterator[Tensors]:
    inputs, _ = rows(3000, seed=1)
    return ({"features": inputs[start : start + 500]} for start in range(0, count, 500))


def pruned(ensemble: Ensemble, ratio: float) -> tuple[Ensemble, dict[str, object]]:
    model, record = prune_trees(trees_model(ensemble), PruneTreesStep(ratio), batches())
    return model.ensemble("test"), dict(record.facts)


@cache
def forest() -> Ensemble:
    inputs, labels = rows(3000, seed=1)
    model = RandomForestClassifier(n_estimators=12, min_samples_leaf=5, random_state=0, n_jobs=1)
    return from_sklearn(model.fit(inputs, labels))


def precision(ensemble: Ensemble) -> float:
    return float(average_precision_score(LABELS, predict(ensemble, TEST)))


def flips(one: Ensemble, other: Ensemble) -> float:
    return float(((predict(one, TEST) >= 0) != (predict(other, TEST) >= 0)).mean())


@pytest.mark.parametrize("ensemble", [fitted_trees(), forest()], ids=["boosted", "forest"])
def test_half_of_the_splits_leave_and_the_scores_hardly_move(ensemble: Ensemble) -> None:
    before = nodes_of(ensemble).value.copy()
    found, facts = pruned(ensemble, 0.5)
    np.testing.assert_array_equal(ensemble.value, before)
    assert 0.48 * ensemble.splits <= found.splits <= 0.56 * ensemble.splits
    assert facts["splits_after"] == found.splits
    assert facts["trees_after"] == len(found.roots)
    assert precision(found) > precision(ensemble) - 0.01
    assert flips(ensemble, found) < 0.03


def test_whole_trees_leave_first() -> None:
    found, _ = pruned(fitted_trees(), 0.5)
    assert len(found.roots) < 0.75 * len(fitted_trees().roots)
    assert not (found.feature[found.roots] == LEAF).any()


def test_pruning_moves_the_scores_less_than_leaving_out_the_last_trees() -> None:
    ensemble = fitted_trees()
    found, _ = pruned(ensemble, 0.6)
    nodes = nodes_of(ensemble)
    keep = len(found.roots) + 4
    first = canonicalize(
        replace(nodes, roots=nodes.roots[:keep], target=nodes.target[:keep]), ensemble.features, ensemble.base
    )
    assert first.splits > found.splits
    moved, moved_first = (np.abs(predict(one, TEST) - predict(ensemble, TEST)).mean() for one in (found, first))
    assert moved < moved_first / 2


def test_a_tiny_ratio_takes_nothing() -> None:
    found, _ = pruned(fitted_trees(), 0.001)
    assert found.splits == fitted_trees().splits
    np.testing.assert_array_equal(predict(found, TEST), predict(fitted_trees(), TEST))


@settings(max_examples=4, deadline=None)
@given(st.lists(st.floats(0.01, 0.98), min_size=2, max_size=2).map(sorted))
def test_more_asked_is_more_pruned(ratios: list[float]) -> None:
    ensemble = fitted_trees(12)
    fewer, more = (pruned(ensemble, ratio)[0].splits for ratio in ratios)
    assert more <= fewer <= ensemble.splits
    assert more >= (1 - ratios[1]) * ensemble.splits


def with_constant_subtrees(ensemble: Ensemble) -> Ensemble:
    """Each leaf of the first tree becomes a split into twice the same leaf."""
    nodes = nodes_of(ensemble)
    end = int(nodes.roots[1])
    leaves = np.flatnonzero(nodes.feature[:end] == LEAF)
    count = len(nodes.feature)
    left, right, feature = nodes.left.copy(), nodes.right.copy(), nodes.feature.copy()
    feature[leaves] = np.arange(len(leaves)) % ensemble.features
    left[leaves] = count + np.arange(len(leaves))
    right[leaves] = count + len(leaves) + np.arange(len(leaves))
    ones = np.full(2 * len(leaves), LEAF)
    grown = Nodes(
        nodes.roots,
        np.concatenate([feature, ones]),
        np.concatenate([nodes.threshold, np.zeros(len(ones), np.float32)]),
        np.concatenate([left, ones]),
        np.concatenate([right, ones]),
        np.concatenate([nodes.missing_left, ones == 0]),
        np.concatenate([nodes.value, np.tile(nodes.value[leaves], 2)]),
    )
    return canonicalize(grown, ensemble.features, ensemble.base)


def test_subtrees_of_one_value_become_leaves_and_nothing_else_changes() -> None:
    plain = fitted_trees(6)
    grown = with_constant_subtrees(plain)
    assert grown.splits > plain.splits
    found, _ = pruned(grown, 0.001)
    assert found.splits == plain.splits
    # The rows of one leaf are many rows of one answer: least squares has nothing to move.
    np.testing.assert_allclose(predict(found, TEST), predict(plain, TEST), atol=1e-6)


def test_one_tree_stays_whatever_is_asked() -> None:
    stump = canonicalize(
        Nodes(*(np.array(part) for part in ([0], [LEAF], [0.0], [LEAF], [LEAF], [False], [0.5]))), 6, 0.25
    )
    found, _ = pruned(stump, 0.9)
    np.testing.assert_array_equal(predict(found, TEST[:5]), np.full(5, 0.75, np.float32))
    found, _ = pruned(fitted_trees(3), 0.99)
    assert len(found.roots) >= 1
    assert np.isfinite(predict(found, TEST)).all()


def test_a_pruned_forest_keeps_exact_sums() -> None:
    found, _ = pruned(forest(), 0.5)
    whole = found.value.astype(np.float64) / PROBABILITY_STEP
    np.testing.assert_array_equal(whole, np.round(whole))
    assert found.base / PROBABILITY_STEP == round(found.base / PROBABILITY_STEP)


def quantized(ensemble: Ensemble) -> tuple[Program, Program]:
    plain, _ = export(trees_model(ensemble))
    program, record = quantize(plain, QuantizeStep(), batches())
    assert record.facts["file_bytes"] == len(program.content)
    return plain, program


def leaf_steps(ensemble: Ensemble) -> list[float]:
    """Of each tree, the power of two of which its leaves are whole numbers, none beyond 127."""
    found = []
    for root, end in zip(ensemble.roots, np.append(ensemble.roots[1:], len(ensemble.value)), strict=True):
        leaf = ensemble.value[root:end].astype(np.float64)
        found.append(max(2.0**-exponent for exponent in range(-10, 40) if (leaf % 2.0**-exponent == 0).all()))
        assert np.abs(leaf / found[-1]).max() <= 127
    return found


@pytest.mark.parametrize("ensemble", [fitted_trees(), forest()], ids=["boosted", "forest"])
def test_int8_leaves_are_whole_numbers_of_a_power_of_two(ensemble: Ensemble) -> None:
    plain, program = quantized(ensemble)
    assert (program.precision, program.kind, program.inputs) == ("int8", "trees", plain.inputs)
    assert len(program.content) < len(plain.content)
    found = decode_trees(program.content)
    smallest = min(leaf_steps(found))
    assert found.base % smallest == 0
    largest = np.maximum.reduceat(np.abs(found.value), found.roots).astype(np.float64)
    assert (largest.sum() + abs(found.base)) / smallest <= 1 << 24  # so that float32 sums are exact
    np.testing.assert_array_equal(found.threshold, ensemble.threshold)
    assert precision(found) > precision(ensemble) - 0.01
    assert flips(ensemble, found) < 0.02


def test_int8_trees_run_bit_for_bit_as_numpy_says() -> None:
    _, program = quantized(fitted_trees())
    ensemble = decode_trees(program.content)
    inputs = np.concatenate([TEST[:300], borderline_rows(ensemble, 300)])
    with find_backend("onnxruntime").open(program) as session:
        found = session.run({"features": inputs})["score"][:, 0]
    np.testing.assert_array_equal(found, predict(ensemble, inputs))


def test_rounding_errors_of_the_trees_cancel() -> None:
    ensemble = fitted_trees()
    _, program = quantized(ensemble)
    found = decode_trees(program.content)
    step = np.repeat(leaf_steps(found), np.diff(found.roots, append=len(found.value)))
    alone = replace(ensemble, value=(np.round(ensemble.value / step) * step).astype(np.float32))
    moved, moved_alone = (np.abs(predict(trees, TEST) - predict(ensemble, TEST)).mean() for trees in (found, alone))
    assert moved < moved_alone


def with_large_leaves(ensemble: Ensemble, factor: float) -> Ensemble:
    """As where one tree says nearly all: its leaves are larger than the others' by so much."""
    tree = np.searchsorted(ensemble.roots, np.arange(len(ensemble.value)), side="right") - 1
    return replace(ensemble, value=np.where(tree == 11, ensemble.value * np.float32(factor), ensemble.value))


def test_a_tree_of_large_leaves_leaves_the_others_their_step() -> None:
    """With one step for all, whatever it is, most leaves of the others become zero or the large ones are cut off."""
    ensemble = with_large_leaves(fitted_trees(), 300)
    plain, _ = export(trees_model(ensemble))
    program, record = quantize(plain, QuantizeStep(), batches())
    found = decode_trees(program.content)
    largest = np.maximum.reduceat(np.abs(ensemble.value), ensemble.roots)
    for step, most in zip(leaf_steps(found), largest, strict=True):
        assert step <= 8 * most / 127  # none is coarser than its own leaves ask for, some are whole by chance
    assert record.facts["largest_leaf_step"] > record.facts["leaf_step"]
    change = np.abs(predict(found, TEST) - predict(ensemble, TEST))
    assert change.mean() < 0.06  # 0.4 with one step for all
    with find_backend("onnxruntime").open(program) as session:
        ran = session.run({"features": TEST})["score"][:, 0]
    np.testing.assert_array_equal(ran, predict(found, TEST))


def test_trees_without_a_large_leaf_share_one_step() -> None:
    plain, _ = export(trees_model(forest()))
    _, record = quantize(plain, QuantizeStep(), batches())
    assert record.facts["largest_leaf_step"] == record.facts["leaf_step"]


def test_trees_have_no_bf16_and_sums_must_be_exact() -> None:
    plain, program = quantized(fitted_trees(3))
    with pytest.raises(UsageError, match="no bf16"):
        quantize(plain, QuantizeStep("bf16"), batches())
    with pytest.raises(UsageError, match="quantize once only"):
        quantize(program, QuantizeStep(), batches())
    far, _ = export(trees_model(replace(fitted_trees(3), base=1e7)))
    with pytest.raises(UsageError, match="not exact in int8"):
        quantize(far, QuantizeStep(), batches())
    with pytest.raises(DataError, match="no calibration inputs"):
        quantize(plain, QuantizeStep(), [])
    with pytest.raises(DataError, match="no calibration inputs"):
        prune_trees(trees_model(fitted_trees(3)), PruneTreesStep(0.5), [])


def test_steps_of_networks_refuse_trees_and_the_other_way_round() -> None:
    trees, network = trees_model(fitted_trees(3)), trained_model()
    for act in (
        lambda: prune_channels(trees, PruneChannelsStep(0.5)),
        lambda: prune_weights(trees, PruneWeightsStep(0.5)),
        lambda: recover(trees, RecoverStep(1), network.module("test"), lambda epoch: []),
    ):
        with pytest.raises(UsageError, match="is for networks, but this model is trees"):
            act()
    with pytest.raises(UsageError, match="prune-trees is for trees, but this model is a network"):
        prune_trees(network, PruneTreesStep(0.5), batches())


def test_the_exported_trees_are_those_that_went_in() -> None:
    program, record = export(trees_model(fitted_trees(3)))
    assert record.facts["max_relative_difference"] < 1e-6
    assert program.kind == "trees"
