"""Ensembles as ONNX: one ai.onnx.ml 5 TreeEnsemble and what makes log-odds of its sum.

Checked against ONNX Runtime 1.32: BRANCH_LT compares float32, of float64 rows float64, NaN follows
`nodes_missing_value_tracks_true`, leaves may be shared between splits (int8 leaves then cost two bytes each), and a
tree that is one leaf is a split whose both sides are that leaf. BRANCH_MEMBER takes 33.5 for 33 in some sets and for no
category in others, so that categories are rounded down before the trees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from featherweight.core.arrays import Array, Floats, Floats32, Integers
from featherweight.core.errors import BackendError, DataError
from featherweight.core.inspection import inspect_program
from featherweight.core.inspection.tensors import BOOL, DOUBLE, FLOAT, UINT8
from featherweight.core.inspection.wire import Message
from featherweight.core.trees.canonical import Nodes, canonicalize, nodes_of, rearranged
from featherweight.core.trees.ensemble import INPUT, LEAF, OUTPUT, Ensemble
from featherweight.core.trees.predict import SMALLEST_PROBABILITY

OPSET, OPSET_ML, IR_VERSION = 20, 5, 10
_BRANCH_LT, _BRANCH_MEMBER = 1, 6
_INT_ATTRIBUTE, _TENSOR_ATTRIBUTE, _INTS_ATTRIBUTE = 2, 4, 7
"""ONNX's numbers of what an attribute holds."""


def encode_trees(ensemble: Ensemble) -> bytes:
    """The ONNX file: the same bytes for the same trees. Raises DataError for nodes that are no trees."""
    arranged = rearranged(ensemble, nodes_of(ensemble))
    from onnx import ModelProto  # what decides reads files and writes none

    content: bytes = ModelProto(**_plain(_message(arranged))).SerializeToString(deterministic=True)
    return content


def _plain(value: Any) -> Any:
    """Without arrays, as protobuf takes it."""
    match value:
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case np.ndarray():
            return value.tolist()
        case _:
            return value


def decode_trees(content: bytes) -> Ensemble:
    """The ensemble of a file that `encode_trees` wrote, its nodes in the order of `canonicalize`.

    Raises BackendError for any other bytes: a graph that says something more, a cycle, a number out of range. A server
    calls this beside its decisions: all that is long is done by numpy, in steps of milliseconds.
    """
    message = inspect_program(content)
    try:
        ensemble = _ensemble(message["graph"])
    except (DataError, ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError) as error:
        raise BackendError(f"the program is not a tree ensemble of this featherweight: {error}") from error
    # Whatever else the file might say, it would not be in a file made anew from what was read.
    if not _same(_message(ensemble), message):
        raise BackendError("the program does not hold a tree ensemble alone, as this featherweight writes it")
    return ensemble


def _same(one: Any, other: Any) -> bool:
    """Whether two messages are equal, with arrays among them and data as any kind of bytes."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        same_names = isinstance(other, dict) and one.keys() == other.keys()
        return same_names and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _message(e: Ensemble) -> Message:
    """The file's content, names as in onnx.proto."""
    nodes: list[Message] = []
    constants: list[Message] = []

    def apply(operator: str, *inputs: str, to: str) -> str:
        nodes.append({"input": list(inputs), "output": [to], "op_type": operator})
        return to

    def constant(name: str, value: float) -> str:
        constants.append({"data_type": FLOAT, "raw_data": np.float32(value).tobytes(), "name": name})
        return name

    columns = INPUT
    if len(e.categorical):
        asked = np.isin(np.arange(e.features), e.categorical)[None]
        constants.append({**_tensor(BOOL, asked), "name": "categorical"})
        columns = apply("Where", "categorical", apply("Floor", INPUT, to="floored"), INPUT, to="columns")
    plain = not e.base and e.output == "margin"
    nodes.append(_tree_node(e, columns, "wide" if e.wide else OUTPUT if plain else "sum"))
    if e.wide:
        apply("Cast", "wide", to=OUTPUT if plain else "sum")
        nodes[-1]["attribute"] = [_attribute("to", FLOAT)]
    if e.output == "margin" and e.base:
        apply("Add", "sum", constant("base", e.base), to=OUTPUT)
    elif e.output == "probability":
        _apply_logarithm(e, apply, constant)
    graph = {
        "node": nodes,
        "name": "program",
        "input": [_value(INPUT, e.features, DOUBLE if e.wide else FLOAT)],
        "output": [_value(OUTPUT, e.targets, FLOAT)],
        **({"initializer": constants} if constants else {}),
    }
    imports = [{"domain": "", "version": OPSET}, {"domain": "ai.onnx.ml", "version": OPSET_ML}]
    return {"ir_version": IR_VERSION, "producer_name": "featherweight", "graph": graph, "opset_import": imports}


def _apply_logarithm(e: Ensemble, apply: Callable[..., str], constant: Callable[[str, float], str]) -> None:
    apply("Add", "sum", constant("base", e.base), to="mean")
    low = float(SMALLEST_PROBABILITY)
    apply("Clip", "mean", constant("low", low), constant("high", 1 - low), to="probability")
    if e.targets > 1:
        apply("Log", "probability", to=OUTPUT)
        return
    apply("Sub", constant("one", 1), "probability", to="other")
    apply("Log", "probability", to="log_probability")
    apply("Log", "other", to="log_other")
    apply("Sub", "log_probability", "log_other", to=OUTPUT)


def _value(name: str, columns: int, kind: int) -> Message:
    shape = {"dim": [{"dim_param": "N"}, {"dim_value": columns}]}
    return {"name": name, "type": {"tensor_type": {"elem_type": kind, "shape": shape}}}


def _tree_node(e: Ensemble, columns: str, output: str) -> Message:
    """Splits and leaves have numbers of their own; a tree of one leaf gets a split that leads there both ways."""
    lone = e.feature[e.roots] == LEAF
    is_split = e.feature != LEAF
    is_split[e.roots[lone]] = True
    split = np.flatnonzero(is_split)
    number = np.cumsum(is_split) - 1
    target = e.target[np.searchsorted(e.roots, np.arange(len(e.feature)), side="right") - 1]
    is_leaf = e.feature == LEAF
    # Leaves of one target and value are one, in the order of these.
    pairs, places = np.unique(np.stack([target[is_leaf], e.value[is_leaf]], axis=1), axis=0, return_inverse=True)
    leaf_number = np.zeros(len(e.feature), np.int64)
    leaf_number[is_leaf] = places
    left, right = (np.where(e.feature[split] == LEAF, split, side[split]) for side in (e.left, e.right))
    left_leaf, right_leaf = (e.feature[side] == LEAF for side in (left, right))
    kind, number_type = (DOUBLE, np.float64) if e.wide else (FLOAT, np.float32)
    attributes: dict[str, Any] = {
        "aggregate_function": 1,
        "post_transform": 0,
        "n_targets": e.targets,
        "tree_roots": number[e.roots],
        "nodes_featureids": np.maximum(e.feature[split], 0).astype(np.int64),
        "nodes_splits": _tensor(kind, e.threshold[split]),
        "nodes_modes": _tensor(UINT8, np.where(e.counts[split] > 0, _BRANCH_MEMBER, _BRANCH_LT).astype(np.uint8)),
        "nodes_truenodeids": np.where(left_leaf, leaf_number[left], number[left]),
        "nodes_trueleafs": left_leaf.astype(np.int64),
        "nodes_falsenodeids": np.where(right_leaf, leaf_number[right], number[right]),
        "nodes_falseleafs": right_leaf.astype(np.int64),
        "nodes_missing_value_tracks_true": e.missing_left[split].astype(np.int64),
        "leaf_weights": _tensor(kind, pairs[:, 1].astype(number_type)),
        "leaf_targetids": pairs[:, 0].astype(np.int64),
    }
    if len(e.members):
        # Behind the members of each split stands NaN.
        ends = np.cumsum(e.counts[e.counts > 0])
        attributes["membership_values"] = _tensor(kind, np.insert(e.members.astype(number_type), ends, np.nan))
    written = [_attribute(name, value) for name, value in sorted(attributes.items())]
    node = {"input": [columns], "output": [output], "op_type": "TreeEnsemble", "domain": "ai.onnx.ml"}
    return {**node, "attribute": written}


def _attribute(name: str, value: Any) -> Message:
    if isinstance(value, dict):
        return {"name": name, "t": value, "type": _TENSOR_ATTRIBUTE}
    if isinstance(value, int):
        return {"name": name, "i": value, "type": _INT_ATTRIBUTE}
    return {"name": name, "ints": value, "type": _INTS_ATTRIBUTE}


def _tensor(kind: int, values: Array) -> Message:
    return {"dims": np.array(values.shape), "data_type": kind, "raw_data": values.tobytes()}


def _numbers(tensor: Message) -> Floats32 | Floats:
    if tensor["data_type"] == DOUBLE:
        return np.frombuffer(tensor["raw_data"], "<f8").astype(np.float64)
    return np.frombuffer(tensor["raw_data"], "<f4").astype(np.float32)


def _ensemble(graph: Message) -> Ensemble:
    (node,) = (node for node in graph["node"] if node["op_type"] == "TreeEnsemble")
    attributes = {entry["name"]: entry for entry in node["attribute"]}

    def numbers(name: str) -> Integers:
        return np.asarray(attributes[name]["ints"])

    feature, weights = numbers("nodes_featureids"), _numbers(attributes["leaf_weights"]["t"])
    splits = len(feature)
    limits, missing = _numbers(attributes["nodes_splits"]["t"]), numbers("nodes_missing_value_tracks_true")
    sides = [("nodes_truenodeids", "nodes_trueleafs"), ("nodes_falsenodeids", "nodes_falseleafs")]
    children, values = [], [np.zeros(splits, weights.dtype)]
    for side, (ids, leafs) in enumerate(sides):
        target, is_leaf = numbers(ids), numbers(leafs) != 0
        # Every side of every split has a leaf of its own here, reached or not; `canonicalize` drops the others.
        children.append(np.where(is_leaf, splits * (1 + side) + np.arange(splits), target))
        if target.min() < 0 or (target[~is_leaf] >= splits).any():
            raise DataError("a split's number is out of range")
        values.append(weights[np.where(is_leaf, target, 0)])
    counts, members = _categories(attributes)
    lone = (numbers("nodes_trueleafs") != 0) & (numbers("nodes_falseleafs") != 0)
    roots = numbers("tree_roots")
    lone_roots = np.zeros(splits, bool)
    lone_roots[roots] = True
    # Two sides of one value are a leaf only at a root: below, a split could lead to two equal leaves.
    lone_roots &= lone & (numbers(sides[0][0]) == numbers(sides[1][0])) & (feature == 0)
    lone_roots &= (limits == 0) & (missing == 0) & (counts == 0)
    feature = np.where(lone_roots, LEAF, feature)
    value = np.concatenate(values)
    value[:splits][lone_roots] = values[1][lone_roots]
    leaves = np.full(2 * splits, LEAF)
    nodes = Nodes(
        roots,
        np.concatenate([feature, leaves]),
        np.concatenate([limits, np.zeros(2 * splits, limits.dtype)]),
        np.concatenate([children[0], leaves]),
        np.concatenate([children[1], leaves]),
        np.concatenate([missing != 0, np.zeros(2 * splits, bool)]),
        value,
        np.concatenate([counts, np.zeros(2 * splits, np.int64)]),
        members,
        _targets(attributes, roots),
    )
    constants = {tensor["name"]: tensor for tensor in graph.get("initializer", [])}
    base = float(_numbers(constants["base"])[0]) if "base" in constants else 0.0
    features = graph["input"][0]["type"]["tensor_type"]["shape"]["dim"][1]["dim_value"]
    output = "probability" if "low" in constants else "margin"
    return canonicalize(nodes, features, base, output, wide=limits.dtype == np.float64)  # type: ignore[arg-type]


def _categories(attributes: Message) -> tuple[Integers, Floats32]:
    """(how many members each split has, those of all)."""
    modes = np.frombuffer(attributes["nodes_modes"]["t"]["raw_data"], np.uint8)
    counts = np.zeros(len(modes), np.int64)
    if "membership_values" not in attributes:
        return counts, np.zeros(0, np.float32)
    values = _numbers(attributes["membership_values"]["t"])
    ends = np.flatnonzero(np.isnan(values))
    counts[modes == _BRANCH_MEMBER] = np.diff(ends, prepend=-1) - 1
    with np.errstate(over="ignore"):  # what is infinite then is refused as no category
        return counts, values[~np.isnan(values)].astype(np.float32)


def _targets(attributes: Message, roots: Integers) -> Integers:
    """Of each tree, by the leaf that is always on the left: int64 [trees]."""
    children, is_leaf = (np.asarray(attributes[f"nodes_true{name}"]["ints"]) for name in ("nodeids", "leafs"))
    at = roots
    while not (is_leaf[at] != 0).all():
        at = np.where(is_leaf[at] != 0, at, children[at])
    return np.asarray(np.asarray(attributes["leaf_targetids"]["ints"])[children[at]])
