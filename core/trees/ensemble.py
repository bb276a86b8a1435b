"""Ensemble: fitted decision trees as flat arrays, whatever library fitted them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools, Floats, Floats32, Int32s
from featherweight.core.tensors import TensorSpec

INPUT, OUTPUT = "features", "score"
"""The names of the program's tensors."""

LEAF = -1
"""In `feature`: this node is a leaf."""

Output = Literal["margin", "probability"]


@dataclass(frozen=True)
class Ensemble:
    """Binary trees, node after node, all trees in one set of arrays [nodes].

    A row goes left where `x[feature] < threshold`, and where x is NaN it goes left if `missing_left`. A split that has
    members is one of categories: it goes left where the whole number at or below x is among them, so that what is no
    category it knows goes right. A feature is asked for numbers or for categories, never for both.

    `threshold` is float32, or float64 where the library compares in float64: such trees are `wide`, take float64 rows
    and compare them as they are. Each tree adds to one of the scores, its target. The score of a row is `base` plus the
    values of the leaves that it reaches. `output` says what that sum is: a margin (log-odds; the value itself of a
    regression; one for each class), or a probability (forests; then `value` is already divided by the number of
    trees), which the exported program turns into log-odds, of several classes into logarithms, so that every program's
    output `score` [N, targets] is a margin.

    roots: int32 [trees], the first node of each tree; target: int32 [trees]; feature: int32, LEAF for leaves;
    threshold: zero for leaves and splits of categories; left, right: int32, node numbers, greater than their parent's,
    LEAF for leaves; missing_left: bool; value: float32, zero for splits; counts: int32, how many members a node has;
    members: float32, those of all nodes behind one another, rising within a node: whole numbers below
    `canonical.MAX_CATEGORIES`. With several targets base is zero; a target that starts from another number has a tree
    that is one leaf. Made by `core.trees.canonical`, which checks all of it.
    """

    features: int
    base: float
    output: Output
    roots: Int32s
    feature: Int32s
    threshold: Floats32 | Floats
    left: Int32s
    right: Int32s
    missing_left: Bools
    value: Floats32
    counts: Int32s
    members: Floats32
    target: Int32s

    @property
    def splits(self) -> int:
        """How many nodes are no leaves."""
        return int((self.feature != LEAF).sum())

    @property
    def targets(self) -> int:
        """How many scores a row has."""
        return int(self.target.max()) + 1

    @property
    def wide(self) -> bool:
        """Whether rows are float64."""
        return bool(self.threshold.dtype == np.float64)

    @property
    def categorical(self) -> Int32s:
        """The features that are asked for categories, rising."""
        return np.unique(self.feature[self.counts > 0])

    @property
    def specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """(inputs, outputs) of the program."""
        return tensor_specs(self.features, self.targets, wide=self.wide)


def tensor_specs(
    features: int, targets: int = 1, *, wide: bool = False
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """(inputs, outputs) of the program of an ensemble over so many features."""
    given = TensorSpec(INPUT, "float64" if wide else "float32", (None, features))
    return (given,), (TensorSpec(OUTPUT, "float32", (None, targets)),)
