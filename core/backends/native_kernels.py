"""The compiled part of the native backend: pure functions of a packed program and rows.

A packed program is one uint8 array, because each array that Python hands to compiled code costs 40 ns. It begins with
int64 [PARTS]: the values of a row, then the bytes where its parts begin: first the scratch memory, which lies last,
then the parts named at the function for the kind of program. A program is right by construction (native_trees,
native_networks): nothing here checks an index.

All of it stands in one file, because numba's cache looks only at the file of the function called. Signatures are given,
so that importing this module compiles everything once on a host, and takes it from the cache from then on (ADR 007).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types, uint8, uint32, uint64
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from featherweight.core.compiled import compiled

PARTS: Final = 16
ALIGNMENT: Final = 64

CODES: Final = 128
"""Slots of `blocks`: what two AVX-512 registers hold."""
BINS: Final = 255
"""Thresholds of a slot."""
COARSE: Final = 16
TABLE: Final = COARSE + COARSE * COARSE
"""float32 of a slot: every sixteenth of the thresholds, then all of them; NaN fills both."""
NODES: Final = 64
LANES: Final = 8
"""Trees that `walk` takes at a time: one AVX-512 register of node numbers."""

LEFT_BITS, SLOT_BITS = 20, 12
"""Bits of a node of `walk`: the left child, counted from the tree's root, and the slot; above them the threshold's
key."""

DENSE, RELU, SIGMOID, TANH, HARD_SIGMOID, HARD_SWISH, LEAKY_RELU, CLIP = range(8)
ADD, SUBTRACT, MULTIPLY, DIVIDE, FILL = range(8, 13)
"""Layers of `network`."""

_ROW = types.Array(types.float32, 1, "C", readonly=True)
_ROWS = types.Array(types.float32, 2, "C", readonly=True)
_OUT = types.Array(types.float32, 2, "C")
_PACKED = types.Array(types.uint8, 1, "C")
_ONE = types.float64(_PACKED, _ROW)
_MANY = types.void(_PACKED, _ROWS, _OUT)


def has_byte_permutes() -> bool:
    """Whether compiled code may use the instructions of `blocks` (AVX-512 VBMI, since Ice Lake and Zen 4)."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    return {"+avx512vbmi", "+avx512bw"} <= set(features.split(","))


def _intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


def _inlined(function: Any) -> Any:
    return numba.njit(inline="always", error_model="numpy")(function)


@_intrinsic
def _address(context: Any, array: Any, at: Any) -> Any:
    """A pointer to array[at]; makes views that need no counted reference, which costs 20 ns each."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(target.make_array(signature.args[0])(target, builder, arguments[0]).data, [arguments[1]])

    return types.voidptr(array, types.intp), build


@_intrinsic
def _count_up_to(context: Any, limits: Any, at: Any, x: Any) -> Any:
    """How many of limits[at : at + 16], aligned, are not above x; NaN is neither."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), COARSE)
        data = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        table = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer()), align=ALIGNMENT)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), COARSE), [0] * COARSE)
        found = builder.fcmp_ordered("<=", table, builder.shuffle_vector(first, first, lanes))
        return builder.zext(builder.ctpop(builder.bitcast(found, ir.IntType(COARSE))), ir.IntType(64))

    return types.uint64(limits, types.uint64, types.float32), build


@_intrinsic
def _right_turns(context: Any, codes: Any, blocks: Any, at: Any) -> Any:
    """Bit n: whether a row with these codes turns right at node n of the block (64 slots, 64 ranks) at blocks[at]."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), NODES)

        def load(array: int, offset: Any) -> Any:
            data = target.make_array(signature.args[array])(target, builder, arguments[array]).data
            return builder.load(builder.bitcast(builder.gep(data, [offset]), vector.as_pointer()), align=1)

        def constant(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        slots, ranks = load(1, arguments[2]), load(1, builder.add(arguments[2], constant(NODES)))
        permute = builder.module.declare_intrinsic(
            "llvm.x86.avx512.vpermi2var.qi.512", fnty=ir.FunctionType(vector, [vector] * 3)
        )
        found = builder.call(permute, [load(0, constant(0)), slots, load(0, constant(NODES))])
        return builder.bitcast(builder.icmp_unsigned(">", found, ranks), ir.IntType(64))

    return types.uint64(codes, blocks, types.uint64), build


@_inlined
def _finish(total: Any, tail: Any) -> Any:
    """tail: 0 and 0 for a sum that is a margin; (low, high) that clip a probability before it becomes log-odds."""
    score = np.float32(total)
    if tail[1] > 0:
        clipped = min(max(score, tail[0]), tail[1])
        score = np.float32(math.log(clipped) - math.log(np.float32(1) - clipped))
    return score


@_inlined
def _blocks(packed: Any, scratch: Any, row: Any, out: Any) -> None:
    """Trees of depth up to 6, each a full heap: node 1, its children 2 and 3, theirs 4 to 7, ...

    A slot is a feature with one direction for missing values and up to BINS thresholds; a row's code for it is the
    number of thresholds that are not above the value. All nodes of a tree are compared at once; where the turns lead is
    then arithmetic on 64 bits, without memory and without a branch.

    Parts: int64 [slots, trees]; float32 [tail (2), base]; float32 [slots, TABLE]; int32 [slots] features; uint8 [slots]
    codes of NaN; uint8 [trees, 2, NODES] slots and ranks; float32 [trees, NODES] leaves.
    """
    start = carray(_address(packed, 0), PARTS, np.int64)
    sizes = carray(_address(packed, start[2]), 2, np.int64)
    tail = carray(_address(packed, start[3]), 3, np.float32)
    slots, trees = sizes[0], sizes[1]
    limits = carray(_address(packed, start[4]), slots * TABLE, np.float32)
    features = carray(_address(packed, start[5]), slots, np.int32)
    missing = carray(_address(packed, start[6]), slots, np.uint8)
    blocks = carray(_address(packed, start[7]), trees * 2 * NODES, np.uint8)
    leaves = carray(_address(packed, start[8]), trees * NODES, np.float32)
    codes = carray(_address(scratch, 0), CODES, np.uint8)
    turns = carray(_address(scratch, CODES), NODES, np.uint64)
    for slot in range(slots):
        x = row[features[slot]]
        at = uint64(slot) * uint64(TABLE)
        coarse = _count_up_to(limits, at, x)
        fine = _count_up_to(limits, at + uint64(COARSE) * (coarse + uint64(1)), x)
        codes[slot] = missing[slot] if x != x else uint8(coarse * uint64(COARSE) + fine)
    total = 0.0
    for first in range(0, trees, NODES):
        count = min(NODES, trees - first)
        for tree in range(count):
            turns[tree] = _right_turns(codes, blocks, uint64((first + tree) * 2 * NODES))
        for tree in range(count):
            bits = turns[tree]
            node = uint64(1)
            node = node + node + ((bits >> node) & uint64(1))
            node = node + node + ((bits >> node) & uint64(1))
            node = node + node + ((bits >> node) & uint64(1))
            node = node + node + ((bits >> node) & uint64(1))
            node = node + node + ((bits >> node) & uint64(1))
            node = node + node + ((bits >> node) & uint64(1))
            turns[tree] = node + uint64(NODES) * uint64(tree)
        at = uint64(first) * uint64(NODES) - uint64(NODES)
        for tree in range(count):
            total += leaves[at + turns[tree]]
    out[0] = _finish(total + tail[2], tail)


@_inlined
def _walk(packed: Any, scratch: Any, row: Any, out: Any) -> None:
    """Trees of any depth, node by node. Keys are the order-preserving integers of float32: x < threshold exactly where
    key(x) <= key(threshold) - 1, which the node holds.

    Siblings stand side by side, the right one after the left; a leaf is its own left child and its key is above all.

    Parts: int64 [slots, groups]; float32 [tail (2), base]; int32 [slots] features; uint32 [slots] keys of NaN; int64
    [groups] depths; uint64 [groups, LANES] roots; uint64 [nodes]; float32 [nodes] values.
    """
    start = carray(_address(packed, 0), PARTS, np.int64)
    sizes = carray(_address(packed, start[2]), 2, np.int64)
    tail = carray(_address(packed, start[3]), 3, np.float32)
    slots, groups = sizes[0], sizes[1]
    features = carray(_address(packed, start[4]), slots, np.int32)
    missing = carray(_address(packed, start[5]), slots, np.uint32)
    depths = carray(_address(packed, start[6]), groups, np.int64)
    roots = carray(_address(packed, start[7]), groups * LANES, np.uint64)
    nodes = carray(_address(packed, start[8]), 1, np.uint64)
    values = carray(_address(packed, start[9]), 1, np.float32)
    keys = carray(_address(scratch, 0), slots, np.uint32)
    at = carray(_address(scratch, (slots + slots % 2) * 4), LANES, np.uint64)
    floats = carray(_address(scratch, 0), slots, np.float32)
    for slot in range(slots):
        x = row[features[slot]]
        floats[slot] = x + np.float32(0)  # -0.0 becomes 0.0
        bits = keys[slot]
        ordered = ~bits if bits >> uint32(31) else bits | uint32(1 << 31)
        keys[slot] = missing[slot] if x != x else ordered
    total = 0.0
    for group in range(groups):
        first = uint64(group * LANES)
        for lane in range(LANES):
            at[lane] = roots[first + uint64(lane)]
        for _ in range(depths[group]):
            for lane in range(LANES):
                node = nodes[at[lane]]
                key = keys[(node >> uint64(LEFT_BITS)) & uint64((1 << SLOT_BITS) - 1)]
                left = roots[first + uint64(lane)] + (node & uint64((1 << LEFT_BITS) - 1))
                at[lane] = left + uint64(key > uint32(node >> uint64(32)))
        for lane in range(LANES):
            total += values[at[lane]]
    out[0] = _finish(total + tail[2], tail)


@numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")
def _multiply(x: Any, weights: Any, at: Any, outputs: Any, y: Any) -> None:
    """y [outputs] += x [inputs] times weights[at:], [inputs, outputs]."""
    inputs = x.shape[0]
    if outputs == 1:
        total = np.float32(0)
        for i in range(inputs):
            total += x[i] * weights[at + uint64(i)]
        y[0] += total
        return
    whole = inputs & ~3
    for i in range(0, whole, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        first = at + uint64(i * outputs)
        second, third, fourth = first + uint64(outputs), first + uint64(2 * outputs), first + uint64(3 * outputs)
        for o in range(outputs):
            k = uint64(o)
            y[k] += (a * weights[first + k] + b * weights[second + k]) + (
                c * weights[third + k] + d * weights[fourth + k]
            )
    for i in range(whole, inputs):
        for o in range(outputs):
            y[o] += x[i] * weights[at + uint64(i * outputs + o)]


@numba.njit(error_model="numpy")
def _activate(what: Any, x: Any, constants: Any, at: Any) -> None:
    """x, in place. Written so that NaN stays NaN."""
    zero, one = np.float32(0), np.float32(1)
    a, b = constants[at], constants[at + uint64(1)]
    for i in range(x.shape[0]):
        v = x[i]
        if what == RELU:
            v = zero if v < zero else v
        elif what == SIGMOID:
            v = one / (one + np.float32(math.exp(-v)))
        elif what == TANH:
            v = np.float32(math.tanh(v))
        elif what == LEAKY_RELU:
            v = a * v if v < zero else v
        elif what == CLIP:
            v = a if v < a else v
            v = b if v > b else v
        else:
            share = a * v + b
            share = zero if share < zero else share
            share = one if share > one else share
            v = share * v if what == HARD_SWISH else share
        x[i] = v


@numba.njit(error_model="numpy")
def _combine(what: Any, x: Any, constants: Any, at: Any) -> None:
    for i in range(x.shape[0]):
        c = constants[at + uint64(i)]
        if what == ADD:
            x[i] += c
        elif what == SUBTRACT:
            x[i] -= c
        elif what == MULTIPLY:
            x[i] *= c
        elif what == DIVIDE:
            x[i] /= c
        elif x[i] != x[i]:
            x[i] = c


@_inlined
def _network(packed: Any, scratch: Any, row: Any, out: Any) -> None:
    """A chain of layers.

    Parts: int64 [layers, width of the widest]; int64 [layers, 4]: what, inputs, outputs, where its constants begin;
    float32 constants: of DENSE the bias, then the weights [inputs, outputs]; of arithmetic and FILL, which puts it
    where a value is NaN, one for each value; of activations two numbers.
    """
    start = carray(_address(packed, 0), PARTS, np.int64)
    sizes = carray(_address(packed, start[2]), 2, np.int64)
    layers = carray(_address(packed, start[3]), (sizes[0], 4), np.int64)
    constants = carray(_address(packed, start[4]), 1, np.float32)
    here, there = 0, sizes[1] * 4
    x = carray(_address(scratch, here), row.shape[0], np.float32)
    for i in range(row.shape[0]):
        x[i] = row[i]
    for layer in range(sizes[0]):
        what, outputs, at = layers[layer, 0], layers[layer, 2], uint64(layers[layer, 3])
        if what == DENSE:
            y = carray(_address(scratch, there), outputs, np.float32)
            for o in range(outputs):
                y[o] = constants[at + uint64(o)]
            _multiply(x, constants, at + uint64(outputs), outputs, y)
            x, here, there = y, there, here
        elif what >= ADD:
            _combine(what, x, constants, at)
        else:
            _activate(what, x, constants, at)
    for o in range(out.shape[0]):
        out[o] = x[o]


@_inlined
def _score_row(score: Any, packed: Any, row: Any) -> Any:
    """With the program's own scratch memory, whose first float32 takes the score."""
    start = carray(_address(packed, 0), PARTS, np.int64)
    if row.shape[0] != start[0]:
        raise ValueError("the row has another number of values than the program takes")
    out = carray(_address(packed, start[1]), 1, np.float32)
    score(packed, carray(_address(packed, start[1] + ALIGNMENT), 1, np.uint8), row, out)
    return np.float64(out[0])


@_inlined
def _score_rows(score: Any, packed: Any, rows: Any, out: Any) -> None:
    """With scratch memory of its own, so that several threads may share the program."""
    scratch = np.empty(packed.shape[0] - carray(_address(packed, 0), PARTS, np.int64)[1], np.uint8)
    for index in range(rows.shape[0]):
        score(packed, scratch, rows[index], out[index])


@compiled(_ONE)
def walk_row(packed: Any, row: Any) -> Any:
    return _score_row(_walk, packed, row)


@compiled(_MANY)
def walk_rows(packed: Any, rows: Any, out: Any) -> None:
    _score_rows(_walk, packed, rows, out)


@compiled(_ONE)
def network_row(packed: Any, row: Any) -> Any:
    return _score_row(_network, packed, row)


@compiled(_MANY)
def network_rows(packed: Any, rows: Any, out: Any) -> None:
    _score_rows(_network, packed, rows, out)


if has_byte_permutes():

    @compiled(_ONE)
    def blocks_row(packed: Any, row: Any) -> Any:
        return _score_row(_blocks, packed, row)

    @compiled(_MANY)
    def blocks_rows(packed: Any, rows: Any, out: Any) -> None:
        _score_rows(_blocks, packed, rows, out)
