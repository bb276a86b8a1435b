"""kafka-python's consumer and producer, with whole record batches in and out.

Protocol, groups, transactions, retries and sequence numbers are kafka-python's. What is done here reaches behind its
public interface where that gives no whole batches and no bounded waits, and tests hold each place against its own
reader and writer or a broker: a fetched batch is handed over as one value, not record by record; a batch that is packed
already is put where `send` would build one; a transaction's answers are waited for in rounds; fetches that found
nothing are noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import kafka.record.default_records
import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import OffsetAndMetadata

from featherweight.apps.fraud.kafka.batches import Fetched, Messages, Unreadable
from featherweight.apps.fraud.kafka.dead_letters import DeadLetter
from featherweight.apps.fraud.kafka.records import RECORDS, Record, encode_records, split_records
from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import read_errors

BATCH_BYTES = 900_000
"""Brokers refuse batches above message.max.bytes, 1 MiB unless set otherwise."""
FETCH_BYTES = 1 << 20
"""What is fetched at once: some thousand transactions."""
FETCHED_MAGIC = 2
WRONG_CHECKSUM = "its checksum is wrong: it is damaged"
ROUND_S = 0.1
"""How often a wait for the broker asks whether it shall go on."""

Check = Callable[[str | Callable[[], str]], None]
"""Called in every round of a wait, with what it waits for, or what tells it; it may raise, and so end the wait."""


def _checksum(content: memoryview) -> int:
    found: int = google_crc32c.value(bytes(content))
    return found


# kafka-python looks for a package under the LGPL, and without it sums in Python: a second for what a fetch brings.
kafka.record.default_records.calc_crc32c = _checksum


class Security(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How a broker is reached that asks who is there: kafka-python's settings of the same names."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: str | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"] | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: str | None = None
    sasl_kerberos_service_name: str | None = None


def read_security(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises UsageError, which never quotes a value."""
    try:
        with read_errors(path, raises=UsageError, also=(UnicodeDecodeError,)):
            found: dict[str, Any] = msgspec.to_builtins(msgspec.toml.decode(path.read_bytes(), type=Security))
    except msgspec.ValidationError as error:
        known = ", ".join(Security.__struct_fields__)
        where = str(error).rpartition("`")[0].rpartition("`")[2] if "`" in str(error) else ""
        raise UsageError(f"{path}: wrong at {where or 'a setting'}; the settings are {known}") from None
    except msgspec.DecodeError:
        raise UsageError(f"{path}: not TOML") from None
    return found


class BatchConsumer(KafkaConsumer):  # type: ignore[misc]
    """Its `poll_batches` is `poll`, with whole batches, which are unpacked one by one where they are used."""

    def __init__(self, *topics: str, **settings: Any) -> None:
        super().__init__(*topics, fetch_max_bytes=FETCH_BYTES, max_partition_fetch_bytes=FETCH_BYTES, **settings)
        suspects: set[tuple[TopicPartition, int]] = set()
        self._fetcher.PartitionRecords = lambda *args, **more: _WholeBatches(suspects, *args, **more)
        self._take_answer = self._fetcher._handle_fetch_response
        self._fetcher._handle_fetch_response = self._note_answer
        self._nothing: dict[TopicPartition, tuple[int, float]] = {}

    @property
    def cluster_id(self) -> str | None:
        """The cluster's id; None before the first answer."""
        found: str | None = self._cluster.cluster_id
        return found

    def poll_batches(self, timeout_ms: int) -> list[Fetched]:
        """Raises KafkaError."""
        if self._coordinator.rejoining:
            # kafka-python 3.0 forgets a join that outlasts a poll where only changed metadata was the cause: the member
            # then waits for ever, with partitions that it does not fetch.
            self._coordinator.request_rejoin()
        return [record.value for records in self.poll(timeout_ms=timeout_ms).values() for record in records]

    def poll_messages(self, timeout_ms: int) -> Iterator[Messages]:
        """Where every batch must be readable. Raises KafkaError at once, DataError in the iterator."""
        return (_readable(fetched.unpack()) for fetched in self.poll_batches(timeout_ms))

    def found_nothing(self, partition: TopicPartition, offset: int, since: float) -> bool:
        """Whether the broker has answered a fetch from `offset`, asked after `since` (time.monotonic()), that nothing
        can be read there now."""
        where, asked = self._nothing.get(partition, (-1, 0.0))
        return where == offset and asked > since

    def _note_answer(self, node: Any, asked_for: Mapping[TopicPartition, int], asked: float, response: Any) -> None:
        # An answer that holds records of one partition may have had no room for those of another; one that a quota
        # has throttled (session -1) holds none.
        parts = [part for topic in response.responses for part in topic.partitions]
        throttled = getattr(response, "session_id", 0) == -1
        if not response.error_code and not throttled and not any(part.records or part.error_code for part in parts):
            self._nothing.update({partition: (offset, asked) for partition, offset in asked_for.items()})
        self._take_answer(node, asked_for, asked, response)


def _readable(found: Messages | Unreadable) -> Messages:
    if isinstance(found, Unreadable):
        raise DataError(
            f"{found.topic} partition {found.partition}, offsets {found.first_offset} to {found.last_offset}: a record "
            f"batch cannot be read: {found.reason}"
        )
    return found


class _WholeBatches(Fetcher.PartitionRecords):  # type: ignore[misc]
    """kafka-python's walk over a fetched partition (aborted transactions, control batches), in which every batch is one
    record, whose value is a `Fetched`."""

    def __init__(
        self, suspects: set[tuple[TopicPartition, int]], fetch_offset: int, tp: Any, records: MemoryRecords, **more: Any
    ) -> None:
        super().__init__(fetch_offset, tp, _BatchReader(suspects, tp, fetch_offset, records), **more)

    def take(self, n: int | None = None) -> Any:
        try:
            return super().take(n)
        except Exception:
            self.drain()  # or kafka-python takes from it, and gets nothing, without an end
            raise


class _BatchReader:
    """suspects: batches whose checksum was wrong when they were read for the first time."""

    def __init__(
        self,
        suspects: set[tuple[TopicPartition, int]],
        where: TopicPartition,
        fetch_offset: int,
        records: MemoryRecords,
    ) -> None:
        self._suspects, self._where, self._fetch_offset, self._records = suspects, where, fetch_offset, records

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None:
            return None
        if batch.magic != FETCHED_MAGIC:
            return _OldBatch(self._where, self._fetch_offset, batch)
        if batch.validate_crc():
            return _WholeBatch(self._where, self._fetch_offset, batch)
        place = (self._where, batch.base_offset)
        if place not in self._suspects:  # it may have been damaged on its way: as if nothing had come, fetched again
            self._suspects.add(place)
            return None
        return _DamagedBatch(self._where, self._fetch_offset, batch, self._records._next_slice)


class _WholeBatch(DefaultRecordBatch):  # type: ignore[misc]
    __slots__ = ("_fetch_offset", "_where")

    def __init__(self, where: TopicPartition, fetch_offset: int, batch: DefaultRecordBatch) -> None:
        super().__init__(batch._buffer)
        self._where, self._fetch_offset = where, fetch_offset

    def validate_crc(self) -> bool:
        """Done when it was read."""
        return True

    def __iter__(self) -> Iterator[DefaultRecord]:
        content = bytes(memoryview(self._buffer)[self._pos :])
        fetched = Fetched(
            self._where.topic,
            self._where.partition,
            self.base_offset,
            self._fetch_offset,
            self.last_offset,
            self.records_count,
            self.compression_type,
            content,
        )
        yield _as_record(fetched, self.max_timestamp, self.timestamp_type)


class _OtherBatch:
    """What kafka-python's walk asks of a batch."""

    leader_epoch = -1
    is_control_batch = False
    magic = FETCHED_MAGIC

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched
        self.base_offset, self.last_offset = fetched.base_offset, fetched.last_offset
        self.next_offset = fetched.last_offset + 1

    def validate_crc(self) -> bool:
        return True

    def has_producer_id(self) -> bool:
        return False

    def __iter__(self) -> Iterator[DefaultRecord]:
        yield _as_record(self._fetched, -1, 0)


class _DamagedBatch(_OtherBatch):
    """Where it begins is the broker's own; it ends where the next one begins at the latest, and before that where it
    says itself, if its header is possible. Otherwise it is taken for one message, and fetched again behind that."""

    def __init__(self, where: TopicPartition, fetch_offset: int, batch: DefaultRecordBatch, following: Any) -> None:
        first = max(batch.base_offset, fetch_offset)
        is_possible = 0 < batch.records_count <= batch.last_offset_delta + 1 <= RECORDS
        last = max(batch.last_offset, first) if is_possible else first
        if following is not None:
            last = min(last, max(int.from_bytes(following[:8], "big") - 1, first))
        content = bytes(memoryview(batch._buffer)[batch._pos :])
        super().__init__(
            Fetched(
                where.topic,
                where.partition,
                batch.base_offset,
                fetch_offset,
                last,
                batch.records_count,
                batch.compression_type,
                content,
                WRONG_CHECKSUM,
            )
        )


class _OldBatch(_OtherBatch):
    """A batch of format v0 or v1: one message, or several if compressed; not written since Kafka 0.11."""

    def __init__(self, where: TopicPartition, fetch_offset: int, batch: Any) -> None:
        fault, base, offset = "", batch.base_offset, batch.base_offset
        if not batch.validate_crc():
            fault, content = WRONG_CHECKSUM, bytes(batch._buffer)
        elif batch.compression_type:
            fault, base = f"compressed messages of format v{batch.magic} are not read", min(fetch_offset, offset)
            content = bytes(batch._buffer)
        else:
            content = encode_records([(record.key, record.value) for record in batch])
        codec = batch.compression_type if fault else 0
        super().__init__(Fetched(where.topic, where.partition, base, fetch_offset, offset, 1, codec, content, fault))


def _as_record(fetched: Fetched, time_ms: int, kind: int) -> DefaultRecord:
    size = len(fetched.content)
    return DefaultRecord(size, fetched.last_offset, time_ms, kind, None, fetched, [])


class BatchProducer(KafkaProducer):  # type: ignore[misc]
    """A transactional producer that is given everything of a transaction at once."""

    def commit(
        self,
        records: Mapping[TopicPartition, Sequence[Record]],
        dead: Sequence[DeadLetter],
        offsets: Mapping[TopicPartition, int],
        group: Any,
        check: Check = lambda _: None,
    ) -> None:
        """One transaction, from beginning to end. offsets: the next to read, committed for `group` (the consumer's
        group_metadata(), by which the broker refuses members that have lost their partitions: KIP-447).

        Raises KafkaError and what `check` raises; then the transaction is still open and wants `abort`, or the producer
        is dead."""
        self.begin_transaction()
        for topic in {letter.partition.topic for letter in dead}:
            self._await_topic(topic, check)
        futures = [
            self._put(partition, run)
            for partition, found in records.items()
            for run in split_records(found, BATCH_BYTES)
        ]
        letters = [self._post(letter) for letter in dead]
        self._sender.wakeup()
        for future in futures:
            while not future.wait(ROUND_S):
                check(lambda: self._describe_pending(futures, dead))
            _, _, exceptions = future.value
            if exceptions is not None:
                raise exceptions(0)
        for letter in letters:
            while not letter.is_done and not letter._produce_future.wait(ROUND_S):
                check(lambda: self._describe_pending(futures, dead))
            letter.get(1)  # `send` does not raise what it could not even queue
        wanted = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
        manager = self._transaction_manager
        self._await(manager.send_offsets_to_transaction(wanted, group), "the broker to take the offsets", check)
        self._await(manager.begin_commit(), "the broker to commit a transaction", check)

    def abort(self, check: Check) -> None:
        """Raises KafkaError and what `check` raises; then the producer is dead."""
        self._await(self._transaction_manager.begin_abort(), "the broker to abort a transaction", check)

    def end(self) -> None:
        """Soon: what is open is left to the broker, which aborts it."""
        self._sender.initiate_close()
        self._sender.join(1)
        self._sender.force_close()
        self._sender.join(5)
        with suppress(KafkaError):
            self.close(timeout=0)

    def _await(self, result: Any, what: str, check: Check) -> None:
        self._sender.wakeup()
        while not result.wait(ROUND_S * 1000):
            check(what)

    def _await_topic(self, topic: str, check: Check) -> None:
        """`send` would wait for metadata without a word."""
        while not self._metadata.partitions_for_topic(topic):
            self._sender.add_topic(topic)
            self._metadata.request_update()
            self._sender.wakeup()
            check(f"the topic {topic}, which the broker does not have (was it deleted?)")
            time.sleep(ROUND_S)

    def _describe_pending(self, futures: Sequence[Any], dead: Sequence[DeadLetter]) -> str:
        """What is not delivered yet, and which of it the broker does not have."""
        asked, until = self._metadata.request_update(), time.monotonic() + 1
        self._sender.wakeup()
        while not asked.is_done and time.monotonic() < until:
            time.sleep(ROUND_S)
        topics = {future.topic_partition.topic for future in futures if not future.is_done}
        topics |= {letter.partition.topic for letter in dead}
        missing = sorted(topic for topic in topics if not self._metadata.partitions_for_topic(topic))
        if missing:
            return f"the topic {', '.join(missing)}, which the broker does not have (was it deleted?)"
        return f"the broker to take records for {', '.join(sorted(topics))}"

    def _post(self, letter: DeadLetter) -> Any:
        topic, number = letter.partition
        there = sorted(self._metadata.partitions_for_topic(topic))
        return self.send(
            topic, letter.value, key=letter.key, headers=letter.headers, partition=there[number % len(there)]
        )

    def _put(self, partition: TopicPartition, records: Sequence[Record]) -> Any:
        """What `send` does for one record, for a whole batch."""
        self._transaction_manager.maybe_add_partition_to_transaction(partition)
        batch = ProducerBatch(partition, _Packed(records))
        with self._accumulator._tp_lock(partition):
            self._accumulator._batches[partition].append(batch)
            self._accumulator._incomplete.add(batch)
        return batch.produce_future


class _Packed(MemoryRecordsBuilder):  # type: ignore[misc]
    """A full batch, whose header kafka-python writes when it knows producer and sequence number."""

    def __init__(self, records: Sequence[Record]) -> None:
        content = encode_records(records)
        super().__init__(FETCHED_MAGIC, 0, len(content))
        builder = self._builder
        builder._buffer += content
        builder._num_records = self._next_offset = len(records)
        builder._last_offset = len(records) - 1
        builder._first_timestamp = builder._max_timestamp = int(time.time() * 1000)

    def append(self, *_: object, **__: object) -> None:
        """None means: no room, begin another batch."""


__all__ = ["BatchConsumer", "BatchProducer", "KafkaError", "TopicPartition"]
