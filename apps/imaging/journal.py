"""The batch job's memory: which items are finished and what came of them, in one SQLite file.

An item (a file) enters with all of its frames in one transaction, or not at all; so a job that is killed at any
moment and started again classifies only what is not in here, and no row exists twice: (source, frame) is the primary
key. SQLite's write-ahead log with `synchronous = NORMAL` loses nothing when the process dies; a power failure may
lose the last transactions, whose items are then classified again.

The journal is bound to one model and one source. An item whose file has another size or another time of modification
or change than when it was classified is classified again; one that the source no longer has is dropped when a run has
seen the whole source.

What comes back is what went in: every row has a checksum and every item the number of its rows, and where they do not
agree the job ends with an error and writes nothing. That finds damage and careless edits; anyone who may write to the
folder can forge a journal as well as the results.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from featherweight.apps.imaging import journal_file
from featherweight.apps.imaging.frames import FrameId, Prediction, RejectedFrame
from featherweight.apps.imaging.journal_file import damaged, journal_errors
from featherweight.apps.imaging.journal_rows import (
    checksum,
    decode_prediction,
    encode_prediction,
    frame_key,
    is_amount,
    is_time,
)
from featherweight.core.closing import Closing
from featherweight.core.errors import UsageError
from featherweight.core.terminal import counted

_COLUMNS = {"predictions": 11, "rejected": 8, "thumbnails": 4}
"""Number of columns of each table of rows; the last column is the row's checksum."""
_LONGEST_THUMBNAIL_BYTES = 1 << 20
_WRAP = (1 << 63) - 1


@dataclass(frozen=True)
class Fingerprint:
    """What tells a changed file; (-1, -1) stands for a file that was not there.

    changed_ns: when the system last saw its content, name or times change. Files of one device have one size, and
    programs that copy or unpack them set the time of modification, so that another image may have both; this time
    cannot be set.
    """

    size_bytes: int
    modified_ns: int
    changed_ns: int = 0

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Fingerprint of the file as it is now; ABSENT where there is no file."""
        try:
            found = path.stat()
        except OSError:
            return ABSENT
        # Some file systems hold times beyond 2262, which SQLite's integers do not; only equality is asked for.
        return cls(found.st_size, found.st_mtime_ns & _WRAP, found.st_ctime_ns & _WRAP)


ABSENT = Fingerprint(-1, -1)


@dataclass(frozen=True)
class Dropped:
    """Items of earlier runs that the source no longer has: how many, and the first of their names."""

    items: int
    first: Sequence[str]


@dataclass(frozen=True)
class Repeated:
    """A SOP Instance UID that several files have: how many of them, and the names of two."""

    files: int
    first: str
    last: str


@dataclass(frozen=True)
class Finished:
    """One item with everything that came of it. thumbnails: frame -> JPEG."""

    source: str
    fingerprint: Fingerprint
    predictions: Sequence[Prediction]
    rejected: Sequence[RejectedFrame]
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


class Journal(Closing):
    """Open with `open_journal`; belongs to one process, which holds the folder's lock until `close`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: IO[bytes], run: int) -> None:
        self._connection = connection
        self._path = path
        self._lock = lock
        self._run = run

    def is_finished(self, source: str, fingerprint: Fingerprint) -> bool:
        """Whether `source` is in here, and was classified in the state that it is in now."""
        with journal_errors(self._path):
            row = self._connection.execute(
                "SELECT size_bytes, modified_ns, changed_ns FROM items WHERE source = ?", (source,)
            ).fetchone()
        return row is not None and Fingerprint(*row) == fingerprint

    def is_seen(self, source: str) -> bool:
        """Note that the source still has this item; True when that was noted before in this run."""
        with journal_errors(self._path):
            return self._connection.execute("INSERT OR IGNORE INTO temp.seen VALUES (?)", (source,)).rowcount == 0

    def drop_unseen(self, shown: int) -> Dropped:
        """Drop what this run has not seen with its rows and thumbnails; the first `shown` of its names are returned.
        Only for a run that has seen the whole source."""
        with journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            unseen = "FROM items WHERE source NOT IN (SELECT source FROM temp.seen)"
            (count,) = self._connection.execute(f"SELECT COUNT(*) {unseen}").fetchone()
            first = self._connection.execute(f"SELECT source {unseen} ORDER BY source LIMIT ?", (shown,)).fetchall()
            if count:
                for table in (*_COLUMNS, "items"):
                    self._connection.execute(f"DELETE FROM {table} WHERE source NOT IN (SELECT source FROM temp.seen)")  # noqa: S608
        return Dropped(count, [name for (name,) in first])

    def commit(self, items: Sequence[Finished], spent: Spent) -> None:
        """Write whole items and this run's times so far in one transaction. Raises OutputError (nothing is written)."""
        with journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for item in items:
                self._write_item(item)
            self._connection.execute(
                "UPDATE runs SET wall_s = ?, waiting_s = ?, inference_s = ?, items = ? WHERE id = ?",
                (spent.wall_s, spent.waiting_s, spent.inference_s, spent.items, self._run),
            )

    def _write_item(self, item: Finished) -> None:
        execute = self._connection.execute
        for table in _COLUMNS:
            execute(f"DELETE FROM {table} WHERE source = ?", (item.source,))  # noqa: S608 (our own names)
        stamp, frames = item.fingerprint, len(item.predictions) + len(item.rejected)
        execute(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
            (item.source, stamp.size_bytes, stamp.modified_ns, stamp.changed_ns, frames),
        )
        self._insert("predictions", map(encode_prediction, item.predictions))
        self._insert("rejected", ((*frame_key(r.id), r.reason, r.message) for r in item.rejected))
        self._insert("thumbnails", ((item.source, frame, jpeg) for frame, jpeg in item.thumbnails.items()))

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * _COLUMNS[table])
        query = f"INSERT INTO {table} VALUES ({marks})"  # noqa: S608 (our own names)
        self._connection.executemany(query, ((*row, checksum(row)) for row in rows))

    def forget_rejected(self) -> int:
        """Items with a rejected frame become unfinished again; returns how many."""
        with journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            sources = self._connection.execute("SELECT DISTINCT source FROM rejected").fetchall()
            for table in (*_COLUMNS, "items"):
                self._connection.executemany(f"DELETE FROM {table} WHERE source = ?", sources)  # noqa: S608
            return len(sources)

    def keep_thumbnails(self, count: int) -> None:
        """Drop every thumbnail but those of the `count` frames of highest probability."""
        with journal_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "DELETE FROM thumbnails WHERE (source, frame) NOT IN "
                "(SELECT source, frame FROM predictions ORDER BY probability DESC, source, frame LIMIT ?)",
                (count,),
            )

    def highest(self, count: int) -> Iterator[tuple[Prediction, bytes | None]]:
        """The `count` frames of highest probability, highest first, with their thumbnails where there are any."""
        query = (
            "SELECT * FROM (SELECT * FROM predictions ORDER BY probability DESC, source, frame LIMIT ?) AS p "
            "LEFT JOIN thumbnails AS t ON t.source = p.source AND t.frame = p.frame "
            "ORDER BY p.probability DESC, p.source, p.frame"
        )
        for row in self._rows(query, (count,)):
            prediction, thumbnail = row[: _COLUMNS["predictions"]], row[_COLUMNS["predictions"] :]
            jpeg = None if thumbnail[0] is None else self._checked(thumbnail)[2]
            yield decode_prediction(self._checked(prediction)), jpeg

    def predictions(self) -> Iterator[Prediction]:
        """Every prediction by source and frame, streamed. Raises OutputError for one that is not as it was written."""
        for row in self._rows("SELECT * FROM predictions ORDER BY source, frame"):
            yield decode_prediction(self._checked(row))

    def ranked(self, decision: str) -> Iterator[Prediction]:
        """Every prediction of this decision, highest probability first, streamed. Raises OutputError likewise."""
        query = "SELECT * FROM predictions WHERE decision = ? ORDER BY probability DESC, source, frame"
        for row in self._rows(query, (decision,)):
            yield decode_prediction(self._checked(row))

    def repeated(self) -> dict[str, Repeated]:
        """The SOP Instance UIDs that predictions of more than one file have."""
        query = (
            "SELECT sop, COUNT(DISTINCT source), MIN(source), MAX(source) FROM predictions WHERE sop != '' "
            "GROUP BY sop HAVING MIN(source) != MAX(source)"
        )
        return {uid: Repeated(*found) for uid, *found in self._rows(query)}

    def rejected(self, count: int = -1) -> Iterator[RejectedFrame]:
        """Every rejected frame (or the first `count`) by source and frame, streamed. Raises OutputError likewise."""
        for row in self._rows("SELECT * FROM rejected ORDER BY source, frame LIMIT ?", (count,)):
            *key, reason, message = self._checked(row)
            yield RejectedFrame(FrameId(*key), reason, message)

    def check(self, decisions: Collection[str] | None) -> None:
        """Raise OutputError unless everything in here can be accounted for: every item has all its rows, every row is
        as it was written and means something. decisions: the labels that the job's model gives."""
        self._check_counts()
        for prediction in self.predictions():
            sound = isinstance(prediction.probability, float) and 0 <= prediction.probability <= 1
            sound &= isinstance(prediction.notes, str)
            if not sound or (decisions is not None and prediction.decision not in decisions):
                raise damaged(self._path, f"a prediction for {prediction.id.source} is not one of this model")
        for _ in self.rejected():
            pass  # reading checks
        for row in self._rows("SELECT * FROM thumbnails"):
            if not isinstance(self._checked(row)[2], bytes) or len(row[2]) > _LONGEST_THUMBNAIL_BYTES:
                raise damaged(self._path, f"a thumbnail of {row[0]} is not a picture")
        for started, *numbers in self._rows("SELECT started, wall_s, waiting_s, inference_s, items FROM runs"):
            if not (is_time(started) and all(is_amount(number) for number in numbers)):
                raise damaged(self._path, "a run's start or times are not valid")

    def _check_counts(self) -> None:
        lacking = (
            "SELECT source, frames, (SELECT COUNT(*) FROM predictions AS p WHERE p.source = i.source) "
            "+ (SELECT COUNT(*) FROM rejected AS r WHERE r.source = i.source) AS found FROM items AS i "
            "WHERE found IS NOT frames LIMIT 1"
        )
        for source, frames, found in self._rows(lacking):
            raise damaged(self._path, f"{counted(found, 'rows')} of {source}, expected {frames}")
        strays = (
            "SELECT (SELECT COUNT(*) FROM predictions) + (SELECT COUNT(*) FROM rejected) "
            "- (SELECT TOTAL(frames) FROM items), "
            "(SELECT COUNT(*) FROM thumbnails WHERE (source, frame) NOT IN (SELECT source, frame FROM predictions))"
        )
        for rows, thumbnails in self._rows(strays):
            if rows or thumbnails:
                raise damaged(self._path, "rows or thumbnails of items that are not in here")

    def _checked(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row without its checksum. Raises OutputError when it is not as it was written."""
        if checksum(row[:-1]) != row[-1]:
            raise damaged(self._path, f"a row of {row[0]} is not as it was written")
        return row[:-1]

    def histogram(self, bins: int) -> dict[str, list[int]]:
        """Decision -> number of frames per equal bin of the probability's range 0..1; 1 falls in the last bin."""
        counts: dict[str, list[int]] = {}
        query = "SELECT decision, MIN(CAST(probability * ? AS INTEGER), ?), COUNT(*) FROM predictions GROUP BY 1, 2"
        for decision, index, count in self._rows(query, (bins, bins - 1)):
            counts.setdefault(decision, [0] * bins)[index] = count
        return counts

    def totals(self) -> Totals:
        """Sums over all runs of the job."""

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

    def _rows(self, query: str, values: tuple[int | str, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with journal_errors(self._path):
            yield from self._connection.execute(query, values)

    def close(self) -> None:
        """Give the folder back. What was committed stays, also when the disk is too full to tidy up the log."""
        try:
            self._connection.close()
        finally:
            self._lock.close()


def open_journal(
    directory: Path,
    binding: Mapping[str, str],
    started: str,
    *,
    decisions: Collection[str] | None = None,
    outputs: Collection[str] = (),
    restart: bool = False,
) -> Journal:
    """Open or begin the journal in `directory` (made if absent) and take the folder's lock.

    binding: what this job is (words -> value: the model's digest, the source, ...); decisions: the labels that its
    model gives (None: any); outputs: names of the files that are made from the journal; started: this run's start, ISO
    8601. Raises UsageError when another process works in the folder, when the journal there is of another job or
    version, or when outputs are there without their journal; OutputError when it is damaged or cannot be read or
    written. `restart` throws away the journal and the outputs that are there.
    """
    path = directory / journal_file.NAME
    lock = journal_file.acquire_lock(directory)
    try:
        if restart:
            journal_file.remove(directory, outputs)
        if not journal_file.exists(directory):
            _refuse_outputs(directory, outputs)
            journal_file.create(directory, binding)
        connection = journal_file.connect(directory, binding)
        try:
            Journal(connection, path, lock, 0).check(decisions)
            with journal_errors(path):
                run = connection.execute("INSERT INTO runs (started) VALUES (?)", (started,)).lastrowid
                # Rows of this run alone, perhaps millions: in SQLite's temporary file, not in memory.
                connection.execute("CREATE TEMP TABLE seen (source TEXT PRIMARY KEY) WITHOUT ROWID")
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.close()
        raise
    return Journal(connection, path, lock, run or 0)


def _refuse_outputs(directory: Path, outputs: Collection[str]) -> None:
    found = next((name for name in outputs if (directory / name).exists()), None)
    if found is not None:
        raise UsageError(
            f"{directory}: holds {found}, but not the {journal_file.NAME} that this job writes it from; choose another "
            "--out, or add --restart to replace it"
        )
