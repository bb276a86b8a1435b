"""The record of the uses of test cases: a file of lines that is only ever added to.

Whoever looks at test cases, changes something and looks again chooses on them, so that their bounds hold no more.
Nobody can take back a look, but everybody can be told of it. Every line is an object of JSON and holds the digest of
the line before it, so that a line that was changed, removed or put in between shows. That lines were cut off at the end
does not show in the file itself: the evidence of every use holds the digest of its last line, which `find_line` finds.

A use is two lines: `begun` is on the disk before the program runs on the cases, `ended` before anybody is told what was
found. A process that is killed between them has used the cases. What was measured is not in the record.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from featherweight.core.errors import JournalError, OutputError
from featherweight.core.files import (
    check_folder,
    is_there,
    lock_errors,
    open_regular,
    open_to_lock,
    read_errors,
    take_record_lock,
)
from featherweight.core.keys import decode_unambiguous
from featherweight.core.record.cases import CaseSet

FILE = "test-uses.jsonl"
SAME = 0.1
"""Sets of which a larger share of the cases is the same count as the same cases."""
_MAX_BYTES = 16 * 1024**2
_FIRST = "0" * 64
_WAIT_S = 20.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

Verdict = Literal["kept", "missed", "could not be run"]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    at: str
    """When the line was written: ISO 8601, UTC."""
    previous: str = ""
    """SHA-256 of the line before this one, without its end."""


class Begun(_Line, frozen=True, tag="begun"):
    """The cases are about to be run."""

    use: str
    cases: CaseSet
    recipe: str
    recipe_sha256: str
    limits: dict[str, float | str | tuple[str, ...]]
    candidate: str
    artifact: str
    plan: str = ""
    shown: bool = False
    """Whether the figures would be shown though limits were missed."""


class Ended(_Line, frozen=True, tag="ended"):
    """What came of the use of the same id. missed: names of limits."""

    use: str
    verdict: Verdict
    missed: tuple[str, ...] = ()
    forced: bool = False


class Planned(_Line, frozen=True, tag="planned"):
    """A plan was written for these cases."""

    cases: CaseSet
    recipe: str
    plan: str


class Entered(_Line, frozen=True, tag="entered by hand"):
    """Uses that no program wrote down. when: a date or a time span in words."""

    cases: CaseSet
    uses: int
    when: str
    words: str


Line = Begun | Ended | Planned | Entered


@dataclass(frozen=True)
class Use:
    """One use of test cases, or several that were entered together. shared: share of its cases that are the same as
    those asked about; same_labels: whether the cases and labels are exactly the same. verdict: "not finished" where no
    line says how it ended; "entered by hand"."""

    at: str
    verdict: Verdict | Literal["not finished", "entered by hand"]
    shared: float
    same_labels: bool
    count: int = 1
    recipe: str = ""
    recipe_sha256: str = ""
    limits: Mapping[str, float | str | tuple[str, ...]] | None = None
    candidate: str = ""
    artifact: str = ""
    plan: str = ""
    missed: tuple[str, ...] = ()
    forced: bool = False
    shown: bool = False
    words: str = ""


@dataclass(frozen=True)
class History:
    """A record as it was read. digests: of each line, in order."""

    lines: tuple[Line, ...] = ()
    digests: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The digest of the last line."""
        return self.digests[-1] if self.digests else _FIRST

    def uses_of(self, cases: CaseSet) -> tuple[Use, ...]:
        """In the order in which they were written down."""
        ends = {line.use: line for line in self.lines if isinstance(line, Ended)}
        return tuple(
            _use(line, ends, shared, line.cases.sha256 == cases.sha256)
            for line in self.lines
            if isinstance(line, Begun | Entered) and (shared := line.cases.overlap(cases)) > SAME
        )

    def planned_before_use(self, plan: str, cases: CaseSet) -> bool | None:
        """Whether the plan of this digest was written down before any use of these cases; None when it is not there."""
        for line in self.lines:
            if isinstance(line, Planned) and line.plan == plan:
                return True
            if isinstance(line, Begun | Entered) and line.cases.overlap(cases) > SAME:
                known = any(isinstance(one, Planned) and one.plan == plan for one in self.lines)
                return False if known else None
        return None

    def find_line(self, digest: str) -> int | None:
        """The number of the line with this digest, from 1; None where it is gone."""
        return self.digests.index(digest) + 1 if digest in self.digests else None


@dataclass(frozen=True)
class CaseUses:
    """The use of test cases that an evidence is of, and those before it. record: the name of the file; head, lines: the
    digest of its last line, and how many there were."""

    cases: CaseSet
    this: Use
    earlier: tuple[Use, ...]
    record: str
    head: str
    lines: int
    begins: bool = False
    """The record begins with this use: nothing is known of what was done before."""

    @property
    def number(self) -> int:
        """Of this use, from 1."""
        return 1 + sum(use.count for use in self.earlier)


def begin_use(path: Path, begun: Begun) -> CaseUses:
    """Write down that the cases are about to be run. Raises as `append_use` does."""
    return _uses(path, append_use(path, begun), begun)


def end_use(
    path: Path, begun: Begun, verdict: Verdict, missed: Sequence[str] = (), *, forced: bool = False
) -> CaseUses:
    """Write down what came of it. Raises as `append_use` does."""
    ended = Ended(at=now(), use=begun.use, verdict=verdict, missed=tuple(missed), forced=forced)
    return _uses(path, append_use(path, ended), begun)


def _uses(path: Path, history: History, begun: Begun) -> CaseUses:
    places = [place for place, line in enumerate(history.lines) if isinstance(line, Begun) and line.use == begun.use]
    before = History(history.lines[: places[0]])
    # Ends that were written since belong to the uses before this one.
    ends = tuple(line for line in history.lines[places[0] :] if isinstance(line, Ended))
    earlier = replace(before, lines=(*before.lines, *ends)).uses_of(begun.cases)
    this = _use(begun, {line.use: line for line in ends}, 1.0, same=True)
    return CaseUses(begun.cases, this, earlier, path.name, history.head, len(history.lines), begins=not places[0])


def _use(line: Begun | Entered, ends: Mapping[str, Ended], shared: float, same: bool) -> Use:
    if isinstance(line, Entered):
        return Use(line.when, "entered by hand", shared, same, line.uses, words=line.words)
    end = ends.get(line.use)
    use = Use(
        line.at, "not finished", shared, same, 1, line.recipe, line.recipe_sha256, line.limits, line.candidate,
        line.artifact, line.plan, shown=line.shown,
    )  # fmt: skip
    return use if end is None else replace(use, verdict=end.verdict, missed=end.missed, forced=end.forced)


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def begins_here(path: Path) -> str:
    """What a user is told where there was no record: a slip in its path would make all earlier uses forgotten."""
    return f"no record of uses of the test cases was found at {path}; a new one begins"


def read_uses(path: Path) -> History:
    """An empty history where there is no file. Raises JournalError for a record that is damaged or was changed,
    DataError for one that cannot be read."""
    with read_errors(path, "the record of uses cannot be read"):
        try:
            with open_regular(path) as file:
                content = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return History()
    return parse_uses(content, str(path))


def check_record(path: Path) -> History:
    """Read it, and raise OutputError where it could not be added to later. Raises JournalError, DataError."""
    history = read_uses(path)
    if not is_there(path):
        check_folder(path.parent, "another file: [cases] record in the recipe")
    elif not os.access(path, os.W_OK):
        raise OutputError(
            f"{path}: the record of uses cannot be written (no permission); name another: [cases] record in the recipe"
        )
    return history


def parse_uses(content: bytes, where: str) -> History:
    """Raises JournalError."""
    if len(content) > _MAX_BYTES:
        raise JournalError(f"{where}: found more than {_MAX_BYTES:,} bytes, which no record of uses needs")
    rows = content.split(b"\n")
    if rows.pop():
        raise _damaged(where, len(rows) + 1, "it is cut short, so it was not written whole", "remove this line alone")
    lines, digests = list[Line](), list[str]()
    for number, row in enumerate(rows, 1):
        try:
            line: Line = decode_unambiguous(row, Line)  # type: ignore[arg-type]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _damaged(where, number, f"it is not a line of a record ({error})") from error
        if line.previous != (digests[-1] if digests else _FIRST):
            raise _damaged(where, number, "the line before it is not the one that it was written after")
        lines.append(line)
        digests.append(hashlib.sha256(row).hexdigest())
    return History(tuple(lines), tuple(digests))


def _damaged(where: str, number: int, why: str, remedy: str = "bring the file back as it was") -> JournalError:
    return JournalError(
        f"{where}: line {number} of the record of uses cannot be trusted: {why}. A line was changed, removed or added "
        f"by hand, or the disk is damaged; {remedy} (from a copy, or the version control)"
    )


def append_use(path: Path, line: Line) -> History:
    """Add a line, whose `previous` is filled in here, and see it on the disk. Returns the record with it.

    Raises JournalError as `read_uses` does, OutputError where it cannot be written, UsageError when another process
    holds it for long.
    """
    with _locked(path) as handle:
        history = parse_uses(_read_all(handle), str(path))
        line = msgspec.structs.replace(line, previous=history.head)
        row = msgspec.json.encode(line)
        content = row + b"\n"
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)
    return History((*history.lines, line), (*history.digests, hashlib.sha256(row).hexdigest()))


def _read_all(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    parts, size = [], 0
    while size <= _MAX_BYTES and (part := os.read(handle, 1 << 20)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, made where there is none, while no other process adds to it: each does so for a moment only."""
    busy = f"{path}: another process has written to this record of uses for {_WAIT_S:.0f} seconds; look what it does"
    with lock_errors(path, busy, "the record of uses cannot be written", "name another in the recipe: [cases] record"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_to_lock(path, 0o666)
        try:
            os.set_blocking(handle, True)
            _wait_for_lock(handle)
            yield handle
        finally:
            os.close(handle)


def _wait_for_lock(handle: int) -> None:
    if sys.platform == "win32":
        return None
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            return take_record_lock(handle)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            raise
