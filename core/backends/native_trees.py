"""Ensemble to a packed program of native_kernels."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Array, Floats32, Integers, Octets, UInt32s
from featherweight.core.backends import native_kernels as kernels
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.predict import SMALLEST_PROBABILITY

DEPTH = 6
"""Maximum depth of the trees that `blocks` runs."""


def pack(parts: list[Array], *, columns: int, scratch: int) -> Octets:
    """The parts behind one another, each at an address that is a multiple of ALIGNMENT, their table in front and
    scratch memory behind, in bytes. columns: values of a row. Gives uint8 [bytes]."""
    sizes = [kernels.PARTS * 8, *(part.nbytes for part in parts), kernels.ALIGNMENT + scratch]
    starts = np.cumsum([-(-size // kernels.ALIGNMENT) * kernels.ALIGNMENT for size in sizes])
    packed = aligned(int(starts[-1]))
    packed[: kernels.PARTS * 8].view(np.int64)[: len(parts) + 2] = [columns, starts[-2], *starts[:-2]]
    for start, part in zip(starts, parts, strict=False):
        packed[start : start + part.nbytes] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    return packed


def aligned(size: int) -> Octets:
    """uint8 [size] zeros whose address is a multiple of ALIGNMENT."""
    memory = np.zeros(size + kernels.ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % kernels.ALIGNMENT
    return memory[start : start + size]


def pack_blocks(ensemble: Ensemble) -> Octets | None:
    """For `kernels.blocks_row`; None for trees that are too deep or ask for too many features and thresholds. Gives
    uint8 [bytes], as `pack`."""
    position, depth = heap_positions(ensemble)
    if depth.max() > DEPTH:
        return None
    split = np.flatnonzero(ensemble.feature != LEAF)
    slots = Slots(ensemble, split)
    if slots.count > kernels.CODES:
        return None
    trees = len(ensemble.roots)
    tree = np.searchsorted(ensemble.roots, np.arange(len(ensemble.feature)), side="right") - 1
    blocks = np.zeros((trees, 2, kernels.NODES), np.uint8)
    blocks[:, 1] = kernels.BINS  # where a tree ends early, everything goes left
    blocks[tree[split], 0, position[split]] = slots.slot
    blocks[tree[split], 1, position[split]] = slots.rank
    leaf = np.flatnonzero(ensemble.feature == LEAF)
    leaves = np.zeros((trees, kernels.NODES), np.float32)
    leaves[tree[leaf], (position[leaf] << (DEPTH - depth[leaf])) - kernels.NODES] = ensemble.value[leaf]
    sizes = np.array([slots.count, trees], np.int64)
    missing = np.where(slots.missing_left, 0, kernels.BINS).astype(np.uint8)
    parts: list[Array] = [sizes, tail_of(ensemble), slots.tables, slots.features, missing, blocks, leaves]
    return pack(parts, columns=ensemble.features, scratch=kernels.CODES + 8 * kernels.NODES)


class Slots:
    """Thresholds as integer codes of bins: a slot is a feature, a direction for missing values and up to BINS
    thresholds.

    slot, rank: of each split; features: int32 [count]; missing_left: bool [count]; tables: [count, TABLE], of the
    thresholds' type.
    """

    def __init__(self, ensemble: Ensemble, split: Array) -> None:
        kind = ensemble.feature[split].astype(np.int64) * 2 + ensemble.missing_left[split]
        threshold = ensemble.threshold[split]
        self.slot, self.rank = np.empty(len(split), np.int64), np.empty(len(split), np.int64)
        kinds: list[int] = []
        tables: list[Array] = []
        for one in np.unique(kind):
            mine = np.flatnonzero(kind == one)
            limits = np.unique(threshold[mine])
            place = np.searchsorted(limits, threshold[mine])
            self.slot[mine], self.rank[mine] = len(kinds) + place // kernels.BINS, place % kernels.BINS
            for start in range(0, len(limits), kernels.BINS):
                kinds.append(int(one))
                tables.append(_table(limits[start : start + kernels.BINS]))
        self.count = len(kinds)
        self.features = np.array(kinds, np.int32) // 2
        self.missing_left = np.array(kinds, np.int32) % 2 == 1
        self.tables = np.array(tables, threshold.dtype)


def _table(limits: Array) -> Array:
    fine = np.full(kernels.TABLE - kernels.COARSE, np.nan, limits.dtype)
    fine[: len(limits)] = limits
    return np.concatenate([fine[kernels.COARSE - 1 :: kernels.COARSE], fine])


def pack_walk(ensemble: Ensemble) -> Octets:
    """For `kernels.walk_row`. Raises BackendUnavailableError for trees of a million nodes or two thousand features.
    Gives uint8 [bytes], as `pack`."""
    _, depth = heap_positions(ensemble)
    nodes = len(ensemble.feature)
    tree = np.searchsorted(ensemble.roots, np.arange(nodes), side="right") - 1
    sizes = np.diff(ensemble.roots, append=nodes)
    kind = np.where(ensemble.feature == LEAF, -1, ensemble.feature.astype(np.int64) * 2 + ensemble.missing_left)
    kinds = np.unique(kind[kind >= 0])
    if sizes.max() > 1 << kernels.LEFT_BITS or len(kinds) > 1 << kernels.SLOT_BITS:
        raise BackendUnavailableError(
            f"backend native: a tree has {sizes.max()} nodes and the trees ask for {len(kinds)} features; it "
            f"runs up to {1 << kernels.LEFT_BITS} and {1 << kernels.SLOT_BITS}: use the backend onnxruntime"
        )
    order = np.lexsort((np.arange(nodes), depth, tree))  # within a tree level by level: siblings become neighbours
    place = np.empty(nodes, np.int64)
    place[order] = np.arange(nodes)
    is_split = ensemble.feature != LEAF
    left = np.where(is_split, place[ensemble.left], place) - place[ensemble.roots][tree]
    slot = np.where(is_split, np.searchsorted(kinds, kind), 0)
    limit = np.where(is_split, ordered(ensemble.threshold.astype(np.float32)) - np.uint32(1), np.uint32(0xFFFFFFFF))
    packed = np.zeros(nodes + 1, np.uint64)
    packed[place] = (limit.astype(np.uint64) << np.uint64(32)) | (slot << kernels.LEFT_BITS | left).astype(np.uint64)
    values = np.zeros(nodes + 1, np.float32)
    values[place] = ensemble.value
    packed[nodes] = np.uint64(0xFFFFFFFF) << np.uint64(32)  # the tree of one leaf, worth nothing, that fills a group
    tree_depth = np.maximum.reduceat(depth, ensemble.roots)
    by_depth = np.argsort(tree_depth, kind="stable")
    filling = -len(by_depth) % kernels.LANES
    roots = np.append(np.full(filling, nodes), place[ensemble.roots][by_depth]).astype(np.uint64)
    depths = np.append(np.zeros(filling, np.int64), tree_depth[by_depth])[kernels.LANES - 1 :: kernels.LANES]
    missing = np.where(kinds % 2 == 1, 0, 0xFFFFFFFF).astype(np.uint32)
    sizes_part = np.array([len(kinds), len(depths)], np.int64)
    features = (kinds // 2).astype(np.int32)
    parts: list[Array] = [sizes_part, tail_of(ensemble), features, missing, depths, roots, packed, values]
    return pack(parts, columns=ensemble.features, scratch=4 * (len(kinds) + len(kinds) % 2) + 8 * kernels.LANES)


def ordered(x: Floats32) -> UInt32s:
    """Integers in the order of the float32 numbers; -0.0 and 0.0 are one. x: of any shape, which the result has too."""
    bits = (x + np.float32(0)).view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))


def heap_positions(ensemble: Ensemble) -> tuple[Integers, Integers]:
    """(place in a heap whose root is 1, right only for depths up to 62; depth), int64 [nodes]."""
    position, depth = np.ones(len(ensemble.feature), np.int64), np.zeros(len(ensemble.feature), np.int64)
    level = ensemble.roots
    while len(level):
        level = level[ensemble.feature[level] != LEAF]
        for side, children in enumerate((ensemble.left[level], ensemble.right[level])):
            position[children] = position[level] * 2 + side
            depth[children] = depth[level] + 1
        level = np.concatenate([ensemble.left[level], ensemble.right[level]])
    return position, depth


def tail_of(ensemble: Ensemble) -> Floats32:
    """What `_finish` needs: float32 [low, high, base]."""
    low = float(SMALLEST_PROBABILITY) if ensemble.output == "probability" else 0.0
    return np.array([low, 1 - low if low else 0.0, ensemble.base], np.float32)
