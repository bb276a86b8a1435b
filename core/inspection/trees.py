"""What a TreeEnsemble may hold: trees, and none so deep that a runtime which walks them by calling itself runs out of
stack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from featherweight.core.arrays import Array, Integers
from featherweight.core.errors import BackendError
from featherweight.core.inspection.tensors import UINT8, values_of
from featherweight.core.inspection.wire import Message

MAX_SPLITS = 1 << 24
DEPTH = 512
"""ONNX Runtime 1.32 takes some 650 bytes of stack a level: it opens 1,024 levels on 1 MiB and 8,000 on 8 MiB, and ends
the process at 16,000. Trees that were fitted have less than a hundred."""
MAX_TARGETS = 1024
MAX_MEMBERS = 1 << 20
"""Of all splits of categories; of each, ONNX Runtime makes a node."""
BRANCH_MEMBER = 6

_NUMBERS = (
    "nodes_featureids", "nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs",
)  # fmt: skip
_KNOWN = frozenset(
    {
        *_NUMBERS, "nodes_missing_value_tracks_true", "nodes_splits", "nodes_modes", "tree_roots", "leaf_weights",
        "leaf_targetids", "n_targets", "aggregate_function", "post_transform", "membership_values",
    }
)  # fmt: skip


def check_trees(attributes: Mapping[str, Message], features: int, kind: int) -> None:
    """Raise BackendError unless these are the attributes (by name) of whole trees over so many features; kind: ONNX's
    number of the rows' type."""
    unknown = attributes.keys() - _KNOWN
    if unknown:
        raise _fault(f"it has {', '.join(sorted(unknown))}, which no program needs")
    roots, targets = _integers(attributes, "tree_roots"), _integers(attributes, "leaf_targetids")
    feature, *sides = (_integers(attributes, name) for name in _NUMBERS)
    splits, leaves = len(feature), len(targets)
    limits = _values(attributes, "nodes_splits", kind)
    modes = _values(attributes, "nodes_modes", UINT8)
    weights = _values(attributes, "leaf_weights", kind)
    arrays = [*sides, limits, modes]
    if "nodes_missing_value_tracks_true" in attributes:
        arrays.append(_integers(attributes, "nodes_missing_value_tracks_true"))
    if any(len(array) != splits for array in arrays) or len(weights) != leaves:
        raise _fault("its arrays differ in length")
    if not 0 < splits <= MAX_SPLITS or not 0 < len(roots) <= splits:
        raise _fault(f"{len(roots)} trees of {splits} splits; at most {MAX_SPLITS} are read")
    if _outside(feature, features):
        raise _fault(f"a split asks for a feature outside 0..{features - 1}")
    if modes.max() > BRANCH_MEMBER or _outside(targets, _integer(attributes, "n_targets", 1, MAX_TARGETS)):
        raise _fault("a comparison, or the target of a leaf, is not one that ONNX knows")
    # What rows that were tried do not reach would show itself in a decision only. A threshold may be infinite.
    if np.isnan(limits).any() or not np.isfinite(weights).all():
        raise _fault("a threshold or the value of a leaf is not a number, or a leaf is infinite")
    _check_members(attributes, int((modes == BRANCH_MEMBER).sum()), kind)
    _integer(attributes, "aggregate_function", 0, 3)
    _integer(attributes, "post_transform", 0, 4)
    _check_forest(roots, sides, leaves)


def _check_members(attributes: Mapping[str, Message], sets: int, kind: int) -> None:
    """The members of each split of categories, NaN behind those of each."""
    if not sets and "membership_values" not in attributes:
        return
    values = _values(attributes, "membership_values", kind)
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != sets or len(values) > MAX_MEMBERS or not len(values) or not np.isnan(values[-1]):
        raise _fault(f"its {len(values)} categories are not those of {sets} splits; at most {MAX_MEMBERS} are read")
    if (np.diff(ends, prepend=-1) < 2).any() or np.isinf(values).any():
        raise _fault("a split has no categories, or one that is infinite")


def _check_forest(roots: Integers, sides: list[Integers], leaves: int) -> None:
    """sides: per split the number of where it leads on true, whether that is a leaf; the same on false."""
    splits = len(sides[0])
    inner = []
    for target, leafs in ((sides[0], sides[1]), (sides[2], sides[3])):
        if _outside(leafs, 2):
            raise _fault("whether a split leads to a leaf is neither 0 nor 1")
        is_leaf = leafs == 1
        if _outside(target[is_leaf], leaves) or _outside(target[~is_leaf], splits):
            raise _fault("the number of a split or leaf is out of range")
        inner.append(np.where(is_leaf, -1, target))
    if _outside(roots, splits):
        raise _fault("the number of a root is out of range")
    children = np.concatenate([roots, *(side[side >= 0] for side in inner)])
    if np.bincount(children, minlength=splits).max() > 1:
        raise _fault("two ways lead to one split, so these are no trees")
    # Nobody has two parents, so what is reached from the roots are trees; what is not reached is a circle.
    level, reached, depth = roots, 0, 0
    while len(level):
        reached, depth = reached + len(level), depth + 1
        if depth > DEPTH:
            raise _fault(f"a tree is deeper than {DEPTH}")
        below = np.concatenate([inner[0][level], inner[1][level]])
        level = below[below >= 0]
    if reached != splits:
        raise _fault("no root leads to some of its splits")


def _outside(numbers: Integers, count: int) -> bool:
    return bool(len(numbers)) and (int(numbers.min()) < 0 or int(numbers.max()) >= count)


def _integers(attributes: Mapping[str, Message], name: str) -> Integers:
    found = attributes.get(name, {}).get("ints")
    if found is None:
        raise _fault(f"it lacks {name}")
    return np.asarray(found)


def _integer(attributes: Mapping[str, Message], name: str, least: int, most: int) -> int:
    found = int(attributes[name].get("i", 0)) if name in attributes else least
    if not least <= found <= most:
        raise _fault(f"{name} is {found}; expected {least} to {most}")
    return found


def _values(attributes: Mapping[str, Message], name: str, kind: int) -> Array:
    tensor = attributes.get(name, {}).get("t")
    values = None if tensor is None or tensor.get("data_type") != kind else values_of(tensor)
    if values is None:
        raise _fault(f"it lacks {name}")
    return values


def _fault(what: str) -> BackendError:
    return BackendError(f"the program's tree ensemble cannot be trusted: {what}")
