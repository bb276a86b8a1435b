"""The stream on Kafka: a member of the consumer group that polls, scores and commits, transaction by transaction.

Exactly once: decisions, alerts, dead letters, repartition records, the changelogs of the histories and the offsets of
what was read are committed in one Kafka transaction, or none of them is. The histories in memory are then ahead of the
committed ones, so they are thrown away and restored.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import FencedInstanceIdError, ProducerFencedError, TopicAlreadyExistsError

from apps.fraud.kafka_clients import (
    BATCH_BYTES,
    BatchConsumer,
    BatchProducer,
    DeadLetter,
    KafkaError,
    Messages,
    TopicPartition,
)
from apps.fraud.live import LiveModel
from apps.fraud.pipeline import warm_up
from apps.fraud.records import Record
from apps.fraud.state import LIMIT
from apps.fraud.stream import Arrived, Outgoing, Rejected, Shard, Source, Stream, check_source
from core.errors import OutputError, UsageError

POLL_MS = 200
"""How long a poll waits for messages, and so a signal for an answer. Messages end the wait at once."""
AT_ONCE = 4000
"""Messages in one transaction, at most: a committed batch takes some ten milliseconds."""
SESSION_MS = 30_000
"""A member that is silent for so long loses its partitions; one with an instance id that is back earlier keeps them."""
TRANSACTION_MS = 15_000
"""The broker aborts a transaction that has been open for so long; until then readers wait behind it."""
ALIVE_S = 1.0
"""How often a member that restores long histories says that it lives."""
QUIET_S = 5.0
"""Labels that are ahead of the transactions wait no longer when for so long none of these came."""
FAILURES = 5
"""Transactions that may fail one after the other before the process gives up."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """Who takes part in which group. instance: a name that stays the same over restarts, and that no two running
    processes share; without one, every start is a new member."""

    bootstrap: str
    group: str = "featherweight-fraud"
    prefix: str = ""
    instance: str | None = None
    security: Mapping[str, Any] = field(default_factory=dict)
    """What `kafka_clients.read_security` gives."""
    max_histories: int = LIMIT
    """Of customers, and of terminals, in all partitions together."""

    @property
    def connection(self) -> dict[str, Any]:
        """What every client is opened with."""
        return {"bootstrap_servers": self.bootstrap, **self.security}


class Topics:
    """keyed: those that must have the same number of partitions; the decisions' and others' may have any."""

    def __init__(self, prefix: str) -> None:
        self.transactions, self.labels = f"{prefix}transactions", f"{prefix}labels"
        self.repartition = f"{prefix}transactions.repartition"
        self.customers, self.terminals = f"{prefix}customers.changelog", f"{prefix}terminals.changelog"
        self.decisions, self.alerts = f"{prefix}decisions", f"{prefix}alerts"
        self.dead_letter = f"{prefix}transactions.dead-letter"
        self.sources: dict[str, Source] = {
            self.transactions: "transactions",
            self.labels: "labels",
            self.repartition: "repartition",
        }
        self.changelogs = (self.customers, self.terminals)
        self.keyed = (*self.sources, *self.changelogs)
        self.all = (*self.keyed, self.decisions, self.alerts, self.dead_letter)


def create_topics(member: Member, partitions: int) -> list[str]:
    """Create those that do not exist, with the broker's replication, and return their names. Raises UsageError."""
    topics = Topics(member.prefix)
    compacted = {"cleanup.policy": "compact"}
    created = []
    admin = _reaching(member, lambda: KafkaAdminClient(**member.connection))
    try:
        for name in topics.all:
            wanted = NewTopic(name, partitions, -1, topic_configs=compacted if name in topics.changelogs else {})
            try:
                admin.create_topics([wanted])
                created.append(name)
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                raise UsageError(f"{member.bootstrap}: the topic {name} cannot be created: {error}") from error
    finally:
        admin.close()
    return created


def run_stream(member: Member, live: LiveModel, *, stopping: Callable[[], bool], say: Say) -> int:
    """Score until `stopping()`; return how many messages were processed.

    Raises ArtifactError for a model that is none for a stream, UsageError when the broker or the topics are not there,
    OutputError when decisions cannot be committed."""
    check_source(live.scorer)
    warm_up(live.scorer.schema.delay_days)
    runner: Runner = _reaching(member, lambda: Runner(member, live, say))
    try:
        while not stopping():
            runner.step()
    except (FencedInstanceIdError, ProducerFencedError) as error:
        raise OutputError(
            f"group {member.group}: this process was shut out; another one with the instance id {member.instance!r} "
            "runs, or the broker gave this one up: nothing was lost, see that only one runs, start it again"
        ) from error
    except KafkaError as error:
        raise OutputError(f"{member.bootstrap}: {type(error).__name__}: {error}; start again to go on") from error
    finally:
        runner.close()
    return runner.processed


class Runner:
    """One member: consumer, producer and the histories of the partitions that it has."""

    def __init__(self, member: Member, live: LiveModel, say: Say) -> None:
        self.processed = 0
        self._member, self._live, self._say = member, live, say
        self._topics = Topics(member.prefix)
        self._id = f"{member.group}-{member.prefix}{member.instance or uuid.uuid4()}"
        self._failures = 0
        self._told_evictions = False
        reading: dict[str, Any] = {
            **member.connection,
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
        }
        self._restorer = BatchConsumer(group_id=None, **reading)
        counts = _partition_counts(self._restorer, self._topics)
        self._counts = counts
        self._ends = KafkaAdminClient(**member.connection)
        self._producer = self._open_producer()
        self._stream = Stream(counts[self._topics.transactions])
        self._turns: deque[_Turn] = deque()
        self._generation, self._group = -1, None
        self._waiting: dict[int, int] = {}
        """Partitions whose labels are ahead of the transactions -> the time up to which these must come."""
        self._heard: dict[int, float] = {}
        """When transactions of a partition last came, or could begin to."""
        self._behind = False
        """Whether histories and offsets must be read again although the assignment is the same."""
        self._consumer = BatchConsumer(
            group_id=member.group,
            group_instance_id=member.instance,
            session_timeout_ms=SESSION_MS,
            # Of topics with as many partitions each, it gives a member the same partitions of all.
            partition_assignment_strategy=[RangePartitionAssignor],
            **reading,
        )
        self._consumer.subscribe(list(self._topics.sources), listener=_Listener(self._consumer, self._turns))
        self._consumer.topics()  # a leader that joins before it knows the partitions would let the group join twice

    def step(self) -> None:
        """Poll once and process what came. Raises KafkaError, OutputError."""
        self._live.poll()
        messages = self._consumer.poll_messages(POLL_MS)
        if self._behind or self._turns:
            messages = []  # read again, from the committed offsets on
            while self._behind or self._turns:
                self._take_over()
        # Labels last, as in Stream.process, and not before their transactions: a group that begins with old topics
        # reads labels much faster than transactions.
        others = [found for found in messages if found.topic != self._topics.labels]
        for part in slice_messages(others, AT_ONCE):
            if not self._commit(part):
                return
        self._heard |= {
            found.partition: time.monotonic() for found in others if found.topic == self._topics.transactions
        }
        self._call_labels()
        labels = [found for found in messages if found.topic == self._topics.labels]
        for part in slice_messages(self._take_due(labels), AT_ONCE):
            if not self._commit(part):
                return

    def _take_due(self, labels: Sequence[Messages]) -> list[Messages]:
        """Those whose transactions can have been read; the others wait where they are, unread."""
        due = []
        for found in labels:
            if found.partition in self._waiting:
                continue  # behind those that wait
            early = self._stream.find_early(found.partition, found.values, int(time.time() * 1000))
            if early is None or self._is_quiet(found.partition):
                due.append(found)
                continue
            place, self._waiting[found.partition] = early
            where = TopicPartition(found.topic, found.partition)
            with suppress(KeyError):  # the group has just decided anew: then all is read again as committed
                self._consumer.pause(where)
                self._consumer.seek(where, found.offsets[place])
            if place:
                due.append(cut_messages(found, 0, place))
        return due

    def _call_labels(self) -> None:
        """Read on where the transactions have come as far as the labels that wait, or come no more."""
        for partition, time_ms in list(self._waiting.items()):
            if self._stream.shards[partition].newest_ms >= time_ms or self._is_quiet(partition):
                del self._waiting[partition]
                with suppress(KeyError):  # as above
                    self._consumer.resume(TopicPartition(self._topics.labels, partition))

    def _is_quiet(self, partition: int) -> bool:
        return time.monotonic() > self._heard[partition] + QUIET_S

    def close(self) -> None:
        self._producer.close(timeout=5)
        for client in (self._consumer, self._restorer, self._ends):
            with suppress(KafkaError):  # whatever was not committed is done again
                client.close()

    def _commit(self, messages: Sequence[Messages]) -> bool:
        sources = self._topics.sources
        arrived = [Arrived(sources[found.topic], found.partition, found.offsets, found.values) for found in messages]
        out = self._stream.process(arrived, self._live.scorer)
        offsets = {TopicPartition(found.topic, found.partition): found.offsets[-1] + 1 for found in messages}
        dead = [self._bury(rejected) for rejected in out.rejected]
        try:
            # As of the assignment under which these were read: after another one the broker must refuse them.
            self._producer.commit(self._address(out), dead, offsets, self._group)
        except (FencedInstanceIdError, ProducerFencedError):
            raise
        except KafkaError as error:
            self._roll_back(error)
            return False
        self._failures = 0
        self._tell_evictions()
        self.processed += sum(len(found.offsets) for found in messages)
        return True

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

    def _bury(self, rejected: Rejected) -> DeadLetter:
        topics = self._topics
        topic = next(name for name, source in topics.sources.items() if source == rejected.source)
        where = TopicPartition(topics.dead_letter, rejected.partition % self._counts[topics.dead_letter])
        content = rejected.content or b""
        headers = {
            "reason": rejected.reason,
            "topic": topic,
            "partition": str(rejected.partition),
            "offset": str(rejected.offset),
            "bytes": str(len(content)),
        }
        # The headers come on top: a message as large as the broker takes would not fit again.
        return DeadLetter(where, content[: BATCH_BYTES // 2], [(name, text.encode()) for name, text in headers.items()])

    def _roll_back(self, error: KafkaError) -> None:
        """What the transaction held is not committed, so the histories are ahead: forget them, read again."""
        self._failures += 1
        if self._failures >= FAILURES:
            raise OutputError(
                f"{self._member.bootstrap}: {FAILURES} transactions failed one after the other, the last with "
                f"{type(error).__name__}: {error}; nothing was lost, start again when the broker is well"
            ) from error
        self._say(f"a transaction failed and is done again: {type(error).__name__}: {error}")
        try:
            self._producer.abort_transaction()
        except ProducerFencedError:  # another process has this instance id now: to begin anew would shut that one out
            raise
        except KafkaError:
            self._producer.close(timeout=0)
            self._producer = self._open_producer()
        self._stream.shards.clear()
        self._behind = True

    def _take_over(self) -> None:
        """Bring histories, offsets and assignment together; what is assigned is paused until its histories are here."""
        shards = self._stream.shards
        while self._turns:
            turn = self._turns.popleft()
            # In the generation before they were this member's too, so nobody else can have touched these histories.
            kept = turn.partitions if turn.generation <= self._generation + 1 else set()
            for partition in set(shards) - kept:
                del shards[partition]
            self._generation, self._group = turn.generation, turn.group
        assigned = self._consumer.assignment()
        self._consumer.pause(*assigned)
        mine = {partition.partition for partition in assigned}
        if len(assigned) != len(mine) * len(self._topics.sources):
            raise OutputError(
                f"group {self._member.group}: the topics' partitions were assigned apart; see that all members of the "
                "group are `featherweight fraud stream` with the same topics"
            )
        # Offsets first, which waits for transactions that touch them; then the changelogs: they are as new or newer.
        for topic_partition in assigned:
            offset = self._consumer.committed(topic_partition)
            if offset is None:
                self._consumer.seek_to_beginning(topic_partition)
            else:
                self._consumer.seek(topic_partition, offset)
        for partition in sorted(mine - set(shards)):
            shard = self._restore(partition)
            if shard is None:
                return
            shards[partition] = shard
        self._behind = False
        self._waiting.clear()
        self._heard = dict.fromkeys(mine, time.monotonic())
        self._consumer.resume(*assigned)

    def _restore(self, partition: int) -> Shard | None:
        """The partition's histories as committed; None when the assignment has changed meanwhile."""
        limit = max(self._member.max_histories // self._counts[self._topics.transactions], 1)
        shard, restorer, started = Shard(self._live.scorer.schema.delay_days, limit), self._restorer, time.monotonic()
        alive = started
        histories = {self._topics.customers: shard.customers, self._topics.terminals: shard.terminals}
        changelogs = [TopicPartition(topic, partition) for topic in histories]
        # The end that counts transactions which are about to be committed too: reading waits until they are.
        ends = _end_offsets(self._ends, changelogs)
        restorer.assign(changelogs)
        restorer.seek_to_beginning(*changelogs)
        while any(restorer.position(changelog) < ends[changelog] for changelog in changelogs):
            for found in restorer.poll_messages(POLL_MS):
                restore = histories[found.topic].restore
                for key, value in zip(found.keys, found.values, strict=True):
                    restore(key or b"", value)
            if time.monotonic() > alive + ALIVE_S:
                alive = time.monotonic()
                self._consumer.poll_messages(0)  # all is paused: this only says that the member lives
            if self._turns:
                return None
        self._say(
            f"partition {partition}: {len(shard.customers)} customers and {len(shard.terminals)} terminals restored "
            f"in {time.monotonic() - started:.1f} s"
        )
        return shard

    def _tell_evictions(self) -> None:
        if not self._told_evictions and self._stream.evicted:
            self._told_evictions = True
            self._say(
                "there are more customers or terminals than --max-histories: those not seen for the longest time are "
                "forgotten from now on"
            )

    def _open_producer(self) -> BatchProducer:
        producer = BatchProducer(
            **self._member.connection,
            transactional_id=self._id,
            transaction_timeout_ms=TRANSACTION_MS,
            max_request_size=4 * BATCH_BYTES,
        )
        producer.init_transactions()
        for topic in self._topics.all:
            producer.partitions_for(topic)
        return producer


@dataclass(frozen=True)
class _Turn:
    """What the group decided. group: what the broker knows this member by from now on."""

    generation: int
    group: Any
    partitions: set[int]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Called in the client's own thread at any moment: it notes what the group decides, for the next `step`."""

    def __init__(self, consumer: BatchConsumer, turns: deque[_Turn]) -> None:
        self._consumer, self._turns = consumer, turns

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Everything that was processed is committed, or will be refused: there is nothing to finish."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._consumer.pause(*assigned)
        group = self._consumer.group_metadata()
        self._turns.append(_Turn(group.generation_id, group, {partition.partition for partition in assigned}))


def cut_messages(found: Messages, start: int, end: int) -> Messages:
    """Those from `start` on, before `end`."""
    part = slice(start, end)
    return Messages(found.topic, found.partition, found.offsets[part], found.keys[part], found.values[part])


def slice_messages(messages: Sequence[Messages], limit: int) -> Iterator[list[Messages]]:
    """The same messages in the same order, at most `limit` at a time."""
    part: list[Messages] = []
    room = limit
    for found in messages:
        start = 0
        while start < len(found.offsets):
            end = min(start + room, len(found.offsets))
            part.append(cut_messages(found, start, end))
            room -= end - start
            start = end
            if not room:
                yield part
                part, room = [], limit
    if part:
        yield part


def _partition_counts(consumer: BatchConsumer, topics: Topics) -> dict[str, int]:
    counts = {name: len(consumer.partitions_for_topic(name) or ()) for name in topics.all}
    missing = [name for name, count in counts.items() if not count]
    if missing:
        raise UsageError(f"no such topics: {', '.join(missing)}; create them, or start with --create-topics")
    if len({counts[name] for name in topics.keyed}) > 1:
        found = ", ".join(f"{name} {counts[name]}" for name in topics.keyed)
        raise UsageError(
            f"partitions: {found}; these topics need the same number, because partition N of one belongs to that of "
            "of the others: create those anew that differ (--create-topics makes what is missing)"
        )
    return counts


def _end_offsets(admin: KafkaAdminClient, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    from kafka.protocol.consumer import OffsetSpec

    found = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    return {partition: found[partition].offset for partition in partitions}


def _reaching(member: Member, opening: Callable[[], Any]) -> Any:
    try:
        return opening()
    except (KafkaError, ValueError) as error:  # ValueError: a port that is no number
        raise UsageError(f"{member.bootstrap or '(empty)'}: {error}; give HOST:PORT of a Kafka broker") from error
