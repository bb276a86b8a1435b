"""Files of trees are hostile until read: nothing but trees comes out of them, whatever the bytes are."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors.numpy import load, save

from featherweight.core.errors import BackendError, DataError, OutputError
from featherweight.core.trees.canonical import Nodes, canonicalize, join
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from featherweight.core.trees.safetensors_file import decode_stored, encode_stored, read_trees, write_trees
from tests.fakes import fitted_trees

CONTENT = encode_trees(fitted_trees(5))
STORED = encode_stored(fitted_trees(5))


def any_trees() -> Ensemble:
    """With categories, float64 rows and two targets."""
    none = [LEAF, LEAF]
    made: list[tuple[int, float, list[int], float, int]] = [
        (0, 1e300, [], 1, 0),
        (1, 0, [2, 7, 40], 2, 1),
        (1, 0, [7], 3, 0),
    ]
    trees = [
        Nodes(
            np.array([0]), np.array([feature, *none]), np.array([limit, 0, 0]), np.array([1, *none]),
            np.array([2, *none]), np.array([True, False, False]), np.array([0, 0.5, value]),
            np.array([len(members), 0, 0]), np.array(members, float), np.array([target]),
        )
        for feature, limit, members, value, target in made
    ]  # fmt: skip
    return canonicalize(join(trees), 3, wide=True)


ANY = encode_trees(any_trees())


def same(one: Ensemble, other: Ensemble) -> bool:
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Ensemble))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "trees.safetensors"
    write_trees(path, fitted_trees(5))
    return path


def test_stored_trees_are_the_same_trees(stored: Path) -> None:
    assert same(read_trees(stored), fitted_trees(5))
    forest = replace(fitted_trees(5), output="probability", base=0.25)
    write_trees(stored, forest)
    assert same(read_trees(stored), forest)
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_trees_that_a_stored_file_cannot_hold_are_refused() -> None:
    with pytest.raises(DataError, match="are not stored as safetensors"):
        encode_stored(any_trees())
    assert same(decode_trees(ANY), any_trees())


def test_files_that_are_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_trees(tmp_path / "none.safetensors")
    with pytest.raises(OutputError, match="cannot be written"):
        write_trees(tmp_path / "no" / "folder", fitted_trees(5))


Change = Callable[[dict[str, np.ndarray]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "a cycle": (lambda a: a["left"].__setitem__(1, 0), "two parents"),
    "a node of its own": (lambda a: a["left"].__setitem__(0, 0), "two parents"),
    "two parents": (lambda a: a["left"].__setitem__(0, a["right"][0]), "two parents"),
    "beyond the end": (lambda a: a["right"].__setitem__(0, 10**6), "outside"),
    "a negative child": (lambda a: a["right"].__setitem__(0, -7), "outside"),
    "a root beyond": (lambda a: a["roots"].__setitem__(0, 2**31 - 1), "outside"),
    "the same root twice": (lambda a: a["roots"].__setitem__(1, 0), "two parents"),
    "a feature beyond": (lambda a: a["feature"].__setitem__(0, 6), "feature outside"),
    "a negative feature": (lambda a: a["feature"].__setitem__(0, -2), "feature outside"),
    "NaN as threshold": (lambda a: a["threshold"].__setitem__(0, np.nan), "finite"),
    "NaN as leaf": (lambda a: a["value"].__setitem__(a["feature"] == -1, np.nan), "finite"),
    "an infinite base": (lambda a: a["base"].__setitem__(0, np.inf), "finite"),
    "no features": (lambda a: a["features"].__setitem__(0, 0), "0 features"),
    "another output": (lambda a: a["output"].__setitem__(0, 2), "one number in its range"),
    "two outputs": (lambda a: a.update(output=np.zeros(2, np.uint8)), "one number in its range"),
    "a short array": (lambda a: a.update(value=a["value"][:-1]), "differ in length"),
    "a square array": (lambda a: a.update(left=a["left"][:, None]), "differ in length"),
    "no roots": (lambda a: a.update(roots=a["roots"][:0]), "0 trees"),
    "another type": (lambda a: a.update(value=a["value"].astype(np.float64)), "in their types"),
    "a missing array": (lambda a: a.pop("left"), "expected"),
    "an array more": (lambda a: a.update(more=a["left"]), "expected"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_stored_arrays_that_are_no_trees_are_refused(name: str, stored: Path) -> None:
    change, part = CHANGES[name]
    arrays = {key: array.copy() for key, array in load(stored.read_bytes()).items()}
    change(arrays)
    stored.write_bytes(save(arrays))
    with pytest.raises(DataError, match=f"trees.safetensors: .*{part}"):
        read_trees(stored)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 40) + json.dumps({"roots": {"dtype": "BF16"}}).encode().ljust(40),
    ],
)
def test_bytes_that_are_no_safetensors_are_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        decode_stored(content)


def spoiled(content: bytes, places: list[tuple[int, int]]) -> bytes:
    found = bytearray(content)
    for place, byte in places:
        found[place % len(found)] = byte
    return bytes(found)


SPOILS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


def check_trees(ensemble: Ensemble) -> None:
    """What every reader may rely on: children come after their parent and within the arrays."""
    split = ensemble.feature >= 0
    numbers = np.arange(len(ensemble.feature))
    assert (ensemble.left[split] == numbers[split] + 1).all()
    assert (ensemble.right[split] > ensemble.left[split]).all()
    assert (ensemble.right < len(numbers)).all()
    assert (ensemble.feature < ensemble.features).all()
    assert not np.isnan(ensemble.threshold).any()
    assert np.isfinite(ensemble.value).all()


@settings(max_examples=120, deadline=None)
@given(SPOILS)
def test_spoiled_bytes_give_trees_or_an_error_of_ours(places: list[tuple[int, int]]) -> None:
    for decode, content, error in (
        (decode_trees, CONTENT, BackendError),
        (decode_trees, ANY, BackendError),
        (decode_stored, STORED, DataError),
    ):
        try:
            found = decode(spoiled(content, places))
        except error:
            continue
        check_trees(found)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(CONTENT)))
def test_any_bytes_and_any_cut_are_errors_of_ours(content: bytes, end: int) -> None:
    for bad in (content, CONTENT[:end][:-1], CONTENT[end + 1 :]):
        with pytest.raises(BackendError):
            decode_trees(bad)
        with pytest.raises(DataError):
            decode_stored(bad)


def attribute(proto: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    return next(entry for entry in proto.graph.node[0].attribute if entry.name == name)


def widen(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3


def cycle(proto: onnx.ModelProto) -> None:
    ids, leafs = attribute(proto, "nodes_truenodeids").ints, attribute(proto, "nodes_trueleafs").ints
    ids[list(leafs).index(0)] = 0


def far(proto: onnx.ModelProto) -> None:
    attribute(proto, "nodes_falsenodeids").ints[0] = 2**40


def huge_leaf(proto: onnx.ModelProto) -> None:
    ids, leafs = attribute(proto, "nodes_truenodeids").ints, attribute(proto, "nodes_trueleafs").ints
    ids[list(leafs).index(1)] = 2**33


def other_mode(proto: onnx.ModelProto) -> None:
    modes = attribute(proto, "nodes_modes").t
    modes.raw_data = b"\x00" + modes.raw_data[1:]


def outside_data(proto: onnx.ModelProto) -> None:
    weights = attribute(proto, "leaf_weights").t
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"


def another_node(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Identity", ["score"], ["again"]))


def average(proto: onnx.ModelProto) -> None:
    attribute(proto, "aggregate_function").i = 0


def not_a_number(proto: onnx.ModelProto) -> None:
    splits = attribute(proto, "nodes_splits").t
    splits.raw_data = np.array([np.nan], "<f4").tobytes() + splits.raw_data[4:]


def fewer(proto: onnx.ModelProto) -> None:
    del attribute(proto, "nodes_missing_value_tracks_true").ints[:1]


def members_of(proto: onnx.ModelProto) -> np.ndarray:
    found = next(entry for node in proto.graph.node for entry in node.attribute if entry.name == "membership_values")
    return np.frombuffer(found.t.raw_data, "<f8").copy()


def with_members(proto: onnx.ModelProto, values: np.ndarray) -> None:
    found = next(entry for node in proto.graph.node for entry in node.attribute if entry.name == "membership_values")
    found.t.raw_data = values.astype("<f8").tobytes()
    found.t.dims[0] = len(values)


MEMBERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no end": lambda values: values[:-1],
    "an end more": lambda values: np.append(values, np.nan),
    "a split without any": lambda values: np.array([np.nan, 7, np.nan]),
    "infinite": lambda values: np.where(values == 7, np.inf, values),
    "a fraction": lambda values: np.where(values == 7, 7.5, values),
    "negative": lambda values: np.where(values == 2, -2, values),
    "falling": lambda values: np.where(values == 40, 1, values),
    "none at all": lambda values: values[:0],
}


@pytest.mark.parametrize("name", MEMBERS)
def test_categories_that_are_none_are_refused(name: str) -> None:
    proto = onnx.ModelProto()
    proto.ParseFromString(ANY)
    with_members(proto, MEMBERS[name](members_of(proto)))
    with pytest.raises(BackendError):
        decode_trees(proto.SerializeToString())


def no_nodes(proto: onnx.ModelProto) -> None:
    del proto.graph.node[:]


def no_splits(proto: onnx.ModelProto) -> None:
    for entry in proto.graph.node[0].attribute:
        if entry.name.startswith("nodes_"):
            del entry.ints[:]
            entry.t.raw_data = b""


@pytest.mark.parametrize(
    "change",
    [
        widen, cycle, far, huge_leaf, other_mode, outside_data, another_node, average, not_a_number, fewer, no_nodes,
        no_splits,
    ],
)  # fmt: skip
def test_graphs_that_say_anything_else_are_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    proto = onnx.ModelProto()
    proto.ParseFromString(CONTENT)
    change(proto)
    with pytest.raises(BackendError):
        decode_trees(proto.SerializeToString())
