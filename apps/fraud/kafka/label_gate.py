"""Which labels may be applied now, and which wait for their transactions.

A group that begins with old topics reads labels much faster than transactions, and a label that comes before its
transaction changes nothing. So a label whose transaction is still to be read holds back those behind it in its
partition, until the transactions have come as far, or have not come for QUIET_S. The gate knows no Kafka client: it
says where to hold a partition's labels and when to read on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.kafka.batches import Messages, cut_messages
from featherweight.apps.fraud.kafka.events import UNDECODABLE, decode_label
from featherweight.apps.fraud.plausible import read_clock_ms

QUIET_S: Final = 5.0
"""Labels that are ahead of the transactions wait no longer when for so long none of these came."""


class LabelGate:
    """Decides which labels of one member wait. Used by one thread."""

    def __init__(
        self,
        newest_ms: Callable[[int], int],
        now_ms: Callable[[], int] = read_clock_ms,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """newest_ms: the time of the newest transaction that a partition's histories have; now_ms: labels of times
        after it are wrong, and wait for nothing."""
        self._newest_ms, self._now_ms, self._clock_s = newest_ms, now_ms, clock_s
        self._waiting: dict[int, int] = {}
        """Partitions whose labels are ahead of the transactions -> the time up to which these must come."""
        self._last_seen: dict[int, float] = {}
        """When transactions of a partition last came, or could begin to."""

    def start(self, partitions: Iterable[int]) -> None:
        """These are assigned from now on, and read from the committed offsets: no label of theirs waits."""
        self._waiting.clear()
        self._last_seen = dict.fromkeys(partitions, self._clock_s())

    def see_transactions(self, partitions: Iterable[int]) -> None:
        """Transactions of these have come."""
        self._last_seen |= dict.fromkeys(partitions, self._clock_s())

    def resume_labels(self) -> list[int]:
        """The partitions whose labels are to be read on: the transactions have come as far as the labels that wait, or
        come no more."""
        ready = [
            partition
            for partition, time_ms in self._waiting.items()
            if self._newest_ms(partition) >= time_ms or self._is_quiet(partition)
        ]
        for partition in ready:
            del self._waiting[partition]
        return ready

    def take_due(self, labels: Messages) -> tuple[Messages | None, int | None]:
        """(those whose transactions can have been read, the offset of the first one that waits).

        All from that offset on wait there, unread, until `resume_labels` names their partition. Labels that come
        behind those that wait are left out: they are read again."""
        if self.is_waiting(labels.partition):
            return None, None
        place = None if self._is_quiet(labels.partition) else self._find_early(labels.partition, labels.values)
        if place is None:
            return labels, None
        return cut_messages(labels, 0, place) if place else None, labels.offsets[place]

    def is_waiting(self, partition: int) -> bool:
        return partition in self._waiting

    def _find_early(self, partition: int, labels: Sequence[bytes | None]) -> int | None:
        """The place of the first label whose transaction is younger than all that came in this partition, which waits
        from now on."""
        newest_ms, now_ms = self._newest_ms(partition), self._now_ms()
        for place, content in enumerate(labels):
            try:
                label = decode_label(content or b"", Unread())  # counted when it is applied
            except UNDECODABLE:
                continue  # it becomes a dead letter when it is applied
            if newest_ms < label.time_ms <= now_ms:
                self._waiting[partition] = label.time_ms
                return place
        return None

    def _is_quiet(self, partition: int) -> bool:
        return self._clock_s() > self._last_seen[partition] + QUIET_S
