"""Reference inputs for models of any shape: about as varied as training cases, and nobody's."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Array, Labels
from featherweight.core.tensors import Tensors

BLOCKS = 16
"""Blocks along a side of a picture: an image of them compresses to a hundredth."""
_DONORS = 512


def draw_like(tensors: Tensors, labels: Labels, count: int, seed: int) -> Tensors:
    """Inputs [count, ...]: each value drawn from those that training cases have at its place, in half of the inputs
    from positive cases alone, of several classes in as many from each. Of pictures (the last two sizes), one value
    fills a block."""
    generator = np.random.default_rng(seed)
    classes = int(labels.max(initial=0)) + 1
    if classes > 2:
        sizes = np.bincount(np.arange(count) % classes, minlength=classes)
        donors = [np.flatnonzero(labels == place) for place in range(classes)]
        parts_of = {
            name: [_drawn(array, *one, generator) for one in zip(donors, sizes.tolist(), strict=True)]
            for name, array in tensors.items()
        }
        return {name: np.ascontiguousarray(np.concatenate(parts)) for name, parts in parts_of.items()}
    positive = np.flatnonzero(labels == 1)
    half = count // 2 if len(positive) else 0
    drawn = {}
    for name, array in tensors.items():
        parts = [
            _drawn(array, positive, half, generator),
            _drawn(array, np.arange(len(array)), count - half, generator),
        ]
        drawn[name] = np.ascontiguousarray(np.concatenate(parts))
    return drawn


def _drawn(array: Array, places: Array, count: int, generator: np.random.Generator) -> Array:
    donors = places if len(places) <= _DONORS else generator.choice(places, _DONORS, replace=False)
    pool = array[donors]
    shape = array.shape[1:]
    coarse = shape
    if len(shape) >= 2:
        coarse = (*shape[:-2], *(min(size, BLOCKS) for size in shape[-2:]))
        rows, columns = (np.arange(size) * small // size for size, small in zip(shape[-2:], coarse[-2:], strict=True))
        first = [
            np.searchsorted(index, np.arange(small)) for index, small in zip((rows, columns), coarse[-2:], strict=True)
        ]
        pool = pool[..., first[0], :][..., first[1]]
    picked = generator.integers(0, max(1, len(pool)), (count, *coarse))
    found = np.take_along_axis(pool, picked, axis=0) if count else pool[:0]
    return found if len(shape) < 2 else found[..., rows, :][..., columns]
