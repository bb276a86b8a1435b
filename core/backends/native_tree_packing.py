"""Ensembles with categories, float64 rows or several targets to packed programs of native_tree_kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Array, Int32s, Integers, Octets, UInt32s, UInt64s
from featherweight.core.backends import native_kernels as kernels
from featherweight.core.backends.native_tree_kernels import TILE
from featherweight.core.backends.native_trees import DEPTH, Slots, heap_positions, pack, tail_of
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.trees.ensemble import LEAF, Ensemble

MAX_LOOKUP = 1 << 20
"""A category that a split asks for is below it: the lookup has an entry for each whole number up to the largest."""
MAX_MASKS = 1 << 22
"""uint64 numbers of `blocks`, codes times trees of all features: 32 MiB; more are walked."""


@dataclass(frozen=True, eq=False)
class _Categories:
    """features: int32 [C]; ways: int64 [C, 3], for each how many whole numbers have an entry in the lookup, where its
    entries begin, zero; lookup: uint32; codes: how many each feature's categories have, without others and missing
    ones; member_code: of each member of the ensemble, int64 [M]; owner: the split of each member."""

    features: Int32s
    ways: Integers
    lookup: UInt32s
    codes: Integers
    member_code: Integers
    owner: Integers


def needs_general(ensemble: Ensemble) -> bool:
    """Whether the plain kernels do not do for these trees."""
    return ensemble.wide or ensemble.targets > 1 or bool(len(ensemble.members))


def pack_blocks(ensemble: Ensemble) -> Octets | None:
    """For `blocks_row`; None for trees that are too deep or ask for too much. Gives uint8 [bytes], as `pack`."""
    position, depth = heap_positions(ensemble)
    if depth.max() > DEPTH:
        return None
    split = np.flatnonzero((ensemble.feature != LEAF) & (ensemble.counts == 0))
    slots = Slots(ensemble, split)
    sets = _categories(ensemble)
    trees = len(ensemble.roots)
    if slots.count > kernels.CODES or int((sets.codes + 2).sum()) * trees > MAX_MASKS:
        return None
    tree = _trees_by_target(ensemble)
    blocks = np.zeros((trees, 2, kernels.NODES), np.uint8)
    blocks[:, 1] = kernels.BINS  # where a tree ends early, and at categories, everything goes left
    blocks[tree[split], 0, position[split]] = slots.slot
    blocks[tree[split], 1, position[split]] = slots.rank
    leaf = np.flatnonzero(ensemble.feature == LEAF)
    leaves = np.zeros((trees, kernels.NODES), np.float32)
    leaves[tree[leaf], (position[leaf] << (DEPTH - depth[leaf])) - kernels.NODES] = ensemble.value[leaf]
    masks, ways = _masks(ensemble, sets, tree, position)
    sizes = np.array([slots.count, len(sets.features), ensemble.targets, trees], np.int64)
    ends = np.cumsum(np.bincount(ensemble.target, minlength=ensemble.targets))
    features = np.append(sets.features, slots.features).astype(np.int32)
    missing = np.where(slots.missing_left, 0, kernels.BINS).astype(np.uint8)
    parts: list[Array] = [sizes, tail_of(ensemble), np.append(0, ends), features, ways, sets.lookup]
    parts += [slots.tables, missing, blocks, leaves, masks]
    scratch = TILE * kernels.CODES + 8 * kernels.NODES + 8 * TILE * (1 + len(sets.features))
    return pack(parts, columns=ensemble.features, scratch=scratch)


def _trees_by_target(ensemble: Ensemble) -> Integers:
    """The number of each node's tree where trees stand target after target: int64 [nodes]."""
    place = np.empty(len(ensemble.roots), np.int64)
    place[np.argsort(ensemble.target, kind="stable")] = np.arange(len(place))
    return place[np.searchsorted(ensemble.roots, np.arange(len(ensemble.feature)), side="right") - 1]


def _categories(ensemble: Ensemble) -> _Categories:
    owner = np.repeat(np.arange(len(ensemble.counts)), ensemble.counts)
    asked = ensemble.feature[owner]
    features = ensemble.categorical
    codes, ways, lookups = [], [], [np.zeros(0, np.uint32)]
    member_code = np.zeros(len(owner), np.int64)
    for feature in features:
        mine = asked == feature
        known = np.unique(ensemble.members[mine]).astype(np.int64)
        length = int(known[-1]) + 1
        if length > MAX_LOOKUP:
            raise BackendUnavailableError(
                f"backend native: feature {feature} has the category {known[-1]}; it runs categories below "
                f"{MAX_LOOKUP}: use the backend onnxruntime"
            )
        lookup = np.full(length + 2, len(known), np.uint32)
        lookup[known] = np.arange(len(known))
        lookup[-1] = len(known) + 1
        member_code[mine] = np.searchsorted(known, ensemble.members[mine].astype(np.int64))
        ways.append([length, sum(map(len, lookups)), 0])
        lookups.append(lookup)
        codes.append(len(known))
    shaped = np.array(ways, np.int64).reshape(-1, 3)
    return _Categories(features, shaped, np.concatenate(lookups), np.array(codes, np.int64), member_code, owner)


def _turns(ensemble: Ensemble, sets: _Categories, place: int, node: int, members: Integers) -> Array:
    """Which codes of the feature turn right at a split: bool [codes + 2]. members: of the ensemble, this split's."""
    right = np.ones(int(sets.codes[place]) + 2, bool)
    right[sets.member_code[members]] = False
    right[-1] = not ensemble.missing_left[node]
    return right


def _masks(ensemble: Ensemble, sets: _Categories, tree: Integers, position: Integers) -> tuple[UInt64s, Integers]:
    """(uint64, for each feature [codes + 2, trees]; `ways` with where each begins)."""
    trees = len(ensemble.roots)
    begins = np.append(0, np.cumsum((sets.codes + 2) * trees))
    ways = sets.ways.copy()
    ways[:, 2] = begins[:-1]
    masks = np.zeros(int(begins[-1]), np.uint64)
    for place, node, members in _sets(ensemble, sets):
        mine = masks[begins[place] : begins[place + 1]].reshape(-1, trees)
        bit = np.uint64(1) << np.uint64(position[node])
        mine[:, tree[node]] |= np.where(_turns(ensemble, sets, place, node, members), bit, np.uint64(0))
    return masks, ways


def _sets(ensemble: Ensemble, sets: _Categories) -> list[tuple[int, int, Integers]]:
    """(which categorical feature, split, places of its members) of each split of categories."""
    ends = np.cumsum(ensemble.counts)
    found = []
    for node in np.flatnonzero(ensemble.counts):
        place = int(np.searchsorted(sets.features, ensemble.feature[node]))
        found.append((place, int(node), np.arange(ends[node] - ensemble.counts[node], ends[node])))
    return found


def pack_walk(ensemble: Ensemble) -> Octets:
    """For `walk_row`. Raises BackendUnavailableError for trees of a million nodes, two thousand features or categories
    above MAX_LOOKUP. Gives uint8 [bytes], as `pack`."""
    _, depth = heap_positions(ensemble)
    nodes = len(ensemble.feature)
    tree = np.searchsorted(ensemble.roots, np.arange(nodes), side="right") - 1
    sets = _categories(ensemble)
    kinds, edges, limits, slot, limit = _ranks(ensemble)
    largest = int(np.diff(ensemble.roots, append=nodes).max())
    if largest > 1 << kernels.LEFT_BITS or len(kinds) + len(sets.features) > 1 << kernels.SLOT_BITS:
        raise BackendUnavailableError(
            f"backend native: a tree has {largest} nodes and the trees ask for {len(kinds)} features; it "
            f"runs up to {1 << kernels.LEFT_BITS} and {1 << kernels.SLOT_BITS}: use the backend onnxruntime"
        )
    words: list[Array] = [np.zeros(1, np.uint32)]
    count = 1
    for place, node, members in _sets(ensemble, sets):
        right = _turns(ensemble, sets, place, node, members)
        bits = np.packbits(np.append(right, np.zeros(-len(right) % 32, bool)), bitorder="little").view("<u4")
        slot[node], limit[node] = len(kinds) + place, count
        words.append(bits)
        count += len(bits)
    order = np.lexsort((np.arange(nodes), depth, tree))  # within a tree level by level: siblings become neighbours
    place_of = np.empty(nodes, np.int64)
    place_of[order] = np.arange(nodes)
    is_split = ensemble.feature != LEAF
    left = np.where(is_split, place_of[ensemble.left], place_of) - place_of[ensemble.roots][tree]
    packed = np.zeros(nodes + 1, np.uint64)
    packed[place_of] = (limit.astype(np.uint64) << np.uint64(32)) | (slot << kernels.LEFT_BITS | left).astype(np.uint64)
    packed[nodes] = np.uint64(0xFFFFFFFF) << np.uint64(32)  # the tree of one leaf, worth nothing, that fills a group
    values = np.zeros(nodes + 1, np.float32)
    values[place_of] = ensemble.value
    roots, depths, ends = _groups(ensemble, place_of, depth)
    sizes = np.array([len(kinds), len(sets.features), ensemble.targets, 0], np.int64)
    features = np.append(sets.features, kinds // 2).astype(np.int32)
    missing = np.where(kinds % 2 == 1, 0, 0xFFFFFFFF).astype(np.uint32)
    parts: list[Array] = [sizes, tail_of(ensemble), ends, features, sets.ways, sets.lookup, missing, edges, limits]
    parts += [depths, roots, packed, values, np.concatenate(words)]
    return pack(parts, columns=ensemble.features, scratch=8 * kernels.LANES + 4 * (len(kinds) + len(sets.features)))


def _ranks(ensemble: Ensemble) -> tuple[Integers, Integers, Array, Integers, Integers]:
    """Thresholds as ranks: (kinds of slots, feature * 2 + missing_left; where the thresholds of each begin; these; of
    each node the slot; the rank up to which a row goes left, of leaves more than any)."""
    number = np.flatnonzero((ensemble.feature != LEAF) & (ensemble.counts == 0))
    kind = ensemble.feature[number].astype(np.int64) * 2 + ensemble.missing_left[number]
    slot, limit = np.zeros(len(ensemble.feature), np.int64), np.full(len(ensemble.feature), 0xFFFFFFFF, np.int64)
    kinds = np.unique(kind) if len(kind) else np.zeros(1, np.int64)  # leaves need a slot
    limits, edges = [], [0]
    for place, one in enumerate(kinds):
        mine = number[kind == one]
        known = np.unique(ensemble.threshold[mine])
        slot[mine], limit[mine] = place, np.searchsorted(known, ensemble.threshold[mine])
        limits.append(known)
        edges.append(edges[-1] + len(known))
    return kinds, np.array(edges, np.int64), np.concatenate(limits), slot, limit


def _groups(ensemble: Ensemble, place: Integers, depth: Integers) -> tuple[UInt64s, Integers, Integers]:
    """LANES trees of one target each, by their depth: (roots, depths of the groups, where each target's begin)."""
    nodes = len(ensemble.feature)
    tree_depth = np.maximum.reduceat(depth, ensemble.roots)
    roots, depths, ends = [], [], [0]
    for target in range(ensemble.targets):
        mine = np.flatnonzero(ensemble.target == target)
        mine = mine[np.argsort(tree_depth[mine], kind="stable")]
        filling = -len(mine) % kernels.LANES
        roots.append(np.append(np.full(filling, nodes), place[ensemble.roots][mine]))
        depths.append(np.append(np.zeros(filling, np.int64), tree_depth[mine])[kernels.LANES - 1 :: kernels.LANES])
        ends.append(ends[-1] + len(depths[-1]))
    return np.concatenate(roots).astype(np.uint64), np.concatenate(depths), np.array(ends, np.int64)
