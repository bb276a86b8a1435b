"""Recovery: what a member must have before it processes messages of a partition.

`Recovery` brings together what the group has assigned, the committed offsets and the histories, at each new assignment
and after each transaction that was not committed: the histories in memory are then ahead of the committed ones, so they
are thrown away and restored. `Restorer` reads the histories of a partition from its changelogs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import RetriableError

from featherweight.apps.fraud.features.histories import Histories
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.kafka.clients import BatchConsumer, KafkaError, TopicPartition
from featherweight.apps.fraud.kafka.commits import Committer
from featherweight.apps.fraud.kafka.stages import Shard
from featherweight.apps.fraud.kafka.topic_names import Topics
from featherweight.apps.fraud.kafka.topics import Member
from featherweight.apps.fraud.kafka.waiting import Waiting
from featherweight.core.errors import DataError, OutputError
from featherweight.core.terminal import counted

POLL_MS = 200
LOOK_S = 0.5
"""How long nothing must have come before the broker is asked why."""
ASK_MS = 2000
LIMIT_S = 120.0
"""How long a transaction that nobody ends may hold up a partition."""
ALIVE_S = 1.0
"""How often a member that restores long histories says that it lives."""
FAILURES = 5
"""What may fail one after the other, without a transaction between, before the process gives up."""


@dataclass(frozen=True)
class Rebalance:
    """What the group decided. group: what the broker knows this member by from now on."""

    generation: int
    group: Any
    partitions: set[int]


class Recovery:
    """Assignments, offsets and restored histories of one member. Used by one thread; only the listener is called in the
    client's own."""

    def __init__(
        self,
        member: Member,
        topics: Topics,
        consumer: BatchConsumer,
        restorer: Restorer,
        committer: Committer,
        waiting: Waiting,
        shards: dict[int, Shard],
        make_shard: Callable[[], Shard],
    ) -> None:
        """shards: those of the stream, kept as assigned from now on; make_shard: an empty one."""
        self.group: Any = None
        """What the broker knows this member by under the assignment that was applied last."""
        self._member, self._topics, self._waiting = member, topics, waiting
        self._consumer, self._restorer, self._committer = consumer, restorer, committer
        self._shards, self._make_shard = shards, make_shard
        self._rebalances: deque[Rebalance] = deque()
        self._generation = -1
        self._failures = 0
        self._behind = False
        """Whether histories and offsets must be read again although the assignment is the same."""

    @property
    def listener(self) -> ConsumerRebalanceListener:
        return _Listener(self._consumer, self._rebalances)

    @property
    def is_needed(self) -> bool:
        """Whether what was polled must not be processed before `recover`, and is read again after it."""
        return self._behind or bool(self._rebalances)

    def recover(self) -> set[int]:
        """Bring histories, offsets and assignment together; the partitions that are this member's now. Raises
        KafkaError, StoppedError, OutputError, DataError for a changelog that is damaged."""
        partitions: set[int] = set()
        while self.is_needed:
            partitions = self._apply_assignment()
        return partitions

    def succeed(self) -> None:
        """A transaction was committed."""
        self._failures = 0

    def roll_back(self, error: KafkaError) -> None:
        """What the transaction held is not committed, so the histories are ahead: forget them, read again. Raises
        OutputError after FAILURES one after the other, ProducerFencedError, StoppedError."""
        self._failures += 1
        if self._failures >= FAILURES:
            raise OutputError(
                f"{self._member.bootstrap}: {FAILURES} attempts failed one after the other, the last with {error}; "
                "nothing was lost, start again when the broker is well"
            ) from error
        self._waiting.say(f"a transaction failed and is done again: {error}")
        self._shards.clear()
        self._behind = True
        self._committer.abort()
        self._waiting.pause(2.0 ** (self._failures - 1) - 1)  # 0, 1, 3, 7 seconds

    def _apply_assignment(self) -> set[int]:
        """What is assigned is paused until its histories are here; a new assignment meanwhile ends it early."""
        self._committer.ready()
        shards = self._shards
        while self._rebalances:
            turn = self._rebalances.popleft()
            # In the generation before they were this member's too, so nobody else can have touched these histories.
            kept = turn.partitions if turn.generation <= self._generation + 1 else set()
            for partition in set(shards) - kept:
                del shards[partition]
            self._generation, self.group = turn.generation, turn.group
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
                return mine
            shards[partition] = shard
        self._behind = False
        self._consumer.resume(*assigned)
        return mine

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
        shard, started = self._make_shard(), time.monotonic()
        alive = started

        def is_mine() -> bool:
            nonlocal alive
            if time.monotonic() > alive + ALIVE_S:
                alive = time.monotonic()
                self._consumer.poll_batches(0)  # all is paused: this only says that the member lives
            return not self._rebalances

        if not self._restorer.restore(shard, self._topics.changelogs, partition, is_mine):
            return None
        self._waiting.say(
            f"partition {partition}: {counted(len(shard.customers), 'customers')} and "
            f"{counted(len(shard.terminals), 'terminals')} restored in {time.monotonic() - started:.1f} s"
        )
        return shard


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Called in the client's own thread at any moment: it notes what the group decides, for the next `recover`."""

    def __init__(self, consumer: BatchConsumer, rebalances: deque[Rebalance]) -> None:
        self._consumer, self._rebalances = consumer, rebalances

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Everything that was processed is committed, or will be refused: there is nothing to finish."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._consumer.pause(*assigned)
        group = self._consumer.group_metadata()
        self._rebalances.append(Rebalance(group.generation_id, group, {partition.partition for partition in assigned}))


class Restorer:
    """Reads changelogs up to where they ended when it began, whatever of that is visible."""

    def __init__(self, waiting: Waiting, connection: Mapping[str, Any]) -> None:
        self._waiting = waiting
        self.reader = BatchConsumer(
            group_id=None, isolation_level="read_committed", auto_offset_reset="earliest", **connection
        )
        try:
            self._ends = BatchConsumer(group_id=None, isolation_level="read_uncommitted", **connection)
        except BaseException:
            self.reader.close()
            raise

    def close(self) -> None:
        """Leave the broker."""
        for client in (self.reader, self._ends):
            client.close(timeout_ms=2000)

    def restore(self, shard: Shard, topics: tuple[str, str], partition: int, is_mine: Callable[[], bool]) -> bool:
        """Fill the shard from the topics of customers and of terminals. is_mine: asked all the while; False ends it.
        Raises KafkaError, StoppedError, DataError for a changelog that is damaged."""
        changelogs = [TopicPartition(topic, partition) for topic in topics]
        histories = dict(zip(topics, (shard.customers, shard.terminals), strict=True))
        # The end that counts transactions which are about to be committed too: what they hold is waited for.
        ends = self._waiting.patiently(
            f"where the changelogs of partition {partition} end",
            lambda: self._ends.end_offsets(changelogs, timeout_ms=ASK_MS),
        )
        reader, wait = self.reader, self._waiting.begin(LIMIT_S)
        reader.assign(changelogs)
        reader.seek_to_beginning(*changelogs)
        decided: dict[TopicPartition, float] = {}
        quiet_since = time.monotonic()
        while left := [changelog for changelog in changelogs if self._position(changelog) < ends[changelog]]:
            for found in reader.poll_messages(POLL_MS):
                _fill(histories[found.topic], found)
                quiet_since = time.monotonic()
                wait.renew()
            if not is_mine():
                return False
            if time.monotonic() > quiet_since + LOOK_S:
                wait.check(self._look_why(left, ends, decided))
        for topic, filled in histories.items():
            try:
                filled.settle()
            except DataError as error:
                raise DataError(f"{topic} partition {partition}: {error}") from None
        # Or labels of what is committed would look as if they were ahead of their transactions.
        shard.newest_ms = shard.customers.find_newest_ms()
        return True

    def _look_why(
        self,
        left: list[TopicPartition],
        ends: dict[TopicPartition, int],
        decided: dict[TopicPartition, float],
    ) -> str:
        """Nothing comes. Either a transaction is open, and is waited for; or there is nothing before the end any more:
        records that others have replaced, and at last the mark that ended their transaction, were compacted away.

        decided: since when it is known that no transaction is open before the end. Returns what is waited for."""
        for changelog in left:
            if changelog in decided and self.reader.found_nothing(
                changelog, self._position(changelog), decided[changelog]
            ):
                ends[changelog] = self._position(changelog)
        unknown = [changelog for changelog in left if changelog not in decided]
        open_from: dict[TopicPartition, int] = {}
        with suppress(RetriableError):
            stable = self.reader.end_offsets(unknown, timeout_ms=ASK_MS) if unknown else {}
            open_from = {changelog: offset for changelog, offset in stable.items() if offset < ends[changelog]}
            now = time.monotonic()
            decided |= {changelog: now for changelog in unknown if changelog not in open_from}
        if not open_from:
            return f"the broker, to read {_describe(left)}"
        found = " and ".join(
            f"{_describe([changelog])} from offset {offset}" for changelog, offset in open_from.items()
        )
        return f"a transaction that is open in {found} on"

    def _position(self, changelog: TopicPartition) -> int:
        found = self.reader.position(changelog, timeout_ms=POLL_MS)
        return -1 if found is None else int(found)


def _fill(histories: Histories, found: Messages) -> None:
    offset = -1
    try:
        for offset, key, value in zip(found.offsets, found.keys, found.values, strict=True):  # noqa: B007
            histories.restore(key or b"", value)
    except DataError as error:
        raise DataError(f"{found.topic} partition {found.partition}, offset {offset}: {error}") from None


def _describe(changelogs: list[TopicPartition]) -> str:
    return " and ".join(f"{topic} partition {number}" for topic, number in changelogs)
