"""The compiled part of the native backend for trees that ask for more than float32 numbers and one score: categories,
float64 rows, several targets. The plain trees of `native_kernels` stay as fast as they are without any of it.

Packed programs are as there; the first five parts are the same in both layouts: int64 [slots, categorical features,
targets]; float32 [low, high, base], as `_finish` takes them; int64 [targets + 1], where each target's trees (`blocks`)
or groups (`walk`) begin; int32 [categorical features, then slots] features; int64 [categorical features, 3]: how many
whole numbers from 0 have an entry in the lookup, where its entries begin, where its masks begin. Then the lookup,
uint32: the code of a category; one behind the last is that of all others, the next that of a missing value.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types, uint8, uint32, uint64
from numba.np.numpy_support import carray

from featherweight.core.backends import native_kernels
from featherweight.core.backends.native_kernels import (
    ALIGNMENT,
    COARSE,
    CODES,
    LANES,
    LEFT_BITS,
    NODES,
    PARTS,
    SLOT_BITS,
    TABLE,
    _address,
    _inlined,
    _intrinsic,
    _right_turns,
    _score_row,
    _score_rows,
)
from featherweight.core.compiled import compiled

_READ = [Path(native_kernels.__file__).read_bytes()]
"""What numba's cache does not see of its own accord."""

TILE: Final = 32
"""Rows that `blocks` takes at a time."""

_PACKED = types.Array(types.uint8, 1, "C")
_KINDS = (types.float32, types.float64)
_ONE = [types.float64(_PACKED, types.Array(kind, 1, "C", readonly=True)) for kind in _KINDS]
_MANY = [
    types.void(_PACKED, types.Array(kind, 2, "C", readonly=True), types.Array(types.float32, 2, "C")) for kind in _KINDS
]


@_intrinsic
def _count_up_to(context: Any, limits: Any, at: Any, x: Any) -> Any:
    """How many of limits[at : at + 16], aligned, are not above x, of x's type; NaN is neither."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(target.get_value_type(signature.args[2]), COARSE)
        data = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        table = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer()), align=64)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), COARSE), [0] * COARSE)
        found = builder.fcmp_ordered("<=", table, builder.shuffle_vector(first, first, lanes))
        return builder.zext(builder.ctpop(builder.bitcast(found, ir.IntType(COARSE))), ir.IntType(64))

    return types.uint64(limits, types.uint64, x), build


@_inlined
def _finished(total: Any, tail: Any, targets: Any) -> Any:
    """A sum as its margin; of a probability the log-odds, of one of several targets the logarithm."""
    score = np.float32(total)
    if tail[1] > 0:
        clipped = min(max(score, tail[0]), tail[1])
        if targets == 1:
            score = np.float32(math.log(clipped) - math.log(np.float32(1) - clipped))
        else:
            score = np.float32(math.log(clipped))
    return score


@_inlined
def _category(x: Any, known: Any, first: Any, lookup: Any) -> Any:
    """The code of a value; the last two entries of a feature's lookup are those of others and of missing ones."""
    place = known
    if x != x:
        place = known + uint64(1)
    elif x >= 0 and x < known:
        place = uint64(x)
    return lookup[first + place]


@_inlined
def _blocks(packed: Any, scratch: Any, rows: Any, begin: Any, held: Any, out: Any) -> None:
    """`native_kernels._blocks`, and for each categorical feature a mask of 64 bits for each of its codes and each tree:
    the nodes at which the category turns right. Takes up to TILE rows from `begin` on, so that a table of thresholds
    and 64 trees stay in the first cache for all of them; a row's score is that which it has alone.

    Further parts: [slots, TABLE] of the rows' type; uint8 [slots] codes of NaN; uint8 [trees, 2, NODES]; float32
    [trees, NODES] leaves; uint64 masks [features, codes, trees].
    """
    start = carray(_address(packed, 0), PARTS, np.int64)
    sizes = carray(_address(packed, start[2]), 4, np.int64)
    tail = carray(_address(packed, start[3]), 3, np.float32)
    slots, sets, targets, trees = sizes[0], sizes[1], sizes[2], uint64(sizes[3])
    ends = carray(_address(packed, start[4]), targets + 1, np.int64)
    features = carray(_address(packed, start[5]), sets + slots, np.int32)
    ways = carray(_address(packed, start[6]), (sets, 3), np.int64)
    lookup = carray(_address(packed, start[7]), 1, np.uint32)
    limits = carray(_address(packed, start[8]), slots * TABLE, rows.dtype)
    missing = carray(_address(packed, start[9]), slots, np.uint8)
    blocks = carray(_address(packed, start[10]), 1, np.uint8)
    leaves = carray(_address(packed, start[11]), 1, np.float32)
    masks = carray(_address(packed, start[12]), 1, np.uint64)
    codes = carray(_address(scratch, 0), TILE * CODES, np.uint8)
    turns = carray(_address(scratch, TILE * CODES), NODES, np.uint64)
    totals = carray(_address(scratch, TILE * CODES + 8 * NODES), TILE, np.float64)
    rights = carray(_address(scratch, TILE * CODES + 8 * (NODES + TILE)), TILE * sets, np.uint64)
    for one in range(sets):
        known, first = uint64(ways[one, 0]), uint64(ways[one, 1])
        for row in range(held):
            code = _category(rows[begin + row, features[one]], known, first, lookup)
            rights[row * sets + one] = uint64(ways[one, 2]) + trees * uint64(code)
    for slot in range(slots):
        feature, at, lost = features[sets + slot], uint64(slot) * uint64(TABLE), missing[slot]
        for row in range(held):
            x = rows[begin + row, feature]
            coarse = _count_up_to(limits, at, x)
            fine = _count_up_to(limits, at + uint64(COARSE) * (coarse + uint64(1)), x)
            codes[row * CODES + slot] = lost if x != x else uint8(coarse * uint64(COARSE) + fine)
    for target in range(targets):
        for row in range(held):
            totals[row] = 0.0
        for first_tree in range(ends[target], ends[target + 1], NODES):
            count = min(NODES, ends[target + 1] - first_tree)
            for row in range(held):
                own = carray(_address(scratch, row * CODES), CODES, np.uint8)
                for tree in range(count):
                    turns[tree] = _right_turns(own, blocks, uint64((first_tree + tree) * 2 * NODES))
                for one in range(sets):
                    mask = rights[row * sets + one] + uint64(first_tree)
                    for tree in range(count):
                        turns[tree] |= masks[mask + uint64(tree)]
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
                at = uint64(first_tree) * uint64(NODES) - uint64(NODES)
                total = totals[row]
                for tree in range(count):
                    total += leaves[at + turns[tree]]
                totals[row] = total
        for row in range(held):
            out[begin + row, target] = _finished(totals[row] + tail[2], tail, targets)


@_inlined
def _walk(packed: Any, scratch: Any, row: Any, out: Any) -> None:
    """`native_kernels._walk` with a value's rank among its feature's thresholds in the place of its key. A split of
    categories has in the place of its threshold where its bits begin: the codes that turn right.

    Further parts: uint32 [slots] ranks of NaN; int64 [slots + 1] where thresholds begin; [thresholds] of the rows'
    type; int64 [groups] depths; uint64 [groups, LANES] roots; uint64 [nodes]; float32 [nodes] values; uint32 bits.
    """
    start = carray(_address(packed, 0), PARTS, np.int64)
    sizes = carray(_address(packed, start[2]), 4, np.int64)
    tail = carray(_address(packed, start[3]), 3, np.float32)
    slots, sets, targets = sizes[0], sizes[1], sizes[2]
    ends = carray(_address(packed, start[4]), targets + 1, np.int64)
    features = carray(_address(packed, start[5]), sets + slots, np.int32)
    ways = carray(_address(packed, start[6]), (sets, 3), np.int64)
    lookup = carray(_address(packed, start[7]), 1, np.uint32)
    missing = carray(_address(packed, start[8]), slots, np.uint32)
    edges = carray(_address(packed, start[9]), slots + 1, np.int64)
    limits = carray(_address(packed, start[10]), 1, row.dtype)
    depths = carray(_address(packed, start[11]), 1, np.int64)
    roots = carray(_address(packed, start[12]), 1, np.uint64)
    nodes = carray(_address(packed, start[13]), 1, np.uint64)
    values = carray(_address(packed, start[14]), 1, np.float32)
    bits = carray(_address(packed, start[15]), 1, np.uint32)
    at = carray(_address(scratch, 0), LANES, np.uint64)
    keys = carray(_address(scratch, LANES * 8), slots + sets, np.uint32)
    for slot in range(slots):
        x = row[features[sets + slot]]
        low, high = uint64(edges[slot]), uint64(edges[slot + 1])
        while low < high:
            middle = (low + high) >> uint64(1)
            if limits[middle] <= x:
                low = middle + uint64(1)
            else:
                high = middle
        keys[slot] = missing[slot] if x != x else uint32(low - uint64(edges[slot]))
    for one in range(sets):
        keys[slots + one] = _category(row[features[one]], uint64(ways[one, 0]), uint64(ways[one, 1]), lookup)
    for target in range(targets):
        total = 0.0
        for group in range(ends[target], ends[target + 1]):
            first = uint64(group * LANES)
            for lane in range(LANES):
                at[lane] = roots[first + uint64(lane)]
            for _ in range(depths[group]):
                for lane in range(LANES):
                    node = nodes[at[lane]]
                    slot = (node >> uint64(LEFT_BITS)) & uint64((1 << SLOT_BITS) - 1)
                    key, limit = keys[slot], uint32(node >> uint64(32))
                    if slot < uint64(slots):
                        right = uint64(key > limit)
                    else:
                        word = bits[uint64(limit) + uint64(key >> uint32(5))]
                        right = uint64((word >> (key & uint32(31))) & uint32(1))
                    at[lane] = roots[first + uint64(lane)] + (node & uint64((1 << LEFT_BITS) - 1)) + right
            for lane in range(LANES):
                total += values[at[lane]]
        out[target] = _finished(total + tail[2], tail, targets)


@compiled(_ONE, constants=_READ)
def walk_row(packed: Any, row: Any) -> Any:
    return _score_row(_walk, packed, row)


@compiled(_MANY, constants=_READ)
def walk_rows(packed: Any, rows: Any, out: Any) -> None:
    _score_rows(_walk, packed, rows, out)


if native_kernels.has_byte_permutes():

    @compiled(_ONE, constants=_READ)
    def blocks_row(packed: Any, row: Any) -> Any:
        """With the program's own scratch memory, whose first float32 takes the score."""
        start = carray(_address(packed, 0), PARTS, np.int64)
        if row.shape[0] != start[0]:
            raise ValueError("the row has another number of values than the program takes")
        out = carray(_address(packed, start[1]), (1, 1), np.float32)
        scratch = carray(_address(packed, start[1] + ALIGNMENT), 1, np.uint8)
        _blocks(packed, scratch, row.reshape(1, row.shape[0]), 0, 1, out)
        return np.float64(out[0, 0])

    @compiled(_MANY, constants=_READ)
    def blocks_rows(packed: Any, rows: Any, out: Any) -> None:
        """With scratch memory of its own, so that several threads may share the program."""
        scratch = np.empty(packed.shape[0] - carray(_address(packed, 0), PARTS, np.int64)[1], np.uint8)
        for begin in range(0, rows.shape[0], TILE):
            _blocks(packed, scratch, rows, begin, min(TILE, rows.shape[0] - begin), out)
