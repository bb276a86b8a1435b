"""int8 leaves: multiples of one power of two, so that float32 sums are exact and every backend gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace

import numpy as np

from core.errors import UsageError
from core.model import StepRecord
from core.passes.steps import QuantizeStep
from core.passes.tree_rows import join_rows
from core.program import Program
from core.tensors import Tensors
from core.trees.ensemble import Ensemble
from core.trees.onnx_file import decode_trees, encode_trees
from core.trees.predict import as_margin, reached_leaves

LARGEST = 127
EXACT = 1 << 24
"""float32 holds every whole number up to this."""


def quantize_trees(program: Program, step: QuantizeStep, batches: Iterable[Tensors]) -> tuple[Program, StepRecord]:
    """Trees with int8 leaves, in the step size whose margins are nearest on the rows of `batches`.

    The thresholds stay as they are: as codes of the bins between them they are lossless, and a backend makes those
    itself. Raises UsageError for bf16, DataError when there are no rows.
    """
    if step.precision != "int8":
        raise UsageError(f"quantize: trees have no {step.precision}, only int8; change the step's precision")
    ensemble = decode_trees(program.content)
    leaves = reached_leaves(ensemble, join_rows(batches, step.kind))

    def margins(trees: Ensemble) -> np.typing.NDArray[np.float64]:
        sums = trees.value[leaves].sum(axis=1, dtype=np.float64) + trees.base
        return as_margin(trees, sums.astype(np.float32)).astype(np.float64)

    wanted = margins(ensemble)
    found = [round_leaves(ensemble, exponent) for exponent in _exponents(ensemble)]
    errors = [np.abs(margins(trees) - wanted) for trees in found]
    best = min(range(len(found)), key=lambda index: float((errors[index] ** 2).mean()))
    content = encode_trees(found[best])
    facts = {
        "file_bytes": len(content),
        "calibration_samples": len(leaves),
        "leaf_step": 2.0 ** _exponents(ensemble)[best],
        "mean_margin_change": float(errors[best].mean()),
        "largest_margin_change": float(errors[best].max()),
    }
    return replace(program, content=content, precision="int8"), StepRecord(step.kind, asdict(step), facts)


def round_leaves(ensemble: Ensemble, exponent: int) -> Ensemble:
    """Leaves as whole numbers from -127 to 127 times 2**exponent, the base as any whole number of them."""
    step = 2.0**exponent
    whole = np.clip(np.round(ensemble.value.astype(np.float64) / step), -LARGEST, LARGEST)
    base = round(ensemble.base / step)
    if abs(base) + LARGEST * len(ensemble.roots) > EXACT:
        raise UsageError(
            f"quantize: {len(ensemble.roots)} trees with the base {ensemble.base:g} have sums that are not exact in "
            "int8; leave the step out"
        )
    return replace(ensemble, base=base * step, value=(whole * step).astype(np.float32))


def _exponents(ensemble: Ensemble) -> tuple[int, ...]:
    """The smallest step that cuts no leaf off, and two finer ones that cut off the largest leaves."""
    largest = float(np.abs(ensemble.value).max())
    whole = math.ceil(math.log2(largest / LARGEST)) if largest else 0
    return whole, whole - 1, whole - 2
