"""The batch job's memory: which items are finished and what came of them, in one SQLite file.

An item (a file) enters with all of its frames in one transaction, or not at all; so a job that is killed at any
moment and started again classifies only what is not in here, and no row exists twice: (source, frame) is the primary
key. SQLite's write-ahead log with `synchronous = NORMAL` loses nothing when the process dies; a power failure may
lose the last transactions, whose items are then classified again.

The journal is bound to one model and one source. An item whose file has another size or modification time than when it
was classified is classified again; an item whose file is gone keeps its rows.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from apps.imaging.frames import FrameId, Prediction, Rejected
from core.errors import OutputError, UsageError

VERSION = "1"
_NAME = "journal.sqlite"
_LOCK = "journal.lock"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS binding (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    source TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, rejected INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS predictions (
    source TEXT NOT NULL, frame INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, sop TEXT NOT NULL,
    probability REAL NOT NULL, decision TEXT NOT NULL, decode_ms REAL NOT NULL, inference_ms REAL NOT NULL,
    PRIMARY KEY (source, frame)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejected (
    source TEXT NOT NULL, frame INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, sop TEXT NOT NULL,
    reason TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (source, frame)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS thumbnails (
    source TEXT NOT NULL, frame INTEGER NOT NULL, jpeg BLOB NOT NULL, PRIMARY KEY (source, frame)
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, wall_s REAL NOT NULL DEFAULT 0, waiting_s REAL NOT NULL DEFAULT 0,
    inference_s REAL NOT NULL DEFAULT 0, items INTEGER NOT NULL DEFAULT 0
);
"""
_TABLES_OF_ROWS = ("predictions", "rejected", "thumbnails")


@dataclass(frozen=True)
class Fingerprint:
    """What tells a changed file; (-1, -1) stands for a file that was not there."""

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        try:
            found = path.stat()
        except OSError:
            return cls(-1, -1)
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class Finished:
    """One item with everything that came of it. thumbnails: frame -> JPEG."""

    source: str
    fingerprint: Fingerprint
    predictions: Sequence[Prediction]
    rejected: Sequence[Rejected]
    thumbnails: Mapping[int, bytes]


@dataclass(frozen=True)
class Spent:
    """Where a run's time went, in seconds of the main process. items: how many this run finished."""

    wall_s: float = 0.0
    waiting_s: float = 0.0
    inference_s: float = 0.0
    items: int = 0


@dataclass(frozen=True)
class Totals:
    """Over all runs. started: of the first run; wall_s and what follows: summed."""

    started: str
    runs: int
    items: int
    images: int
    rejected: int
    rejected_items: int
    decisions: Mapping[str, int]
    reasons: Mapping[str, int]
    decode_s: float
    wall_s: float
    waiting_s: float
    inference_s: float
    items_in_runs: int


class Journal:
    """Open with `open_journal`; belongs to one process, which holds the folder's lock until `close`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: IO[str], run: int) -> None:
        self._connection = connection
        self._path = path
        self._lock = lock
        self._run = run

    def is_finished(self, source: str, fingerprint: Fingerprint) -> bool:
        """Whether `source` is in here, and was classified in the state that it is in now."""
        with _journal_errors(self._path):
            row = self._connection.execute(
                "SELECT size_bytes, modified_ns FROM items WHERE source = ?", (source,)
            ).fetchone()
        return row is not None and Fingerprint(*row) == fingerprint

    def commit(self, items: Sequence[Finished], spent: Spent) -> None:
        """Write whole items and this run's times so far in one transaction. Raises OutputError (nothing is written)."""
        with _journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for item in items:
                self._write_item(item)
            self._connection.execute(
                "UPDATE runs SET wall_s = ?, waiting_s = ?, inference_s = ?, items = ? WHERE id = ?",
                (spent.wall_s, spent.waiting_s, spent.inference_s, spent.items, self._run),
            )

    def _write_item(self, item: Finished) -> None:
        execute = self._connection.execute
        for table in _TABLES_OF_ROWS:
            execute(f"DELETE FROM {table} WHERE source = ?", (item.source,))  # noqa: S608 (our own names)
        stamp = item.fingerprint
        execute(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)",
            (item.source, stamp.size_bytes, stamp.modified_ns, bool(item.rejected)),
        )
        self._connection.executemany(
            "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((*_key(p.id), p.probability, p.decision, p.decode_ms, p.inference_ms) for p in item.predictions),
        )
        self._connection.executemany(
            "INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((*_key(r.id), r.reason, r.message) for r in item.rejected),
        )
        self._connection.executemany(
            "INSERT INTO thumbnails VALUES (?, ?, ?)",
            ((item.source, frame, jpeg) for frame, jpeg in item.thumbnails.items()),
        )

    def forget_rejected(self) -> int:
        """Items with a rejected frame become unfinished again; returns how many."""
        with _journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES_OF_ROWS:
                self._connection.execute(
                    f"DELETE FROM {table} WHERE source IN (SELECT source FROM items WHERE rejected)"  # noqa: S608
                )
            return self._connection.execute("DELETE FROM items WHERE rejected").rowcount

    def keep_thumbnails(self, count: int) -> None:
        """Drop every thumbnail but those of the `count` frames of highest probability."""
        with _journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "DELETE FROM thumbnails WHERE (source, frame) NOT IN "
                "(SELECT source, frame FROM predictions ORDER BY probability DESC, source, frame LIMIT ?)",
                (count,),
            )

    def highest(self, count: int) -> Iterator[tuple[Prediction, bytes | None]]:
        """The `count` frames of highest probability, highest first, with their thumbnails where there are any."""
        query = (
            "SELECT p.*, t.jpeg FROM (SELECT * FROM predictions ORDER BY probability DESC, source, frame LIMIT ?) AS p "
            "LEFT JOIN thumbnails AS t ON t.source = p.source AND t.frame = p.frame "
            "ORDER BY p.probability DESC, p.source, p.frame"
        )
        for row in self._rows(query, (count,)):
            yield _prediction(row[:9]), row[9]

    def predictions(self) -> Iterator[Prediction]:
        """Every prediction by source and frame, streamed."""
        for row in self._rows("SELECT * FROM predictions ORDER BY source, frame"):
            yield _prediction(row)

    def rejected(self, count: int = -1) -> Iterator[Rejected]:
        """Every rejected frame (or the first `count`) by source and frame, streamed."""
        for row in self._rows("SELECT * FROM rejected ORDER BY source, frame LIMIT ?", (count,)):
            yield Rejected(FrameId(*row[:5]), row[5], row[6])

    def histogram(self, bins: int) -> dict[str, list[int]]:
        """Decision -> number of frames per equal bin of the probability's range 0..1; 1 falls in the last bin."""
        counts: dict[str, list[int]] = {}
        query = "SELECT decision, MIN(CAST(probability * ? AS INTEGER), ?), COUNT(*) FROM predictions GROUP BY 1, 2"
        for decision, index, count in self._rows(query, (bins, bins - 1)):
            counts.setdefault(decision, [0] * bins)[index] = count
        return counts

    def totals(self) -> Totals:
        def one(query: str) -> tuple[Any, ...]:
            return next(self._rows(query))

        values = (
            *one("SELECT MIN(started), COUNT(*) FROM runs"),
            *one("SELECT COUNT(*) FROM items"),
            *one("SELECT COUNT(*) FROM predictions"),
            *one("SELECT COUNT(*), COUNT(DISTINCT source) FROM rejected"),
            dict(self._rows("SELECT decision, COUNT(*) FROM predictions GROUP BY 1 ORDER BY 1")),
            dict(self._rows("SELECT reason, COUNT(*) FROM rejected GROUP BY 1 ORDER BY 2 DESC, 1")),
            *one("SELECT TOTAL(decode_ms) / 1000 FROM predictions"),
            *one("SELECT TOTAL(wall_s), TOTAL(waiting_s), TOTAL(inference_s), SUM(items) FROM runs"),
        )
        return Totals(**dict(zip((field.name for field in fields(Totals)), values, strict=True)))

    def _rows(self, query: str, values: tuple[int, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with _journal_errors(self._path):
            yield from self._connection.execute(query, values)

    def close(self) -> None:
        """Give the folder back. What was committed stays, also when the disk is too full to tidy up the log."""
        try:
            self._connection.close()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_journal(directory: Path, binding: Mapping[str, str], started: str, *, restart: bool = False) -> Journal:
    """Open or begin the journal in `directory` (made if absent) and take the folder's lock.

    binding: what this job is (words -> value: the model's digest, the source, ...). Raises UsageError when
    another process works in the folder or when the journal there is of another job, OutputError when it cannot be read
    or written. `restart` throws away the journal that is there. started: this run's start, ISO 8601.
    """
    path = directory / _NAME
    lock = _acquire_lock(directory)
    try:
        if restart:
            _remove(path)
        connection = _connect(path)
        try:
            with _journal_errors(path), connection:
                connection.execute("BEGIN IMMEDIATE")
                _check_binding(connection, {"version": VERSION, **binding}, directory)
                run = connection.execute("INSERT INTO runs (started) VALUES (?)", (started,)).lastrowid
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.close()
        raise
    return Journal(connection, path, lock, run or 0)


def _acquire_lock(directory: Path) -> IO[str]:
    """A POSIX record lock: it ends with the process however that ends, and a forked worker does not inherit it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / _LOCK).open("a")
    except OSError as error:
        raise OutputError(f"{directory}: cannot write there ({error.strerror}); choose another --out") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(
            f"{directory}: another process is classifying into this folder; wait for it or choose another --out"
        ) from error
    return lock


def _remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal", ""):
        try:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed ({error.strerror})") from error


def _connect(path: Path) -> sqlite3.Connection:
    with _journal_errors(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with _journal_errors(path):
            # One process owns the file, so the log's index can live in memory: no shared-memory file that a full
            # disk or a network file system could break.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # A thumbnail that is dropped (--no-thumbnails on a later run) leaves no pixels in the file's free pages.
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_binding(connection: sqlite3.Connection, binding: Mapping[str, str], directory: Path) -> None:
    found = dict(connection.execute("SELECT key, value FROM binding"))
    if not found:
        connection.executemany("INSERT INTO binding VALUES (?, ?)", binding.items())
        return
    differing = [key for key in binding if found.get(key) != binding[key]]
    if differing:
        changes = "; ".join(f"{key} was {found.get(key, 'not recorded')}, is now {binding[key]}" for key in differing)
        raise UsageError(
            f"{directory}: holds the journal of another job ({changes}); choose another --out, "
            "or add --restart to throw that job's journal away"
        )


@contextmanager
def _journal_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a bug of ours, not the disk's fault
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorname", "")
        if code in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
            advice = "the file is damaged; add --restart to throw it away and begin again"
        else:
            advice = "what was committed is kept: make room or mend the disk, and the same command goes on"
        raise OutputError(f"{path}: {error} {code}; {advice}") from error


def _key(frame: FrameId) -> tuple[str, int, str, str, str]:
    return (
        frame.source,
        frame.frame,
        frame.study_instance_uid,
        frame.series_instance_uid,
        frame.sop_instance_uid,
    )


def _prediction(row: tuple[Any, ...]) -> Prediction:
    return Prediction(FrameId(*row[:5]), *row[5:])
