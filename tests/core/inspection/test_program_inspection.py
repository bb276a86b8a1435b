"""What a program may hold: hostile files are refused before a runtime sees them, and honest ones are not."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from featherweight.core.artifact import read_artifact, verify_artifact, write_artifact
from featherweight.core.backends.registry import NAMES, find_backend
from featherweight.core.errors import ArtifactError, BackendError
from featherweight.core.inspection import inspect_program, wire
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from featherweight.core.trees.canonical import Nodes, canonicalize
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from tests.core.artifact.test_artifact import CONTENTS
from tests.fraud.artifacts import trees_program
from tests.small_programs import identity_file

MODELS = Path(__file__).parents[3] / "data" / "models"
CARD_FRAUD = gzip.decompress((MODELS / "card-fraud/programs/int8.onnx.gz").read_bytes())
CHEST_XRAY = gzip.decompress((MODELS / "chest-xray/programs/int8.onnx.gz").read_bytes())


def network(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (), opset: int = 17, **more: Any
) -> onnx.ModelProto:
    """x [N, 4] -> y [N, 4]."""
    value = helper.make_tensor_value_info
    ends = ([value(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y"))
    graph = helper.make_graph(list(nodes), "g", *ends, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more)


def numbers(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def with_constant(**fields: Any) -> onnx.ModelProto:
    """x + sum of a constant that says of itself what the fields say."""
    model = network([helper.make_node("Add", ["x", "w"], ["y"])])
    model.graph.initializer.append(TensorProto(**{"name": "w", "data_type": TensorProto.FLOAT, **fields}))
    return model


# ---- protobuf by hand: what serializers do not write ----


def varint(number: int, spare: int = 0) -> bytes:
    """In `spare` bytes more than it needs."""
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number | 128] + [128] * (spare - 1) + [0] if spare else [number])


def field(number: int, payload: bytes, tag: bytes = b"") -> bytes:
    return (tag or varint(number << 3 | 2)) + varint(len(payload)) + payload


def external_data(tag: bytes) -> bytes:
    """A weight that stands in another file; tag: how the tag of the key `location` is written."""
    tensor = b"\x08\x04\x10\x01" + field(8, b"w") + varint(14 << 3) + b"\x01"
    tensor += field(13, field(1, b"location", tag) + field(2, b"/etc/hostname"))
    model = network([helper.make_node("Add", ["x", "w"], ["y"])])
    graph = model.graph.SerializeToString() + field(5, tensor)
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + field(7, graph)


TAGS = (b"\x0a", b"\x8a\x00", b"\x8a\x80\x00", b"\x8a\x80\x80\x80\x10", b"\x8a\x80\x80\x80\x70")


@pytest.mark.parametrize("tag", TAGS, ids=[tag.hex() for tag in TAGS])
@pytest.mark.parametrize("name", NAMES)
def test_no_backend_opens_a_program_whose_data_is_elsewhere(name: str, tag: bytes) -> None:
    specs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)
    with pytest.raises(BackendError, match="data from other files"):
        find_backend(name).open(Program(external_data(tag), "fp32", *specs))


def endless(condition: bool = True) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["a", "a"], ["a2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("a", TensorProto.FLOAT, None)],
        [value("c2", TensorProto.BOOL, []), value("a2", TensorProto.FLOAT, None)],
    )
    constants = [
        helper.make_tensor("trip", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("cond", TensorProto.BOOL, [], [condition]),
    ]
    return network([helper.make_node("Loop", ["trip", "cond", "x"], ["y"], body=body)], constants)


def nested_ifs(depth: int = 30) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "g0", [], [value("o", 1, None)])
    for level in range(1, depth):
        other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], f"e{level}", [], [value("e", 1, None)])
        node = helper.make_node("If", ["cond"], ["o"], then_branch=graph, else_branch=other)
        graph = helper.make_graph([node], f"g{level}", [], [value("o", 1, None)])
    node = helper.make_node("If", ["cond"], ["y"], then_branch=graph, else_branch=graph)
    return network([node], [helper.make_tensor("cond", TensorProto.BOOL, [], [True])])


def texts() -> onnx.ModelProto:
    model = with_constant(dims=[1])
    model.graph.initializer[0].data_type = TensorProto.STRING
    model.graph.initializer[0].string_data.append(b"a")
    return model


def circle() -> onnx.ModelProto:
    return network(
        [
            helper.make_node("Add", ["x", "b"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Identity", ["b"], ["y"]),
        ]
    )


def shape_of_values() -> onnx.ModelProto:
    """As many numbers as the first value of a row says: nothing while it is tried, terabytes when somebody wants."""
    return network(
        [
            helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
            helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["i", "one"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["z"], keepdims=0),
            helper.make_node("Add", ["x", "z"], ["y"]),
        ],
        [numbers("one", 1)],
    )


def of_functions() -> onnx.ModelProto:
    model = network([helper.make_node("Relu", ["x"], ["y"])])
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(function)
    return model


def many_nodes(count: int) -> onnx.ModelProto:
    names = ["x", *(f"r{index}" for index in range(count - 1)), "y"]
    return network([helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)])


def twice_named() -> onnx.ModelProto:
    return network([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])])


def with_settings() -> onnx.ModelProto:
    model = network([helper.make_node("Relu", ["x"], ["y"])])
    model.metadata_props.add(key="ort_config", value='{"session_options": {}}')
    return model


def made_large(operator: str, *shape: int) -> onnx.ModelProto:
    inputs = ["s"] if operator == "ConstantOfShape" else ["x", "s"]
    nodes = [helper.make_node(operator, inputs, ["big"]), helper.make_node("ReduceMax", ["big"], ["y"], keepdims=0)]
    return network(nodes, [numbers("s", *shape)])


def empty_scale() -> onnx.ModelProto:
    scale = helper.make_tensor("s", TensorProto.FLOAT, [0], [])
    zero = helper.make_tensor("z", TensorProto.UINT8, [0], [])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return network(nodes, [scale, zero])


NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "endless": (endless, "graphs within its graph"),
    "nested ifs": (nested_ifs, "graphs within its graph"),
    "circle": (circle, "in a circle"),
    "terabytes": (lambda: made_large("ConstantOfShape", 1 << 20, 1 << 20), "of the shape"),
    "gigabytes": (lambda: made_large("Expand", 1_500_000_000, 1), "of the shape"),
    "tiles": (lambda: made_large("Tile", 1 << 20, 1 << 20), "of the shape"),
    "shape of values": (shape_of_values, "makes a shape from the values"),
    "no scale": (empty_scale, "empty scale"),
    "too many nodes": (lambda: many_nodes(20_001), "nodes"),
    "functions": (of_functions, "holds functions"),
    "texts": (texts, "holds texts"),
    "an operator of nobody": (lambda: network([helper.make_node("Evil", ["x"], ["y"], domain="evil")]), "'evil::Evil'"),
    "random": (lambda: network([helper.make_node("RandomNormalLike", ["x"], ["y"])]), "RandomNormalLike"),
    "values decide how many": (lambda: network([helper.make_node("NonZero", ["x"], ["y"])]), "NonZero"),
    "one name twice": (twice_named, "two tensors 'y'"),
    "made nowhere": (lambda: network([helper.make_node("Relu", ["z"], ["y"])]), "made nowhere"),
    "no nodes": (lambda: network([]), "made nowhere"),
    "settings": (with_settings, "settings for its runtime"),
    "old opset": (lambda: network([helper.make_node("Relu", ["x"], ["y"])], opset=1), "operators of ai.onnx 1"),
    "sizes overflow": (lambda: with_constant(dims=[2**32, 2**32]), "has the shape"),
    "sizes wrap": (lambda: with_constant(dims=[2**62, 4]), "has the shape"),
    "negative size": (lambda: with_constant(dims=[-4], raw_data=bytes(16)), "has the shape"),
    "no data": (lambda: with_constant(dims=[2**31]), "holds 0 of"),
    "little data": (lambda: with_constant(dims=[1000], raw_data=bytes(40)), "holds 40 of"),
    "much data": (lambda: with_constant(dims=[2], raw_data=bytes(400)), "holds 400 of"),
    "data twice": (lambda: with_constant(dims=[1], raw_data=bytes(4), float_data=[1.0]), "data twice"),
    "another file": (lambda: with_constant(dims=[1], raw_data=bytes(4), data_location=1), "data from other files"),
    "another type's data": (lambda: with_constant(dims=[1], int32_data=[1]), "as int32_data"),
    "many dimensions": (lambda: with_constant(dims=[1] * 17, raw_data=bytes(4)), "dims has more than 16 numbers"),
    "data beside none": (lambda: with_constant(dims=[1], raw_data=b"", float_data=[1.0]), "data twice"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_hostile_networks_are_refused(name: str) -> None:
    build, said = NETWORKS[name]
    content = build().SerializeToString()
    began = time.process_time()
    with pytest.raises(BackendError, match=said):
        inspect_program(content)
    assert time.process_time() - began < 5


PLAIN = identity_file()
BYTES: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello" * 100,
    "OpenVINO's own format": b'<?xml version="1.0"?><net name="m" version="11"><layers/></net>',
    "something behind": PLAIN + b"\x00",
    "a field nobody knows": PLAIN + field(99, b"x"),
    "a field of another type": PLAIN + varint(2 << 3) + b"\x01",
    "a group": PLAIN + b"\x13\x14",
    "cut": PLAIN[:-1],
    "a tag written longer": b"\x88\x00\x09" + PLAIN[2:],
    "a number written longer": b"\x08\x89\x00" + PLAIN[2:],
    "a number without end": b"\x08" + b"\xff" * 11 + PLAIN[2:],
    "a value twice": PLAIN + b"\x08\x09",
    "a graph twice": PLAIN + field(7, b""),
    "no UTF-8": PLAIN + field(2, b"\xff"),
    "millions of fields": PLAIN + field(14, b"") * 600_000,
}


@pytest.mark.parametrize("name", BYTES)
def test_other_bytes_are_refused(name: str) -> None:
    with pytest.raises(BackendError):
        inspect_program(BYTES[name])


# ---- what reading takes ----


def raw_model(tensor: bytes = b"", attribute: bytes = b"", value: bytes = b"") -> bytes:
    """x -> y by an operator that has this attribute, with this constant and information about a value."""
    model = network([helper.make_node("Relu", ["x"], ["y"])])
    graph = bytes(model.graph.SerializeToString())
    if attribute:
        node = field(1, b"x") + field(2, b"y2") + field(4, b"Transpose") + field(5, attribute)
        graph += field(1, node)
    graph += field(5, tensor) if tensor else b""
    graph += field(13, value) if value else b""
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + field(7, graph)


def peak_bytes(content: bytes) -> int:
    """Of what reading them takes besides the bytes themselves, whether they are refused or not."""
    tracemalloc.start()
    try:
        inspect_program(content)
    except BackendError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


MEGABYTES = 16 << 20
INT32_HEAD = b"\x10\x06" + field(8, b"c")
RUNS = {
    "dims before data": raw_model(b"\x08\x01" * 33 + b"\x10\x02" + field(8, b"c") + field(9, bytes(MEGABYTES))),
    "integers before data": raw_model(
        attribute=field(1, b"perm") + b"\x40\x01" * 40 + field(4, bytes(MEGABYTES)) + b"\xa0\x01\x07"
    ),
    "floats before data": raw_model(
        attribute=field(1, b"perm") + b"\x3d\x01\x01\x01\x01" * 40 + field(4, bytes(MEGABYTES)) + b"\xa0\x01\x06"
    ),
    "more than are read": raw_model(INT32_HEAD + field(5, bytes((1 << 25) + 1))),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_short_or_refused_takes_no_memory(name: str) -> None:
    """However much stands behind it. A megabyte more than the copy of the data that the message is given."""
    assert peak_bytes(RUNS[name]) < 12 << 20


@pytest.mark.parametrize(
    "unit", [b"\x00", b"\x81\x01", b"\xff" * 9 + b"\x01"], ids=["zeros", "of two bytes", "negative"]
)
@pytest.mark.parametrize("packed", [True, False])
def test_numbers_take_their_eight_bytes_and_little_more(unit: bytes, packed: bool) -> None:
    count = 2_000_000
    if packed:
        content = raw_model(b"\x08" + varint(count) + b"\x10\x07" + field(8, b"c") + field(7, unit * count))
    else:
        content = raw_model(attribute=field(1, b"perm") + (b"\x40" + unit) * count + b"\xa0\x01\x07")
    inspect_program(content)
    assert peak_bytes(content) < 8 * count * 1.2 + (12 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system keeps to RLIMIT_DATA")
def test_what_does_not_fit_into_memory_is_refused() -> None:
    code = (
        "import resource, sys\n"
        "from featherweight.core.errors import BackendError\n"
        "from featherweight.core.inspection import inspect_program\n"
        "content = sys.stdin.buffer.read()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)\n"
        "try:\n    inspect_program(content)\n"
        "except BackendError as error:\n    print(error)"
    )
    content = raw_model(b"\x08" + varint(30 << 20) + INT32_HEAD + field(5, bytes(30 << 20)))
    for most, said in ((1 << 40, b""), (250 << 20, b"needs more memory to be checked")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(most)],
            input=content,
            capture_output=True,
            check=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(MODELS.parents[1] / "src")},
        )
        assert (said in done.stdout) if said else not done.stdout


# ---- fields of which one may stand ----


VALUE_FIELDS = (
    b"\x15\x00\x00\x80\x3f", b"\x18\x02", field(4, b"s"), field(5, b"\x10\x01" + field(9, bytes(4))),
    b"\x3d\x00\x00\x80\x3f", b"\x40\x02", field(9, b"s"),
)  # fmt: skip
DATA_FIELDS = (
    field(4, bytes(4)), field(5, b"\x01"), field(7, b"\x01"), field(9, bytes(4)), field(9, b""), field(10, bytes(8)),
    field(11, b"\x01"),
)  # fmt: skip


NOTED = field(3, b"denotation")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"\x08\x05", field(2, b"N"), NOTED]), max_size=4),
    st.lists(st.sampled_from(VALUE_FIELDS), max_size=2),
    st.integers(0, 9),
    st.lists(st.sampled_from(DATA_FIELDS), max_size=2),
    st.sampled_from([1, 6, 7, 11, 12, 13]),
)
def test_alternatives_are_read_as_protobuf_reads_them_or_refused(
    dimension: list[bytes], values: list[bytes], kind: int, data: list[bytes], data_type: int
) -> None:
    tensor_type = b"\x08\x01" + field(2, field(1, b"".join(dimension)))
    for content, are_alone in (
        (raw_model(value=field(1, b"v") + field(2, field(1, tensor_type))), len(set(dimension) - {NOTED}) < 2),
        (raw_model(attribute=field(1, b"a") + b"".join(values) + b"\xa0\x01" + varint(kind)), len(set(values)) < 2),
        (raw_model(b"\x08\x01\x10" + varint(data_type) + field(8, b"c") + b"".join(data)), len(data) < 2),
    ):
        try:
            message = inspect_program(content)
        except BackendError:
            continue
        check_same(message, onnx.load_model_from_string(content))
        assert are_alone


def test_a_dimension_that_is_a_number_and_a_name_is_refused() -> None:
    for dims in (b"\x08\x05" + field(2, b"N"), field(2, b"N") + b"\x08\x05"):
        value = field(1, b"v") + field(2, field(1, b"\x08\x01" + field(2, field(1, dims))))
        with pytest.raises(BackendError, match="dim_param and dim_value, of which one may stand"):
            inspect_program(raw_model(value=value))


# ---- trees ----


def chain(depth: int, features: int = 19) -> bytes:
    """One tree in which every split has one leaf, but for the last."""
    splits, leaves = np.arange(depth), np.full(depth + 1, -1)
    nodes = Nodes(
        roots=np.array([0]),
        feature=np.concatenate([np.zeros(depth, int), leaves]),
        threshold=np.concatenate([np.linspace(0, 1, depth), np.zeros(depth + 1)]).astype(np.float32),
        left=np.concatenate([depth + splits, leaves]),
        right=np.concatenate([np.append(splits[1:], 2 * depth), leaves]),
        missing_left=np.zeros(2 * depth + 1, bool),
        value=np.concatenate([np.zeros(depth), np.linspace(-1, 1, depth + 1)]).astype(np.float32),
    )
    return encode_trees(canonicalize(nodes, features))


def edited(change: Callable[[dict[str, onnx.AttributeProto]], None]) -> bytes:
    """The bundled trees, changed."""
    model = onnx.load_model_from_string(CARD_FRAUD)
    change({attribute.name: attribute for attribute in model.graph.node[0].attribute})
    return bytes(model.SerializeToString())


def put(name: str, place: int, number: int) -> bytes:
    return edited(lambda attributes: attributes[name].ints.__setitem__(place, number))


def put_float(name: str, number: float) -> bytes:
    def change(attributes: dict[str, onnx.AttributeProto]) -> None:
        values = numpy_helper.to_array(attributes[name].t).copy()
        values[0] = number
        attributes[name].t.CopyFrom(numpy_helper.from_array(values))

    return edited(change)


INNER = next(
    attribute for attribute in onnx.load_model_from_string(CARD_FRAUD).graph.node[0].attribute
    if attribute.name == "nodes_trueleafs"
).ints  # fmt: skip
SPLIT, LEAF = list(INNER).index(0), list(INNER).index(1)
TREES: dict[str, tuple[Callable[[], bytes], str]] = {
    "deep": (lambda: chain(20_000), "deeper than 512"),
    "a little too deep": (lambda: chain(513), "deeper than 512"),
    "to an earlier split": (lambda: put("nodes_truenodeids", SPLIT, 0), "two ways lead to one split"),
    "to itself": (lambda: put("nodes_truenodeids", SPLIT, SPLIT), "two ways lead to one split"),
    "to far away": (lambda: put("nodes_truenodeids", SPLIT, 2**40), "out of range"),
    "to a negative split": (lambda: put("nodes_truenodeids", SPLIT, -5), "out of range"),
    "to a leaf that is not there": (lambda: put("nodes_truenodeids", LEAF, 10**6), "out of range"),
    "neither leaf nor split": (lambda: put("nodes_trueleafs", SPLIT, 2), "neither 0 nor 1"),
    "a feature too many": (lambda: put("nodes_featureids", 3, 19), "feature outside"),
    "a negative feature": (lambda: put("nodes_featureids", 3, -1), "feature outside"),
    "a huge feature": (lambda: put("nodes_featureids", 3, 2**33), "feature outside"),
    "a negative root": (lambda: put("tree_roots", 0, -1), "root is out of range"),
    "another's target": (lambda: put("leaf_targetids", 0, 1), "target of a leaf"),
    "short arrays": (lambda: edited(lambda a: a["nodes_trueleafs"].ints.pop() and None), "differ in length"),
    "another comparison": (lambda: put_float("nodes_modes", 9), "not one that ONNX knows"),
    "a threshold that is not a number": (lambda: put_float("nodes_splits", np.nan), "not a number"),
    "a leaf that is not a number": (lambda: put_float("leaf_weights", np.nan), "not a number"),
    "an infinite leaf": (lambda: put_float("leaf_weights", np.inf), "a leaf is infinite"),
    "a leaf infinitely low": (lambda: put_float("leaf_weights", -np.inf), "a leaf is infinite"),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_hostile_trees_are_refused(name: str) -> None:
    build, said = TREES[name]
    content = build()
    for read in (inspect_program, decode_trees):
        with pytest.raises(BackendError, match=said):
            read(content)


def test_the_deepest_trees_that_are_read_run_on_a_small_stack() -> None:
    """ONNX Runtime walks trees by calling itself; a megabyte is what threads have on other systems."""
    import threading

    import onnxruntime

    content, found = chain(512), []
    inspect_program(content)

    def run() -> None:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"features": np.zeros((3, 19), np.float32)})[0].shape)

    before = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert found == [(3, 1)]


# ---- honest programs ----


def out_of_order() -> bytes:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Abs", ["x"], ["a"])]
    return bytes(network(nodes).SerializeToString())


HONEST: dict[str, Callable[[], bytes]] = {
    "bundled trees": lambda: CARD_FRAUD,
    "bundled network": lambda: CHEST_XRAY,
    "trees": lambda: trees_program().content,
    "deep trees": lambda: chain(512),
    "a threshold that no number is below": lambda: put_float("nodes_splits", -np.inf),
    "smallest": lambda: PLAIN,
    "operators in any order": out_of_order,
    "many nodes": lambda: bytes(many_nodes(2_000).SerializeToString()),
    "shapes of shapes": lambda: bytes(
        network(
            [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Reshape", ["x", "s"], ["y"])]
        ).SerializeToString()
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_are_read_as_protobuf_reads_them(name: str) -> None:
    content = HONEST[name]()
    check_same(inspect_program(content), onnx.load_model_from_string(content))


def check_same(message: Any, proto: Any) -> None:
    """Every field that protobuf finds, and no other, with the same value."""
    assert {known.name for known, _ in proto.ListFields()} == {
        name for name, value in message.items() if not isinstance(value, list | np.ndarray) or len(value)
    }
    for known, value in proto.ListFields():
        mine = message[known.name]
        if isinstance(mine, dict):
            check_same(mine, value)
        elif isinstance(mine, list) and isinstance(mine[0], dict):
            assert len(mine) == len(value)
            for one, other in zip(mine, value, strict=True):
                check_same(one, other)
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, np.array(value))
        else:
            assert mine == value


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([PLAIN, CARD_FRAUD, out_of_order(), external_data(b"\x0a"), trees_program(trees=2).content]),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(["change", "insert", "cut"]), st.binary(max_size=6)), max_size=4
    ),
)
def test_changed_bytes_are_read_as_protobuf_reads_them_or_refused(
    content: bytes, changes: list[tuple[float, str, bytes]]
) -> None:
    changed = bytearray(content)
    for where, how, what in changes:
        place = int(where * len(changed))
        match how:
            case "change":
                changed[place : place + len(what)] = what
            case "insert":
                changed[place:place] = what
            case _:
                del changed[place : place + len(what)]
    try:
        message = inspect_program(bytes(changed))
    except BackendError:
        return
    check_same(message, onnx.load_model_from_string(bytes(changed)))


@pytest.fixture(params=[wire._WINDOW_BYTES, 16], ids=["window", "small window"])
def windows(request: pytest.FixtureRequest) -> Iterator[None]:
    """Numbers lie across the ends of the smaller ones."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wire, "_WINDOW_BYTES", request.param)
        yield


@pytest.mark.usefixtures("windows")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=200))
def test_numbers_of_any_size(values: list[int]) -> None:
    model = network([helper.make_node("Slice", ["x", "w", "w"], ["y"])], [numbers("w", *values)])
    content = model.SerializeToString()
    found = inspect_program(content)["graph"]["initializer"][0]["int64_data"]
    np.testing.assert_array_equal(found, values)


@pytest.mark.usefixtures("windows")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=40, max_size=80), st.data())
def test_one_number_of_many_that_is_written_longer(values: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    unsigned = [value % (1 << 64) for value in values]
    lengths = [len(varint(value)) for value in unsigned]
    spare = data.draw(st.integers(1, 3))
    run = b"".join(
        b"\x40" + varint(value, spare if index == place and lengths[index] < 10 else 0)
        for index, value in enumerate(unsigned)
    )
    attribute = field(1, b"axes") + run + b"\xa0\x01\x07"
    node = field(1, b"x") + field(2, b"y") + field(4, b"Transpose") + field(5, attribute)
    model = network([])
    graph = field(1, node) + model.graph.SerializeToString()
    model.ClearField("graph")
    content = bytes(model.SerializeToString()) + field(7, graph)
    if lengths[place] < 10:
        with pytest.raises(BackendError, match="number"):
            inspect_program(content)
    else:
        found = inspect_program(content)["graph"]["node"][0]["attribute"][0]["ints"]
        np.testing.assert_array_equal(found, values)


# ---- artifacts ----


def test_an_artifact_with_a_hostile_program_is_neither_sealed_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    program = replace(CONTENTS.programs[0], content=endless().SerializeToString())
    contents = replace(CONTENTS, programs=(program,), preferences=())
    with pytest.raises(ArtifactError, match=r"fp32.onnx.gz: the program holds graphs within its graph"):
        write_artifact(tmp_path / "refused", contents)
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("featherweight.core.artifact.store.check_content", lambda content: None)
        write_artifact(tmp_path / "sealed", contents)
    with pytest.raises(ArtifactError, match="graphs within its graph"):
        read_artifact(tmp_path / "sealed")
    assert [check.file for check in verify_artifact(tmp_path / "sealed") if check.fault] == ["programs/fp32.onnx.gz"]


def _dropout(*training: onnx.TensorProto) -> bytes:
    node = onnx.helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])
    ratio = onnx.helper.make_tensor("ratio", onnx.TensorProto.FLOAT, [], [0.5])
    value = onnx.helper.make_tensor_value_info
    ends = [value("x", onnx.TensorProto.FLOAT, ["N", 4])], [value("y", onnx.TensorProto.FLOAT, ["N", 4])]
    graph = onnx.helper.make_graph([node], "dropout", *ends, [ratio, *training])
    if not training:
        graph.input.append(value("training", onnx.TensorProto.BOOL, []))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def test_values_are_not_dropped_at_random() -> None:
    for raw in (False, True):
        no, yes = (
            onnx.helper.make_tensor("training", onnx.TensorProto.BOOL, [], bytes([value]) if raw else [value], raw=raw)
            for value in (0, 1)
        )
        inspect_program(_dropout(no))
        with pytest.raises(BackendError, match="drops values at random"):
            inspect_program(_dropout(yes))
    with pytest.raises(BackendError, match="drops values at random"):
        inspect_program(_dropout())


@pytest.mark.parametrize("switch", ["antialias", "exclude_outside"])
def test_switches_that_runtimes_read_differently(switch: str) -> None:
    value = onnx.helper.make_tensor_value_info
    scales = onnx.helper.make_tensor("scales", onnx.TensorProto.FLOAT, [4], [1, 1, 0.5, 0.5])
    for setting in (0, 1):
        node = onnx.helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="cubic", **{switch: setting})
        ends = (
            [value("x", onnx.TensorProto.FLOAT, ["N", 1, 4, 4])],
            [value("y", onnx.TensorProto.FLOAT, ["N", 1, 2, 2])],
        )
        graph = onnx.helper.make_graph([node], "resize", *ends, [scales])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
        if setting:
            with pytest.raises(BackendError, match=f"Resize has the switch {switch}, which runtimes read differently"):
                inspect_program(model.SerializeToString())
        else:
            inspect_program(model.SerializeToString())
