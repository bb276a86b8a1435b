"""The embedded store: what was recorded is there again, whatever moment it was left at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.store import Store, journal_path, open_store, write_snapshot
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import DataError, OutputError, UsageError
from tests.fraud.serving import label_of, make_transactions

ROWS = make_transactions(80, seed=31, customers=4)


def transaction(row: dict[str, Any]) -> Transaction:
    return msgspec.convert(row, Transaction)


def feed(store: Store, rows: list[dict[str, Any]], *, labelled: bool = True) -> None:
    """As the service does it: record, then count."""
    for number, row in enumerate(rows):
        store.record([transaction(row)])
        store.engine.advance(transaction(row))
        if labelled and number % 5 == 0:
            label = msgspec.convert(label_of(row), Label)
            store.record([label])
            store.engine.apply_label(label)


def features_after(engine: FeatureEngine) -> list[list[float]]:
    """What everybody's next transaction would see."""
    found = []
    for number in range(4):
        probe = {"transaction_id": f"probe{number}", "customer_id": f"c{number}", "terminal_id": f"t{2 * number}"}
        engine.advance(transaction(probe | {"time_ms": ROWS[-1]["time_ms"] + 60_000, "amount": 7.0}))
        found.append(np.nan_to_num(engine.row, nan=-99).tolist())
    return found


def undisturbed(rows: list[dict[str, Any]]) -> list[list[float]]:
    engine = FeatureEngine(7.0)
    for number, row in enumerate(rows):
        engine.advance(transaction(row))
        if number % 5 == 0:
            engine.apply_label(msgspec.convert(label_of(row), Label))
    return features_after(engine)


def test_histories_come_back_from_snapshots_and_journals(tmp_path: Path) -> None:
    for start in (0, 20, 40, 60):  # left by turns with a snapshot and without
        store = open_store(tmp_path, 7.0)
        feed(store, ROWS[start : start + 10])
        if start % 40:
            store.snapshot()
        feed(store, ROWS[start + 10 : start + 20])
        store.close()
    store = open_store(tmp_path, 7.0)
    assert features_after(store.engine) == undisturbed(ROWS)
    store.close()


@settings(max_examples=20)
@given(cut=st.integers(1, 150), extra=st.sampled_from([b"", b"\0" * 40, b'T{"transa']))
def test_a_journal_cut_anywhere_gives_what_was_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, extra: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    store = open_store(folder, 7.0)
    feed(store, ROWS[:10], labelled=False)
    store.close()
    journal = journal_path(folder, 1)
    content = journal.read_bytes()[:-cut]
    journal.write_bytes(content + extra)
    whole = content.count(b"\n") - 1  # behind the head
    for _ in range(2):  # the damaged end stays where it is until a snapshot, and is no harm
        store = open_store(folder, 7.0)
        seen = [store.engine.advance(transaction(row)) for row in ROWS[:10]]
        assert seen == [True] * whole + [False] * (10 - whole)
        store.close()


def test_a_damaged_middle_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[:5], labelled=False)
    store.close()
    journal = journal_path(tmp_path, 1)
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([*lines[:2], lines[2][:20], *lines[3:]]))
    with pytest.raises(DataError, match=r"journal-00000001.jsonl:3: damaged"):
        open_store(tmp_path, 7.0)


def test_left_while_it_wrote_a_snapshot(tmp_path: Path) -> None:
    """The new journal is there and the snapshot is not, or not whole, or the old files are not yet removed."""
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[:30])
    store.close()
    (tmp_path / "snapshot-00000002.partial").mkdir()
    (tmp_path / "snapshot-00000002.partial" / "customers").write_bytes(b"half")
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[30:60])
    journal_path(tmp_path, 3).touch()
    write_snapshot(tmp_path, 3, store.engine)
    store.close()
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[60:])
    store.snapshot()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "journal-00000005.jsonl",
        "lock",
        "snapshot-00000005",
        "store.json",
    ]
    store.close()
    store = open_store(tmp_path, 7.0)
    # The third batch of labels counts every fifth of its own rows, as `undisturbed` does: 30 and 60 divide by five.
    assert features_after(store.engine) == undisturbed(ROWS)
    store.close()


def test_the_folder_belongs_to_one_process_and_one_delay(tmp_path: Path) -> None:
    store = open_store(tmp_path, 7.0)
    with pytest.raises(UsageError, match="another process"):
        open_store(tmp_path, 7.0)
    store.close()
    with pytest.raises(UsageError, match="delay_days 7, the model needs 3"):
        open_store(tmp_path, 3.0)
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(DataError, match="not a folder of histories"):
        open_store(tmp_path, 7.0)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state", 7.0)
    feed(store, ROWS[:2])
    store.close()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert journal_path(tmp_path / "state", 1).stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        open_store(tmp_path / "file" / "state", 7.0)


def test_a_journal_that_nothing_points_to_is_taken_back(tmp_path: Path) -> None:
    """Where store.json cannot say that there is a new journal, there is none, and the next snapshot goes well."""
    with closing(open_store(tmp_path, 7.0)) as store:
        feed(store, ROWS[:2])
        (tmp_path / ".store.json.partial").mkdir()  # in the way of the new one
        with pytest.raises(OutputError, match=r"store\.json: cannot be written"):
            store.snapshot()
        assert not journal_path(tmp_path, 2).exists()
        (tmp_path / ".store.json.partial").rmdir()
        store.snapshot()
        assert journal_path(tmp_path, 2).exists()


def test_a_journal_that_is_no_file(tmp_path: Path) -> None:
    open_store(tmp_path, 7.0).close()
    journal_path(tmp_path, 1).unlink()
    journal_path(tmp_path, 1).mkdir()
    with pytest.raises(DataError, match=r"journal-00000001\.jsonl: cannot be read"):
        open_store(tmp_path, 7.0)


def test_an_old_snapshot_that_cannot_be_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state", 7.0)
    feed(store, ROWS)
    (tmp_path / "state" / "snapshot-00000000").symlink_to(tmp_path)
    with pytest.raises(OutputError):
        store.snapshot()
    store.close()
    store = open_store(tmp_path / "state", 7.0)
    assert features_after(store.engine) == undisturbed(ROWS)
    store.close()


def test_a_record_that_does_not_fit_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[:3])
    before = journal_path(tmp_path, 1).read_bytes()
    os.close(store._journal)
    store._journal = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OutputError):
        store.record([transaction(ROWS[3])])
    assert journal_path(tmp_path, 1).read_bytes() == before
    os.close(store._journal)
    store._journal = os.open(journal_path(tmp_path, 1), os.O_WRONLY | os.O_APPEND)
    store.close()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder as after a kill: a snapshot of the first 30 rows, and two journals since."""
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[:30], labelled=False)
    store.snapshot()
    for start in (30, 40):
        feed(store, ROWS[start : start + 10], labelled=False)
        store.close()
        store = open_store(tmp_path, 7.0)
    store.close()
    return tmp_path


Change = Callable[[Path], object]
SNAPSHOT, FIRST, SECOND = "snapshot-00000002", "journal-00000002.jsonl", "journal-00000003.jsonl"


def replaced(name: str, old: bytes, new: bytes) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new, 1))

    return change


def without_line(number: int) -> Change:
    def change(folder: Path) -> None:
        lines = (folder / FIRST).read_bytes().splitlines(keepends=True)
        (folder / FIRST).write_bytes(b"".join(lines[:number] + lines[number + 1 :]))

    return change


def linked(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(target)

    return change


def piped(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def swapped(folder: Path) -> None:
    (folder / FIRST).rename(folder / "other")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "other").rename(folder / SECOND)


def put(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def behind(content: bytes) -> Change:
    return lambda folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes() + content)


DAMAGES: dict[str, tuple[Change, str]] = {
    "no snapshot": (lambda f: shutil.rmtree(f / SNAPSHOT), "without the snapshot before it"),
    "half a snapshot": (lambda f: (f / SNAPSHOT / "terminals").unlink(), "terminals: cannot be read"),
    "an empty snapshot of a later number": (lambda f: (f / "snapshot-99999999").mkdir(), "cannot be read"),
    "no journal beside its snapshot": (lambda f: [p.unlink() for p in f.glob("journal*")], "is missing beside"),
    "no newest journal": (
        lambda f: (f / "journal-00000004.jsonl").unlink(),
        "00004.jsonl: is missing, and it was the newest",
    ),
    "nothing but store.json": (
        lambda f: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in f.glob("[sj]*-*")],
        "00004.jsonl: is missing, and it was the newest",
    ),
    "no first journal": (lambda f: (f / FIRST).unlink(), "00002.jsonl: is missing, but there is 3"),
    "no journal in the middle": (lambda f: (f / SECOND).unlink(), "00003.jsonl: is missing, but there is 4"),
    "a journal of 10^12": (put(f"journal-{10**12}.jsonl", b""), "is missing, but there is 1000000000000"),
    "a number written otherwise": (put("journal-2.jsonl", b""), "is not a name that the store gives"),
    "a number in other digits": (put("journal-0000000\u0663.jsonl", b""), "is not a name"),
    "a number of 5000 digits": (put(f"journal-{'9' * 200}.jsonl", b""), "is not a name"),
    "no store.json": (lambda f: (f / "store.json").unlink(), "is missing, but histories are there"),
    "an amount changed": (replaced(FIRST, b'"amount":', b'"amount":1'), ":2: damaged .*CRC"),
    "a bit of the last line": (replaced(SECOND, b'"c', b'"d'), "damaged"),
    "a line taken out": (without_line(4), ":5: damaged .*CRC"),
    "the head taken out": (without_line(0), ":1: damaged"),
    "a line of an earlier version": (behind(b'T{"transaction_id":"x"}\n'), "damaged .*no CRC"),
    "journals swapped": (swapped, "it is the journal 3"),
    "a deep line": (behind(b"T" + b"[" * 5_000_000 + b"\n"), "damaged"),
    "zeros and more lines": (behind(b"\0" * 5000 + b"T{}\n"), "damaged"),
    "a journal that is a device": (linked(FIRST, "/dev/zero"), "cannot be read"),
    "a journal that is a link": (linked(FIRST, SECOND), "cannot be read"),
    "a journal that is a pipe": (piped(FIRST), "cannot be read .*regular"),
    "a snapshot that is a link": (linked(SNAPSHOT, "/"), "is not a folder"),
    "histories that are a device": (linked(f"{SNAPSHOT}/customers", "/dev/zero"), "cannot be read"),
    "histories that are a pipe": (piped(f"{SNAPSHOT}/customers"), "cannot be read"),
    "store.json that is a device": (linked("store.json", "/dev/zero"), "not a folder of histories"),
    "store.json without end": (put("store.json", b" " * 10_000_000), "not a folder of histories"),
}


@pytest.mark.parametrize(("change", "says"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_not_whole_is_refused_at_once(change: Change, says: str, kept: Path) -> None:
    change(kept)
    for _ in range(2):  # and stays so
        with pytest.raises(DataError, match=says):
            open_store(kept, 7.0)


TAILS = {
    "half a line": b'T{"transaction_id":"zz","custo',
    "zeros since a power failure": b"\0" * 100_000,
    "zeros and a line end": b"\0" * 5000 + b"\n",
    "half a line and zeros": b'T{"transaction_id":"zz' + b"\0" * 8192,
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_what_was_not_answered_may_be_cut(tail: bytes, kept: Path) -> None:
    behind(tail)(kept)
    store = open_store(kept, 7.0)
    assert [store.engine.advance(transaction(row)) for row in ROWS[:50]] == [True] * 50
    store.close()


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    open_store(tmp_path, 7.0).close()
    lines = [b"T" + msgspec.json.encode(transaction(row)) + b"\n" for row in ROWS[:20]]
    journal_path(tmp_path, 1).write_bytes(b"".join(lines))
    store = open_store(tmp_path, 7.0)
    assert [store.engine.advance(transaction(row)) for row in ROWS[:21]] == [True] * 20 + [False]
    store.close()


def test_a_store_json_of_an_earlier_version_is_read(kept: Path) -> None:
    """It does not say which journal is the newest; from then on it does."""
    (kept / "store.json").write_text('{"version":1,"delay_days":7.0}')
    open_store(kept, 7.0).close()
    assert msgspec.json.decode((kept / "store.json").read_bytes())["generation"] == 5


def test_a_kill_before_the_new_journal_is_told_of_is_no_loss(kept: Path) -> None:
    told = (kept / "store.json").read_bytes()
    open_store(kept, 7.0).close()
    (kept / "store.json").write_bytes(told)  # as a kill, or a power failure, between the two leaves it
    store = open_store(kept, 7.0)
    assert [store.engine.advance(transaction(row)) for row in ROWS[:50]] == [True] * 50
    store.close()


def test_a_journal_that_cannot_be_told_of_is_not_opened(kept: Path) -> None:
    """Else it would be one too many, or, removed, one too few."""
    store = open_store(kept, 7.0)
    before = sorted(path.name for path in kept.iterdir())
    (kept / ".store.json.partial").mkdir()  # nothing can be written there
    with pytest.raises(OutputError):
        store.snapshot()
    (kept / ".store.json.partial").rmdir()
    assert sorted(path.name for path in kept.iterdir()) == before
    feed(store, ROWS[50:60], labelled=False)
    store.close()
    store = open_store(kept, 7.0)
    assert [store.engine.advance(transaction(row)) for row in ROWS[:60]] == [True] * 60
    store.close()


def test_a_lock_that_was_deleted_locks_all_the_same(tmp_path: Path) -> None:
    store = open_store(tmp_path, 7.0)
    (tmp_path / "lock").unlink()
    with pytest.raises(UsageError, match="another process"):
        open_store(tmp_path, 7.0)
    store.close()
    open_store(tmp_path, 7.0).close()


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError):
        open_store(tmp_path / "state", 7.0)
    assert (tmp_path / "precious").read_text() == "content"


def test_a_journal_removed_under_way_is_noticed_and_made_good(tmp_path: Path) -> None:
    store = open_store(tmp_path, 7.0)
    feed(store, ROWS[:10], labelled=False)
    journal_path(tmp_path, 1).unlink()
    store.sync()
    with pytest.raises(OutputError, match="removed the journal"):
        store.record([transaction(ROWS[10])])
    store.snapshot()
    feed(store, ROWS[10:20], labelled=False)
    store.close()
    store = open_store(tmp_path, 7.0)
    assert [store.engine.advance(transaction(row)) for row in ROWS[:21]] == [True] * 20 + [False]
    store.close()
