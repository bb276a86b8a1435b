"""The lines of a record of uses: what each may say, bounded before it is decoded, and how it follows from those before
it. A record comes from other hands and machines, and what it says is shown."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from featherweight.core.keys import decode_unambiguous
from featherweight.core.record.cases import CaseSet

MAX_BYTES = 16 * 1024**2
"""Of a whole record."""
MAX_LINE_BYTES = 256 * 1024
MAX_ENTERED = 100_000
"""Uses that one line may stand for."""
FIRST = "0" * 64
"""What the first line has as the digest of the line before it."""

Verdict = Literal["kept", "missed", "forced", "could not be run"]
"""forced: sealed though limits were missed, on these cases or, before, on the validation cases. Older lines have
"missed" with `forced` there, and "kept" where they were missed on the validation cases alone."""


_Name = Annotated[str, msgspec.Meta(max_length=1000)]
_Words = Annotated[str, msgspec.Meta(max_length=10_000)]
_Digest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
_Limits = Annotated[
    dict[_Name, float | _Name | Annotated[tuple[_Name, ...], msgspec.Meta(max_length=1000)]],
    msgspec.Meta(max_length=1000),
]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    at: Annotated[str, msgspec.Meta(pattern="^[0-9T:.Z+-]{4,40}$")]
    """When the line was written: ISO 8601, UTC."""
    previous: _Digest = ""
    """SHA-256 of the line before this one, without its end."""


class Begun(_Line, frozen=True, tag="begun"):
    """The cases are about to be run."""

    use: _Name
    cases: CaseSet
    recipe: _Name
    recipe_sha256: _Digest
    limits: _Limits
    candidate: _Name
    artifact: _Name
    plan: _Digest = ""
    shown: bool = False
    """Whether the figures would be shown though limits were missed."""


class Ended(_Line, frozen=True, tag="ended"):
    """What came of the use of the same id. missed: names of limits; missed_before: those that the candidate missed on
    the validation cases."""

    use: _Name
    verdict: Verdict
    missed: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=1000)] = ()
    forced: bool = False
    missed_before: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=1000)] = ()


class Planned(_Line, frozen=True, tag="planned"):
    """A plan was written for these cases."""

    cases: CaseSet
    recipe: _Name
    plan: _Digest


class Entered(_Line, frozen=True, tag="entered by hand"):
    """Uses that no program wrote down. when: a date or a time span in words."""

    cases: CaseSet
    uses: Annotated[int, msgspec.Meta(ge=1, le=MAX_ENTERED)]
    when: _Name
    words: _Words


Line = Begun | Ended | Planned | Entered


class LineError(ValueError):
    """number: of the line, from 1; why: in words; remedy: what to do."""

    def __init__(self, number: int, why: str, remedy: str = "bring the file back as it was") -> None:
        super().__init__(why)
        self.number, self.why, self.remedy = number, why, remedy


class _Reader:
    """Lines one after the other: what each may say depends on those before it."""

    def __init__(self) -> None:
        self.described = dict[str, CaseSet]()
        self.open, self.ended = set[str](), set[str]()

    def read(self, row: bytes, previous: str) -> Line:
        """Raises ValueError, RecursionError."""
        if len(row) > MAX_LINE_BYTES:
            raise ValueError(f"it has more than {MAX_LINE_BYTES:,} bytes, which no line needs")
        try:
            line: Line = decode_unambiguous(row, Line)  # type: ignore[arg-type]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"it is not a line of a record ({error})") from error
        if line.previous != previous:
            raise ValueError("the line before it is not the one that it was written after")
        match line:
            case Begun():
                if line.use in self.open | self.ended:
                    raise ValueError("it begins a use that was begun before")
                self.open.add(line.use)
            case Ended():
                if line.use not in self.open:
                    raise ValueError("it ends a use that was not begun before, or that has ended")
                self.open.remove(line.use)
                self.ended.add(line.use)
                return line
            case Planned() | Entered():
                pass
        return msgspec.structs.replace(line, cases=self._cases(line.cases))

    def _cases(self, found: CaseSet) -> CaseSet:
        """Whole, where an earlier line has them."""
        if not found.cases:
            raise ValueError("it is of no case")
        if found.sketch:
            self.described[found.sha256] = found
        elif found.sha256 not in self.described:
            raise ValueError("it is of cases that no line before it describes")
        return self.described[found.sha256]


def parse_lines(content: bytes) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """The lines and the SHA-256 of each. Raises LineError, and ValueError for what is too large."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"found more than {MAX_BYTES:,} bytes, which no record of uses needs")
    rows = content.split(b"\n")
    if rows.pop():
        raise LineError(len(rows) + 1, "it is cut short, so it was not written whole", "remove this line alone")
    reader, digests = _Reader(), list[str]()
    lines = list[Line]()
    for number, row in enumerate(rows, 1):
        try:
            lines.append(reader.read(row, digests[-1] if digests else FIRST))
        except (ValueError, RecursionError) as error:
            raise LineError(number, str(error)) from error
        digests.append(hashlib.sha256(row).hexdigest())
    return tuple(lines), tuple(digests)
