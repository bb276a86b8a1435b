"""The histories of a partition, read from its changelogs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kafka.errors import RetriableError

from featherweight.apps.fraud.features.histories import Histories
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.kafka.clients import BatchConsumer, TopicPartition
from featherweight.apps.fraud.kafka.stages import Shard
from featherweight.apps.fraud.kafka.waiting import Waiting
from featherweight.core.errors import DataError

POLL_MS = 200
LOOK_S = 0.5
"""How long nothing must have come before the broker is asked why."""
ASK_MS = 2000
LIMIT_S = 120.0
"""How long a transaction that nobody ends may hold up a partition."""


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
