"""Transactions per second and latency of `fraud stream`, against a plain kafka-python loop and Quix Streams.

    python -m bench.stream [--model DIR] [--count 100000] [--rounds 3] [--seconds 20]

Every run has a fresh broker on this host (Apache Kafka where `make test-tools` has brought it, noida-db elsewhere, or
the one that FEATHERWEIGHT_KAFKA names), JSON in and out, one process, exactly once, the same features and model.
Throughput: the topic is filled first; from the first decision that a read_committed reader sees to the last. Latency:
from `send` to the decision at that reader, at 200 a second and at half of full rate.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from kafka import KafkaProducer

from bench.timing import host, show
from featherweight.apps.fraud.kafka.clients import BatchConsumer
from featherweight.apps.fraud.kafka.member import Member, create_topics
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.bundled import data_directory
from tests.fraud.broker import GIVEN, HAS_KAFKA, start_broker

PARTITIONS = 4
WARM = 2000
START_MS = 1_700_000_000_000


def encoded(count: int) -> list[tuple[bytes, bytes]]:
    """(customer, transaction): 5000 customers, 1000 terminals, some thousand transactions an hour."""
    chance = random.Random(1)  # noqa: S311
    return [
        (
            (customer := f"c{chance.randrange(5000)}").encode(),
            msgspec.json.encode(
                Transaction(
                    transaction_id=f"t{index}",
                    customer_id=customer,
                    terminal_id=f"m{chance.randrange(1000)}",
                    time_ms=START_MS + index * 700,
                    amount=round(chance.lognormvariate(3.5, 1), 2),
                )
            ),
        )
        for index in range(count)
    ]


def words_of(kind: str, address: str, model: Path, prefix: str) -> list[str]:
    if kind != "featherweight":
        return [sys.executable, "-m", "bench.plain_stream", kind, "--bootstrap", address, "--model", str(model),
                "--prefix", prefix]  # fmt: skip
    command = [sys.executable, "-c", "from featherweight.core.cli import main; main()", "fraud", "stream"]
    return [
        *command,
        "--bootstrap-servers",
        address,
        "--model",
        str(model),
        "--topic-prefix",
        prefix,
        "--group",
        prefix,
    ]


class Reader:
    """Reads decisions in a thread of its own, and notes when each was there."""

    def __init__(self, address: str, prefix: str) -> None:
        self.arrived: list[tuple[float, int]] = []
        self.at: dict[str, float] = {}
        self.total = 0
        self.details = False
        self._consumer = BatchConsumer(
            f"{prefix}decisions", bootstrap_servers=address, isolation_level="read_committed",
            auto_offset_reset="earliest", fetch_max_wait_ms=100,
        )  # fmt: skip
        self._stopping = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopping:
            found = self._consumer.poll_messages(100)
            now = time.perf_counter()
            for messages in found:
                self.total += len(messages.offsets)
                self.arrived.append((now, len(messages.offsets)))
                if self.details:
                    for value in messages.values:
                        self.at[msgspec.json.decode(value or b"")["transaction_id"]] = now

    def wait(self, count: int, seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while self.total < count:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.total} decisions of {count} after {seconds} s")
            time.sleep(0.02)

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self._consumer.close()


def with_stream(
    kind: str, model: Path, measure: Callable[[str, str, Reader], float | list[float]], fill: int
) -> object:
    """Start broker, topics with `fill` transactions, stream and reader; measure; end all."""
    broker = None if GIVEN else start_broker()
    address = broker.address if broker else str(GIVEN)
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    process = None
    try:
        create_topics(Member(address, prefix=prefix), PARTITIONS)
        producer = KafkaProducer(bootstrap_servers=address, linger_ms=5)
        for key, value in encoded(fill):
            producer.send(f"{prefix}transactions", value, key=key)
        producer.flush()
        producer.close()
        reader = Reader(address, prefix)
        process = subprocess.Popen(words_of(kind, address, model, prefix), stdout=subprocess.DEVNULL)
        result = measure(address, prefix, reader)
        reader.close()
        return result
    finally:
        if process is not None:
            process.kill()
            process.wait()
        if broker is not None:
            broker.remove()


def measure_rate(kind: str, model: Path, count: int) -> float:
    """Decisions per second."""

    def measure(address: str, prefix: str, reader: Reader) -> float:
        reader.wait(count)
        first, last = reader.arrived[0], reader.arrived[-1]
        return (count - first[1]) / (last[0] - first[0])

    return float(with_stream(kind, model, measure, count))  # type: ignore[arg-type]


def measure_latency(kind: str, model: Path, rate: float, seconds: float) -> list[float]:
    """Milliseconds from send to decision, of every transaction."""

    def measure(address: str, prefix: str, reader: Reader) -> list[float]:
        reader.wait(WARM)
        reader.details = True
        producer = KafkaProducer(bootstrap_servers=address)
        events = encoded(WARM + int(rate * seconds))[WARM:]
        sent: dict[str, float] = {}
        begin = time.perf_counter()
        for index, (key, value) in enumerate(events):
            due = begin + index / rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left if left > 2e-3 or rate < 1000 else 1e-3)
            sent[f"t{WARM + index}"] = time.perf_counter()
            producer.send(f"{prefix}transactions", value, key=key)
        reader.wait(WARM + len(events))
        time.sleep(0.5)
        producer.close()
        return [(reader.at[name] - then) * 1e3 for name, then in sent.items()][len(sent) // 10 :]

    return with_stream(kind, model, measure, WARM)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=data_directory() / "models" / "card-fraud")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each latency run")
    parser.add_argument("--only", nargs="*", default=["featherweight", "loop", "quix"])
    given = parser.parse_args()
    print(host())
    print(f"broker: {GIVEN or ('Apache Kafka' if HAS_KAFKA else 'noida-db')}")
    rates: dict[str, list[float]] = {kind: [] for kind in given.only}
    for number in range(given.rounds):
        for kind in random.Random(number).sample(given.only, len(given.only)):  # noqa: S311
            rates[kind].append(measure_rate(kind, given.model, given.count))
    ours = statistics.median(rates["featherweight"])
    rows = [(kind, f"{statistics.median(found):,.0f}", f"{ours / statistics.median(found):.2f}")
            for kind, found in rates.items()]  # fmt: skip
    show(f"{given.count} transactions, exactly once", ("stream", "transactions/s", "featherweight is x times it"), rows)
    latencies = []
    for kind in given.only:
        for name, rate in (("200/s", 200.0), ("half of full rate", statistics.median(rates[kind]) / 2)):
            found = measure_latency(kind, given.model, rate, given.seconds)
            p50, p99 = np.percentile(found, [50, 99])
            latencies.append((kind, name, f"{p50:.1f}", f"{p99:.1f}"))
    show("from send to decision, ms", ("stream", "rate", "p50", "p99"), latencies)


if __name__ == "__main__":
    main()
