"""Cases known again by what they are, and not by where they lie or what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np

from featherweight.core.arrays import Labels
from featherweight.core.task import HeldOut
from featherweight.core.tensors import Tensors

SKETCH = 64
"""Digests in a sketch. A share of common cases is estimated from it within 6 points (one standard error)."""


class CaseSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of labelled cases, as a record keeps it: nothing in it leads back to a case."""

    cases: int
    positives: int
    sha256: str
    """Digest of inputs and labels. The same cases in another order or under other names have the same one."""
    sketch: tuple[str, ...]
    """The least of the digests of the inputs (Broder 1997): from two of them follows which share of the cases two sets
    have in common, so that a set is known again after cases were added, left out or labelled anew."""

    def overlap(self, other: CaseSet) -> float:
        """The estimated share (0 to 1) of the smaller set's inputs that are in both."""
        # A shorter sketch is of a small set, and has all of it.
        estimated = SKETCH in (len(self.sketch), len(other.sketch))
        least = sorted({*self.sketch, *other.sketch})[: SKETCH if estimated else None]
        both = {*self.sketch} & {*other.sketch}
        similarity = sum(one in both for one in least) / len(least) if least else 0.0
        # From the share of the union to that of the smaller set.
        common = similarity * (self.cases + other.cases) / (1 + similarity)
        return min(1.0, common / max(1, min(self.cases, other.cases)))


def digest_inputs(tensors: Tensors) -> list[bytes]:
    """SHA-256 of each case's inputs: of their names, types, shapes and bytes. tensors: [N, ...] each."""
    names = sorted(tensors)
    arrays = [np.ascontiguousarray(tensors[name]) for name in names]
    head = hashlib.sha256()
    for name, array in zip(names, arrays, strict=True):
        head.update(f"{name} {array.dtype} {array.shape[1:]}\n".encode())
    flat = [array.reshape(len(array), -1).view(np.uint8) for array in arrays]
    found = []
    for rows in zip(*flat, strict=True):
        one = head.copy()
        for row in rows:
            one.update(row.data)
        found.append(one.digest())
    return found


def describe_cases(inputs: Sequence[bytes], labels: Labels | None = None) -> CaseSet:
    """inputs: the digest of each case; labels: int64 [N], None where there are none (training inputs)."""
    truth = [0] * len(inputs) if labels is None else [int(label) for label in labels]
    whole = hashlib.sha256()
    for one, label in sorted(zip(inputs, truth, strict=True)):
        whole.update(one + bytes([label]))
    sketch = tuple(one.hex()[:16] for one in sorted(set(inputs))[:SKETCH])
    return CaseSet(len(inputs), sum(truth), whole.hexdigest(), sketch)


def describe_held_out(cases: HeldOut) -> CaseSet:
    """For cases that `core.task.check_held_out` found right."""
    return describe_cases(digest_inputs(cases.tensors), np.asarray(cases.labels, np.int64))
