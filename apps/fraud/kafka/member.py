"""The stream on Kafka: a member of the consumer group that polls, scores and commits, transaction by transaction.

Exactly once: decisions, alerts, dead letters, repartition records, the changelogs of the histories and the offsets of
what was read are committed in one Kafka transaction (commits.py), or none of them is (recovery.py). Labels that are
ahead of their transactions wait (label_gate.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import FencedInstanceIdError, ProducerFencedError

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.features.engine import warm_up
from featherweight.apps.fraud.kafka.batches import Fetched, Messages, Unreadable, slice_batches
from featherweight.apps.fraud.kafka.clients import BatchConsumer, KafkaError, TopicPartition
from featherweight.apps.fraud.kafka.commits import Committer
from featherweight.apps.fraud.kafka.label_gate import LabelGate
from featherweight.apps.fraud.kafka.notices import Notices
from featherweight.apps.fraud.kafka.records import decode_records, encode_records
from featherweight.apps.fraud.kafka.recovery import Recovery, Restorer
from featherweight.apps.fraud.kafka.stages import Shard, Stream, check_source
from featherweight.apps.fraud.kafka.topic_names import Topics
from featherweight.apps.fraud.kafka.topics import Member, create_topics, partition_counts, reaching
from featherweight.apps.fraud.kafka.waiting import Say, StoppedError, Waiting
from featherweight.core.errors import OutputError

POLL_MS = 200
"""How long a poll waits for messages, and so a signal for an answer. Messages end the wait at once."""
AT_ONCE = 4000
"""Messages in one transaction, at most: a committed batch takes some ten milliseconds."""
SESSION_MS = 30_000
"""A member that is silent for so long loses its partitions; one with an instance id that is back earlier keeps them."""


def run_stream(member: Member, live: LiveModel, *, stopping: Callable[[], bool], say: Say) -> int:
    """Score until `stopping()`; return how many messages were processed.

    Raises WrongModelError for a model that a stream cannot use, UsageError when the broker or the topics are not
    there, OutputError when decisions cannot be committed."""
    check_source(live.scorer)
    warm_up(live.scorer.schema.delay_days)
    # Compiled now, and not within the first transaction, which a broker would not wait for on a new host.
    decode_records(encode_records([(b"key", b"value")]), 1)
    waiting = Waiting(stopping, say)
    loop: MemberLoop | None = None
    try:
        restorer = reaching(member, waiting, lambda: Restorer(waiting, member.connection))
        loop = MemberLoop(member, live, waiting, restorer)
        while not stopping():
            loop.step()
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
        if loop is not None:
            loop.close()
            loop.tell_notices()
    return loop.processed if loop is not None else 0


class MemberLoop:
    """Poll, process, commit, again and again."""

    def __init__(self, member: Member, live: LiveModel, waiting: Waiting, restorer: Restorer) -> None:
        """restorer: the member's from now on, and closed with it. Raises KafkaError, StoppedError, UsageError."""
        self.processed = 0
        self._live = live
        self._topics = topics = Topics(member.prefix)
        self._notices = Notices(waiting.say)
        with ExitStack() as opened:
            opened.callback(restorer.close)
            counts = partition_counts(restorer.reader, topics, waiting)
            partitions = counts[topics.transactions]
            self._stream = Stream(topics, partitions)
            self._gate = LabelGate(self._stream.newest_ms)
            instance = f"{member.group}-{member.prefix}{member.instance or uuid.uuid4()}"
            self._committer = Committer(member.connection, instance, topics, counts, waiting)
            opened.callback(self._committer.close)
            self._committer.ready()
            self._consumer = waiting.patiently("the broker, to open a consumer", lambda: _open_consumer(member))
            opened.callback(lambda: self._consumer.close(timeout_ms=5000))
            limit = max(member.max_histories // partitions, 1)
            self._recovery = Recovery(
                member,
                topics,
                self._consumer,
                restorer,
                self._committer,
                waiting,
                self._stream.shards,
                lambda: Shard(live.scorer.schema.delay_days, limit),
            )
            self._consumer.subscribe(list(topics.sources), listener=self._recovery.listener)
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
            self._recovery.roll_back(error)

    def close(self) -> None:
        with suppress(KafkaError):  # whatever was not committed is done again
            self._opened.close()

    def tell_notices(self) -> None:
        self._notices.tell(always=True)

    def _advance(self) -> None:
        batches = self._consumer.poll_batches(POLL_MS)
        if self._recovery.is_needed:
            batches = []  # read again, from the committed offsets on
            self._gate.start(self._recovery.recover())
        # Labels last, as in Stream.process, and not before their transactions.
        others = [found for found in batches if found.topic != self._topics.labels]
        for part in slice_batches(others, AT_ONCE):
            self._commit(part)
        self._gate.see_transactions(found.partition for found in others if found.topic == self._topics.transactions)
        for partition in self._gate.resume_labels():
            with suppress(KeyError):  # the group has just decided anew: then all is read again as committed
                self._consumer.resume(TopicPartition(self._topics.labels, partition))
        self._process_labels([found for found in batches if found.topic == self._topics.labels])

    def _process_labels(self, batches: Sequence[Fetched]) -> None:
        """The labels whose transactions can have been read; the others wait where they are, unread."""
        for part in slice_batches(batches, AT_ONCE):
            due: list[Messages | Unreadable] = []
            for found in part:
                if isinstance(found, Messages):
                    labels, held_from = self._gate.take_due(found)
                    due += [] if labels is None else [labels]
                    if held_from is not None:
                        self._hold(TopicPartition(found.topic, found.partition), held_from)
                elif not self._gate.is_waiting(found.partition):
                    due.append(found)
            if due:
                self._commit(due)

    def _hold(self, where: TopicPartition, offset: int) -> None:
        with suppress(KeyError):  # as in `_advance`
            self._consumer.pause(where)
            self._consumer.seek(where, offset)

    def _commit(self, found: Sequence[Messages | Unreadable]) -> None:
        messages = [one for one in found if isinstance(one, Messages)]
        out = self._stream.process(messages, self._live.scorer)
        self._committer.commit(found, out, self._recovery.group)
        self._recovery.succeed()
        self.processed += sum(len(one.offsets) for one in messages)
        self._notices.add(found, out, self._stream.evicted)


def _open_consumer(member: Member) -> BatchConsumer:
    return BatchConsumer(
        **member.connection,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        group_id=member.group,
        group_instance_id=member.instance,
        session_timeout_ms=SESSION_MS,
        # Where topics have the same number of partitions, it assigns a member the same partitions of each.
        partition_assignment_strategy=[RangePartitionAssignor],
    )


__all__ = ["Member", "Topics", "create_topics", "run_stream"]
