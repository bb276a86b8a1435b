"""Node arrays to an Ensemble in one canonical order, whatever order a library or a file has them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Array, Bools, Floats, Floats32, Integers
from featherweight.core.errors import DataError
from featherweight.core.trees.ensemble import LEAF, Ensemble, Output

MAX_NODES = 1 << 27
"""Maximum nodes of one ensemble: 3 GiB of arrays. A library's largest forests have some ten million."""

MAX_FEATURES = (1 << 31) - 1
"""A feature's number is an int32."""

MAX_CATEGORIES = 1 << 24
"""A category is a whole number below it, so that float32 holds each."""

PROBABILITY_STEP = 2.0**-24
"""Leaves of forests are multiples of it: then every sum up to 1 is exact in float32, in whatever order it is made."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of several trees in any order, as `Ensemble` has them; what no root reaches is left out by
    `canonicalize`. counts, members: None where no split is one of categories; target: None where all trees have the
    first."""

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    value: Array
    counts: Array | None = None
    members: Array | None = None
    target: Array | None = None


def join(trees: Sequence[Nodes]) -> Nodes:
    """Several `Nodes` as one, the children's numbers shifted."""
    if not trees:
        raise DataError("the model has no trees; train it first")
    starts = np.concatenate([[0], np.cumsum([len(tree.feature) for tree in trees])])[:-1]

    def shifted(name: str) -> Array:
        parts = [getattr(tree, name).astype(np.int64) for tree in trees]
        return np.concatenate([np.where(part < 0, part, part + at) for part, at in zip(parts, starts, strict=True)])

    def plain(name: str) -> Array:
        return np.concatenate([getattr(tree, name) for tree in trees])

    return Nodes(
        shifted("roots"),
        plain("feature"),
        plain("threshold"),
        shifted("left"),
        shifted("right"),
        plain("missing_left"),
        plain("value"),
        np.concatenate([_counts(tree) for tree in trees]),
        np.concatenate([_members(tree) for tree in trees]),
        np.concatenate([_targets(tree) for tree in trees]),
    )


def canonicalize(
    nodes: Nodes, features: int, base: float = 0.0, output: Output = "margin", *, wide: bool = False
) -> Ensemble:
    """The ensemble in preorder: tree after tree, each node before its left subtree before its right subtree.

    base and values become float32, and so do the thresholds unless the trees are `wide`. Raises DataError for nodes
    that are no trees: numbers out of range, a node with two parents, a cycle, a feature that is not there, values or
    thresholds that are not numbers, categories that are none, a target without a tree.
    """
    _check(nodes, features, base)
    _check_categories(nodes)
    levels = levels_of(nodes)
    size = np.ones(len(nodes.feature), np.int64)
    for level in reversed(levels):
        splits = level[nodes.feature[level] != LEAF]
        size[splits] += size[nodes.left[splits]] + size[nodes.right[splits]]
    place = np.zeros(len(nodes.feature), np.int64)
    place[nodes.roots] = np.cumsum(size[nodes.roots]) - size[nodes.roots]
    for level in levels:
        splits = level[nodes.feature[level] != LEAF]
        left, right = nodes.left[splits], nodes.right[splits]
        place[left] = place[splits] + 1
        place[right] = place[left] + size[left]
    reached = np.concatenate(levels)
    order = reached[np.argsort(place[reached])]
    is_split = nodes.feature[order] != LEAF
    counts = np.where(is_split, _counts(nodes)[order], 0).astype(np.int32)
    is_number = is_split & (counts == 0)
    zero = np.float32(0)  # added, it makes 0.0 of -0.0: equal numbers have equal bytes
    return Ensemble(
        features=features,
        base=float(np.float32(base) + zero),
        output=output,
        roots=place[nodes.roots].astype(np.int32),
        feature=nodes.feature[order].astype(np.int32),
        threshold=_limits(np.where(is_number, nodes.threshold[order], 0), wide=wide),
        left=np.where(is_split, place[np.where(is_split, nodes.left[order], 0)], LEAF).astype(np.int32),
        right=np.where(is_split, place[np.where(is_split, nodes.right[order], 0)], LEAF).astype(np.int32),
        missing_left=is_split & nodes.missing_left[order].astype(bool),
        value=np.where(is_split, 0, nodes.value[order]).astype(np.float32) + zero,
        counts=counts,
        members=np.asarray(_members_in_order(nodes, order, counts) + zero, np.float32),
        target=_targets(nodes).astype(np.int32),
    )


def _limits(threshold: Array, *, wide: bool) -> Floats32 | Floats:
    if wide:
        return np.asarray(threshold.astype(np.float64) + 0.0)
    return np.asarray(threshold.astype(np.float32) + np.float32(0))


def rearranged(ensemble: Ensemble, nodes: Nodes, base: float | None = None) -> Ensemble:
    """Nodes that were made of the ensemble's, canonical, as an ensemble over the same features with the same output."""
    start = ensemble.base if base is None else base
    return canonicalize(nodes, ensemble.features, start, ensemble.output, wide=ensemble.wide)


def for_target(ensemble: Ensemble, target: int) -> Ensemble:
    """The trees of one target alone; those that are one leaf become its base."""
    nodes = nodes_of(ensemble)
    mine = ensemble.target == target
    lone = mine & (ensemble.feature[ensemble.roots] == LEAF)
    if lone.sum() == mine.sum():
        lone[np.flatnonzero(lone)[0]] = False
    roots = ensemble.roots[mine & ~lone]
    base = ensemble.base + float(ensemble.value[ensemble.roots[lone]].sum(dtype=np.float64))
    return rearranged(ensemble, replace(nodes, roots=roots, target=np.zeros(len(roots), np.int32)), base)


def join_targets(parts: Sequence[Ensemble]) -> Ensemble:
    """Ensembles of one target each as one of several; a base becomes a tree that is one leaf."""
    trees = [replace(nodes_of(part), target=np.full(len(part.roots), target)) for target, part in enumerate(parts)]
    trees += [lone_leaf(part.base, target) for target, part in enumerate(parts) if part.base]
    first = parts[0]
    return canonicalize(join(trees), first.features, 0.0, first.output, wide=first.wide)


def with_bases(trees: Sequence[Nodes], features: int, bases: Sequence[float], *, wide: bool = False) -> Ensemble:
    """Trees whose targets start from `bases`, as an ensemble."""
    if len(bases) == 1:
        return canonicalize(join(trees), features, bases[0], wide=wide)
    starts = [lone_leaf(base, target) for target, base in enumerate(bases) if base]
    return canonicalize(join([join(trees), *starts]), features, wide=wide)


def lone_leaf(value: float, target: int) -> Nodes:
    """A tree that is one leaf: what the scores of a target start from."""
    none = np.array([LEAF])
    zero = np.zeros(1)
    return Nodes(np.array([0]), none, zero, none, none, zero > 0, np.array([value]), target=np.array([target]))


def nodes_of(ensemble: Ensemble) -> Nodes:
    """The ensemble's arrays as nodes, none of them copied."""
    e = ensemble
    return Nodes(
        e.roots, e.feature, e.threshold, e.left, e.right, e.missing_left, e.value, e.counts, e.members, e.target
    )


def strict_thresholds(threshold: Floats, *, wide: bool = False) -> Floats32 | Floats:
    """float32 thresholds u so that x < u exactly where x <= threshold, for every float32 x; of wide trees float64 ones,
    for every float64 x. Both are [K]."""
    if wide:
        return np.asarray(np.nextafter(threshold.astype(np.float64), np.inf))
    limit = np.float32(np.inf)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = threshold.astype(np.float32)
        largest = np.where(rounded.astype(np.float64) > threshold, np.nextafter(rounded, -limit), rounded)
        return np.nextafter(largest, limit)


def all_left(nodes: Nodes, which: Bools) -> Nodes:
    """Splits that send every number left, infinity too, as x <= inf does and no x < threshold: the sides change places,
    and no number is below -inf. which: bool [nodes]."""
    return replace(
        nodes,
        threshold=np.where(which, np.float32(-np.inf), nodes.threshold),  # the type of the thresholds stays
        left=np.where(which, nodes.right, nodes.left),
        right=np.where(which, nodes.left, nodes.right),
        missing_left=nodes.missing_left ^ which,
    )


def round_to_grid(shares: Floats) -> Floats:
    """Trees' parts of a mean probability as multiples of PROBABILITY_STEP. shares: of any shape, which the result has
    too."""
    return np.asarray(np.round(shares / PROBABILITY_STEP) * PROBABILITY_STEP)


def _check(nodes: Nodes, features: int, base: float) -> None:
    count = len(nodes.feature)
    arrays = [nodes.feature, nodes.threshold, nodes.left, nodes.right, nodes.missing_left, nodes.value]
    if any(array.shape != (count,) for array in arrays) or nodes.roots.ndim != 1:
        raise DataError(f"trees: the arrays of nodes differ in length: {[array.shape for array in arrays]}")
    if not 0 < count <= MAX_NODES or not len(nodes.roots) or not 1 <= features <= MAX_FEATURES:
        raise DataError(f"trees: {len(nodes.roots)} trees of {count} nodes over {features} features")
    split = nodes.feature != LEAF
    children = np.concatenate([nodes.left[split], nodes.right[split], nodes.roots])
    if children.min() < 0 or children.max() >= count:
        raise DataError(f"trees: a node number lies outside 0..{count - 1}")
    if (np.bincount(children.astype(np.int64), minlength=count) > 1).any():
        raise DataError("trees: a node has two parents, so this is not a tree")
    if (nodes.feature[split] < 0).any() or (nodes.feature[split] >= features).any():
        raise DataError(f"trees: a split asks for a feature outside 0..{features - 1}")
    with np.errstate(over="ignore"):
        values = np.append(nodes.value[~split], base).astype(np.float32)
    if np.isnan(nodes.threshold[split]).any() or not np.isfinite(values).all():
        raise DataError("trees: a threshold, a leaf or the base is not a finite float32 number")


def _check_categories(nodes: Nodes) -> None:
    counts, members, target = _counts(nodes), _members(nodes), _targets(nodes)
    if counts.shape != nodes.feature.shape or counts.min() < 0 or counts.sum() != len(members):
        raise DataError(f"trees: {len(members)} categories do not belong to the splits of {counts.shape} nodes")
    if not ((members >= 0) & (members < MAX_CATEGORIES) & (members == np.floor(members))).all():
        raise DataError(f"trees: a category is no whole number from 0 to {MAX_CATEGORIES - 1}")
    owner = np.repeat(np.arange(len(counts)), counts)
    if ((np.diff(members) <= 0) & (np.diff(owner) == 0)).any():
        raise DataError("trees: the categories of a split do not rise")
    split = nodes.feature != LEAF
    both = np.intersect1d(nodes.feature[split & (counts > 0)], nodes.feature[split & (counts == 0)])
    if len(both):
        raise DataError(f"trees: feature {both[0]} is asked for categories by one split and for numbers by another")
    if target.shape != nodes.roots.shape or target.min() < 0 or target.max() >= len(target):
        raise DataError(f"trees: {len(nodes.roots)} trees have targets that are none")
    if not np.bincount(target.astype(np.int64)).all():
        raise DataError("trees: a target has no tree")


def _counts(nodes: Nodes) -> Integers:
    return np.zeros(len(nodes.feature), np.int64) if nodes.counts is None else nodes.counts.astype(np.int64)


def _members(nodes: Nodes) -> Array:
    return np.zeros(0, np.float32) if nodes.members is None else nodes.members


def _targets(nodes: Nodes) -> Array:
    return np.zeros(len(nodes.roots), np.int32) if nodes.target is None else nodes.target


def _members_in_order(nodes: Nodes, order: Array, counts: Array) -> Array:
    """Those of the nodes in `order`; counts: how many each has there."""
    before = _counts(nodes)
    start = (np.cumsum(before) - before)[order]
    to = np.cumsum(counts) - counts
    return _members(nodes)[np.repeat(start - to, counts) + np.arange(int(counts.sum()))]


def levels_of(nodes: Nodes) -> list[Integers]:
    """Node numbers by depth. Ends, because no node has two parents and no root has one. Each is int64 [K]."""
    level = nodes.roots.astype(np.int64)
    levels = []
    while len(level):
        levels.append(level)
        splits = level[nodes.feature[level] != LEAF]
        level = np.concatenate([nodes.left[splits], nodes.right[splits]]).astype(np.int64)
    return levels
