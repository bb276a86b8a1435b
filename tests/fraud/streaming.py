"""`featherweight fraud stream` as a process of its own, what goes into its topics and what comes out. What comes out
is read by kafka-python's own reader, record by record."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.kafka.member import Member, Topics, create_topics
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.serving import ModelSource

COMMAND = (sys.executable, "-c", "from featherweight.core.cli import main; main()", "fraud", "stream")
TOPICS = Topics("")
"""Of streams without a broker."""
START_MS = 1_700_000_000_000


def draw_transactions(count: int, partitions: int, *, seed: int = 0, start: int = 0) -> list[Transaction]:
    """Customers use terminals of their own partition only: then no order between partitions can change a feature."""
    chance = random.Random(seed)
    found = []
    for index in range(start, start + count):
        customer = chance.randrange(60 * partitions)
        found.append(
            Transaction(
                transaction_id=f"t{index}",
                customer_id=f"c{customer}",
                terminal_id=f"m{customer % partitions}-{chance.randrange(12)}",
                time_ms=START_MS + index * 40_000 + chance.randrange(30_000),
                amount=chance.randrange(1, 40_000) / 100,
            )
        )
    return found


def partition_of(customer: str, partitions: int) -> int:
    return int(customer[1:]) % partitions


def arrive_as(topic: str, partition: int, values: Sequence[bytes | None], first_offset: int = 0) -> Messages:
    """As a batch of one partition would be unpacked, without keys."""
    offsets = range(first_offset, first_offset + len(values))
    return Messages(topic, partition, offsets, [None] * len(values), values)


def decide_embedded(model: Path, events: Iterable[Transaction | Label]) -> dict[str, Decision]:
    """What one process without any broker decides of the events in their order."""
    pipeline = Pipeline(open_scorer(ModelSource(model)))
    decisions = {}
    for event in events:
        if isinstance(event, Label):
            pipeline.apply_label(event)
        else:
            decision = pipeline.process(event)
            if not decision.duplicate:
                decisions[decision.transaction_id] = decision
    pipeline.scorer.close()
    return decisions


class Bench:
    """A broker's topics under a prefix of their own."""

    def __init__(self, address: str, partitions: int = 2, prefix: str | None = None) -> None:
        """prefix: of topics that are there already."""
        self.address, self.partitions = address, partitions
        self.prefix = prefix or f"test-{uuid.uuid4().hex[:8]}."
        self.topics = Topics(self.prefix)
        self.group = f"{self.prefix}group"
        create_topics(Member(address, self.group, self.prefix), partitions)
        self._producer: KafkaProducer | None = None
        self._observer: KafkaConsumer | None = None

    def feed(self, events: Iterable[Transaction | Label]) -> None:
        for event in events:
            topic = self.topics.labels if isinstance(event, Label) else self.topics.transactions
            customer = event.customer_id
            self.send(topic, msgspec.json.encode(event), customer.encode(), partition_of(customer, self.partitions))
        self.flush()

    def send(self, topic: str, value: bytes | None, key: bytes | None = b"c0", partition: int = 0) -> Any:
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self.address, linger_ms=5)
        return self._producer.send(topic, value, key=key, partition=partition)

    def flush(self) -> None:
        assert self._producer is not None
        self._producer.flush(60)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=5)
        if self._observer is not None:
            self._observer.close()

    def start(self, model: Path, *options: str, instance: str | None = "one") -> subprocess.Popen[str]:
        """Without an instance id it is a member that leaves when it is asked to end."""
        words = [*COMMAND, "--bootstrap-servers", self.address, "--model", str(model), "--group", self.group]
        words += ["--topic-prefix", self.prefix, *(["--group-instance-id", instance] if instance else []), *options]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def end_offset(self, topic: str) -> int:
        """Of all partitions together, committed or not."""
        partitions = [TopicPartition(topic, number) for number in range(self.partitions)]
        return int(sum(self._observe().end_offsets(partitions).values()))

    def committed(self, topic: str) -> int:
        """The group's offsets of all partitions together."""
        observer = self._observe()
        return int(sum(observer.committed(TopicPartition(topic, number)) or 0 for number in range(self.partitions)))

    def _observe(self) -> KafkaConsumer:
        """It asks about the group and never joins it."""
        if self._observer is None:
            self._observer = KafkaConsumer(
                bootstrap_servers=self.address, group_id=self.group, enable_auto_commit=False
            )
        return self._observer

    def read(self, topic: str, wanted: int, seconds: float = 60.0, isolation: str = "read_committed") -> list[Any]:
        """Every committed record, once there are `wanted` and for half a second no more have come."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.address, isolation_level=isolation, auto_offset_reset="earliest"
        )
        consumer.assign([TopicPartition(topic, number) for number in range(self.partitions)])
        found: list[Any] = []
        last = time.monotonic()
        until = last + seconds
        while True:
            fresh = [record for records in consumer.poll(timeout_ms=0).values() for record in records]
            found += fresh
            last = time.monotonic() if fresh else last
            if (len(found) >= wanted and time.monotonic() > last + 0.5) or time.monotonic() > until:
                break
            if len(found) < wanted and time.monotonic() > last + 3:
                # noida tells of aborted transactions that ended before the offset asked for, which makes readers skip
                # what the same producer committed later; read from the beginning, nothing is missing.
                consumer.seek_to_beginning()
                found, last = [], time.monotonic()
            time.sleep(0 if fresh else 0.05)  # noida answers at once, also when it has nothing
        consumer.close()
        return found

    def decisions(self, wanted: int, seconds: float = 60.0, isolation: str = "read_committed") -> list[Decision]:
        records = self.read(self.topics.decisions, wanted, seconds, isolation)
        return [msgspec.json.decode(record.value, type=Decision) for record in records]


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"after {seconds} s still not: {what}"
        time.sleep(0.2)


def wait_restored(process: subprocess.Popen[str], partitions: int) -> None:
    """Until it says that it has the histories of so many partitions."""
    assert process.stderr is not None
    heard: list[str] = []
    while sum("restored" in line for line in heard) < partitions:
        heard.append(process.stderr.readline())
        assert heard[-1], f"ended with {process.wait()}: {''.join(heard)}"


def end(process: subprocess.Popen[str]) -> str:
    """Ask it to end; its messages."""
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == 0, messages
    return messages


def kill(processes: Sequence[subprocess.Popen[str]]) -> str:
    """Their last messages."""
    heard = []
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        heard.append(process.communicate()[1])
    return "".join(filter(None, heard))
