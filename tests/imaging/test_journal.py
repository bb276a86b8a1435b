from __future__ import annotations

import contextlib
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.imaging.frames import FrameId, Prediction, RejectedFrame
from featherweight.apps.imaging.journal import Fingerprint, Finished, Journal, Spent, open_journal
from featherweight.apps.imaging.journal_rows import checksum
from featherweight.core.errors import OutputError, UsageError

BINDING = {"model": "m1", "source": "/scans"}
STAMP = Fingerprint(10, 20)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path, BINDING, "2026-01-01") as opened:
        yield opened


def item(source: str, *probabilities: float, rejected: int = 0, thumbnails: dict[int, bytes] | None = None) -> Finished:
    predictions = [
        Prediction(FrameId(source, frame, "1.2", "1.3", "1.4"), probability, "normal", 1.5, 2.5)
        for frame, probability in enumerate(probabilities)
    ]
    refused = [
        RejectedFrame(FrameId(source, len(predictions) + frame), "truncated", "short") for frame in range(rejected)
    ]
    return Finished(source, STAMP, predictions, refused, thumbnails or {})


def test_rows_come_back_as_they_went_in_sorted(journal: Journal) -> None:
    items = [item("b", 0.25, 0.5), item("a", 0.75, rejected=1)]
    journal.commit(items, Spent())
    assert list(journal.predictions()) == [*items[1].predictions, *items[0].predictions]
    assert list(journal.rejected()) == list(items[1].rejected)


def test_an_item_is_finished_only_in_the_state_it_was_classified_in(journal: Journal) -> None:
    journal.commit([item("a", 0.5)], Spent())
    assert journal.is_finished("a", STAMP)
    assert not journal.is_finished("a", Fingerprint(10, 21))
    assert not journal.is_finished("a", Fingerprint(11, 20))
    assert not journal.is_finished("a", Fingerprint(10, 20, 30))
    assert not journal.is_finished("b", STAMP)


def test_a_changed_item_replaces_all_its_rows(journal: Journal) -> None:
    journal.commit([item("a", 0.5, 0.6, rejected=2, thumbnails={0: b"old"})], Spent())
    journal.commit([item("a", 0.1)], Spent())
    assert [p.probability for p in journal.predictions()] == [0.1]
    assert list(journal.rejected()) == []
    assert [jpeg for _, jpeg in journal.highest(5)] == [None]


def test_a_transaction_that_fails_leaves_nothing(journal: Journal) -> None:
    twice = item("b", 0.5)
    bad = Finished("b", STAMP, [*twice.predictions, *twice.predictions], [], {})
    with pytest.raises(sqlite3.IntegrityError):
        journal.commit([item("a", 0.5), bad], Spent())
    assert list(journal.predictions()) == []
    journal.commit([item("a", 0.5)], Spent())
    assert len(list(journal.predictions())) == 1


def test_what_was_committed_is_there_when_opened_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with open_journal(tmp_path, BINDING, "2026-01-01") as journal:
            journal.commit([item(name, 0.5)], Spent(2.0, 1.0, 0.5, 1))
    with open_journal(tmp_path, BINDING, "2026-01-02") as journal:
        totals = journal.totals()
    assert (totals.items, totals.images, totals.runs, totals.items_in_runs) == (2, 2, 3, 2)
    assert (totals.wall_s, totals.waiting_s, totals.inference_s) == (4.0, 2.0, 1.0)
    assert totals.started == "2026-01-01"


@pytest.mark.parametrize("key", ["model", "source"])
def test_another_job_is_refused_until_restart(tmp_path: Path, key: str) -> None:
    with open_journal(tmp_path, BINDING, "2026-01-01") as journal:
        journal.commit([item("a", 0.5)], Spent())
    other = {**BINDING, key: "another"}
    with pytest.raises(UsageError, match=f"{key} was .*, is now another.*--restart"):
        open_journal(tmp_path, other, "2026-01-02")
    with open_journal(tmp_path, other, "2026-01-02", restart=True) as journal:
        assert list(journal.predictions()) == []


def test_a_second_process_is_refused(journal: Journal, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from featherweight.apps.imaging.journal import open_journal\n"
        "from featherweight.core.errors import UsageError\n"
        "try:\n    open_journal(Path(sys.argv[1]), {}, '')\n"
        "except UsageError as error:\n    print(error); sys.exit(7)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 7, ended.stderr
    assert "another process" in ended.stdout


def test_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError, match=r"not a database.*--restart"):
        open_journal(tmp_path, BINDING, "2026-01-01")
    with open_journal(tmp_path, BINDING, "2026-01-01", restart=True) as journal:
        assert journal.totals().items == 0


def test_forgetting_the_rejected_makes_whole_items_unfinished(journal: Journal) -> None:
    journal.commit([item("a", 0.5), item("b", 0.5, rejected=1)], Spent())
    assert journal.forget_rejected() == 1
    assert journal.is_finished("a", STAMP)
    assert not journal.is_finished("b", STAMP)
    assert [p.id.source for p in journal.predictions()] == ["a"]
    assert list(journal.rejected()) == []


def test_only_the_highest_keep_their_thumbnails(journal: Journal) -> None:
    for index in range(6):
        journal.commit([item(str(index), index / 10, thumbnails={0: str(index).encode()})], Spent())
    journal.keep_thumbnails(2)
    assert [(p.id.source, jpeg) for p, jpeg in journal.highest(4)] == [
        ("5", b"5"),
        ("4", b"4"),
        ("3", None),
        ("2", None),
    ]


def test_the_histogram_counts_every_frame_once(journal: Journal) -> None:
    journal.commit([item("a", 0.0, 0.099, 0.1, 0.999, 1.0)], Spent())
    assert journal.histogram(10) == {"normal": [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]}


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
finished = st.builds(
    lambda source, shares, rejected: item(source, *shares, rejected=rejected),
    names,
    st.lists(st.floats(0, 1), max_size=3),
    st.integers(0, 2),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(finished, max_size=4), max_size=5))
def test_like_a_dictionary_whatever_the_transactions(batches: list[list[Finished]]) -> None:
    expected: dict[str, Finished] = {}
    with tempfile.TemporaryDirectory() as name:
        for batch in batches:
            with open_journal(Path(name), BINDING, "2026-01-01") as journal:
                journal.commit(batch, Spent())
            expected |= {one.source: one for one in batch}
        with open_journal(Path(name), BINDING, "2026-01-01") as journal:
            order = sorted(expected)
            assert list(journal.predictions()) == [p for source in order for p in expected[source].predictions]
            assert list(journal.rejected()) == [r for source in order for r in expected[source].rejected]
            assert journal.totals().items == len(expected)


def finished_journal(folder: Path) -> Path:
    """Four items, three predictions, two rejected frames, one thumbnail."""
    with open_journal(folder, BINDING, "2026-01-01") as journal:
        journal.commit([item("a", 0.5, 0.25, thumbnails={0: b"jpeg"}), item("b", 0.75, rejected=1)], Spent(1.0, 0.5))
        journal.commit([item("c", rejected=1)], Spent(2.0, 1.0))
    return folder / "journal.sqlite"


def alter(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


EDITS = {
    "a prediction is gone": "DELETE FROM predictions WHERE source = 'a' AND frame = 1",
    "all predictions are gone": "DELETE FROM predictions",
    "a rejected row is gone": "DELETE FROM rejected WHERE source = 'c'",
    "an item is gone, its rows are not": "DELETE FROM items WHERE source = 'a'",
    "an item has another number of rows": "UPDATE items SET frames = 'many' WHERE source = 'a'",
    "text for a probability": "UPDATE predictions SET probability = 'x'",
    "another probability": "UPDATE predictions SET probability = probability * 0.5 WHERE source = 'b'",
    "a probability without bound": "UPDATE predictions SET probability = 9e999",
    "bytes for a probability": "UPDATE predictions SET probability = x'00ff'",
    "another decision": "UPDATE predictions SET decision = 'pneumonia' WHERE source = 'b'",
    "a script for a decision": "UPDATE predictions SET decision = '<script>alert(1)</script>'",
    "another time": "UPDATE predictions SET decode_ms = 0",
    "another UID": "UPDATE predictions SET sop = '1.2.3'",
    "another frame": "UPDATE predictions SET frame = 7 WHERE source = 'b'",
    "another file": "UPDATE predictions SET source = 'c' WHERE source = 'b'",
    "another reason": "UPDATE rejected SET reason = '<b>'",
    "text that is not UTF-8": "UPDATE rejected SET message = CAST(x'ff00' AS TEXT)",
    "another picture": "UPDATE thumbnails SET jpeg = x'00'",
    "a picture of nobody": "INSERT INTO thumbnails VALUES ('z', 0, x'00', 0)",
    "a run without a start": "UPDATE runs SET started = '<script>'",
    "a run of endless time": "UPDATE runs SET wall_s = 9e999",
    "a run of text": "UPDATE runs SET waiting_s = 'x'",
    "no table": "DROP TABLE predictions",
    "no binding": "DELETE FROM binding",
    "no version": "DELETE FROM binding WHERE key = 'version'",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM predictions; END",
    "a view": "CREATE VIEW v AS SELECT 1",
    "an index": "CREATE INDEX i ON predictions (decision)",
    "another column": "ALTER TABLE rejected ADD COLUMN more TEXT",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_journal_that_was_changed_is_refused(tmp_path: Path, edit: str) -> None:
    alter(finished_journal(tmp_path), edit)
    with pytest.raises(OutputError, match=r"damaged or was changed.*--restart"):
        open_journal(tmp_path, BINDING, "2026-01-02")
    with open_journal(tmp_path, BINDING, "2026-01-02", restart=True) as journal:
        assert journal.totals().items == 0


def test_a_row_that_is_changed_while_the_job_runs_never_reaches_the_results(tmp_path: Path) -> None:
    finished_journal(tmp_path)
    with open_journal(tmp_path, BINDING, "2026-01-02") as journal:
        journal._connection.execute("UPDATE predictions SET probability = 0.1 WHERE source = 'b'")
        for read in (journal.predictions, lambda: journal.highest(9), lambda: journal.check(None)):
            with pytest.raises(OutputError, match="a row of b is not as it was written"):
                list(read() or ())


def test_a_forged_row_with_its_checksum_must_still_mean_something(tmp_path: Path) -> None:
    path = finished_journal(tmp_path)
    forged = [(1.5, "normal", ""), (float("inf"), "normal", ""), ("x", "normal", ""), (0.5, "<script>", "")]
    for probability, decision, notes in (*forged, (0.5, "normal", b"")):
        row = ("b", 0, "1.2", "1.3", "1.4", probability, decision, 1.5, 2.5, notes)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DELETE FROM predictions WHERE source = 'b'")
            connection.execute(f"INSERT INTO predictions VALUES ({', '.join('?' * 11)})", (*row, checksum(row)))  # noqa: S608
        with pytest.raises(OutputError, match="a prediction for b is not one of this model"):
            open_journal(tmp_path, BINDING, "2026-01-02", decisions=("normal", "pneumonia"))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_journal_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = finished_journal(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(OutputError, match=r"damaged or was changed.*--restart"):
        open_journal(tmp_path, BINDING, "2026-01-02")


def test_no_flipped_bit_of_a_row_is_taken_for_a_result(tmp_path: Path) -> None:
    path = finished_journal(tmp_path)
    content, chance = path.read_bytes(), random.Random(3)
    with open_journal(tmp_path, BINDING, "2026-01-01") as journal:
        expected = [*journal.predictions(), *journal.rejected()]
    rows = [found.start() for found in re.finditer(b"normal|truncated", content)]
    refused = 0
    for _ in range(100):
        place = chance.choice(rows) + chance.randrange(-40, 40)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        try:
            with open_journal(tmp_path, BINDING, "2026-01-01") as journal:
                assert [*journal.predictions(), *journal.rejected()] == expected
        except (OutputError, UsageError):
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal", "journal.lock"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_regular_files_are_opened(tmp_path: Path, name: str, kind: str) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    finished_journal(out)
    victim.write_bytes(b"mine")
    (out / name).unlink(missing_ok=True)
    match kind:
        case "link":
            (out / name).symlink_to(victim)
        case "dangling link":
            (out / name).symlink_to(tmp_path / "made")
        case "pipe":
            os.mkfifo(out / name)
        case "folder":
            (out / name).mkdir()
    with pytest.raises(OutputError, match=r"--out"):
        open_journal(out, BINDING, "2026-01-02")
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "made").exists()


def test_nothing_is_written_through_what_lies_where_a_file_is_made(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".journal.sqlite.partial").symlink_to(victim)
    finished_journal(tmp_path)
    assert victim.read_bytes() == b"mine"


def test_a_journal_of_another_version_is_not_taken_for_this_one(tmp_path: Path) -> None:
    alter(
        tmp_path / "journal.sqlite",
        "CREATE TABLE binding (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "INSERT INTO binding VALUES ('version', '1'), ('model', 'm1'), ('source', '/scans')",
        "CREATE TABLE items (source TEXT PRIMARY KEY)",
    )
    with pytest.raises(UsageError, match=r"its format is 1, this version of featherweight reads 4.*--restart"):
        open_journal(tmp_path, BINDING, "2026-01-02")
    with open_journal(tmp_path, BINDING, "2026-01-02", restart=True) as journal:
        assert journal.totals().items == 0


def test_a_journal_that_another_program_has_open_is_left_alone(tmp_path: Path) -> None:
    path = finished_journal(tmp_path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="another program has it open"):
            open_journal(tmp_path, BINDING, "2026-01-02")
        with pytest.raises(UsageError, match="another process"):
            open_journal(tmp_path, BINDING, "2026-01-02", restart=True)
    with open_journal(tmp_path, BINDING, "2026-01-02") as journal:
        assert journal.totals().items == 3


def test_the_log_without_its_journal_is_not_a_beginning(tmp_path: Path) -> None:
    finished_journal(tmp_path).rename(tmp_path / "journal.sqlite-wal")
    with pytest.raises(OutputError, match=r"is gone, but journal.sqlite-wal is there.*--restart"):
        open_journal(tmp_path, BINDING, "2026-01-02")


def test_outputs_without_their_journal_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("source\n")
    with pytest.raises(UsageError, match=r"holds results.csv, but not the journal.sqlite.*--restart"):
        open_journal(tmp_path, BINDING, "2026-01-02", outputs=("results.csv",))
    with open_journal(tmp_path, BINDING, "2026-01-02", outputs=("results.csv",), restart=True):
        assert not (tmp_path / "results.csv").exists()


def test_a_time_beyond_sqlite_is_a_time(tmp_path: Path, journal: Journal) -> None:
    far = tmp_path / "far"
    far.touch()
    os.utime(far, ns=(2**63 + 10**9, 2**63 + 10**9))
    if far.stat().st_mtime_ns < 2**63:
        pytest.skip("this file system holds no time beyond 2262")
    stamp = Fingerprint.of(far)
    journal.commit([Finished("far", stamp, item("far", 0.5).predictions, [], {})], Spent())
    assert journal.is_finished("far", stamp)


def test_a_minus_zero_and_numpy_numbers_come_back(tmp_path: Path) -> None:
    rows = [Prediction(FrameId("a", 0), np.float32(0.1), "normal", -0.0, np.float64(0.3))]  # type: ignore[arg-type]
    with open_journal(tmp_path, BINDING, "2026-01-01") as journal:
        journal.commit([Finished("a", STAMP, rows, [], {})], Spent())
        journal.check(None)
        assert [p.probability for p in journal.predictions()] == [float(np.float32(0.1))]
