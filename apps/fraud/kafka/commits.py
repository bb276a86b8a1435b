"""What a member has worked out, committed in one Kafka transaction together with the offsets of what it read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from kafka.errors import ProducerFencedError

from featherweight.apps.fraud.kafka.batches import Messages, Unreadable
from featherweight.apps.fraud.kafka.clients import BATCH_BYTES, BatchProducer, KafkaError, TopicPartition
from featherweight.apps.fraud.kafka.dead_letters import describe_batch, describe_message
from featherweight.apps.fraud.kafka.records import Record
from featherweight.apps.fraud.kafka.stages import Outgoing
from featherweight.apps.fraud.kafka.topic_names import Topics
from featherweight.apps.fraud.kafka.waiting import Waiting

TRANSACTION_MS: Final = 15_000
"""The broker aborts a transaction that has been open for so long; until then readers wait behind it."""
GRACE_S: Final = 5.0
"""How long a transaction that is about to be committed may still take when the process is asked to end."""


class Committer:
    """Has the member's producer, which is opened when it is needed, and again after it has died."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        transactional_id: str,
        topics: Topics,
        counts: Mapping[str, int],
        waiting: Waiting,
    ) -> None:
        """counts: the partitions of every topic."""
        self._connection, self._id = connection, transactional_id
        self._topics, self._counts, self._waiting = topics, counts, waiting
        self._producer: BatchProducer | None = None

    def commit(self, found: Sequence[Messages | Unreadable], out: Outgoing, group: Any) -> None:
        """All of `out`, the dead letters of `found` and its offsets, or nothing of it. group: the consumer's
        group_metadata() under which it was read: after another assignment the broker must refuse it. Raises KafkaError,
        StoppedError; then the transaction wants `abort`."""
        offsets = {TopicPartition(one.topic, one.partition): one.last_offset + 1 for one in found}
        dead = [describe_message(self._topics.dead_letter, rejected) for rejected in out.rejected]
        dead += [describe_batch(self._topics.dead_letter, one) for one in found if isinstance(one, Unreadable)]
        wait = self._waiting.begin(grace_s=GRACE_S)
        self.ready().commit(self._address(out), dead, offsets, group, wait.check)

    def abort(self) -> None:
        """Raises ProducerFencedError where another process has this instance id now: to begin anew would shut it out.
        StoppedError."""
        if self._producer is not None:
            try:
                self._producer.abort(self._waiting.begin(GRACE_S, GRACE_S).check)
            except ProducerFencedError:
                raise
            except KafkaError:
                self.close()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.end()
            self._producer = None

    def ready(self) -> BatchProducer:
        """Raises KafkaError, StoppedError."""
        if self._producer is None:
            self._producer = self._open()
        return self._producer

    def _open(self) -> BatchProducer:
        producer = self._waiting.patiently(
            "the broker, to open a producer",
            lambda: BatchProducer(
                **self._connection,
                transactional_id=self._id,
                transaction_timeout_ms=TRANSACTION_MS,
                max_request_size=4 * BATCH_BYTES,
                max_block_ms=1000,
            ),
        )
        try:
            self._waiting.patiently("the broker, to begin with transactions", producer.init_transactions)
            for topic in self._topics.all:
                self._waiting.patiently(f"the topic {topic}", partial(producer.partitions_for, topic))
        except BaseException:
            producer.end()
            raise
        return producer

    def _address(self, out: Outgoing) -> dict[TopicPartition, list[Record]]:
        topics = self._topics
        named: dict[str, Mapping[int, Sequence[Record]]] = {
            topics.decisions: out.decisions,
            topics.alerts: out.alerts,
            topics.repartition: out.repartition,
            topics.customers: out.customers,
            topics.terminals: out.terminals,
        }
        addressed: dict[TopicPartition, list[Record]] = {}
        for topic, parts in named.items():
            for partition, records in parts.items():
                if records:
                    addressed.setdefault(TopicPartition(topic, partition % self._counts[topic]), []).extend(records)
        return addressed
