"""What the cases are, as far as it is at hand: the inputs that a model is run on, and the scores that one gives them.
By these a part of the cases is known again, and copies are found, whatever the ids are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Array, Floats, Indices, Scores
from featherweight.core.record.cases import digest_inputs
from featherweight.core.record.likeness import digest_looks
from featherweight.core.record.pictures import picture_input
from featherweight.core.tensors import Tensors, TensorSpec

_BY_CHANCE = 0.025
"""Where a larger part of the different values is there more than once, other cases have such values too: of N cases
with D possible values about N / 2D of the values repeat, and N / D of them are found among N other cases. Sets of which
a tenth is the same count as the same (`core.record.uses.SAME`)."""
_DIGITS = 4
"""Values of no more digits are equal by chance."""
_UNIQUE = 0.95
"""A column tells rows apart that has so many different values for each different row."""
_COLUMNS = 1000
"""Of an input, that are looked at."""


@dataclass(frozen=True)
class Seen:
    """What a model is run on. digests: one for each case, of its inputs; looks: `digest_looks` of the different ones,
    none where other cases would look the same by chance; pictures: whether it is pictures; apart: whether the values of
    a table tell cases apart, so that no two are equal by chance."""

    digests: tuple[bytes, ...]
    looks: tuple[bytes, ...]
    pictures: bool
    apart: bool

    def take(self, places: Indices) -> Seen:
        """Of some of the cases."""
        return replace(self, digests=tuple(self.digests[place] for place in places))


def see(tensors: Tensors) -> Seen | None:
    """tensors: name -> [N, ...], in the order of the cases, before an app prepares them. None where there are none."""
    if not tensors:
        return None
    digests = digest_inputs(tensors)
    different = np.array(sorted({one: place for place, one in enumerate(digests)}.values()), np.intp)
    shown = {name: _picture(array[different]) for name, array in tensors.items()}
    looks = list(digest_looks(shown))
    specs = tuple(TensorSpec(name, "float32", (None, *array.shape[1:])) for name, array in shown.items())
    known = tuple(looks) if _tell_apart(looks) else ()
    pictures = bool(picture_input(specs))
    return Seen(tuple(digests), known, pictures, not pictures and _are_apart(shown))


def _are_apart(different: Tensors) -> bool:
    """Whether hardly two of different rows have the same value in some column, of more digits than chance makes equal.
    One column that varies alone shows nothing: different rows have different values there."""
    found = [column for array in different.values() for column in array.reshape(len(array), -1).T[:_COLUMNS]]
    varying = [(column, count) for column in found if (count := len(np.unique(column))) > 1]
    return len(varying) > 1 and any(
        count >= _UNIQUE * len(column) and not is_coarse(column[np.isfinite(column)] * 1.0) for column, count in varying
    )


def is_coarse(values: Floats) -> bool:
    """Whether they have so few digits that they are equal by chance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = _DIGITS - 1 - np.floor(np.log10(np.abs(values)))
        scale = 10.0 ** np.clip(np.where(values == 0, 0, place), -300, 300)
    return bool((np.abs(np.round(values * scale) - values * scale) <= 1e-6 * np.abs(values * scale)).all())


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
