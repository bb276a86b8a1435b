"""The embedded store: the histories of one process and the folder that keeps them.

The folder holds a snapshot and, since then, a journal: every transaction and label, written before it is answered.
Snapshot n stands for all journals before n, so that a process killed at any moment, also while it writes a snapshot,
finds everything that was answered. What is promised: a killed process loses nothing that it answered; a power failure
may lose what came since the last `sync` (the service calls it every 200 ms).
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import msgspec

from apps.fraud.pipeline import FeatureEngine
from apps.fraud.transactions import Label, Transaction
from core.errors import DataError, FeatherweightError, OutputError, UsageError

log = logging.getLogger("featherweight.fraud")

_encode = msgspec.json.Encoder().encode
_decode_transaction = msgspec.json.Decoder(Transaction).decode
_decode_label = msgspec.json.Decoder(Label).decode
_TRANSACTION, _LABEL = b"T", b"L"


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """store.json: what the histories depend on."""

    version: Literal[1] = 1
    delay_days: float


class Store:
    """Open with `open_store`; belongs to one process, which holds the folder's lock until `close`."""

    def __init__(self, folder: Path, engine: FeatureEngine, lock: IO[bytes]) -> None:
        self.folder = folder
        self.engine = engine
        self.journal_bytes = 0
        self._lock = lock
        self._dirty = False
        self._generation = restore(folder, engine)
        self._journal = self._open_journal()

    def record(self, events: Sequence[Transaction] | Sequence[Label]) -> None:
        """In one write. Raises OutputError; then the journal is as it was, and the events must not be counted."""
        self._append(
            b"".join([(_LABEL if isinstance(e, Label) else _TRANSACTION) + _encode(e) + b"\n" for e in events])
        )

    def sync(self) -> None:
        """Bring to the disk what is in the journal. Safe in another thread than that which records."""
        if self._dirty:
            self._dirty = False  # before: what is recorded meanwhile wants the next one
            with _writing(self.folder):
                os.fsync(self._journal)

    def snapshot(self) -> None:
        """Write all histories and begin a new journal. Raises OutputError; the old snapshot and journals then stay."""
        self.engine.customers.expire()
        self.engine.terminals.expire()
        before, old = self._generation, self._journal
        self._generation += 1
        try:
            self._journal = self._open_journal()
        except OutputError:
            self._generation = before
            raise
        self.journal_bytes = 0
        os.close(old)
        write_snapshot(self.folder, self._generation, self.engine)
        with _writing(self.folder):
            remove_older(self.folder, self._generation)

    def close(self) -> None:
        """Give the folder free; without a `snapshot` before it the next `open_store` reads the journal again."""
        try:
            self.sync()
        finally:
            os.close(self._journal)
            self._lock.close()

    def _open_journal(self) -> int:
        with _writing(self.folder):
            return os.open(
                journal_path(self.folder, self._generation), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600
            )

    def _append(self, lines: bytes) -> None:
        with _writing(self.folder):
            try:
                written = os.write(self._journal, lines)
                if written < len(lines):
                    raise OSError(f"only {written} of {len(lines)} bytes could be written")
            except OSError:
                os.ftruncate(self._journal, self.journal_bytes)
                raise
        self.journal_bytes += len(lines)
        self._dirty = True


def open_store(folder: Path, delay_days: float) -> Store:
    """Lock the folder, made if absent, and restore what it keeps. Raises UsageError when another process has it or
    its histories are for another delay, DataError when it is damaged, OutputError when it cannot be written."""
    with _writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    try:
        with _writing(folder):
            _take(lock, folder)
        _bind(folder, delay_days)
        return Store(folder, FeatureEngine(delay_days), lock)
    except FeatherweightError:
        lock.close()
        raise


def restore(folder: Path, engine: FeatureEngine) -> int:
    """Fill `engine` with the newest snapshot and all journals from then on; the number for the next journal."""
    snapshots = _numbered(folder, "snapshot-*")
    newest = max(snapshots, default=0)
    if snapshots:
        engine.customers.read_snapshot(snapshots[newest] / "customers")
        engine.terminals.read_snapshot(snapshots[newest] / "terminals")
    journals = {number: path for number, path in _numbered(folder, "journal-*.jsonl").items() if number >= newest}
    for number in sorted(journals):
        try:
            for event in read_journal(journals[number]):
                if isinstance(event, Label):
                    engine.learn(event)
                else:
                    engine.advance(event)
        except OSError as error:
            raise DataError(f"{journals[number]}: cannot be read ({error.strerror or error})") from error
    return max(newest, *journals, 0) + 1


def read_journal(path: Path) -> Iterator[Transaction | Label]:
    """Raises DataError for a damaged line. A last line that is cut short was never answered and is left out."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if not line.endswith(b"\n"):
                    raise DataError("it does not end")
                yield _decode_event(line)
            except (msgspec.DecodeError, UnicodeDecodeError, DataError) as error:
                if lines.read(1):
                    raise DataError(
                        f"{path}:{number}: damaged ({error}); restore the folder from a copy, or choose another one"
                    ) from error
                log.warning("%s:%d: the last line is cut short; nobody was answered for it", path, number)
                return


def _decode_event(line: bytes) -> Transaction | Label:
    match line[:1]:
        case b"T":
            return _decode_transaction(line[1:])
        case b"L":
            return _decode_label(line[1:])
        case kind:
            raise DataError(f"it begins with {kind!r}")


def write_snapshot(folder: Path, generation: int, engine: FeatureEngine) -> None:
    """Both kinds of histories appear together, by one rename. Raises OutputError."""
    whole = folder / f"snapshot-{generation:08}"
    partial = whole.with_suffix(".partial")
    with _writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        engine.customers.write_snapshot(partial / "customers")
        engine.terminals.write_snapshot(partial / "terminals")
        partial.rename(whole)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_older(folder: Path, generation: int) -> None:
    """Only after the snapshot `generation` is on the disk."""
    for pattern in ("snapshot-*", "journal-*.jsonl"):
        for number, path in _numbered(folder, pattern).items():
            if number < generation:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.glob("snapshot-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def journal_path(folder: Path, generation: int) -> Path:
    return folder / f"journal-{generation:08}.jsonl"


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    found = {path.stem.split("-")[1]: path for path in folder.glob(pattern) if path.suffix != ".partial"}
    return {int(number): path for number, path in found.items() if number.isdecimal()}


def _take(lock: IO[bytes], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{folder}: another process keeps its histories here; choose another folder") from error


def _bind(folder: Path, delay_days: float) -> None:
    path = folder / "store.json"
    wanted = Binding(delay_days=delay_days)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Binding)
    except FileNotFoundError:
        with _writing(folder):
            path.write_bytes(_encode(wanted))
        return
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; it is not a folder of histories, choose another one") from error
    if found != wanted:
        raise UsageError(
            f"{folder}: its histories are kept with delay_days {found.delay_days:g}, the model needs {delay_days:g}; "
            "choose another folder"
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
