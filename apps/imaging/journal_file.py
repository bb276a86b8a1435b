"""The journal's file: made whole or not at all, owned by one process, and trusted only after it has been checked.

Whatever lies in the output folder may have been cut short, restored without its log, edited, or planted. So nothing is
opened that is not a regular file, the schema must be exactly the one that this version makes (no further table, view or
trigger), and SQLite checks its pages before a row is read.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from featherweight.core.errors import FeatherweightError, JournalError, OutputError, UsageError
from featherweight.core.files import (
    atomic_write,
    describe_kind,
    lock_errors,
    open_to_lock,
    take_record_lock,
    write_errors,
)

VERSION = "4"
NAME = "journal.sqlite"
_LOCK = "journal.lock"
_BESIDE = ("-wal", "-shm", "-journal")
FILES = (NAME, *(NAME + suffix for suffix in _BESIDE), _LOCK)
_LONGEST_VALUE_BYTES = 16 << 20
"""No value that the job writes comes near it; a longer one is refused before it takes memory."""

_IN_USE = "{}: another process is classifying into this folder; wait for it or choose another --out"
RESTART = "add --restart to throw it away and begin again"

# checksum: SQLite has none of its own; a flipped bit inside a page may leave a sound database with another probability.
# items.frames: how many rows an item has in the two tables of results.
_SCHEMA = """
CREATE TABLE binding (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    source TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    frames INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE predictions (
    source TEXT NOT NULL, frame INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, sop TEXT NOT NULL,
    probability REAL NOT NULL, decision TEXT NOT NULL, decode_ms REAL NOT NULL, inference_ms REAL NOT NULL,
    notes TEXT NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (source, frame)
) WITHOUT ROWID;
CREATE TABLE rejected (
    source TEXT NOT NULL, frame INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, sop TEXT NOT NULL,
    reason TEXT NOT NULL, message TEXT NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (source, frame)
) WITHOUT ROWID;
CREATE TABLE thumbnails (
    source TEXT NOT NULL, frame INTEGER NOT NULL, jpeg BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (source, frame)
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, wall_s REAL NOT NULL DEFAULT 0, waiting_s REAL NOT NULL DEFAULT 0,
    inference_s REAL NOT NULL DEFAULT 0, items INTEGER NOT NULL DEFAULT 0
);
"""
_Objects = Mapping[str, tuple[str, ...]]


def acquire_lock(directory: Path) -> IO[bytes]:
    """A POSIX record lock: it ends with the process however that ends, and a forked worker does not inherit it. Makes
    the folder. Raises OutputError, or UsageError when another process has the lock."""
    path = directory / _LOCK
    with write_errors(directory, remedy="choose another --out"):
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(open_to_lock(path, 0o666), "r+b", buffering=0)  # noqa: SIM115, PTH123  (closed with the journal)
    try:
        _check_regular(path, os.fstat(lock.fileno()).st_mode)
        with lock_errors(directory, _IN_USE.format(directory)):
            take_record_lock(lock.fileno())
    except FeatherweightError:
        lock.close()
        raise
    return lock


def exists(directory: Path) -> bool:
    """Whether the folder has a journal. Raises JournalError when only its log is left, or it is not a regular file."""
    path = directory / NAME
    for suffix in ("", *_BESIDE):
        found = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            _check_regular(found, found.lstat().st_mode)
    if path.exists():
        return True
    left = [suffix for suffix in _BESIDE if path.with_name(path.name + suffix).exists()]
    if left:
        raise JournalError(f"{path}: is gone, but {path.name}{left[0]} is there; put it back, or {RESTART}")
    return False


def create(directory: Path, binding: Mapping[str, str]) -> None:
    """Make an empty journal that is there with its whole schema or not at all: an empty file is then always a damaged
    one, never the start of a job. Raises OutputError."""
    path = directory / NAME
    with (
        atomic_write(path, "cannot be made", "make room or mend the disk") as partial,
        journal_errors(path),
        closing(sqlite3.connect(partial, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.executescript(f"BEGIN;{_SCHEMA}")
        connection.executemany("INSERT INTO binding VALUES (?, ?)", {"version": VERSION, **binding}.items())
        connection.execute("COMMIT")


def connect(directory: Path, binding: Mapping[str, str]) -> sqlite3.Connection:
    """The journal that is there, checked. Raises UsageError for one of another job or version, JournalError for one
    that is damaged or was changed."""
    path = directory / NAME
    with journal_errors(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with journal_errors(path):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            # One process owns the file, so the log's index can live in memory: no shared-memory file that a full
            # disk or a network file system could break.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _check_schema(connection, path)
            _check_binding(connection, {"version": VERSION, **binding}, directory)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise damaged(path, str(found))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # A thumbnail that is dropped (--no-thumbnails on a later run) leaves no pixels in the file's free pages.
            connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def remove(directory: Path, outputs: Collection[str]) -> None:
    """Throw away the outputs and then the journal, whatever it is. Raises OutputError, or UsageError when another
    process still works with it (its lock file may have been deleted; SQLite's own lock is on the journal itself)."""
    path = directory / NAME
    if path.is_file() and not path.is_symlink():
        try:
            with closing(sqlite3.connect(path, isolation_level=None, timeout=0.5)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                raise UsageError(_IN_USE.format(directory)) from error
    for name in (*outputs, *(NAME + suffix for suffix in (*_BESIDE, ""))):
        with write_errors(directory / name, "cannot be removed", "choose another --out"):
            (directory / name).unlink(missing_ok=True)


def damaged(path: Path, found: str) -> JournalError:
    """The error for a journal that is not as it was written."""
    return JournalError(
        f"{path}: {_shown(found)}; the journal is damaged or was changed: put a copy back, or {RESTART}"
    )


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """What sqlite raises within the block becomes a JournalError."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a bug of ours, not the disk's fault
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        kind = code.split("_")[1] if "_" in code else ""
        match kind:
            case "FULL" | "IOERR" | "NOLFS":
                advice = "what was committed is kept: make room or mend the disk, and the same command goes on"
            case "BUSY" | "LOCKED":
                advice = "another program has it open: end that program, and the same command goes on"
            case "CANTOPEN" | "READONLY" | "PERM" | "AUTH":
                advice = (
                    "what was committed is kept: make the folder and the file writable, and the same command goes on"
                )
            case "NOMEM":
                advice = "what was committed is kept: free some memory, and the same command goes on"
            case _:
                raise damaged(path, f"{error} {code}".rstrip()) from error
        raise OutputError(f"{path}: {error} {code}; {advice}") from error


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise JournalError(
            f"{path}: found {describe_kind(mode)}, expected a regular file; remove it or choose another --out"
        )


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise unless the schema is exactly that of this version: a missing table would be missing rows, and a trigger or
    a view would be a program of somebody else's."""
    found, expected = _objects(connection), _expected_objects()
    if "binding" in found and found["binding"] == expected["binding"]:
        rows = connection.execute("SELECT value FROM binding WHERE key = 'version'").fetchall()
        if rows and rows != [(VERSION,)]:
            raise UsageError(
                f"{path}: its format is {_shown(rows[0][0])}, this version of featherweight reads {VERSION}; finish "
                f"the job with the version that began it, choose another --out, or {RESTART}"
            )
    wrong = [
        *(f"lacks the {expected[name][0]} {name}" for name in expected if name not in found),
        *(f"has the {found[name][0]} {name}, which is not ours" for name in found if name not in expected),
        *(f"its {name} has other columns" for name in expected if found.get(name, expected[name]) != expected[name]),
    ]
    if wrong:
        raise damaged(path, wrong[0])


def _objects(connection: sqlite3.Connection) -> _Objects:
    query = "SELECT name, type, tbl_name, sql FROM sqlite_master ORDER BY rowid LIMIT 1000"
    return {str(name): (str(kind), str(table), str(sql)) for name, kind, table, sql in connection.execute(query)}


def _expected_objects() -> _Objects:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _objects(connection)


def _check_binding(connection: sqlite3.Connection, binding: Mapping[str, str], directory: Path) -> None:
    found = dict(connection.execute("SELECT key, value FROM binding"))
    if "version" not in found:
        raise damaged(directory / NAME, "does not say which job it belongs to")
    differing = [key for key in binding if found.get(key) != binding[key]]
    if differing:
        changes = "; ".join(
            f"{key} was {_shown(found.get(key, 'not recorded'))}, is now {binding[key]}" for key in differing
        )
        raise UsageError(
            f"{directory}: holds the journal of another job ({changes}); choose another --out, "
            "or add --restart to throw that job's journal away"
        )


def _shown(value: object) -> str:
    """What stands in a message, of a value that anybody may have written."""
    text = str(value)[:200]
    return text if text.isprintable() else ascii(text)
