"""What the cases are, as far as it is at hand: the inputs that a model is run on, and the scores that one gives them.
By these a part of the cases is known again, and copies are found, whatever the ids are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Array, Scores
from featherweight.core.record.cases import digest_inputs
from featherweight.core.record.likeness import digest_looks
from featherweight.core.tensors import Tensors

_BY_CHANCE = 0.025
"""Where a larger part of the different values is there more than once, other cases have such values too: of N cases
with D possible values about N / 2D of the values repeat, and N / D of them are found among N other cases. Sets of which
a tenth is the same count as the same (`core.record.uses.SAME`)."""


@dataclass(frozen=True)
class Seen:
    """What a model is run on. digests: one for each case, of its inputs; looks: `digest_looks` of the different ones,
    none where other cases would look the same by chance."""

    digests: tuple[bytes, ...]
    looks: tuple[bytes, ...]


def see(tensors: Tensors) -> Seen | None:
    """tensors: name -> [N, ...], in the order of the cases, before an app prepares them. None where there are none."""
    if not tensors:
        return None
    digests = digest_inputs(tensors)
    different = np.array(sorted({one: place for place, one in enumerate(digests)}.values()), np.intp)
    looks = list(digest_looks({name: _picture(array[different]) for name, array in tensors.items()}))
    return Seen(tuple(digests), tuple(looks) if _tell_apart(looks) else ())


def _picture(array: Array) -> Array:
    """Grey pictures [N, H, W] as [N, 1, H, W]."""
    return array[:, None] if array.ndim == 3 and array.dtype in (np.uint8, np.uint16) else array


def digest_scores(scores: Scores) -> list[bytes]:
    """Of each different score, to seven digits, which every way to write a float32 keeps. None where so many cases have
    the score of another that other cases would have them too (a few trees, two decimals). scores: [N]."""
    found = [hashlib.sha256(f"score {score:.6e}".encode()).digest() for score in (scores + 0.0).tolist()]  # no -0
    return found if _tell_apart(found) else []


def _tell_apart(digests: Sequence[bytes]) -> bool:
    counts = Counter(digests)
    return sum(count > 1 for count in counts.values()) <= _BY_CHANCE * len(counts)
