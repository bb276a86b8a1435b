"""The embedded store: the histories of one process and the folder that keeps them.

The folder holds a snapshot and, since then, a journal: every transaction and label, written before it is answered.
Snapshot n stands for all journals before n, so that a process killed at any moment, also while it writes a snapshot,
finds everything that was answered. What is promised: a killed process loses nothing that it answered; a power failure
may lose what came since the last `sync` (the service calls it every 200 ms).

A journal is lines of text: a head with its number, then a line for each event, with the CRC-32 of all lines so far.
What was changed, taken out or put in is noticed, and so is a journal or snapshot that is missing: a folder that is not
whole is refused, because going on without a part of the histories would silently change decisions.
Journals of earlier versions have neither head nor CRC.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import LIMIT
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import DataError, FeatherweightError, OutputError, UsageError
from featherweight.core.files import atomic_write, lock_errors, open_regular, open_to_lock, read_errors, write_errors
from featherweight.core.keys import decode_unambiguous

log = logging.getLogger("featherweight.fraud")

_encode = msgspec.json.Encoder().encode
_decode_transaction = msgspec.json.Decoder(Transaction).decode
_decode_label = msgspec.json.Decoder(Label).decode
_TRANSACTION, _LABEL, _HEAD = b"T", b"L", b"H"
_LINE_BYTES: Final = 4096
"""More than an event with the longest identifiers takes."""
_CRC: Final = re.compile(rb" [0-9a-f]{8}\n")
_CRC_BYTES: Final = 10
_DIGITS: Final = 18
BINDING: Final = "store.json"
_REPAIR: Final = "restore the folder from a copy, or choose another one"


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """store.json: what the histories depend on. generation: of the newest journal, which must be there; 0 where none
    has been opened, and from earlier versions, which did not say."""

    version: Literal[1] = 1
    delay_days: float
    generation: int = 0


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first line of a journal."""

    version: Literal[2] = 2
    number: int


class Store:
    """Open with `open_store`; belongs to one process, which holds the folder's lock until `close`."""

    def __init__(self, folder: Path, engine: FeatureEngine, lock: Lock, binding: Binding) -> None:
        self.folder = folder
        self.engine = engine
        self.journal_bytes = 0
        self.removed = False
        """Whether somebody has removed the journal: nothing more is recorded until the next `snapshot`."""
        self._lock = lock
        self._dirty = False
        self._binding = binding
        self._generation = restore(folder, engine, binding.generation)
        self._journal, head = self._open_journal()
        self.journal_bytes, self._crc = len(head), zlib.crc32(head)

    def record(self, events: Sequence[Transaction] | Sequence[Label]) -> None:
        """In one write. Raises OutputError; then the journal is as it was, and the events must not be counted."""
        lines, crc = [], self._crc
        for event in events:
            line = (_LABEL if isinstance(event, Label) else _TRANSACTION) + _encode(event)
            crc = zlib.crc32(line, crc)
            lines.append(b"%b %08x\n" % (line, crc))
        self._append(b"".join(lines))
        self._crc = crc

    def sync(self) -> None:
        """Bring to the disk what is in the journal. Safe in another thread than that which records."""
        if self._dirty:
            self._dirty = False  # before: what is recorded meanwhile wants the next one
            with write_errors(self.folder):
                self.removed = os.fstat(self._journal).st_nlink == 0
                os.fsync(self._journal)

    def snapshot(self) -> None:
        """Write all histories and begin a new journal. Raises OutputError; the old snapshot and journals then stay."""
        self.engine.expire()
        before, old = self._generation, self._journal
        self._generation += 1
        try:
            self._journal, head = self._open_journal()
        except OutputError:
            self._generation = before
            raise
        self.journal_bytes, self._crc, self.removed = len(head), zlib.crc32(head), False
        os.close(old)
        write_snapshot(self.folder, self._generation, self.engine)
        with write_errors(self.folder):
            remove_older(self.folder, self._generation)

    def close(self) -> None:
        """Give the folder free; without a `snapshot` before it the next `open_store` reads the journal again."""
        try:
            self.sync()
        finally:
            os.close(self._journal)
            self._lock.close()

    def _open_journal(self) -> tuple[int, bytes]:
        """(its handle, its head)."""
        path = journal_path(self.folder, self._generation)
        head = _HEAD + _encode(Head(number=self._generation)) + b"\n"
        with write_errors(self.folder):
            journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(journal, head) < len(head):
                    raise OSError("no space for the head of a journal")
                # First the journal, then what says that it must be there: else a power failure would look like a loss.
                _sync_folder(self.folder)
                _write_binding(self.folder, msgspec.structs.replace(self._binding, generation=self._generation))
            except (OSError, OutputError):
                os.close(journal)
                with suppress(OSError):  # what failed before matters more
                    path.unlink()
                raise
        return journal, head

    def _append(self, lines: bytes) -> None:
        with write_errors(self.folder):
            if self.removed:
                raise OSError("somebody has removed the journal")
            try:
                written = os.write(self._journal, lines)
                if written < len(lines):
                    raise OSError("no space for a whole record")
            except OSError:
                os.ftruncate(self._journal, self.journal_bytes)
                raise
        self.journal_bytes += len(lines)
        self._dirty = True


class Lock:
    """Locks a folder for one process. The lock is taken on the folder itself, because a file in it may be deleted, and
    the next process would take another one; and on a file, which earlier versions look at."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError when another process has it, OutputError."""
        self._handles: list[int] = []
        try:
            with lock_errors(folder, f"{folder}: another process keeps its histories here; choose another folder"):
                self._take(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                self._take(open_to_lock(folder / "lock", 0o600))
        except FeatherweightError:
            self.close()
            raise

    def _take(self, handle: int) -> None:
        self._handles.append(handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let others have the folder; a second call does nothing."""
        while self._handles:
            os.close(self._handles.pop())


def open_store(folder: Path, delay_days: float, limit: int = LIMIT) -> Store:
    """Lock the folder, made if absent, and restore what it keeps; limit: as of FeatureEngine. Raises UsageError when
    another process has it or its histories are for another delay, DataError when it is not whole, OutputError when it
    cannot be written."""
    with write_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = Lock(folder)
    try:
        binding = _bind(folder, delay_days)
        return Store(folder, FeatureEngine(delay_days, limit), lock, binding)
    except FeatherweightError:
        lock.close()
        raise


def restore(folder: Path, engine: FeatureEngine, last: int) -> int:
    """Fill `engine` with the newest snapshot and all journals from then on; the number for the next journal. last: of
    the newest journal that there has been. Raises DataError when one of them is missing, damaged, or no file of ours.
    """
    snapshots, journals = find_parts(folder)
    newest = max(snapshots, default=0)
    if snapshots:
        if not stat.S_ISDIR(snapshots[newest].lstat().st_mode):
            raise DataError(f"{snapshots[newest]}: is not a folder; {_REPAIR}")
        engine.customers.read_snapshot(snapshots[newest] / "customers")
        engine.terminals.read_snapshot(snapshots[newest] / "terminals")
    numbers = sorted(number for number in journals if number >= newest)
    check_numbers(folder, newest, numbers, last)
    for number in numbers:
        with read_errors(journals[number], remedy=_REPAIR):
            for event in read_journal(journals[number], number):
                if isinstance(event, Label):
                    engine.apply_label(event)
                else:
                    engine.advance(event)
    return max(newest, *numbers, 0) + 1


def check_numbers(folder: Path, newest: int, numbers: Sequence[int], last: int) -> None:
    """Raise DataError unless `numbers`, in order, are those of all journals since the snapshot `newest` (0: none), and
    go up to `last` at least."""
    for expected, number in enumerate(numbers, newest or 1):
        if number != expected and expected == 1:
            raise DataError(f"{folder}: a journal {number} without the snapshot before it; {_REPAIR}")
        if number != expected:
            raise DataError(f"{journal_path(folder, expected)}: is missing, but there is {number}; {_REPAIR}")
    if newest and not numbers:
        raise DataError(f"{journal_path(folder, newest)}: is missing beside its snapshot; {_REPAIR}")
    if max(newest, *numbers, 0) < last:
        raise DataError(f"{journal_path(folder, last)}: is missing, and it was the newest; {_REPAIR}")


def read_journal(path: Path, number: int) -> Iterator[Transaction | Label]:
    """Raises OSError, and DataError for a damaged line. An end that is cut short, or zeros since a power failure, was
    never answered or not yet on the disk, and is left out."""
    with open_regular(path) as lines:
        crc: int | None = None
        for place, line in enumerate(iter(lambda: lines.readline(_LINE_BYTES), b""), 1):
            try:
                if not line.endswith(b"\n"):
                    raise DataError("it does not end")
                if place == 1 and line[:1] == _HEAD:
                    crc = _check_head(line, number)
                else:
                    event, crc = _decode_event(line, crc)
                    yield event
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, DataError) as error:
                cut = not line.endswith(b"\n") or b"\0" in line
                if not cut or not _is_blank(lines):
                    raise DataError(f"{path}:{place}: damaged ({error}); {_REPAIR}") from error
                log.warning("%s:%d: the last line is cut short; it was never answered", path, place)
                return


def _is_blank(file: BinaryIO) -> bool:
    """Whether only zeros and line ends follow."""
    return not any(part.strip(b"\0\n") for part in iter(lambda: file.read(1 << 16), b""))


def _check_head(line: bytes, number: int) -> int:
    """The CRC to begin with."""
    found = msgspec.json.decode(line[1:], type=Head).number
    if found != number:
        raise DataError(f"it is the journal {found}")
    return zlib.crc32(line)


def _decode_event(line: bytes, before: int | None) -> tuple[Transaction | Label, int | None]:
    """(event, CRC of all lines up to this one). before: that of the lines before; None for a journal without."""
    crc = before
    if before is not None:
        if not _CRC.fullmatch(line[-_CRC_BYTES:]):
            raise DataError("it has no CRC")
        crc = zlib.crc32(line[:-_CRC_BYTES], before)
        if crc != int(line[-_CRC_BYTES + 1 :], 16):
            raise DataError("its CRC is another; it was changed, or a line before it is missing")
        line = line[:-_CRC_BYTES]
    match line[:1]:
        case b"T":
            return _decode_transaction(line[1:]), crc
        case b"L":
            return _decode_label(line[1:]), crc
        case _:
            raise DataError("it is neither a transaction nor a label")


def write_snapshot(folder: Path, generation: int, engine: FeatureEngine) -> None:
    """Both kinds of histories appear together, by one rename. Raises OutputError."""
    whole = snapshot_path(folder, generation)
    partial = whole.with_suffix(".partial")
    with write_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        engine.customers.write_snapshot(partial / "customers")
        engine.terminals.write_snapshot(partial / "terminals")
        partial.rename(whole)
        _sync_folder(folder)


def remove_older(folder: Path, generation: int) -> None:
    """Only after the snapshot `generation` is on the disk. Raises OSError, OutputError."""
    try:
        found = find_parts(folder)
    except DataError as error:  # it came while we ran
        raise OutputError(str(error)) from error
    for parts in found:
        for number, path in parts.items():
            if number < generation:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.glob("snapshot-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def journal_path(folder: Path, generation: int) -> Path:
    """Where the events after a generation's snapshot are written."""
    return folder / f"journal-{generation:08}.jsonl"


def snapshot_path(folder: Path, generation: int) -> Path:
    """Where a generation's snapshots are."""
    return folder / f"snapshot-{generation:08}"


def find_parts(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """(snapshots, journals) by their numbers. Raises DataError for a name that is nearly one."""
    found: tuple[dict[int, Path], dict[int, Path]] = {}, {}
    for parts, name, pattern in zip(found, (snapshot_path, journal_path), ("snapshot-*", "journal-*"), strict=True):
        for path in folder.glob(pattern):
            if path.suffix == ".partial":
                continue
            digits = path.name.removeprefix(pattern[:-1]).partition(".")[0]
            if not digits.isdecimal() or len(digits) > _DIGITS or path != name(folder, int(digits)):
                raise DataError(f"{path}: is not a name that the store gives; move it elsewhere")
            parts[int(digits)] = path
    return found


def _bind(folder: Path, delay_days: float) -> Binding:
    path = folder / BINDING
    wanted = Binding(delay_days=delay_days)
    unreadable = (msgspec.DecodeError, UnicodeDecodeError)
    with read_errors(path, "it is not a folder of histories", "choose another folder", also=unreadable):
        try:
            with open_regular(path) as file:
                found = decode_unambiguous(file.read(_LINE_BYTES), Binding)
        except FileNotFoundError as error:
            if any(find_parts(folder)):
                raise DataError(f"{path}: is missing, but histories are there; {_REPAIR}") from error
            with write_errors(folder):
                _write_binding(folder, wanted)
                _sync_folder(folder)
            return wanted
    if found.delay_days != delay_days:
        raise UsageError(
            f"{folder}: its histories are kept with delay_days {found.delay_days:g}, the model needs {delay_days:g}; "
            "choose another folder"
        )
    return found


def _write_binding(folder: Path, binding: Binding) -> None:
    """Raises OutputError; what was there is then as it was."""
    with atomic_write(folder / BINDING) as partial:
        partial.write_bytes(_encode(binding))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
