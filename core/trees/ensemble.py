"""Ensemble: fitted decision trees as flat arrays, whatever library fitted them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from featherweight.core.arrays import Bools, Floats32, Int32s
from featherweight.core.tensors import TensorSpec

INPUT, OUTPUT = "features", "score"
"""The names of the program's tensors."""

LEAF = -1
"""In `feature`: this node is a leaf."""

Output = Literal["margin", "probability"]


@dataclass(frozen=True)
class Ensemble:
    """Binary trees, node after node, all trees in one set of arrays [nodes].

    A row goes left where `x[feature] < threshold`, compared in float32, and where x is NaN it goes left if
    `missing_left`. The score of a row is `base` plus the values of the leaves that it reaches. `output` says what that
    sum is: a margin (log-odds), or a probability (forests; then `value` is already divided by the number of trees),
    which the exported program turns into log-odds, so that every program's output `score` [N, 1] is a margin.

    roots: int32 [trees], the first node of each tree; feature: int32, LEAF for leaves; threshold: float32, zero for
    leaves; left, right: int32, node numbers, greater than their parent's, LEAF for leaves; missing_left: bool; value:
    float32, zero for splits. Made by `core.trees.canonical`, which checks all of it.
    """

    features: int
    base: float
    output: Output
    roots: Int32s
    feature: Int32s
    threshold: Floats32
    left: Int32s
    right: Int32s
    missing_left: Bools
    value: Floats32

    @property
    def splits(self) -> int:
        """How many nodes are no leaves."""
        return int((self.feature != LEAF).sum())


def tensor_specs(features: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """(inputs, outputs) of the program of an ensemble over so many features."""
    return (TensorSpec(INPUT, "float32", (None, features)),), (TensorSpec(OUTPUT, "float32", (None, 1)),)
