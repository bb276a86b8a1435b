"""Notices of a running stream: messages that were accepted though they are odd, and messages that cannot be read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.kafka.batches import Messages, Unreadable
from featherweight.apps.fraud.kafka.stages import Outgoing
from featherweight.apps.fraud.kafka.waiting import Say

TELL_EVERY_S: Final = 60.0
"""Shortest time between two notices of odd messages."""


class Notices:
    """Counts, and tells the counts when they have grown."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._early = self._unknown = self._label_conflicts = self._conflicts = self._late = 0
        self._unread = Unread()
        self._told_at, self._told = 0.0, list[str]()
        self._told_evictions = False

    def add(self, found: Iterable[Messages | Unreadable], out: Outgoing, evicted: int) -> None:
        """What one committed transaction has brought. evicted: histories that were too many, forgotten so far."""
        self._tell_unreadable(found)
        self._early += out.early_labels
        self._unknown += out.unknown_labels
        self._label_conflicts += out.label_conflicts
        self._conflicts += out.conflicts
        self._late += out.late
        self._unread.add(out.unread.names, out.unread.rows)
        self.tell()
        if evicted and not self._told_evictions:
            self._told_evictions = True
            self._say(
                "there are more customers or terminals than --max-histories: those not seen for the longest time are "
                "forgotten from now on"
            )

    def tell(self, *, always: bool = False) -> None:
        """When there are more; once in TELL_EVERY_S, if not `always`."""
        now = time.monotonic()
        if not (always or now > self._told_at + TELL_EVERY_S):
            return
        lines = list(self._lines())
        for line in lines:
            if line not in self._told:
                self._told_at = now
                self._say(line)
        self._told = lines

    def _tell_unreadable(self, found: Iterable[Messages | Unreadable]) -> None:
        for one in found:
            if isinstance(one, Unreadable):
                self._say(
                    f"{one.topic} partition {one.partition}, offsets {one.first_offset} to {one.last_offset}: a record "
                    f"batch cannot be read and is among the dead letters: {one.reason}"
                )

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
