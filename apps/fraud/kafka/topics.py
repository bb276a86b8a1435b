"""The topics of a stream, and how their broker is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import (
    KafkaTimeoutError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from featherweight.apps.fraud.features.histories import LIMIT
from featherweight.apps.fraud.kafka.clients import BatchConsumer, KafkaError
from featherweight.apps.fraud.kafka.topic_names import Topics
from featherweight.apps.fraud.kafka.waiting import Say, Waiting
from featherweight.core.errors import UsageError

CONNECT_MS = 5000
"""How long one attempt to reach the broker may take, and so a signal."""
START_S = 30.0
"""How long a broker that cannot be reached at start is tried."""
KNOWN_S = 5.0
"""How long a broker may not know topics that another one has just created."""
Found = TypeVar("Found")


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
    """Maximum number of customers, and of terminals, in all partitions together."""

    @property
    def connection(self) -> dict[str, Any]:
        """What every client is opened with."""
        return {"bootstrap_servers": self.bootstrap, "bootstrap_timeout_ms": CONNECT_MS, **self.security}


def create_topics(member: Member, partitions: int, say: Say = lambda _: None) -> list[str]:
    """Create those that do not exist, with the broker's replication, and return their names. Raises UsageError."""
    topics = Topics(member.prefix)
    compacted = {"cleanup.policy": "compact"}
    created = []
    waiting = Waiting(lambda: False, say)
    admin = reaching(member, waiting, lambda: KafkaAdminClient(**member.connection))
    try:
        for name in topics.all:
            wanted = NewTopic(name, partitions, -1, topic_configs=compacted if name in topics.changelogs else {})
            try:
                waiting.patiently(f"the broker, to create {name}", partial(admin.create_topics, [wanted]))
                created.append(name)
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                raise UsageError(f"{member.bootstrap}: the topic {name} cannot be created: {error}") from error
    finally:
        admin.close()
    return created


def partition_counts(consumer: BatchConsumer, topics: Topics, waiting: Waiting) -> dict[str, int]:
    """Number of partitions of every topic. A broker may not know yet what another one has just created: it is given
    time. Raises UsageError."""
    counts: dict[str, int] = {}

    def count() -> None:
        counts.update({name: len(consumer.partitions_for_topic(name) or ()) for name in topics.all})
        if missing := [name for name in topics.all if not counts[name]]:
            raise UnknownTopicOrPartitionError(", ".join(missing))

    try:
        waiting.patiently("topics", count, KNOWN_S)
    except KafkaTimeoutError as error:
        if not counts:
            raise  # it is the broker that did not answer
        missing = ", ".join(name for name in topics.all if not counts[name])
        raise UsageError(f"no such topics: {missing}; create them, or start with --create-topics") from error
    if len({counts[name] for name in topics.keyed}) > 1:
        found = ", ".join(f"{name} {counts[name]}" for name in topics.keyed)
        raise UsageError(
            f"partitions: {found}; these topics need the same number, because partition N of one belongs to that "
            "of the others: create those anew that differ (--create-topics makes what is missing)"
        )
    return counts


def reaching(member: Member, waiting: Waiting, opening: Callable[[], Found]) -> Found:
    """The first client. A broker that is about to be there again is waited for; every other fault of opening is told as
    one of the address, so nothing else belongs into `opening`."""
    wait = waiting.begin(START_S)
    while True:
        try:
            return opening()
        except RetriableError as error:
            try:
                wait.check(f"{member.bootstrap or '(empty)'} ({error})")
            except KafkaError:
                raise _unreachable(member, error) from error
            waiting.pause(0.5)
        except (KafkaError, ValueError) as error:  # ValueError: a port that is not a number
            raise _unreachable(member, error) from error


def _unreachable(member: Member, error: Exception) -> UsageError:
    return UsageError(f"{member.bootstrap or '(empty)'}: {error}; give HOST:PORT of a Kafka broker")
