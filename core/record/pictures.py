"""Pictures that look the same though their bytes differ: scaled, compressed or cut anew.

A difference hash (Krawetz, "Kind of Like That", 2013): the picture in 16 x 17 blocks, and of each block whether it is
brighter than the one to the left of it. On 5,840 chest x-rays no two of different patients differ in fewer than 12 of
the 256 bits. Of 624, the same picture as a JPEG, brighter or at half the size was found in 98.9% and more; at three
sevenths of the size without smoothing in 82%, at two sevenths in 31%; shifted by 1% of the width, cut by 4% or turned
by two degrees in 1 to 3%; mirrored, inverted or turned by a quarter in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from featherweight.core.arrays import Array, Bools, Floats32, Hashes, Indices, Integers
from featherweight.core.tensors import Tensors, TensorSpec

NEAR_BITS = 8
"""Pictures whose hashes differ in no more bits are near copies."""
_SIDE = 16
_LEAST_BITS = 24
"""A picture with fewer bits that are set, or that are not, is flat: such hashes are near each other for no reason."""
_CHUNK = 4_000_000


def picture_input(inputs: tuple[TensorSpec, ...]) -> str:
    """The name of the input that holds pictures: the only one with two sides of 16 or more and 1 or 3 channels. Empty
    where there is none."""
    found = [spec.name for spec in inputs if _channel_axis(spec.shape) is not None]
    return found[0] if len(found) == 1 else ""


def _channel_axis(shape: tuple[int | None, ...]) -> int | None:
    if len(shape) != 4:
        return None
    for axis, sides in ((1, shape[2:]), (3, shape[1:3])):
        if shape[axis] in (1, 3) and all(side is None or side >= _SIDE + 1 for side in sides):
            return axis
    return None


def as_pictures(array: Array) -> Floats32:
    """Grey pictures float32 [N, H, W] of a tensor [N, C, H, W] or [N, H, W, C]."""
    axis = _channel_axis(array.shape)
    if axis is None:
        raise ValueError(f"found {array.shape}, expected pictures")
    return cast(Floats32, np.asarray(array, np.float32).mean(axis=axis, dtype=np.float32))


def hash_pictures(pictures: Floats32) -> Hashes:
    """pictures: [N, H, W], both sides 17 or more. A flat picture gets the hash 0."""
    count, height, width = pictures.shape
    rows, columns = np.arange(_SIDE) * height // _SIDE, np.arange(_SIDE + 1) * width // (_SIDE + 1)
    sums = np.add.reduceat(np.add.reduceat(pictures, rows, axis=1), columns, axis=2)
    means = sums / np.diff(np.append(rows, height))[:, None] / np.diff(np.append(columns, width))
    bits = (means[:, :, 1:] > means[:, :, :-1]).reshape(count, -1)
    found = np.packbits(bits, axis=1).view(np.uint64)
    set_bits = bits.sum(axis=1)
    found[(set_bits < _LEAST_BITS) | (set_bits > bits.shape[1] - _LEAST_BITS)] = 0
    return found


def hash_inputs(tensors: Tensors, name: str, size: int = 256) -> Hashes:
    """Of the input of this name, in parts that need little memory."""
    array = tensors[name]
    parts = [hash_pictures(as_pictures(array[start : start + size])) for start in range(0, len(array), size)]
    return np.concatenate(parts) if parts else np.empty((0, 4), np.uint64)


@dataclass(frozen=True)
class NearCopies:
    """count: pictures of the second set that have a near copy in the first; pairs: the first pairs of places in both,
    one for each of them as long as there is room."""

    count: int
    pairs: tuple[tuple[int, int], ...]


def find_near(first: Hashes, second: Hashes, most: int, same: tuple[Integers, Integers] | None = None) -> NearCopies:
    """Counted to the end, but no more than `most` pairs are kept: sets of pictures that all look the same (phantoms,
    say) have as many pairs as both numbers multiplied. same: a number for each picture in both; those with the same one
    are byte for byte the same, and no near copies."""
    found, pairs = np.zeros(len(second), bool), list[tuple[int, int]]()
    for rows, columns, near in _near_blocks(first, second):
        if same is not None:
            near &= same[0][rows][:, None] != same[1][columns]
        new = near.any(axis=0) & ~found[columns]
        if len(pairs) < most:
            places = np.flatnonzero(new)[: most - len(pairs)]
            pairs += [(int(rows[near[:, place].argmax()]), int(columns[place])) for place in places]
        found[columns[new]] = True
    return NearCopies(int(found.sum()), tuple(pairs))


def _near_blocks(first: Hashes, second: Hashes) -> Iterator[tuple[Indices, Indices, Bools]]:
    """Blocks of the table of all pairs: the places of its rows in the first, of its columns in the second, and whether
    each pair is near. A block has few megabytes."""
    whole, step = np.flatnonzero(second.any(axis=1)), max(1, _CHUNK // max(1, len(second)))
    columns: list[Hashes] = [np.ascontiguousarray(second[whole, word]) for word in range(4)]
    mine: Indices = np.flatnonzero(first.any(axis=1))
    for start in range(0, len(mine), step):
        places = mine[start : start + step]
        bits = np.zeros((len(places), len(whole)), np.uint16)
        for word, column in enumerate(columns):
            bits += np.bitwise_count(first[places, word][:, None] ^ column)
        yield places, whole, bits <= NEAR_BITS
