"""The attributes of ONNX's TreeEnsembleClassifier and TreeEnsembleRegressor as an Ensemble.

https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md says what they are; of what it leaves open, `onnx_trees`
asks ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from featherweight.core.arrays import Bools, Floats, Integers, Octets
from featherweight.core.terminal import counted
from featherweight.core.trees.canonical import (
    MAX_NODES,
    Nodes,
    all_left,
    canonicalize,
    round_to_grid,
    strict_thresholds,
)
from featherweight.core.trees.ensemble import LEAF, Ensemble, Output

OPERATORS: Final = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_MODES: Final = {b"LEAF": 0, b"BRANCH_LEQ": 1, b"BRANCH_LT": 2, b"BRANCH_GTE": 3, b"BRANCH_GT": 4}
_LEQ, _GTE, _GT = 1, 3, 4


class UnfitError(Exception):
    """Why a file is not read."""


class _Attributes:
    """Those of the operator, by name, each of a known kind and as long as it has to be."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._held = {attribute.name: attribute for attribute in node.attribute}
        unread = [name for name in self._held if name.endswith("_as_tensor")]
        if unread:
            raise UnfitError(f"keeps {unread[0]} as float64; convert it with FloatTensorType")

    def numbers(self, name: str, count: int | None = None) -> Integers:
        """int64 [count]."""
        found: Integers = self._sized(
            name, np.array(self._held[name].ints if name in self._held else [], np.int64), count
        )
        return found

    def floats(self, name: str, count: int | None = None) -> Floats:
        """float64 [count]."""
        found: Floats = self._sized(
            name, np.array(self._held[name].floats if name in self._held else [], np.float64), count
        )
        return found

    def texts(self, name: str) -> list[str]:
        """Of an attribute of texts."""
        return [one.decode("utf-8", "replace") for one in (self._held[name].strings if name in self._held else [])]

    def text(self, name: str, otherwise: str) -> str:
        """Of an attribute that is one text."""
        return self._held[name].s.decode("utf-8", "replace") if name in self._held else otherwise

    def number(self, name: str, otherwise: int) -> int:
        """Of an attribute that is one whole number."""
        return int(self._held[name].i) if name in self._held else otherwise

    def modes(self) -> Octets:
        """uint8 [nodes]: of _MODES, how each node compares."""
        found = self._held["nodes_modes"].strings if "nodes_modes" in self._held else []
        if not 0 < len(found) <= MAX_NODES:
            raise UnfitError(f"has {counted(len(found), 'nodes')}")
        unknown = sorted(set(found) - set(_MODES))
        if unknown:
            shown = ", ".join(one.decode("utf-8", "replace")[:40] for one in unknown[:3])
            raise UnfitError(f"has splits of the kind {shown}, which is not read")
        return np.array([_MODES[one] for one in found], np.uint8)

    def _sized(self, name: str, array: Any, count: int | None) -> Any:
        if count is not None and len(array) != count:
            raise UnfitError(f"has {len(array):,} numbers {name} for {counted(count, 'nodes')}")
        return array


def read_attributes(node: onnx.NodeProto, features: int, *, sigmoid: bool) -> tuple[Ensemble, tuple[str, str] | None]:
    """(the trees over so many features, the names of the two classes where they are given). sigmoid: whether one stands
    behind the operator. Raises UnfitError for attributes that are not those of trees of one probability, DataError for
    nodes that are no trees."""
    held = _Attributes(node)
    shape = _structure(held)
    classes = None
    if node.op_type == OPERATORS[0]:
        value, base, output, classes = _of_classes(held, shape)
    else:
        value, base, output = _of_target(held, shape, sigmoid=sigmoid)
    return canonicalize(_nodes(held, shape, value), features, base, output), classes


@dataclass(frozen=True)
class _Shape:
    """modes: uint8 [nodes]; place: where a node stands; true, false: places of the children, LEAF for leaves; roots:
    [trees]."""

    modes: Octets
    place: _Places
    true: Integers
    false: Integers
    roots: Integers

    @property
    def is_leaf(self) -> Bools:
        return np.asarray(self.modes == 0)


def _structure(held: _Attributes) -> _Shape:
    modes = held.modes()
    count = len(modes)
    tree, number = held.numbers("nodes_treeids", count), held.numbers("nodes_nodeids", count)
    place, split = _Places(tree, number), modes != 0
    sides = []
    for name in ("nodes_truenodeids", "nodes_falsenodeids"):
        found = np.full(count, LEAF, np.int64)
        found[split] = place.of(tree[split], held.numbers(name, count)[split])
        sides.append(found)
    has_parent = np.zeros(count, bool)
    has_parent[np.concatenate([side[split] for side in sides])] = True
    roots = np.flatnonzero(~has_parent)
    if len(np.unique(tree[roots])) < len(roots) or len(roots) < len(np.unique(tree)):
        raise UnfitError("has trees with no root, or with two")
    return _Shape(modes, place, sides[0], sides[1], roots)


class _Places:
    """Where the node of a tree's number and its own number stands."""

    def __init__(self, tree: Integers, number: Integers) -> None:
        if min(tree.min(), number.min()) < 0 or max(tree.max(), number.max()) >= 1 << 31:
            raise UnfitError("numbers its trees or nodes below zero, or beyond 2,147,483,647")
        self._order = np.argsort(self._key(tree, number))
        self._keys = self._key(tree, number)[self._order]
        if (self._keys[1:] == self._keys[:-1]).any():
            raise UnfitError("has two nodes of one number")

    def of(self, tree: Integers, number: Integers) -> Integers:
        """int64 [K]: places among the nodes."""
        key = self._key(tree, number)
        at = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        if (self._keys[at] != key).any() or (number < 0).any() or (number >= 1 << 31).any():
            raise UnfitError("names a node that is not there")
        return np.asarray(self._order[at], np.int64)

    @staticmethod
    def _key(tree: Integers, number: Integers) -> Integers:
        return (tree << 31) + number


def _nodes(held: _Attributes, shape: _Shape, value: Floats) -> Nodes:
    count, is_leaf = len(shape.modes), shape.is_leaf
    at = held.floats("nodes_values", count)
    tracks = held.numbers("nodes_missing_value_tracks_true")
    if len(tracks) not in (0, count):
        raise UnfitError(f"says of {len(tracks):,} of {counted(count, 'nodes')} where missing values go")
    missing_true = tracks != 0 if len(tracks) else np.zeros(count, bool)
    # What is not below goes the other way: the sides change places.
    swapped = np.isin(shape.modes, [_GTE, _GT])
    at_or_below = np.isin(shape.modes, [_LEQ, _GT])
    nodes = Nodes(
        roots=shape.roots,
        feature=np.where(is_leaf, LEAF, held.numbers("nodes_featureids", count)),
        threshold=np.where(at_or_below, strict_thresholds(at), at.astype(np.float32)),
        left=np.where(swapped, shape.false, shape.true),
        right=np.where(swapped, shape.true, shape.false),
        missing_left=np.where(swapped, ~missing_true, missing_true),
        value=value,
    )
    return all_left(nodes, at_or_below & np.isposinf(at))


def _of_classes(held: _Attributes, shape: _Shape) -> tuple[Floats, float, Output, tuple[str, str]]:
    """(values [nodes], base, what their sum is, names of the classes) of a TreeEnsembleClassifier."""
    names = [str(number) for number in held.numbers("classlabels_int64s")] or held.texts("classlabels_strings")
    if len(names) != 2:
        raise UnfitError(f"tells {counted(len(names), 'classes')} apart; only two are read")
    chosen = held.numbers("class_ids")
    if not set(np.unique(chosen).tolist()) <= {0, 1}:
        raise UnfitError("has weights of a class that it does not name")
    weights = held.floats("class_weights", len(chosen))
    places = shape.place.of(held.numbers("class_treeids", len(chosen)), held.numbers("class_nodeids", len(chosen)))
    # Weights of one class alone are those of the second one, whatever their number.
    used = chosen == 1 if len(np.unique(chosen)) == 2 else np.ones(len(chosen), bool)
    value = _summed(places[used], weights[used], shape.is_leaf)
    bases = held.floats("base_values")
    base = float(bases[-1]) if len(bases) else 0.0
    transform = held.text("post_transform", "NONE")
    if transform == "LOGISTIC":
        return value, base, "margin", (names[0], names[1])
    if transform != "NONE" or value.min() < 0:
        raise UnfitError(
            f"gives scores that are no probabilities (post_transform {transform}); convert it so that it gives these"
        )
    return round_to_grid(value), base, "probability", (names[0], names[1])


def _of_target(held: _Attributes, shape: _Shape, *, sigmoid: bool) -> tuple[Floats, float, Output]:
    """(values [nodes], base, what their sum is) of a TreeEnsembleRegressor, which some converters write for two
    classes."""
    transform, aggregate = held.text("post_transform", "NONE"), held.text("aggregate_function", "SUM")
    if held.number("n_targets", 1) != 1 or aggregate != "SUM":
        raise UnfitError(f"gives several numbers, or their {aggregate}; one sum is read")
    if transform != "LOGISTIC" and not (sigmoid and transform == "NONE"):
        raise UnfitError("gives a number, and not the probability of a yes")
    weights = held.floats("target_weights")
    places = shape.place.of(held.numbers("target_treeids", len(weights)), held.numbers("target_nodeids", len(weights)))
    bases = held.floats("base_values")
    return _summed(places, weights, shape.is_leaf), float(bases[0]) if len(bases) else 0.0, "margin"


def _summed(places: Integers, weights: Floats, is_leaf: Bools) -> Floats:
    if not is_leaf[places].all():
        raise UnfitError("gives a weight to a split")
    value = np.zeros(len(is_leaf))
    np.add.at(value, places, weights)
    return value
