"""int8 leaves: multiples of one power of two, so that float32 sums are exact and every backend gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace

import numpy as np

from featherweight.core.arrays import FeatureRows, Floats, Int32s, Integers
from featherweight.core.errors import UsageError
from featherweight.core.model import StepRecord
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.passes.tree_rows import join_rows, leaf_sums, row_weights
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors
from featherweight.core.trees.canonical import for_target, join_targets
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from featherweight.core.trees.predict import reached_leaves

LARGEST = 127
ROWS_BEFORE = 30.0
"""A leaf that few rows reach is not moved for them."""
EXACT = 1 << 24
"""float32 holds every whole number up to this."""
WORTH = 0.5
"""Trees have steps of their own only when the scores then move less than this part of what one step moves them: more
values of leaves make the file larger."""


def quantize_trees(program: Program, step: QuantizeStep, batches: Iterable[Tensors]) -> tuple[Program, StepRecord]:
    """Trees with int8 leaves, in the step sizes whose scores are nearest on the rows of `batches`: one for all trees,
    or one for each where a tree of large leaves would make the step too coarse for the others.

    The thresholds stay as they are: as codes of the bins between them they are lossless, and a backend makes those
    itself. Raises UsageError for bf16, DataError when there are no rows.
    """
    check_precision(step)
    ensemble = decode_trees(program.content)
    rows = join_rows(batches, step.kind)
    if ensemble.targets == 1:
        best, error, exponents = _quantized(ensemble, rows)
    else:  # each target for itself, in steps of its own
        parts = [_quantized(for_target(ensemble, target), rows) for target in range(ensemble.targets)]
        best = join_targets([part for part, _, _ in parts])
        error = math.sqrt(sum(square**2 for _, square, _ in parts) / len(parts))
        exponents = np.concatenate([found for _, _, found in parts])
    content = encode_trees(best)
    facts = {
        "file_bytes": len(content),
        "calibration_samples": len(rows),
        "leaf_step": 2.0 ** int(exponents.min()),
        "largest_leaf_step": 2.0 ** int(exponents.max()),
        "root_mean_square_change": error,
    }
    return replace(program, content=content, precision="int8"), StepRecord(step.kind, asdict(step), facts)


def _quantized(ensemble: Ensemble, rows: FeatureRows) -> tuple[Ensemble, float, Integers]:
    """(trees of one target with int8 leaves, the root of the mean square by which the scores moved, the exponents of
    the steps of the trees)."""
    leaves = reached_leaves(ensemble, rows)
    wanted = leaf_sums(ensemble, leaves)
    weights = row_weights(ensemble, wanted)

    def rounded(exponents: Integers) -> tuple[float, Integers, Ensemble]:
        found = round_leaves(ensemble, exponents, leaves, weights)
        error = float((weights * (leaf_sums(found, leaves) - wanted) ** 2).mean())
        return math.sqrt(error), exponents, found

    error, exponents, best = min((rounded(one) for one in _common(ensemble)), key=lambda found: found[0])
    own = rounded(_own(ensemble))
    if own[0] < WORTH * error:
        error, exponents, best = own
    return best, error, exponents


def check_precision(step: QuantizeStep) -> None:
    """Raise UsageError for one that trees do not have."""
    if step.precision != "int8":
        raise UsageError(f"quantize: trees have no {step.precision}, only int8; change the step's precision")


def round_leaves(ensemble: Ensemble, exponents: Integers, leaves: Int32s, weights: Floats) -> Ensemble:
    """Leaves of each tree as whole numbers from -127 to 127 times its 2**exponent, the base as any whole number of the
    smallest step.

    Tree after tree, those of the coarsest steps first: what rounding the earlier ones cost the rows that reach a leaf
    is added to it before it is rounded, so that errors cancel instead of piling up. leaves: int32 [N, trees], those
    that the rows reach; weights: [N].
    """
    smallest = 2.0 ** int(exponents.min())
    base = round(ensemble.base / smallest)
    if abs(base) + _most(exponents) > EXACT:
        raise UsageError(
            f"quantize: {len(ensemble.roots)} trees with the base {ensemble.base:g} have sums that are not exact in "
            "int8; leave the step out"
        )
    ends = np.append(ensemble.roots[1:], len(ensemble.value))
    value = ensemble.value.astype(np.float64)
    owed = np.full(len(leaves), ensemble.base - base * smallest)
    for tree in np.argsort(-exponents, kind="stable"):
        root, end, step = ensemble.roots[tree], ends[tree], 2.0 ** int(exponents[tree])
        reached = leaves[:, tree] - root
        due = np.bincount(reached, weights * owed, minlength=end - root)
        due = due / (np.bincount(reached, weights, minlength=end - root) + ROWS_BEFORE)
        exact = value[root:end].copy()
        whole = np.where(ensemble.feature[root:end] == LEAF, np.round((exact + due) / step), 0)
        value[root:end] = np.clip(whole, -LARGEST, LARGEST) * step
        owed += (exact - value[root:end])[reached]
    return replace(ensemble, base=base * smallest, value=value.astype(np.float32))


def _common(ensemble: Ensemble) -> list[Integers]:
    """One step for all trees: the smallest that cuts no leaf off, and two finer ones that cut off the largest."""
    largest = int(_smallest_steps(ensemble).max())
    return [np.full(len(ensemble.roots), largest - finer) for finer in range(3)]


def _own(ensemble: Ensemble) -> Integers:
    """Each tree's smallest step that cuts none of its leaves off, as far as the sums of all stay exact."""
    exponents = _smallest_steps(ensemble)
    base = abs(ensemble.base)
    while exponents.min() < exponents.max() and base / 2.0 ** int(exponents.min()) + 1 + _most(exponents) > EXACT:
        exponents = np.maximum(exponents, exponents.min() + 1)
    return exponents


def _smallest_steps(ensemble: Ensemble) -> Integers:
    largest = np.maximum.reduceat(np.abs(ensemble.value), ensemble.roots).astype(np.float64)
    # Leaves of zero, or of next to nothing beside another tree's, ask for no step.
    least = float(largest.max()) / EXACT or LARGEST * 2.0**-16
    return np.asarray(np.ceil(np.log2(np.maximum(largest, least) / LARGEST)), np.int64)


def _most(exponents: Integers) -> float:
    """What the leaves of all trees come to at most, in the smallest step."""
    return float(LARGEST * np.exp2(exponents - exponents.min()).sum())
