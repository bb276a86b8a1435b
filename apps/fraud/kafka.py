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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import FencedInstanceIdError, ProducerFencedError

from apps.fraud.batches import Messages, Unreadable, cut_messages, slice_batches
from apps.fraud.dead_letters import DeadLetter, bury_batch, bury_message
from apps.fraud.decoding import Unread
from apps.fraud.kafka_clients import BATCH_BYTES, BatchConsumer, BatchProducer, KafkaError, TopicPartition
from apps.fraud.kafka_topics import Member, Topics, create_topics, partition_counts, reaching
from apps.fraud.live import LiveModel
from apps.fraud.pipeline import warm_up
from apps.fraud.records import Record, decode_records, encode_records
from apps.fraud.restoring import Restorer
from apps.fraud.stream import Arrived, Outgoing, Rejected, Shard, Stream, check_source
from apps.fraud.waiting import Say, StoppedError, Waiting
from core.errors import OutputError
from core.terminal import counted

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
GRACE_S = 5.0
"""How long a transaction that is about to be committed may still take when the process is asked to end."""
QUIET_S = 5.0
"""Labels that are ahead of the transactions wait no longer when for so long none of these came."""
TELL_NOTED_S = 60.0
"""How often what is odd is told, at most."""
FAILURES = 5
"""What may fail one after the other, without a transaction between, before the process gives up."""


def run_stream(member: Member, live: LiveModel, *, stopping: Callable[[], bool], say: Say) -> int:
    """Score until `stopping()`; return how many messages were processed.

    Raises WrongModelError for a model that is none for a stream, UsageError when the broker or the topics are not
    there, OutputError when decisions cannot be committed."""
    check_source(live.scorer)
    warm_up(live.scorer.schema.delay_days)
    # Compiled now, and not within the first transaction, which a broker would not wait for on a new host.
    decode_records(encode_records([(b"key", b"value")]), 1)
    waiting = Waiting(stopping, say)
    runner: Runner | None = None
    try:
        restorer = reaching(member, waiting, lambda: Restorer(waiting, member.connection))
        runner = Runner(member, live, waiting, restorer)
        while not stopping():
            runner.step()
    except StoppedError:
        pass  # what was not committed is done again
    except (FencedInstanceIdError, ProducerFencedError) as error:
        raise OutputError(
            f"group {member.group}: this process was shut out; another one with the instance id {member.instance!r} "
            "runs, or the broker gave this one up: nothing was lost, see that only one runs, start it again"
        ) from error
    except KafkaError as error:  # of the beginning: `step` tries anew and tells what fails later
        raise OutputError(
            f"{member.bootstrap}: group {member.group} cannot be joined: {error}; nothing was lost, start again when "
            "the broker is well and lets this process in"
        ) from error
    finally:
        if runner is not None:
            runner.close()
            runner.tell_noted()
    return runner.processed if runner is not None else 0


class Runner:
    """One member: consumer, producer and the histories of the partitions that it has."""

    def __init__(self, member: Member, live: LiveModel, waiting: Waiting, restorer: Restorer) -> None:
        """restorer: the member's from now on, and closed with it. Raises KafkaError, StoppedError, UsageError."""
        self.processed = 0
        self._member, self._live, self._waiting = member, live, waiting
        self._topics = Topics(member.prefix)
        self._id = f"{member.group}-{member.prefix}{member.instance or uuid.uuid4()}"
        self._failures = 0
        self._noted = _Noted()
        self._told_evictions = False
        self._turns: deque[_Turn] = deque()
        self._generation, self._group = -1, None
        self._waiting_labels: dict[int, int] = {}
        """Partitions whose labels are ahead of the transactions -> the time up to which these must come."""
        self._heard: dict[int, float] = {}
        """When transactions of a partition last came, or could begin to."""
        self._behind = False
        """Whether histories and offsets must be read again although the assignment is the same."""
        self._producer: BatchProducer | None = None
        with ExitStack() as opened:
            self._restorer = restorer
            opened.callback(self._restorer.close)
            self._counts = partition_counts(self._restorer.reader, self._topics, waiting)
            self._stream = Stream(self._counts[self._topics.transactions])
            opened.callback(self._end_producer)
            self._ready_producer()
            self._consumer = waiting.patiently("the broker, to open a consumer", self._open_consumer)
            opened.callback(lambda: self._consumer.close(timeout_ms=5000))
            # A leader that joins before it knows the partitions would let the group join twice.
            waiting.patiently("the broker, to name its topics", self._consumer.topics)
            self._opened = opened.pop_all()
        waiting.say(
            f"cluster {self._consumer.cluster_id or '(without an id)'} at {member.bootstrap}: joining the group "
            f"{member.group} as {member.instance or 'a new member'}"
        )

    def step(self) -> None:
        """Poll once and process what came. Raises StoppedError, OutputError, and KafkaError where another process has
        taken this one's place."""
        self._live.poll()
        try:
            self._advance()
        except (FencedInstanceIdError, ProducerFencedError):
            raise
        except KafkaError as error:
            self._roll_back(error)

    def _advance(self) -> None:
        batches = self._consumer.poll_batches(POLL_MS)
        if self._behind or self._turns:
            batches = []  # read again, from the committed offsets on
            while self._behind or self._turns:
                self._take_over()
        # Labels last, as in Stream.process, and not before their transactions: a group that begins with old topics
        # reads labels much faster than transactions.
        others = [found for found in batches if found.topic != self._topics.labels]
        for part in slice_batches(others, AT_ONCE):
            self._commit(part)
        self._heard |= {
            found.partition: time.monotonic() for found in others if found.topic == self._topics.transactions
        }
        self._call_labels()
        labels = [found for found in batches if found.topic == self._topics.labels]
        for part in slice_batches(labels, AT_ONCE):
            if due := self._take_due(part):
                self._commit(due)

    def _take_due(self, labels: Sequence[Messages | Unreadable]) -> list[Messages | Unreadable]:
        """Those whose transactions can have been read; the others wait where they are, unread."""
        due: list[Messages | Unreadable] = []
        for found in labels:
            if found.partition in self._waiting_labels:
                continue  # behind those that wait
            if isinstance(found, Unreadable):
                due.append(found)
                continue
            early = self._stream.find_early(found.partition, found.values, int(time.time() * 1000))
            if early is None or self._is_quiet(found.partition):
                due.append(found)
                continue
            place, self._waiting_labels[found.partition] = early
            where = TopicPartition(found.topic, found.partition)
            with suppress(KeyError):  # the group has just decided anew: then all is read again as committed
                self._consumer.pause(where)
                self._consumer.seek(where, found.offsets[place])
            if place:
                due.append(cut_messages(found, 0, place))
        return due

    def _call_labels(self) -> None:
        """Read on where the transactions have come as far as the labels that wait, or come no more."""
        for partition, time_ms in list(self._waiting_labels.items()):
            if self._stream.shards[partition].newest_ms >= time_ms or self._is_quiet(partition):
                del self._waiting_labels[partition]
                with suppress(KeyError):  # as above
                    self._consumer.resume(TopicPartition(self._topics.labels, partition))

    def _is_quiet(self, partition: int) -> bool:
        return time.monotonic() > self._heard[partition] + QUIET_S

    def close(self) -> None:
        with suppress(KafkaError):  # whatever was not committed is done again
            self._opened.close()

    def tell_noted(self) -> None:
        self._noted.tell(self._waiting.say, always=True)

    def _tell_evictions(self) -> None:
        if not self._told_evictions and self._stream.evicted:
            self._told_evictions = True
            self._waiting.say(
                "there are more customers or terminals than --max-histories: those not seen for the longest time are "
                "forgotten from now on"
            )

    def _end_producer(self) -> None:
        if self._producer is not None:
            self._producer.end()
            self._producer = None

    def _commit(self, found: Sequence[Messages | Unreadable]) -> None:
        sources = self._topics.sources
        messages = [one for one in found if isinstance(one, Messages)]
        arrived = [Arrived(sources[one.topic], one.partition, one.offsets, one.values) for one in messages]
        out = self._stream.process(arrived, self._live.scorer)
        offsets = {TopicPartition(one.topic, one.partition): one.last_offset + 1 for one in found}
        dead = [self._bury(rejected, messages) for rejected in out.rejected]
        dead += [bury_batch(self._topics.dead_letter, one) for one in found if isinstance(one, Unreadable)]
        # As of the assignment under which these were read: after another one the broker must refuse them.
        wait = self._waiting.begin(grace_s=GRACE_S)
        self._ready_producer().commit(self._address(out), dead, offsets, self._group, wait.check)
        self._tell_unreadable(found)
        self._failures = 0
        self.processed += sum(len(one.offsets) for one in messages)
        self._noted.add(out)
        self._noted.tell(self._waiting.say)
        self._tell_evictions()

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

    def _bury(self, rejected: Rejected, messages: Sequence[Messages]) -> DeadLetter:
        topic = next(name for name, source in self._topics.sources.items() if source == rejected.source)
        return bury_message(
            self._topics.dead_letter, topic, rejected.partition, rejected.offset, rejected.reason, messages
        )

    def _tell_unreadable(self, found: Sequence[Messages | Unreadable]) -> None:
        for one in found:
            if isinstance(one, Unreadable):
                self._waiting.say(
                    f"{one.topic} partition {one.partition}, offsets {one.first_offset} to {one.last_offset}: a record "
                    f"batch cannot be read and is among the dead letters: {one.reason}"
                )

    def _roll_back(self, error: KafkaError) -> None:
        """What the transaction held is not committed, so the histories are ahead: forget them, read again."""
        self._failures += 1
        if self._failures >= FAILURES:
            raise OutputError(
                f"{self._member.bootstrap}: {FAILURES} attempts failed one after the other, the last with {error}; "
                "nothing was lost, start again when the broker is well"
            ) from error
        self._waiting.say(f"a transaction failed and is done again: {error}")
        self._stream.shards.clear()
        self._behind = True
        if self._producer is not None:
            try:
                self._producer.abort(self._waiting.begin(GRACE_S, GRACE_S).check)
            except ProducerFencedError:  # another process has this instance id now: to begin anew would shut it out
                raise
            except KafkaError:
                self._end_producer()
        self._waiting.pause(2.0 ** (self._failures - 1) - 1)  # 0, 1, 3, 7 seconds

    def _take_over(self) -> None:
        """Bring histories, offsets and assignment together; what is assigned is paused until its histories are here."""
        self._ready_producer()
        shards = self._stream.shards
        while self._turns:
            turn = self._turns.popleft()
            # In the generation before they were this member's too, so nobody else can have touched these histories.
            kept = turn.partitions if turn.generation <= self._generation + 1 else set()
            for partition in set(shards) - kept:
                del shards[partition]
            self._generation, self._group = turn.generation, turn.group
            self._behind = True  # until all of it is done: an error between must not look like the end of it
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
            self._seek_committed(topic_partition)
        for partition in sorted(mine - set(shards)):
            shard = self._restore(partition)
            if shard is None:
                return
            shards[partition] = shard
        self._behind = False
        self._waiting_labels.clear()
        self._heard = dict.fromkeys(mine, time.monotonic())
        self._consumer.resume(*assigned)

    def _seek_committed(self, where: TopicPartition) -> None:
        offset = self._waiting.patiently(
            f"the group's offset in {where.topic} partition {where.partition}; where a transaction of a member that is "
            "gone is open, until the broker aborts it",
            lambda: self._consumer.committed(where, timeout_ms=POLL_MS),
        )
        if offset is None:
            self._consumer.seek_to_beginning(where)
        else:
            self._consumer.seek(where, offset)

    def _restore(self, partition: int) -> Shard | None:
        """The partition's histories as committed; None when the assignment has changed meanwhile."""
        limit = max(self._member.max_histories // self._counts[self._topics.transactions], 1)
        shard, started = Shard(self._live.scorer.schema.delay_days, limit), time.monotonic()
        alive = started

        def is_mine() -> bool:
            nonlocal alive
            if time.monotonic() > alive + ALIVE_S:
                alive = time.monotonic()
                self._consumer.poll_batches(0)  # all is paused: this only says that the member lives
            return not self._turns

        if not self._restorer.restore(shard, self._topics.changelogs, partition, is_mine):
            return None
        self._waiting.say(
            f"partition {partition}: {counted(len(shard.customers), 'customers')} and "
            f"{counted(len(shard.terminals), 'terminals')} restored "
            f"in {time.monotonic() - started:.1f} s"
        )
        return shard

    def _ready_producer(self) -> BatchProducer:
        if self._producer is None:
            self._producer = self._open_producer()
        return self._producer

    def _open_producer(self) -> BatchProducer:
        producer = self._waiting.patiently(
            "the broker, to open a producer",
            lambda: BatchProducer(
                **self._member.connection,
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

    def _open_consumer(self) -> BatchConsumer:
        consumer = BatchConsumer(
            **self._member.connection,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            group_id=self._member.group,
            group_instance_id=self._member.instance,
            session_timeout_ms=SESSION_MS,
            # Of topics with as many partitions each, it gives a member the same partitions of all.
            partition_assignment_strategy=[RangePartitionAssignor],
        )
        consumer.subscribe(list(self._topics.sources), listener=_Listener(consumer, self._turns))
        return consumer


class _Noted:
    """What was taken and is odd all the same, counted."""

    def __init__(self) -> None:
        self._early = self._unknown = self._label_conflicts = self._conflicts = self._late = 0
        self._unread = Unread()
        self._told_at, self._told = 0.0, list[str]()

    def add(self, out: Outgoing) -> None:
        self._early += out.early_labels
        self._unknown += out.unknown_labels
        self._label_conflicts += out.label_conflicts
        self._conflicts += out.conflicts
        self._late += out.late
        self._unread.add(out.unread.names, out.unread.rows)

    def tell(self, say: Say, *, always: bool = False) -> None:
        """When there are more; once in TELL_NOTED_S, if not `always`."""
        now = time.monotonic()
        if not (always or now > self._told_at + TELL_NOTED_S):
            return
        lines = list(self._lines())
        for line in lines:
            if line not in self._told:
                self._told_at = now
                say(line)
        self._told = lines

    def _lines(self) -> Iterator[str]:
        if self._early or self._unknown:
            yield (
                f"labels that changed nothing so far: {self._early} came before their transaction, {self._unknown} are "
                "of transactions that the histories do not have (forgotten, or never come)"
            )
        if self._label_conflicts:
            yield (
                f"labels that are not as their transaction so far: {self._label_conflicts} have another customer, "
                "terminal or time, or only one of the customer's and the terminal's history still has it"
            )
        if self._conflicts:
            yield (
                f"transactions in conflict so far: {self._conflicts} have the id of another one, with another amount, "
                "customer, terminal or time"
            )
        if self._late:
            yield (
                f"transactions that came more than a day late so far: {self._late}; what their windows held may be "
                'forgotten in part, and their decisions say "late": true'
            )
        if self._unread.rows:
            yield f"so far {self._unread}"


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


__all__ = ["Member", "Topics", "create_topics", "run_stream"]
