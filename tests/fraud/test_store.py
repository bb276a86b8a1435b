"""The embedded store: what was recorded is there again, whatever moment it was left at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.fraud.pipeline import FeatureEngine
from apps.fraud.store import Store, journal_path, open_store, write_snapshot
from apps.fraud.transactions import Label, Transaction
from core.errors import DataError, OutputError, UsageError
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
            store.engine.learn(label)


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
            engine.learn(msgspec.convert(label_of(row), Label))
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
    whole = content.count(b"\n")
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
    journal.write_bytes(b"\n".join([lines[0], lines[1][:20], *lines[2:]]))
    with pytest.raises(DataError, match=r"journal-00000001.jsonl:2: damaged"):
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


def test_a_journal_that_is_no_file(tmp_path: Path) -> None:
    journal_path(tmp_path, 1).mkdir(parents=True)
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
