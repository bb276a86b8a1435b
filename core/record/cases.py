"""Cases known again by what they are, and not by where they lie or what they are called; and, where their preparation
changed, by what they are called or look like."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

from featherweight.core.arrays import Labels
from featherweight.core.record.likeness import digest_looks, digest_names
from featherweight.core.task import HeldOut
from featherweight.core.tensors import Tensors

SKETCH = 64
"""Digests in the sketch that evidence and plans show."""
MARKS = 1024
"""Digests that a record keeps of each kind. Of a larger set they are a sample, by which a share of common cases is
estimated within 2 points (one standard error), and a part of N cases in a set of M is missed with the probability
(1 - 1024 / M) ** N: 100 of 20,000 once in 190 times."""
_MARK_BYTES = 6

KnownBy = Literal["inputs", "names", "looks", "scores"]
"""By what cases are known again: the same inputs; the same names; looking the same, to the byte or nearly; or being
given the same scores by the model in use."""

_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
_Least = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,16}$")]
_Marks = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]*$", max_length=MARKS * _MARK_BYTES * 4 // 3)]


class CaseSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A set of labelled cases, as a record keeps it: digests alone. No case can be read off them; but who has a case,
    or guesses its name, can see whether it is among them."""

    cases: _Count
    positives: _Count | None
    """None where they were not counted, as of training cases, or where there are several classes."""
    sha256: _Sha256
    """Digest of inputs and labels. The same cases in another order or under other names have the same one."""
    sketch: Annotated[tuple[_Least, ...], msgspec.Meta(max_length=SKETCH)]
    """The least of the digests of the inputs (Broder 1997)."""
    inputs: _Marks = ""
    """The least of the digests of the inputs, more of them and shorter. From those of two sets follows which share of
    the cases they have in common, so that a set is known again after cases were added, left out or labelled anew."""
    names: _Marks = ""
    """The same of the cases' names, which stay when the inputs are prepared otherwise. Empty where names are only
    numbers from the first case to the last, which name nothing."""
    looks: _Marks = ""
    """The same of what the inputs look like (`core.record.likeness`), whatever their size and their tensors' names."""
    scores: _Marks = ""
    """The same of the scores that the model in use gives them, where a comparison has nothing else of the cases."""

    def __post_init__(self) -> None:
        if self.positives is not None and self.positives > self.cases:
            raise ValueError(f"positives: found {self.positives:,}, more than the {self.cases:,} in all")

    @property
    def shown(self) -> CaseSet:
        """Without what only a record needs."""
        return msgspec.structs.replace(self, inputs="", names="", looks="", scores="")

    def overlap(self, other: CaseSet) -> float:
        """The estimated share (0 to 1) of the smaller set's cases that are in both, by whatever shows most of it."""
        return max(self.overlaps(other).values())

    def overlaps(self, other: CaseSet) -> dict[KnownBy, float]:
        """The same for each of the ways, the surest first; 0 where one of the two does not have it."""
        return {
            "inputs": 1.0 if self.sha256 == other.sha256 else _shared(self._input_marks(), other._input_marks()),
            "names": _shared(_Marked.read(self.names), _Marked.read(other.names)),
            "looks": _shared(_Marked.read(self.looks), _Marked.read(other.looks)),
            "scores": _shared(_Marked.read(self.scores), _Marked.read(other.scores)),
        }

    def _input_marks(self) -> _Marked:
        if self.inputs:
            return _Marked.read(self.inputs)
        # As it was written before there were more of them.
        found = {one[: 2 * _MARK_BYTES] for one in self.sketch}
        return _Marked(frozenset(found), len(self.sketch) < SKETCH)


class _Marked(msgspec.Struct, frozen=True):
    """The least of the digests of a set, as hexadecimal texts of one length; whole: it has no others."""

    marks: frozenset[str]
    whole: bool

    @classmethod
    def read(cls, text: str) -> _Marked:
        try:
            content = base64.urlsafe_b64decode(text)
        except binascii.Error:  # a text of another length is a record's that was made by hand: nothing is known by it
            content = b""
        found = {
            content[start : start + _MARK_BYTES].hex()
            for start in range(0, len(content) - _MARK_BYTES + 1, _MARK_BYTES)
        }
        return cls(frozenset(found), len(found) < MARKS)


def _shared(one: _Marked, other: _Marked) -> float:
    """Of the smaller set's digests, as far as both sets would have kept them, the share that is in both."""
    ends = [max(found.marks) for found in (one, other) if found.marks and not found.whole]
    end = min(ends, default="g")  # after all hexadecimal digits
    first, second = ({mark for mark in found.marks if mark <= end} for found in (one, other))
    least = min(len(first), len(second))
    return len(first & second) / least if least else 0.0


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


def describe_cases(
    inputs: Sequence[bytes],
    labels: Labels | None = None,
    *,
    names: Sequence[str] = (),
    looks: Iterable[bytes] = (),
    scores: Iterable[bytes] = (),
) -> CaseSet:
    """inputs: the digest of each case; labels: int64 [N], None where there are none (training inputs); names: one for
    each case; looks: digests of `core.record.likeness.digest_looks`; scores: of the scores of the model in use."""
    truth = [0] * len(inputs) if labels is None else [int(label) for label in labels]
    whole = hashlib.sha256()
    for one, label in sorted(zip(inputs, truth, strict=True)):
        whole.update(one + bytes([label]))
    distinct = sorted(set(inputs))
    return CaseSet(
        len(inputs),
        None if labels is None or max(truth, default=0) > 1 else sum(truth),
        whole.hexdigest(),
        tuple(one.hex()[:16] for one in distinct[:SKETCH]),
        _encode(distinct),
        _encode(digest_names(names)),
        _encode(looks),
        _encode(scores),
    )


def _encode(digests: Iterable[bytes]) -> str:
    least = sorted({one[:_MARK_BYTES] for one in digests})[:MARKS]
    return base64.urlsafe_b64encode(b"".join(least)).decode()


def describe_held_out(cases: HeldOut) -> CaseSet:
    """For cases that `core.task.check_held_out` found right."""
    labels, looks = np.asarray(cases.labels, np.int64), digest_looks(cases.tensors)
    return describe_cases(digest_inputs(cases.tensors), labels, names=cases.ids, looks=looks)
