"""The stream on a real broker: decisions, dead letters, labels, duplicates, a swapped model, an orderly end."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import (
    FencedInstanceIdError,
    KafkaTimeoutError,
    ProducerFencedError,
    TopicAuthorizationFailedError,
)
from kafka.structs import ConsumerGroupMetadata

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.kafka.clients import BatchProducer
from featherweight.apps.fraud.kafka.dead_letters import DeadLetter
from featherweight.apps.fraud.kafka.member import run_stream
from featherweight.apps.fraud.kafka.recovery import Restorer
from featherweight.apps.fraud.kafka.topics import Member, Topics, create_topics, partition_counts
from featherweight.apps.fraud.kafka.waiting import Waiting
from featherweight.apps.fraud.labels import label_of
from featherweight.core.errors import OutputError
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.streaming import (
    START_MS,
    Bench,
    decide_embedded,
    draw_transactions,
    end,
    kill,
    wait_restored,
    wait_until,
)

# kafka-python leaves a socket behind when a client is closed while it connects; these are clients of the test.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def running(bench: Bench, fraud_model: Path) -> Iterator[subprocess.Popen[str]]:
    process = bench.start(fraud_model)
    try:
        wait_restored(process, bench.partitions)
        yield process
    finally:
        kill([process])


def test_decisions_are_those_of_the_embedded_pipeline(
    bench: Bench, running: subprocess.Popen[str], fraud_model: Path
) -> None:
    """Labels come between the transactions, late, and change what is decided after them."""
    early, late = draw_transactions(1500, 2, seed=1), draw_transactions(1500, 2, seed=2, start=30_000)
    labels = [label_of(transaction, index % 3 == 0) for index, transaction in enumerate(early)]
    bench.feed(early)
    assert len(bench.decisions(len(early))) == len(early)
    bench.feed(labels)
    wait_until(lambda: bench.committed(bench.topics.labels) == len(labels), "labels read")
    bench.feed(late)
    decisions = bench.decisions(len(early) + len(late))
    expected = decide_embedded(fraud_model, [*early, *labels, *late])
    assert {found.transaction_id: found for found in decisions} == expected
    assert len(decisions) == len(expected)
    without = decide_embedded(fraud_model, [*early, *late])
    assert without != expected, "the labels must matter, or this test shows nothing"
    alerts = bench.read(bench.topics.alerts, 1)
    flagged = {found.transaction_id for found in decisions if found.outcome != "approve"}
    assert {json.loads(record.value)["transaction_id"] for record in alerts} == flagged
    assert len(alerts) == len(flagged) > 0
    assert {record.key for record in alerts} <= {found.customer_id.encode() for found in decisions}
    end(running)


def test_labels_of_old_topics_wait_for_their_transactions(bench: Bench, fraud_model: Path) -> None:
    """As in a group that begins at the oldest messages: the labels can be read long before their transactions."""
    early, late = draw_transactions(3000, 2, seed=4), draw_transactions(500, 2, seed=5, start=30_000)
    labels = [label_of(transaction, True) for transaction in early[-1000:]]
    bench.feed([*labels, *early[:1000]])
    process = bench.start(fraud_model)
    try:
        wait_restored(process, bench.partitions)
        for start in range(1000, 3000, 100):
            bench.feed(early[start : start + 100])
            time.sleep(0.1)
        wait_until(lambda: bench.committed(bench.topics.labels) == len(labels), "labels read")
        bench.feed(late)
        decisions = bench.decisions(len(early) + len(late))
        end(process)
    finally:
        kill([process])
    assert len(decisions) == len(early) + len(late)
    found = {one.transaction_id: one for one in decisions}
    expected, without = (decide_embedded(fraud_model, [*early, *known, *late]) for known in (labels, []))
    later = [transaction.transaction_id for transaction in late]
    assert [found[name] for name in later] == [expected[name] for name in later]
    assert [expected[name] for name in later] != [without[name] for name in later], "the labels must matter"


GOOD = {"transaction_id": "g", "customer_id": "c0", "terminal_id": "m0-1", "time_ms": START_MS, "amount": 5.0}
POISON: list[tuple[bytes | None, str]] = [
    (b"", "truncated"),
    (None, "no value"),
    (b"{", "truncated"),
    (json.dumps(GOOD).encode()[:-3], "truncated"),
    (b"no json", "malformed"),
    (b"\xff\xfe\x00", "malformed"),
    (json.dumps(GOOD).encode().replace(b"c0", b"c\xff"), "utf-8"),
    (json.dumps(GOOD).replace("c0", "\\ud800").encode(), "surrogate"),
    (json.dumps(GOOD).replace("5.0", "NaN").encode(), "malformed"),
    (json.dumps(GOOD).replace("5.0", "1e999").encode(), "range"),
    (json.dumps({**GOOD, "amount": -0.01}).encode(), "$.amount"),
    (json.dumps({**GOOD, "amount": "5"}).encode(), "$.amount"),
    (json.dumps({**GOOD, "amount": True}).encode(), "$.amount"),
    (json.dumps({**GOOD, "amount": None}).encode(), "$.amount"),
    (json.dumps({**GOOD, "time_ms": 1e300}).encode(), "$.time_ms"),
    (json.dumps({**GOOD, "time_ms": -1}).encode(), "$.time_ms"),
    (json.dumps({**GOOD, "customer_id": ""}).encode(), "$.customer_id"),
    (json.dumps({**GOOD, "customer_id": "x" * 65}).encode(), "$.customer_id"),
    (json.dumps({key: value for key, value in GOOD.items() if key != "terminal_id"}).encode(), "terminal_id"),
    (b'{"more": ' + b"[" * 15_000, "RecursionError"),
    (json.dumps({**GOOD, "more": "x" * 600_000}).encode(), "at most"),
    (json.dumps([GOOD, GOOD]).encode(), "array"),
]


def test_every_poison_message_goes_to_the_dead_letters(bench: Bench, running: subprocess.Popen[str]) -> None:
    """With its bytes, and where it stood; the good ones between them are decided."""
    sent = {}
    for number, (content, _) in enumerate(POISON):
        place = bench.send(bench.topics.transactions, content).get(20)
        sent[place.offset] = content
        good = {**GOOD, "transaction_id": f"g{number}"}
        bench.send(bench.topics.transactions, json.dumps(good).encode()).get(20)
    place = bench.send(bench.topics.labels, b'{"transaction_id": 7}').get(20)
    internal = bench.send(bench.topics.repartition, b"\x93\x01\x02").get(20)
    decisions = bench.decisions(len(POISON))
    assert [found.transaction_id for found in decisions] == [f"g{number}" for number in range(len(POISON))]
    found_letters = bench.read(bench.topics.dead_letter, len(POISON) + 2)
    letters = [(dict(record.headers), record.value) for record in found_letters]
    assert len(letters) == len(POISON) + 2
    assert {record.key for record in found_letters} == {b"c0"}
    others = {headers["topic"].decode(): headers for headers, _ in letters}
    assert others[bench.topics.labels]["offset"] == str(place.offset).encode()
    assert others[bench.topics.repartition]["offset"] == str(internal.offset).encode()
    found = {
        int(headers["offset"]): (headers, value)
        for headers, value in letters
        if headers["topic"] == bench.topics.transactions.encode()
    }
    assert found.keys() == sent.keys()
    for (offset, content), (_, why) in zip(sent.items(), POISON, strict=True):
        headers, value = found[offset]
        assert value == (content or b"")[:450_000]
        assert headers["bytes"] == str(len(content or b"")).encode()
        assert headers["partition"] == b"0"
        assert why.lower() in headers["reason"].decode().lower(), (why, headers)
        assert b"x" * 70 not in headers["reason"], "a reason must not quote the message"
    end(running)


def test_duplicates_are_answered_and_not_counted_and_the_clock_may_go_backwards(
    bench: Bench, running: subprocess.Popen[str], fraud_model: Path
) -> None:
    once = draw_transactions(400, 2, seed=3)
    shuffled = random.Random(4).sample(once, len(once))
    again = [*shuffled, *shuffled[:150], *draw_transactions(200, 2, seed=5, start=400)]
    bench.feed(again)
    decisions = bench.decisions(len(again))
    assert len(decisions) == len(again)
    assert sorted(found.transaction_id for found in decisions if found.duplicate) == sorted(
        transaction.transaction_id for transaction in shuffled[:150]
    )
    first = {found.transaction_id: found for found in decisions if not found.duplicate}
    assert first == decide_embedded(fraud_model, again)
    end(running)


def test_asked_to_end_it_loses_nothing(bench: Bench, running: subprocess.Popen[str], fraud_model: Path) -> None:
    transactions = draw_transactions(6000, 2, seed=6)
    bench.feed(transactions[:3000])
    bench.feed(transactions[3000:])
    messages = end(running)
    assert "processed and committed" in messages
    done = bench.committed(bench.topics.transactions)
    assert len(bench.decisions(0)) == done, "what is read is decided, and nothing else"
    following = bench.start(fraud_model)
    try:
        wait_restored(following, bench.partitions)
        decisions = bench.decisions(len(transactions))
        assert {found.transaction_id: found for found in decisions} == decide_embedded(fraud_model, transactions)
        assert len(decisions) == len(transactions)
        end(following)
    finally:
        kill([following])


def test_a_swapped_model_takes_over_under_load_and_a_broken_one_does_not(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "live"
    first = write_fraud_model(folder, seed=1)
    second = write_fraud_model(tmp_path / "next", seed=2)
    transactions = draw_transactions(3000, 2, seed=7)
    process = bench.start(folder)
    try:
        wait_restored(process, bench.partitions)
        bench.feed(transactions[:1000])
        bench.decisions(1000)
        (folder / "manifest.json").write_bytes(b"{}")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        bench.feed(transactions[1000:2000])
        bench.decisions(2000)
        shutil.rmtree(folder)
        (tmp_path / "next").rename(folder)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: _decided_by(bench, transactions[2000:2001]) == second.sha256[:12], "the new model decides")
        bench.feed(transactions[2001:])
        decisions = [found for found in bench.decisions(3000) if not found.duplicate]
        messages = end(process)
    finally:
        kill([process])
    assert sorted(found.transaction_id for found in decisions) == sorted(found.transaction_id for found in transactions)
    names = {found.transaction_id: found.model.rpartition("@")[2] for found in decisions}
    assert {names[found.transaction_id] for found in transactions[:2000]} == {first.sha256[:12]}
    assert {names[found.transaction_id] for found in transactions[2001:]} == {second.sha256[:12]}
    assert "refused" in messages


def _decided_by(bench: Bench, transactions: list) -> str:  # type: ignore[type-arg]
    """The digest of the model that decides the transaction, which is sent again: a duplicate is answered too."""
    bench.feed(transactions)
    time.sleep(0.2)
    return bench.decisions(2001)[-1].model.rpartition("@")[2]


def test_a_model_of_another_schema_is_refused_at_start(bench: Bench, tmp_path: Path) -> None:
    write_fraud_model(tmp_path / "other", names=("amount", "shoe_size"))
    process = bench.start(tmp_path / "other")
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "shoe_size" in messages
    assert "Traceback" not in messages


def test_a_dead_letter_that_may_not_be_written_fails_its_transaction(
    broker_address: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python's `send` then gives a failed future and raises nothing: the message would be gone."""
    producer = BatchProducer(bootstrap_servers=broker_address, transactional_id=f"{bench.prefix}writer")
    producer.init_transactions()

    def refuse(topic: str, *_: object) -> None:
        raise TopicAuthorizationFailedError({topic})

    producer.partitions_for(bench.topics.dead_letter)
    monkeypatch.setattr(producer, "_partition", refuse)
    offsets = {TopicPartition(bench.topics.transactions, 0): 1}
    letter = DeadLetter(TopicPartition(bench.topics.dead_letter, 0), None, b"poison", [])
    with pytest.raises(TopicAuthorizationFailedError):
        producer.commit({}, [letter], offsets, ConsumerGroupMetadata(bench.group, -1, "", None))
    producer.abort(lambda _: None)
    producer.end()
    assert bench.committed(bench.topics.transactions) == 0


def test_a_second_process_with_the_same_instance_id_shuts_the_first_one_out(
    bench: Bench, running: subprocess.Popen[str], fraud_model: Path
) -> None:
    transactions = draw_transactions(2000, 2, seed=8)
    bench.feed(transactions[:1000])
    bench.decisions(1000)
    second = bench.start(fraud_model)
    try:
        wait_restored(second, bench.partitions)
        bench.feed(transactions[1000:])
        decisions = bench.decisions(len(transactions))
        _, messages = running.communicate(timeout=60)
        assert running.returncode == 6, messages
        assert "was shut out" in messages
        assert "Traceback" not in messages
        end(second)
    finally:
        kill([second])
    assert len(decisions) == len(transactions)
    assert {found.transaction_id: found for found in decisions} == decide_embedded(fraud_model, transactions)


def test_topics_that_do_not_fit_are_refused(broker_address: str, bench: Bench, fraud_model: Path) -> None:
    options = ("--topic-prefix", f"{bench.prefix}other.")
    process = bench.start(fraud_model, *options)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, "--create-topics" in messages) == (2, True), messages
    admin = KafkaAdminClient(bootstrap_servers=broker_address)
    admin.create_topics([NewTopic(f"{bench.prefix}other.labels", 3, 1)])
    admin.close()
    process = bench.start(fraud_model, *options, "--create-topics", "--partitions", "2")
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{bench.prefix}other.labels 3" in messages
    assert "Traceback" not in messages


def test_topics_that_another_broker_has_just_created_are_waited_for(broker_address: str, bench: Bench) -> None:
    member = Member(broker_address, prefix=f"{bench.prefix}late.")
    waiting = Waiting(lambda: False, lambda _: None)
    restorer = Restorer(waiting, member.connection)
    creating = threading.Timer(1.0, create_topics, (member, 2))
    creating.start()
    try:
        counts = partition_counts(restorer.reader, Topics(member.prefix), waiting)
    finally:
        creating.join()
        restorer.close()
    assert set(counts.values()) == {2}


@pytest.mark.parametrize(
    ("fault", "told", "text"),
    [
        (FencedInstanceIdError(), OutputError, "was shut out"),
        (ProducerFencedError(), OutputError, "was shut out"),
        (KafkaTimeoutError("waited 60 s for it"), OutputError, "cannot be joined: .*waited 60 s"),
        (ValueError("a fault of ours"), ValueError, "a fault of ours"),
    ],
)
def test_what_fails_behind_the_first_client_is_not_told_as_a_wrong_address(
    bench: Bench, fraud_model: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, told: type[Exception], text: str
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("featherweight.apps.fraud.kafka.commits.Committer.ready", fail)
    live = LiveModel(ModelSource(fraud_model))
    try:
        with pytest.raises(told, match=text):
            run_stream(
                Member(bench.address, bench.group, bench.prefix), live, stopping=lambda: False, say=lambda _: None
            )
    finally:
        live.close()
