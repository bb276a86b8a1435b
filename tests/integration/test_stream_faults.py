"""The stream meets what goes wrong on a broker: batches that are bombs, transactions that nobody ends, topics that are
gone, a broker that comes and goes."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cramjam
import numpy as np
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from xxhash import xxh32_intdigest

from apps.fraud.labels import label_of
from apps.fraud.restoring import Restorer
from apps.fraud.state import identify
from apps.fraud.stream import Shard
from apps.fraud.waiting import Waiting
from tests.fraud.broker import needs_kafka, restarts_kafka, start_broker
from tests.fraud.streaming import START_MS, Bench, draw_transactions, kill, wait_until

BOMB_BYTES = 200 << 20

# kafka-python leaves a socket behind when a client is closed while it connects; these are clients of the test.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


class Running:
    """A stream whose messages are read all the while."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.heard: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def wait(self, text: str, seconds: float = 60.0) -> str:
        """Until it says so."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.heard.append(self._lines.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"not said within {seconds} s: {text}; but: {self.heard}") from None
            if text in self.heard[-1]:
                return self.heard[-1]

    def ask(self) -> float:
        """Ask it to end; how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert code == 0
        return time.monotonic() - began


@pytest.fixture
def bench(broker_address: str) -> Iterator[Bench]:
    bench = Bench(broker_address, partitions=1)
    yield bench
    bench.close()


@pytest.fixture
def running(bench: Bench, fraud_model: Path) -> Iterator[Running]:
    running = Running(bench.start(fraud_model))
    try:
        running.wait("restored")
        yield running
    finally:
        kill([running.process])


@pytest.fixture
def compressing(monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python's producer with the codecs that it looks for in packages that are not here."""
    monkeypatch.setattr(
        "kafka.codec.snappy", SimpleNamespace(compress=lambda raw: bytes(cramjam.snappy.compress_raw(raw)))
    )
    for name, encode in (("lz4", _encode_lz4), ("zstd", lambda raw: bytes(cramjam.zstd.compress(bytes(raw))))):
        monkeypatch.setattr(f"kafka.codec.has_{name}", lambda: True)
        monkeypatch.setattr(f"kafka.record.default_records.{name}_encode", encode)
        number = KafkaProducer._COMPRESSORS[name][1]
        monkeypatch.setitem(KafkaProducer._COMPRESSORS, name, (lambda: True, number))


def _encode_lz4(raw: bytes) -> bytes:
    """A frame of blocks that know nothing of one another, without which Kafka refuses it."""
    flags, room = b"\x60\x70", 4 << 20
    frame = bytearray(b"\x04\x22\x4d\x18" + flags + bytes([xxh32_intdigest(flags) >> 8 & 0xFF]))
    for start in range(0, len(raw), room):
        block = bytes(cramjam.lz4.compress_block(bytes(raw[start : start + room]), store_size=False))
        frame += len(block).to_bytes(4, "little") + block
    return bytes(frame + bytes(4))


def send(bench: Bench, values: list[bytes], codec: str) -> list[int]:
    """Offsets of the values, which are sent in one batch."""
    # One batch, however long it takes to put it together.
    producer = KafkaProducer(
        bootstrap_servers=bench.address,
        compression_type=codec,
        linger_ms=60_000,
        batch_size=1 << 30,
        max_request_size=(1 << 31) - 1,
        request_timeout_ms=60_000,
    )
    try:
        sent = [producer.send(bench.topics.transactions, value, key=b"c0", partition=0) for value in values]
        producer.flush(60)
        return [future.get(1).offset for future in sent]
    finally:
        producer.close()


def good(name: str) -> bytes:
    found = {"transaction_id": name, "customer_id": "c0", "terminal_id": "m0-1", "time_ms": START_MS, "amount": 5.0}
    return json.dumps(found).encode()


CODECS = ("gzip", "snappy", "lz4", "zstd")


@pytest.mark.usefixtures("compressing")
def test_every_codec_is_read_and_its_bombs_are_dead_letters(bench: Bench, running: Running) -> None:
    """The partition goes on behind them, and they are never held unpacked."""
    (said,) = [line for line in running.heard if "joining" in line]
    assert f"at {bench.address}: joining the group {bench.group} as one" in said
    names = {codec: [f"{codec}-{number}" for number in range(50)] for codec in CODECS}
    before = _peak_bytes(running.process)
    bombs = {}
    for codec in CODECS:
        # Snappy packs twenty to one at most, and a broker takes 1 MB.
        several = [b"0" * (9 << 20), good("beside it"), b"0" * (8 << 20)]
        bombs[codec] = send(bench, several if codec == "snappy" else [b"0" * BOMB_BYTES], codec)
        send(bench, [good(name) for name in names[codec]], codec)
    decisions = bench.decisions(200)
    assert [found.transaction_id for found in decisions] == [name for codec in CODECS for name in names[codec]]
    letters = bench.read(bench.topics.dead_letter, len(CODECS))
    assert len(letters) == len(CODECS)
    for (codec, places), letter in zip(bombs.items(), letters, strict=True):
        headers = {name: value.decode() for name, value in letter.headers}
        assert f"of {codec} hold more than 16777216" in headers["reason"]
        assert (headers["topic"], headers["partition"]) == (bench.topics.transactions, "0")
        assert (int(headers["offset"]), int(headers["last_offset"])) == (places[0], places[-1])
        assert len(letter.value) == min(int(headers["bytes"]), 450_000)
        running.wait(f"offsets {places[0]} to {places[-1]}")
    assert _peak_bytes(running.process) - before < 120 << 20
    assert running.ask() < 10


def _peak_bytes(process: subprocess.Popen[str]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@needs_kafka
def test_an_open_transaction_in_a_changelog_is_told_and_waited_for(bench: Bench, fraud_model: Path) -> None:
    stranger = KafkaProducer(bootstrap_servers=bench.address, transactional_id=f"{bench.prefix}stranger")
    stranger.init_transactions()
    stranger.begin_transaction()
    place = stranger.send(bench.topics.customers, b"never seen", key=b"k", partition=0).get(20).offset
    running = Running(bench.start(fraud_model))
    try:
        said = running.wait("waiting for a transaction that is open", 30)
        assert f"{bench.topics.customers} partition 0 from offset {place} on" in said
        assert running.ask() < 3
        following = Running(bench.start(fraud_model))
        try:
            following.wait("joining the group")
            stranger.abort_transaction()
            following.wait("0 customers and 0 terminals restored", 30)
            following.ask()
        finally:
            kill([following.process])
    finally:
        kill([running.process])
        stranger.close()


@needs_kafka
def test_a_dead_letter_topic_that_is_gone_is_told_and_may_come_back(bench: Bench, running: Running) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bench.address)
    try:
        admin.delete_topics([bench.topics.dead_letter])
        wait_until(lambda: bench.topics.dead_letter not in admin.list_topics(), "deleted")
        bench.send(bench.topics.transactions, b"poison", key=b"the key").get(20)
        said = running.wait("waiting for", 30)
        assert f"the topic {bench.topics.dead_letter}, which the broker does not have" in said
        admin.create_topics([NewTopic(bench.topics.dead_letter, 1, 1)])
    finally:
        admin.close()
    (letter,) = bench.read(bench.topics.dead_letter, 1)
    assert (letter.key, letter.value) == (b"the key", b"poison")
    running.ask()


@needs_kafka
def test_asked_to_end_while_nothing_can_be_delivered(bench: Bench, running: Running) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bench.address)
    admin.delete_topics([bench.topics.decisions])
    wait_until(lambda: bench.topics.decisions not in admin.list_topics(), "deleted")
    admin.close()
    bench.send(bench.topics.transactions, good("never decided")).get(20)
    assert bench.topics.decisions in running.wait("waiting for", 30)
    assert running.ask() < 15
    assert bench.committed(bench.topics.transactions) == 0


def test_labels_that_come_before_their_transaction_are_counted(bench: Bench, running: Running) -> None:
    early, late = draw_transactions(20, 1), draw_transactions(30, 1, seed=1, start=1000)
    bench.feed(early)
    bench.decisions(20)
    bench.feed([*(label_of(one, True) for one in early), *(label_of(one, True) for one in late)])
    said = running.wait("labels that changed nothing so far")
    assert "30 came before their transaction, 0 are of transactions" in said
    running.ask()


def test_an_end_that_no_fetch_reaches_ends_the_restoring(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the mark of the last transaction was compacted away: the broker says that the changelog ends behind it,
    and has nothing before that end."""
    histories = Shard(7.0).customers
    for one in draw_transactions(5, 1):
        histories.advance(one.customer_id, identify(one.transaction_id), one.time_ms, one.cents, 1, np.zeros(40, "f4"))
    for key, value in histories.drain():
        bench.send(bench.topics.customers, value, key=key)
    bench.flush()
    restorer = Restorer(Waiting(lambda: False, lambda _: None), {"bootstrap_servers": bench.address})
    try:
        for client in (restorer.reader, restorer._ends):
            monkeypatch.setattr(client, "end_offsets", _one_more(client.end_offsets))
        shard = Shard(7.0)
        began = time.monotonic()
        assert restorer.restore(shard, bench.topics.changelogs, 0, lambda: True)
        assert len(shard.customers) == len(histories) > 0
        assert shard.newest_ms == max(one.time_ms for one in draw_transactions(5, 1)), "labels up to it are not early"
        assert time.monotonic() - began < 15
        assert not restorer.restore(Shard(7.0), bench.topics.changelogs, 0, lambda: False), "the assignment has changed"
    finally:
        restorer.close()


def _one_more(end_offsets: Callable[..., dict[TopicPartition, int]]) -> Callable[..., dict[TopicPartition, int]]:
    return lambda *args, **more: {where: offset + 1 for where, offset in end_offsets(*args, **more).items()}


def test_a_changelog_that_is_damaged_is_named_with_its_place(bench: Bench, fraud_model: Path) -> None:
    bench.send(bench.topics.terminals, b"not a block", key=b"not a key").get(20)
    process = bench.start(fraud_model)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{bench.topics.terminals} partition 0, offset 0" in messages
    assert "Traceback" not in messages


@restarts_kafka
def test_a_batch_that_is_damaged_on_the_brokers_disk_is_a_dead_letter(fraud_model: Path) -> None:
    broker = start_broker()
    processes = []
    try:
        bench = Bench(broker.address, partitions=1)
        for name in ("before", "damaged", "after"):
            bench.send(bench.topics.transactions, good(name), key=b"c0").get(20)
        bench.close()
        broker.stop()
        (log,) = broker.data.glob(f"log/{bench.topics.transactions}-0/*.log")
        log.write_bytes(log.read_bytes().replace(b"damaged", b"dAmaged"))
        broker.start()
        bench = Bench(bench.address, 1, bench.prefix)
        processes.append(bench.start(fraud_model))
        assert [found.transaction_id for found in bench.decisions(2)] == ["before", "after"]
        (letter,) = bench.read(bench.topics.dead_letter, 1)
        headers = dict(letter.headers)
        assert (headers["offset"], headers["last_offset"]) == (b"1", b"1")
        assert b"checksum" in headers["reason"]
        assert b"dAmaged" in letter.value
        assert [headers[name] for name in ("codec", "records", "base_offset")] == [b"0", b"1", b"1"]
        bench.close()
        assert Running(processes[0]).ask() < 10
    finally:
        kill(processes)
        broker.remove()
