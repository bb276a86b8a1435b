"""int8 leaves: multiples of one power of two, so that float32 sums are exact and every backend gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.model import StepRecord
from core.passes.steps import QuantizeStep
from core.passes.tree_rows import Floats, join_rows, leaf_sums, row_weights
from core.program import Program
from core.tensors import Tensors
from core.trees.ensemble import LEAF, Ensemble
from core.trees.onnx_file import decode_trees, encode_trees
from core.trees.predict import reached_leaves

LARGEST = 127
ROWS_BEFORE = 30.0
"""A leaf that few rows reach is not moved for them."""
EXACT = 1 << 24
"""float32 holds every whole number up to this."""


def quantize_trees(program: Program, step: QuantizeStep, batches: Iterable[Tensors]) -> tuple[Program, StepRecord]:
    """Trees with int8 leaves, in the step size whose scores are nearest on the rows of `batches`.

    The thresholds stay as they are: as codes of the bins between them they are lossless, and a backend makes those
    itself. Raises UsageError for bf16, DataError when there are no rows.
    """
    if step.precision != "int8":
        raise UsageError(f"quantize: trees have no {step.precision}, only int8; change the step's precision")
    ensemble = decode_trees(program.content)
    leaves = reached_leaves(ensemble, join_rows(batches, step.kind))
    wanted = leaf_sums(ensemble, leaves)
    weights = row_weights(ensemble, wanted)
    found = [round_leaves(ensemble, exponent, leaves, weights) for exponent in _exponents(ensemble)]
    errors = [float((weights * (leaf_sums(trees, leaves) - wanted) ** 2).mean()) for trees in found]
    best = int(np.argmin(errors))
    content = encode_trees(found[best])
    facts = {
        "file_bytes": len(content),
        "calibration_samples": len(leaves),
        "leaf_step": 2.0 ** _exponents(ensemble)[best],
        "root_mean_square_change": math.sqrt(errors[best]),
    }
    return replace(program, content=content, precision="int8"), StepRecord(step.kind, asdict(step), facts)


def round_leaves(ensemble: Ensemble, exponent: int, leaves: npt.NDArray[np.int32], weights: Floats) -> Ensemble:
    """Leaves as whole numbers from -127 to 127 times 2**exponent, the base as any whole number of them.

    Tree after tree: what rounding the earlier ones cost the rows that reach a leaf is added to it before it is rounded,
    so that errors cancel instead of piling up. leaves: int32 [N, trees], those that the rows reach; weights: [N].
    """
    step, count = 2.0**exponent, len(ensemble.feature)
    base = round(ensemble.base / step)
    if abs(base) + LARGEST * len(ensemble.roots) > EXACT:
        raise UsageError(
            f"quantize: {len(ensemble.roots)} trees with the base {ensemble.base:g} have sums that are not exact in "
            "int8; leave the step out"
        )
    value = ensemble.value.astype(np.float64)
    owed = np.full(len(leaves), ensemble.base - base * step)
    for tree, root in enumerate(ensemble.roots):
        end = count if tree + 1 == len(ensemble.roots) else ensemble.roots[tree + 1]
        reached = leaves[:, tree] - root
        due = np.bincount(reached, weights * owed, minlength=end - root)
        due = due / (np.bincount(reached, weights, minlength=end - root) + ROWS_BEFORE)
        exact = value[root:end].copy()
        whole = np.where(ensemble.feature[root:end] == LEAF, np.round((exact + due) / step), 0)
        value[root:end] = np.clip(whole, -LARGEST, LARGEST) * step
        owed += (exact - value[root:end])[reached]
    return replace(ensemble, base=base * step, value=value.astype(np.float32))


def _exponents(ensemble: Ensemble) -> tuple[int, ...]:
    """The smallest step that cuts no leaf off, and two finer ones that cut off the largest leaves."""
    largest = float(np.abs(ensemble.value).max())
    whole = math.ceil(math.log2(largest / LARGEST)) if largest else 0
    return whole, whole - 1, whole - 2
