"""A sealed fraud model, small enough to make in a moment: trees drawn at random that know all CATALOGUE features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, encode
from featherweight.core.artifact.store import Artifact
from featherweight.core.artifact.write import Contents, write_artifact
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.small_programs import file_without_end

BRANCH_LT = 1
"""A row goes left where x[feature] < threshold (ai.onnx.ml 5, TreeEnsemble)."""


def trees_program(features: int = len(CATALOGUE), *, trees: int = 20, depth: int = 4, seed: int = 0) -> Program:
    """Full trees over `features` columns; thresholds of every size from cents to days, so that all of them split."""
    rng = np.random.default_rng(seed)
    splits, leaves = 2**depth - 1, 2**depth
    inner = np.arange(splits)
    left, right = 2 * inner + 1, 2 * inner + 2
    is_last = left >= splits
    attributes = {
        "nodes_splits": np.exp(rng.normal(1.5, 2.5, trees * splits)).astype(np.float32),
        "nodes_modes": np.full(trees * splits, BRANCH_LT, np.uint8),
        "leaf_weights": rng.normal(0, 1.2 / np.sqrt(trees), trees * leaves).astype(np.float32),
    }
    start = np.repeat(np.arange(trees), splits)

    def numbers(child: npt.NDArray[np.int64]) -> list[int]:
        local = np.where(is_last, child - splits, child)
        return (np.tile(local, trees) + start * np.where(np.tile(is_last, trees), leaves, splits)).tolist()

    node = helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["score"],
        domain="ai.onnx.ml",
        aggregate_function=1,
        n_targets=1,
        post_transform=0,
        tree_roots=(np.arange(trees) * splits).tolist(),
        nodes_featureids=rng.integers(0, features, trees * splits).tolist(),
        nodes_truenodeids=numbers(left),
        nodes_falsenodeids=numbers(right),
        nodes_trueleafs=np.tile(is_last, trees).astype(int).tolist(),
        nodes_falseleafs=np.tile(is_last, trees).astype(int).tolist(),
        leaf_targetids=[0] * (trees * leaves),
        **{name: numpy_helper.from_array(value, name) for name, value in attributes.items()},
    )
    graph = helper.make_graph(
        [node],
        "program",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return Program(
        model.SerializeToString(),
        "fp32",
        (TensorSpec("features", "float32", (None, features)),),
        (TensorSpec("score", "float32", (None, 1)),),
        kind="trees",
    )


def write_fraud_model(
    directory: Path,
    *,
    seed: int = 1,
    names: Sequence[str] = CATALOGUE,
    trees: int = 20,
    depth: int = 4,
    review_threshold: float = 0.9,
    program: Program | None = None,
) -> Artifact:
    """Two different seeds give two artifacts with different digests and decisions. `names`: the schema's columns;
    program: another than trees of this seed."""
    schema = FeatureSchema(names=tuple(names), reference_values=(1.0,) * len(names), delay_days=7.0)
    rule = DecisionRule(
        slope=2.0,
        intercept=0.0,
        review_threshold=review_threshold,
        decline_threshold=max(0.99, review_threshold),
        chosen_for="tests",
        fallback="approve",
        fallback_amount=100.0,
    )
    contents = Contents(
        name="tiny-fraud",
        app="fraud",
        labels=("legitimate", "fraud"),
        programs=[program or trees_program(len(names), trees=trees, depth=depth, seed=seed)],
        sealed={"features.json": encode(schema), "decision.json": encode(rule)},
        evidence={},
        weights_source="drawn at random for tests",
        versions={},
    )
    return write_artifact(directory, contents)


def endless_program() -> Program:
    """Of this app's columns; what it holds is what programs hold, and opening it takes hours."""
    columns = len(CATALOGUE)
    return Program(
        file_without_end("features", "score", columns),
        "fp32",
        (TensorSpec("features", "float32", (None, columns)),),
        (TensorSpec("score", "float32", (None, 1)),),
    )
