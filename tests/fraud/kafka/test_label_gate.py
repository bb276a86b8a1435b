"""Labels that wait for their transactions, without Kafka and without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from featherweight.apps.fraud.decision.scorer import Scorer, open_scorer
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.kafka.label_gate import QUIET_S, LabelGate
from featherweight.apps.fraud.kafka.stages import Shard, Stream
from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.streaming import START_MS, TOPICS, arrive_as, draw_transactions


class Setting:
    """A gate with its clocks, and the newest transaction of each partition."""

    def __init__(self) -> None:
        self.newest_ms = {0: START_MS, 1: START_MS}
        self.now_ms, self.clock_s = START_MS + 1_000_000, 100.0
        self.gate = LabelGate(lambda partition: self.newest_ms[partition], lambda: self.now_ms, lambda: self.clock_s)
        self.gate.start([0, 1])


@pytest.fixture
def setting() -> Setting:
    return Setting()


def labels(*ahead_ms: int, partition: int = 0, first_offset: int = 10) -> Messages:
    """Of transactions so much after START_MS."""
    values: list[bytes | None] = []
    for number, ahead in enumerate(ahead_ms):
        bought = Transaction(
            transaction_id=f"t{number}", customer_id="c0", terminal_id="m0", time_ms=START_MS + ahead, amount=1.0
        )
        values.append(msgspec.json.encode(label_of(bought, True)))
    return arrive_as(TOPICS.labels, partition, values, first_offset)


def offsets(found: Messages | None) -> list[int]:
    return [] if found is None else list(found.offsets)


def test_labels_of_what_was_read_are_due(setting: Setting) -> None:
    found = labels(-5, 0, -3)
    assert setting.gate.take_due(found) == (found, None)
    assert not setting.gate.is_waiting(0)
    assert setting.gate.resume_labels() == []


def test_from_the_first_label_that_is_ahead_on_all_wait(setting: Setting) -> None:
    due, held_from = setting.gate.take_due(labels(-5, 0, 7, -3))
    assert (offsets(due), held_from) == ([10, 11], 12)
    assert setting.gate.is_waiting(0)
    assert setting.gate.take_due(labels(-1, first_offset=14)) == (None, None), "behind those that wait"
    assert setting.gate.take_due(labels(7, partition=1)) == (None, 10), "one partition does not hold another"
    assert setting.gate.take_due(labels(-7, partition=1)) == (None, None)


def test_labels_are_resumed_when_the_transactions_have_come_as_far(setting: Setting) -> None:
    setting.gate.take_due(labels(7))
    setting.newest_ms[0] = START_MS + 6
    assert setting.gate.resume_labels() == []
    setting.newest_ms[0] = START_MS + 7
    assert setting.gate.resume_labels() == [0]
    assert setting.gate.resume_labels() == [], "once"
    found = labels(7)
    assert setting.gate.take_due(found) == (found, None)


def test_labels_wait_no_longer_when_no_transactions_come(setting: Setting) -> None:
    for partition in (0, 1):
        setting.gate.take_due(labels(7, partition=partition))
    setting.clock_s += QUIET_S
    assert setting.gate.resume_labels() == []
    setting.gate.see_transactions([1])
    setting.clock_s += 0.1
    assert setting.gate.resume_labels() == [0], "of 1 some have just come"
    found = labels(9)
    assert setting.gate.take_due(found) == (found, None)
    assert setting.gate.is_waiting(1)


def test_a_new_assignment_begins_anew(setting: Setting) -> None:
    setting.gate.take_due(labels(7))
    setting.clock_s += 2 * QUIET_S
    setting.gate.start([0])
    assert not setting.gate.is_waiting(0)
    assert setting.gate.take_due(labels(7))[1] == 10, "the transactions are given their time again"


def test_what_is_no_label_or_of_a_time_that_has_not_come_holds_nobody_up(setting: Setting) -> None:
    setting.now_ms = START_MS + 6
    (wrong,) = labels(7).values
    found = arrive_as(TOPICS.labels, 0, [b"no label", None, wrong])
    assert setting.gate.take_due(found) == (found, None)


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Scorer]:
    write_fraud_model(tmp_path / "model")
    scorer = open_scorer(ModelSource(tmp_path / "model"))
    yield scorer
    scorer.close()


def test_labels_ahead_of_the_transactions_are_found(scorer: Scorer) -> None:
    """By the histories of a stream."""
    stream = Stream(TOPICS, 3)
    stream.shards = {partition: Shard(7.0) for partition in range(3)}
    early, late = draw_transactions(30, 1), draw_transactions(1, 1, seed=1, start=30_000)
    stream.process([arrive_as(TOPICS.transactions, 0, [msgspec.json.encode(one) for one in early])], scorer)
    known: list[bytes | None] = [msgspec.json.encode(label_of(one, True)) for one in early]
    ahead = msgspec.json.encode(label_of(late[0], True))

    def ask(values: list[bytes | None], now_ms: int) -> int | None:
        gate = LabelGate(stream.newest_ms, lambda: now_ms)
        gate.start([0])
        return gate.take_due(arrive_as(TOPICS.labels, 0, values))[1]

    now_ms = late[0].time_ms
    assert ask(known, now_ms) is None
    assert ask([*known, b"no label", None, ahead], now_ms) == 32
    assert ask([ahead], now_ms - 1) is None, "a time that has not come is wrong and waits for nothing"
