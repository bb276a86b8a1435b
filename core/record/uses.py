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
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from featherweight.core.errors import JournalError, OutputError, UsageError
from featherweight.core.files import (
    check_folder,
    is_there,
    lock_errors,
    open_regular,
    open_to_lock,
    read_errors,
    take_record_lock,
)
from featherweight.core.record.cases import CaseSet, KnownBy
from featherweight.core.record.lines import (
    FIRST,
    MAX_BYTES,
    Begun,
    Ended,
    Entered,
    Line,
    LineError,
    Planned,
    Verdict,
    parse_lines,
)

__all__ = [
    "Begun", "CaseUses", "Ended", "Entered", "History", "Line", "Planned", "Use", "Verdict", "append_use", "begin_use",
    "begins_here", "check_record", "end_use", "now", "parse_uses", "read_uses",
]  # fmt: skip

FILE = "test-uses.jsonl"
SAME = 0.1
"""Sets of which a larger share of the cases is the same count as the same cases."""
_WAIT_S = 20.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Use:
    """One use of test cases, or several that were entered together. shared: share of its cases that are the same as
    those asked about, and known_by what that is known; same_labels: whether cases and labels are exactly the same.
    verdict: "not finished" where no line says how it ended; "entered by hand"."""

    at: str
    verdict: Verdict | Literal["not finished", "entered by hand"]
    shared: float
    same_labels: bool
    known_by: KnownBy = "inputs"
    count: int = 1
    recipe: str = ""
    recipe_sha256: str = ""
    limits: Mapping[str, float | str | tuple[str, ...]] | None = None
    candidate: str = ""
    artifact: str = ""
    plan: str = ""
    missed: tuple[str, ...] = ()
    missed_before: tuple[str, ...] = ()
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
        return self.digests[-1] if self.digests else FIRST

    def uses_of(self, cases: CaseSet) -> tuple[Use, ...]:
        """In the order in which they were written down."""
        ends = {line.use: line for line in self.lines if isinstance(line, Ended)}
        return tuple(
            _use(line, ends, line.cases, cases)
            for line in self.lines
            if isinstance(line, Begun | Entered) and line.cases.overlap(cases) > SAME
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

    def plans_before_use(self, cases: CaseSet) -> tuple[str, ...]:
        """Digests of the different plans that were written down for these cases before their first use, in order."""
        found = dict[str, None]()
        for line in self.lines:
            if isinstance(line, Ended) or line.cases.overlap(cases) <= SAME:
                continue
            if not isinstance(line, Planned):
                break
            found[line.plan] = None
        return tuple(found)

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
    path: Path,
    begun: Begun,
    verdict: Verdict,
    missed: Sequence[str] = (),
    *,
    forced: bool = False,
    missed_before: Sequence[str] = (),
) -> CaseUses:
    """Write down what came of it. Raises as `append_use` does."""
    ended = Ended(
        at=now(),
        use=begun.use,
        verdict=verdict,
        missed=tuple(missed),
        forced=forced,
        missed_before=tuple(missed_before),
    )
    return _uses(path, append_use(path, ended), begun)


def _uses(path: Path, history: History, begun: Begun) -> CaseUses:
    places = [place for place, line in enumerate(history.lines) if isinstance(line, Begun) and line.use == begun.use]
    before = History(history.lines[: places[0]])
    # Ends that were written since belong to the uses before this one.
    ends = tuple(line for line in history.lines[places[0] :] if isinstance(line, Ended))
    earlier = replace(before, lines=(*before.lines, *ends)).uses_of(begun.cases)
    this = _use(begun, {line.use: line for line in ends}, begun.cases, begun.cases)
    return CaseUses(begun.cases, this, earlier, path.name, history.head, len(history.lines), begins=not places[0])


def _use(line: Begun | Entered, ends: Mapping[str, Ended], used: CaseSet, asked: CaseSet) -> Use:
    shares = used.overlaps(asked)
    known_by: KnownBy = max(shares, key=lambda way: shares[way])
    known = shares[known_by], used.sha256 == asked.sha256, known_by
    if isinstance(line, Entered):
        return Use(line.when, "entered by hand", *known, line.uses, words=line.words)
    end = ends.get(line.use)
    use = Use(
        line.at, "not finished", *known, 1, line.recipe, line.recipe_sha256, line.limits, line.candidate,
        line.artifact, line.plan, shown=line.shown,
    )  # fmt: skip
    if end is None:
        return use
    missed, before = end.missed, end.missed_before
    return replace(use, verdict=end.verdict, missed=missed, missed_before=before, forced=end.forced)


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
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return History()
    return parse_uses(content, str(path))


def check_record(path: Path, remedy: str = "another file: [cases] record in the recipe") -> History:
    """Read it, and raise OutputError where it could not be added to later. remedy: how another is named. Raises
    JournalError, DataError."""
    history = read_uses(path)
    if not is_there(path):
        check_folder(path.parent, remedy)
    elif not os.access(path, os.W_OK):
        raise OutputError(f"{path}: the record of uses cannot be written (no permission); name {remedy}")
    return history


def parse_uses(content: bytes, where: str) -> History:
    """Raises JournalError."""
    try:
        return History(*parse_lines(content))
    except LineError as error:
        raise JournalError(
            f"{where}: line {error.number} of the record of uses cannot be trusted: {error.why}. A line was changed, "
            f"removed or added by hand, or the disk is damaged; {error.remedy} (from a copy, or the version control)"
        ) from error
    except ValueError as error:
        raise JournalError(f"{where}: {error}") from error


def append_use(path: Path, line: Line) -> History:
    """Add a line, whose `previous` is filled in here, and see it on the disk. Returns the record with it.

    Raises JournalError as `read_uses` does, OutputError where it cannot be written or the record is full, UsageError
    for a line that could not be read again, and when another process holds the record for long.
    """
    with _locked(path) as handle:
        before = _read_all(handle)
        history = parse_uses(before, str(path))
        row = msgspec.json.encode(_shortened(msgspec.structs.replace(line, previous=history.head), history)) + b"\n"
        if len(before) + len(row) > MAX_BYTES:
            raise OutputError(f"{path}: the record of uses is full ({MAX_BYTES:,} bytes); name another for new cases")
        try:
            found = History(*parse_lines(before + row))
        except ValueError as error:
            raise UsageError(f"{path}: nothing was written, because it could not be read again: {error}") from error
        content = row
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)
    return found


def _shortened(line: Line, history: History) -> Line:
    """Cases that an earlier line describes are named by their digest: their sketches are most of a line."""
    if isinstance(line, Ended):
        return line
    described = {one.cases.sha256: one.cases for one in history.lines if not isinstance(one, Ended)}
    if described.get(line.cases.sha256) != line.cases:
        return line
    bare = msgspec.structs.replace(line.cases.shown, sketch=())
    return msgspec.structs.replace(line, cases=bare)


def _read_all(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    parts, size = [], 0
    while size <= MAX_BYTES and (part := os.read(handle, 1 << 20)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, made where there is none, while no other process adds to it: each does so for a moment only."""
    busy = f"{path}: another process has written to this record of uses for {_WAIT_S:.0f} seconds; look what it does"
    with lock_errors(
        path, busy, "the record of uses cannot be written", "name another: [cases] record in the recipe, or --record"
    ):
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
