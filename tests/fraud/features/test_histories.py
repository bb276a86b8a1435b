"""Histories that stop and go on: changelog, snapshot, expiry, bounds; damaged bytes are refused."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.fraud.features import kernels
from featherweight.apps.fraud.features.catalogue import CUSTOMER_FEATURES
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import (
    CONFLICT,
    CustomerHistories,
    Histories,
    TerminalHistories,
    identify,
)
from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Label
from featherweight.core.errors import DataError, OutputError
from tests.fraud.streams import DAY, START, Event, long_stream, streams, transaction


def run(engine: FeatureEngine, event: Event) -> bytes:
    """The answer and the features, as bytes: nothing but bit for bit is equal."""
    if isinstance(event, Label):
        return bytes([engine.apply_label(event)])
    return bytes([engine.advance(event)]) + engine.row.tobytes()


def halves(engine: FeatureEngine) -> tuple[Histories, Histories]:
    return engine.customers, engine.terminals


def drain(engine: FeatureEngine, log: list[tuple[bytes, bytes | None]]) -> None:
    log += engine.customers.drain() + engine.terminals.drain()


def restored(log: list[tuple[bytes, bytes | None]], *, compacted: bool) -> FeatureEngine:
    engine = FeatureEngine()
    for key, value in dict(log).items() if compacted else log:
        next(half for half in halves(engine) if half.kind == key[:1]).restore(key, value)
    return engine


@settings(max_examples=60)
@given(streams(), st.lists(st.sampled_from(["", "", "drain", "stop", "stop compacted", "snapshot"]), min_size=30))
def test_stopping_and_going_on_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], stops: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("snapshots")
    calm, engine = FeatureEngine(), FeatureEngine()
    log: list[tuple[bytes, bytes | None]] = []
    for event, stop in zip(events, stops, strict=False):
        assert run(engine, event) == run(calm, event)
        if stop in ("drain", "stop", "stop compacted"):
            drain(engine, log)
        if stop.startswith("stop"):
            engine = restored(log, compacted=stop != "stop")
        if stop == "snapshot":
            for half in halves(engine):
                half.write_snapshot(folder / half.kind.decode())
                half.read_snapshot(folder / half.kind.decode())
    assert [len(half) for half in halves(engine)] == [len(half) for half in halves(calm)]


@pytest.mark.parametrize("compacted", [True, False])
def test_months_of_changelog_restore_at_random_moments(compacted: bool) -> None:
    generator = random.Random(11)
    calm, engine = FeatureEngine(), FeatureEngine()
    log: list[tuple[bytes, bytes | None]] = []
    for event in long_stream(7, 2000):
        assert run(engine, event) == run(calm, event)
        if generator.random() < 0.1:
            drain(engine, log)
        if generator.random() < 0.01:
            drain(engine, log)
            engine = restored(log, compacted=compacted)
    live = sum(value is not None for value in dict(log).values())
    assert live < len(dict(log)), "no block was ever given up"
    assert live < 5 * (30 + 37) * 30 / 8, "blocks are left behind"


def test_two_processes_halves_equal_one() -> None:
    """Keys spread over two processes by their hash, customers and terminals apart."""
    whole, parts = FeatureEngine(), (FeatureEngine(), FeatureEngine())
    row = np.zeros_like(whole.row)
    split = len(CUSTOMER_FEATURES)
    for event in long_stream(5, 600):
        customer, terminal = identify(event.customer_id), identify(event.terminal_id)
        first, second = parts[customer % 2].customers, parts[terminal % 2].terminals
        identity = identify(event.transaction_id)
        if isinstance(event, Label):
            known = first.apply_label(event.customer_id, identity, event.time_ms, event.is_fraud)
            also = second.apply_label(event.terminal_id, identity, event.time_ms, event.is_fraud)
            assert whole.apply_label(event) == (known if known == also else CONFLICT)
            continue
        seen = first.advance(event.customer_id, identity, event.time_ms, event.cents, terminal, row[:split])
        second.advance(event.terminal_id, identity, event.time_ms, event.cents, customer, row[split:])
        assert bytes([seen]) + row.tobytes() == run(whole, event)


def test_an_update_writes_few_bytes() -> None:
    engine = FeatureEngine()
    for number in range(1500):
        engine.advance(transaction(f"t{number}", START + number * DAY // 20))
    for half in halves(engine):
        half.drain()
    for number in range(1500, 1520):
        engine.advance(transaction(f"t{number}", START + number * DAY // 20))
        for half in halves(engine):
            assert sum(len(key) + len(value or b"") for key, value in half.drain()) < 300
    assert [half.drain() for half in halves(engine)] == [[], []]


def test_expired_keys_are_forgotten_with_tombstones() -> None:
    histories, out = CustomerHistories(), np.zeros(len(CUSTOMER_FEATURES), np.float32)

    def visit(key: str, day: float) -> None:
        histories.advance(key, identify(f"{key} {day}"), START + int(day * DAY), 100, 1, out)

    for key in ("old", "older", "far"):
        visit(key, 0)
    log = histories.drain()
    for day in range(40):
        for key in ("a", "b", "c"):
            visit(key, day)
    visit("far", 9000)
    assert histories.expire() == 2
    assert len(histories) == 4
    assert not histories.apply_label("old", identify("old 0"), 0, True)
    records = histories.drain()
    assert [record for record in records if record[1] is None] == [(log[0][0], None), (log[1][0], None)]
    visit("old", 40)
    assert out[CUSTOMER_FEATURES.index("customer_count_30d")] == 1
    again = CustomerHistories()
    for key, value in dict(log + records + histories.drain()).items():
        again.restore(key, value)
    assert len(again) == len(histories) == 5
    assert again.apply_label("old", identify("old 40"), 0, True)


def test_a_timestamp_in_the_far_future_expires_nothing() -> None:
    histories, out = TerminalHistories(), np.zeros(16, np.float32)
    for number in range(300):
        histories.advance(f"k{number}", number, START, 100, 1, out)
    for number in range(2):
        histories.advance(f"k{number}", -number - 1, START + 9000 * DAY, 100, 1, out)
    assert histories.expire() == 0


def test_expiry_gives_memory_back() -> None:
    histories, out = CustomerHistories(), np.zeros(len(CUSTOMER_FEATURES), np.float32)
    sizes = []
    for month in range(6):
        for number in range(600):
            time = START + month * 45 * DAY + number * DAY // 100
            histories.advance(f"m{month} {number % 50}", number + 1000 * month, time, 100, 1, out)
        histories.expire()
        sizes.append(histories.used_bytes)
    assert len(histories) == 50
    assert sizes[-1] <= sizes[1] * 1.1
    assert len(histories._queued) == 50, "nobody drains: a slot that is used again must not be queued again"


def test_a_history_takes_under_two_kilobytes() -> None:
    """At the handbook's rate: two transactions a day, of which 31 days are kept."""
    histories, out = CustomerHistories(), np.zeros(len(CUSTOMER_FEATURES), np.float32)
    for number in range(64 * 300):
        time = START + number * DAY // 600
        histories.advance(f"customer {number % 300}", number, time, 100, 1, out)
    assert histories.used_bytes / len(histories) < 2048


def test_labels_of_nothing_and_of_forgotten_transactions() -> None:
    engine = FeatureEngine()
    assert not engine.apply_label(label_of(transaction("never", START), True))
    for number in range(100):
        engine.advance(transaction(f"t{number}", START + number * DAY))
    assert not engine.apply_label(label_of(transaction("t0", START), True))
    assert not engine.apply_label(label_of(transaction("never", START), True))
    assert engine.apply_label(label_of(transaction("t99", START), True))


def snapshot(folder: Path) -> tuple[CustomerHistories, Path]:
    histories, out = CustomerHistories(), np.zeros(len(CUSTOMER_FEATURES), np.float32)
    for number in range(100):
        histories.advance(f"customer {number % 7}", number, START + number * DAY // 9, 100, 1, out)
    histories.write_snapshot(folder / "customers")
    return histories, folder / "customers"


def test_damaged_snapshots_are_refused(tmp_path: Path) -> None:
    histories, path = snapshot(tmp_path)
    content, generator = path.read_bytes(), random.Random(1)
    before = histories.used_bytes
    for at in (0, 30, 40, len(content) // 2, len(content) - 1, *(generator.randrange(len(content)) for _ in range(40))):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError, match="customers: "):
            histories.read_snapshot(path)
        path.write_bytes(content[:at])
        with pytest.raises(DataError, match="customers: "):
            histories.read_snapshot(path)
    assert histories.used_bytes == before
    with pytest.raises(DataError, match="cannot be read"):
        histories.read_snapshot(tmp_path / "nothing")
    path.write_bytes(content)
    with pytest.raises(DataError, match="kind 'c', expected 't'"):
        TerminalHistories().read_snapshot(path)
    histories.read_snapshot(path)


@pytest.mark.parametrize(
    ("size", "head", "counts"),
    [
        (0, (b"c", ["a", "b", "c", "d"], 4), (1 << 62, 1 << 62, 1 << 62, (1 << 62) + 4)),
        (0, (b"\xff", [], 0), ()),
        (1 << 63, (b"c", [], 0), ()),
    ],
)
def test_forged_snapshots_are_refused(
    size: int, head: tuple[bytes, list[str], int], counts: tuple[int, ...], tmp_path: Path
) -> None:
    """Whoever writes a snapshot can write its digest too. Four times 2**62 and 4 are 4 in 64 bits."""
    encoded = msgspec.msgpack.encode(head)
    events = np.arange(3 * head[2], dtype="<i8")
    body = b"featherweight histories 1\n" + (size or len(encoded)).to_bytes(8, "little") + encoded
    body += np.array(counts, "<i8").tobytes() + events.tobytes()
    (tmp_path / "customers").write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(DataError, match="customers: "):
        CustomerHistories().read_snapshot(tmp_path / "customers")


def test_an_empty_snapshot_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    CustomerHistories().write_snapshot(tmp_path / "empty")
    histories, path = snapshot(tmp_path)
    histories.read_snapshot(tmp_path / "empty")
    assert len(histories) == 0
    with pytest.raises(OutputError, match="nowhere"):
        histories.write_snapshot(tmp_path / "nowhere" / "customers")
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "empty"])


def test_after_a_snapshot_the_changelog_gets_everything(tmp_path: Path) -> None:
    histories, path = snapshot(tmp_path)
    log = histories.drain()
    histories.advance("another", 1000, START, 100, 1, np.zeros(len(CUSTOMER_FEATURES), np.float32))
    log += histories.drain()
    histories.read_snapshot(path)
    log += histories.drain()
    again = CustomerHistories()
    for key, value in dict(log).items():
        again.restore(key, value)
    again.write_snapshot(path.with_name("again"))
    histories.write_snapshot(path.with_name("now"))
    assert len(again) == len(histories) == 7
    assert {*map(len, (again.drain(), histories.drain()))} == {0}


def records() -> list[tuple[bytes, bytes]]:
    histories, out = CustomerHistories(), np.zeros(len(CUSTOMER_FEATURES), np.float32)
    for number in range(30):
        histories.advance("anna", number, START + number * DAY // 2, 100, 1, out)
    return [(key, value) for key, value in histories.drain() if value is not None]


@given(st.data())
def test_what_is_no_record_is_refused(data: st.DataObject) -> None:
    key, value = data.draw(st.sampled_from(records()))
    at = data.draw(st.integers(0, len(value) - 1))
    damage = data.draw(st.integers(1, 255))
    with pytest.raises(DataError, match="changelog record"):
        CustomerHistories().restore(key, value[:at])
    spoilt = value[:at] + bytes([value[at] ^ damage]) + value[at + 1 :]
    histories = CustomerHistories()
    with pytest.raises(DataError, match="changelog record"):
        histories.restore(key, spoilt)


@pytest.mark.parametrize(
    "key", [b"", b"c", b"t" + bytes(8) + b"anna", b"c" + b"\xff" * 8 + b"a", b"c" + bytes(8) + b"\xff"]
)
def test_what_is_no_record_key_is_refused(key: bytes) -> None:
    with pytest.raises(DataError, match="record key"):
        CustomerHistories().restore(key, None)


def test_records_that_do_not_fit_together_are_refused() -> None:
    made = sorted(records())
    assert len(made) == 4
    gap, cut = [made[0], made[2]], [made[1], (made[3][0], made[1][1])]
    swapped = [(made[1][0], made[2][1]), (made[2][0], made[1][1])]
    for kept in (gap, cut, swapped):
        histories = CustomerHistories()
        for key, value in kept:
            histories.restore(key, value)
        with pytest.raises(DataError, match="changelog"):
            histories.settle()


def test_restoring_over_live_histories_replaces_their_blocks() -> None:
    calm, engine = CustomerHistories(), CustomerHistories()
    out = np.zeros(len(CUSTOMER_FEATURES), np.float32)
    for number in range(50):
        calm.advance("anna", number, START + number * DAY // 2, 100 + number, 1, out)
        for key, value in calm.drain():
            engine.restore(key, value)
        assert len(engine) == 1
        engine.settle()
    calm.advance("anna", 50, START + 25 * DAY, 7, 1, out)
    expected = out.copy()
    engine.advance("anna", 50, START + 25 * DAY, 7, 1, out)
    np.testing.assert_array_equal(out, expected)


def test_identify_is_the_published_hash() -> None:
    """XXH3-64 of the reference implementation, as a signed number."""
    assert identify("") == 0x2D06800538D394C2
    assert all(-(1 << 63) <= identify(str(number)) < 1 << 63 for number in range(100))
    assert {identify(str(number)) < 0 for number in range(20)} == {True, False}


def test_the_layout_fits_together() -> None:
    assert kernels.WORDS == 1 + 3 * kernels.EVENTS
    assert kernels.BOUND % kernels.EVENTS == 0
