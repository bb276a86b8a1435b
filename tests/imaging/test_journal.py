from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.imaging.frames import FrameId, Prediction, Rejected
from apps.imaging.journal import Fingerprint, Finished, Journal, Spent, open_journal
from core.errors import OutputError, UsageError

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
    refused = [Rejected(FrameId(source, len(predictions) + frame), "truncated", "short") for frame in range(rejected)]
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
        "import sys; from pathlib import Path; from apps.imaging.journal import open_journal\n"
        "from core.errors import UsageError\n"
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
