"""Which bytes of encapsulated pixel data (PS3.5 A.4) are which frame.

A frame that is damaged or not there leaves the others where they are; pydicom's own iterator ends at the first.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from featherweight.apps.imaging.readers.base import Limits, RefusedError

_ITEM = 0xE000FFFE
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
"""JPEG and JPEG-LS, a JPEG 2000 codestream, a JP2 file. None of them stands inside of a codestream's own data."""

Place = tuple[int, int, int]
"""Place of a fragment: where its item's tag, its first byte and its end are."""


@dataclass(frozen=True)
class Encapsulated:
    """frames: the fragments of each, fewer frames than declared where they lack; more: there are more than declared."""

    content: bytes
    frames: Sequence[Sequence[Place]]
    more: bool

    def codestream(self, frame: int) -> bytes:
        """A frame's fragments as one."""
        return b"".join(self.content[begin:end] for _, begin, end in self.frames[frame])


def find_frames(content: bytes, declared: int, extended_offsets: bytes | None, limits: Limits) -> Encapsulated:
    """The first of these that applies: the extended or the basic offset table, where it names the first fragment of
    each declared frame; one fragment a frame; a new frame wherever a codestream begins; all fragments are the only
    frame. Raises RefusedError."""
    table, places = _find_fragments(content, limits)
    for offsets in (_words(extended_offsets or b"", "Q"), _words(table, "I")):
        firsts = _firsts(offsets, places)
        if len(offsets) == declared and firsts:
            return Encapsulated(content, _between(firsts, places), more=False)
    if len(places) <= declared:
        return Encapsulated(content, [[place] for place in places], more=False)
    begins = [index for index, (_, begin, _) in enumerate(places) if content.startswith(_STARTS, begin)]
    if begins:
        frames = _between([0, *begins[1:]], places)
    else:
        frames = [places] if declared == 1 else [[place] for place in places]
    return Encapsulated(content, frames[:declared], more=len(frames) > declared)


def _firsts(offsets: Sequence[int], places: Sequence[Place]) -> list[int]:
    """The fragment that each offset names, as far as the data reach; none where the table cannot be right."""
    if not places or not offsets or offsets[0] != 0 or any(a >= b for a, b in pairwise(offsets)):
        return []
    starts = {start - places[0][0]: index for index, (start, _, _) in enumerate(places)}
    within = [offset for offset in offsets if offset <= max(starts)]
    return [starts[offset] for offset in within] if all(offset in starts for offset in within) else []


def _between(firsts: Sequence[int], places: Sequence[Place]) -> list[Sequence[Place]]:
    return [places[first:after] for first, after in pairwise([*firsts, len(places)])]


def _find_fragments(content: bytes, limits: Limits) -> tuple[bytes, list[Place]]:
    """The basic offset table and the fragments, as far as there are whole item headers. What is cut short stays, for
    the decoder to judge."""
    found: list[Place] = []
    at = 0
    while at + 8 <= len(content):
        tag, length = struct.unpack_from("<II", content, at)
        if tag != _ITEM:
            break
        found.append((at, at + 8, min(at + 8 + length, len(content))))
        if len(found) > limits.elements:
            raise RefusedError("too-large", f"the pixel data are in more than {limits.elements} fragments")
        at += 8 + length
    if not found:
        return b"", []
    _, begin, end = found[0]
    return content[begin:end], found[1:]


def _words(table: bytes, form: str) -> tuple[int, ...]:
    size = struct.calcsize(f"<{form}")
    return struct.unpack(f"<{len(table) // size}{form}", table[: len(table) // size * size])
