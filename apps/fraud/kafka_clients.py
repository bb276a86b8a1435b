"""kafka-python's consumer and producer, with whole record batches in and out.

Protocol, groups, transactions, retries and sequence numbers are kafka-python's. What is done here reaches behind its
public interface in two places, each of which a test holds against its own reader and writer: a fetched batch is handed
over as one value, not record by record, and a batch that is packed already is put where `send` would build one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

from apps.fraud.records import Record, decode_records, encode_records, split_records
from core.errors import UsageError

BATCH_BYTES = 900_000
"""Brokers refuse batches above message.max.bytes, 1 MiB unless set otherwise."""
FETCH_BYTES = 1 << 20
"""What is fetched at once and so processed in one transaction: some thousand transactions."""
FETCHED_MAGIC = 2


def _checksum(content: memoryview) -> int:
    found: int = google_crc32c.value(bytes(content))
    return found


# kafka-python looks for a package under the LGPL, and without it sums in Python: a second for what a fetch brings.
kafka.record.default_records.calc_crc32c = _checksum


@dataclass(frozen=True)
class DeadLetter:
    partition: TopicPartition
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True)
class Messages:
    """Records of one partition, in order: offsets [N], keys [N], values [N]."""

    topic: str
    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


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
        found: dict[str, Any] = msgspec.to_builtins(msgspec.toml.decode(path.read_bytes(), type=Security))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    except msgspec.ValidationError as error:
        known = ", ".join(Security.__struct_fields__)
        where = str(error).rpartition("`")[0].rpartition("`")[2] if "`" in str(error) else ""
        raise UsageError(f"{path}: wrong at {where or 'a setting'}; the settings are {known}") from None
    except msgspec.DecodeError:
        raise UsageError(f"{path}: not TOML") from None
    return found


class BatchConsumer(KafkaConsumer):  # type: ignore[misc]
    """Its `poll_messages` is `poll`, a hundred times cheaper a record."""

    def __init__(self, *topics: str, **settings: Any) -> None:
        super().__init__(*topics, fetch_max_bytes=FETCH_BYTES, max_partition_fetch_bytes=FETCH_BYTES, **settings)
        self._fetcher.PartitionRecords = _WholeBatches

    def poll_messages(self, timeout_ms: int) -> list[Messages]:
        """Raises KafkaError, and DataError for a batch that cannot be read."""
        if self._coordinator.rejoining:
            # kafka-python 3.0 forgets a join that outlasts a poll where only changed metadata was the cause: the member
            # then waits for ever, with partitions that it does not fetch.
            self._coordinator.request_rejoin()
        return [_unpack(record) for records in self.poll(timeout_ms=timeout_ms).values() for record in records]


class _WholeBatches(Fetcher.PartitionRecords):  # type: ignore[misc]
    """kafka-python's walk over a fetched partition (checksums, aborted transactions, control batches), in which every
    batch of format v2 is one record, whose value is a `_Fetched`."""

    def __init__(self, fetch_offset: int, tp: Any, records: MemoryRecords, **settings: Any) -> None:
        super().__init__(fetch_offset, tp, _BatchReader(records, fetch_offset), **settings)


class _BatchReader:
    def __init__(self, records: MemoryRecords, fetch_offset: int) -> None:
        self._records, self._fetch_offset = records, fetch_offset

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None or batch.magic != FETCHED_MAGIC:
            return batch
        return _WholeBatch(batch, self._fetch_offset)


class _WholeBatch(DefaultRecordBatch):  # type: ignore[misc]
    __slots__ = ("_fetch_offset",)

    def __init__(self, batch: DefaultRecordBatch, fetch_offset: int) -> None:
        super().__init__(batch._buffer)
        self._fetch_offset = fetch_offset

    def __iter__(self) -> Iterator[DefaultRecord]:
        self._maybe_uncompress()
        content = bytes(memoryview(self._buffer)[self._pos :])
        value = _Fetched(self.base_offset, self._fetch_offset, self.records_count, content)
        yield DefaultRecord(len(content), self.last_offset, self.max_timestamp, self.timestamp_type, None, value, [])


@dataclass(frozen=True)
class _Fetched:
    base_offset: int
    fetch_offset: int
    """Where the fetch began: a batch may begin before it."""
    count: int
    content: bytes

    def __len__(self) -> int:
        return len(self.content)


def _unpack(record: Any) -> Messages:
    if not isinstance(record.value, _Fetched):  # of format v0 or v1: one record
        return Messages(record.topic, record.partition, [record.offset], [record.key], [record.value])
    fetched = record.value
    inner, keys, values = decode_records(fetched.content, fetched.count)
    offsets = (inner + fetched.base_offset).tolist()
    first = next((index for index, offset in enumerate(offsets) if offset >= fetched.fetch_offset), len(offsets))
    return Messages(record.topic, record.partition, offsets[first:], keys[first:], values[first:])


class BatchProducer(KafkaProducer):  # type: ignore[misc]
    """A transactional producer that is given everything of a transaction at once."""

    def commit(
        self,
        records: Mapping[TopicPartition, Sequence[Record]],
        dead: Sequence[DeadLetter],
        offsets: Mapping[TopicPartition, int],
        group: Any,
    ) -> None:
        """One transaction, from beginning to end. offsets: the next to read, committed for `group` (the consumer's
        group_metadata(), by which the broker refuses members that have lost their partitions: KIP-447).

        Raises KafkaError; then the transaction is still open and wants `abort_transaction`, or the producer is dead."""
        self.begin_transaction()
        futures = [
            self._put(partition, run)
            for partition, found in records.items()
            for run in split_records(found, BATCH_BYTES)
        ]
        letters = [
            self.send(
                letter.partition.topic, letter.value, headers=letter.headers, partition=letter.partition.partition
            )
            for letter in dead
        ]
        self.flush()
        for letter in letters:
            letter.get(1)  # `send` does not raise what it could not even queue
        for future in futures:
            _, _, exceptions = future.value
            if exceptions is not None:
                raise exceptions(0)
        wanted = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
        self.send_offsets_to_transaction(wanted, group)
        self.commit_transaction()

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


__all__ = ["BatchConsumer", "BatchProducer", "DeadLetter", "KafkaError", "Messages", "TopicPartition"]
