"""Who is connected, and who gives way when there are too many.

A guest has asked for something that it may have, in a request that came in whole. A stranger has not, or not yet: it is
silent, slow, asks for what everybody may ask (health checks), or has no key. Both kinds have the same number of places,
so that strangers never take a guest's: of too many strangers, the one that came first goes; of too many guests, one
that has been idle for a while, else the newest is asked to come back later.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

IDLE_S: Final = 5.0
"""A guest gives way to another one after so long without a whole request."""


class Visitor(Protocol):
    """A connection, for the door."""

    def idle_s(self) -> float:
        """How long ago its last request was answered or the next began to come in; 0 while a whole one waits."""

    def turn_away(self) -> None:
        """Tell it to come back later, and end it."""

    def abort(self) -> None:
        """End it at once."""


class Door:
    """Counts the connections of one event loop. limit: for guests, for strangers, and for those that are being
    closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._strangers: OrderedDict[Visitor, None] = OrderedDict()
        self._guests: set[Visitor] = set()
        self._leaving: set[Visitor] = set()
        self.default_lines = b""
        """Lines in the head of every answer: the date; the owner of the loop keeps it current."""

    def enter(self, visitor: Visitor) -> None:
        """A connection has come, a stranger; beyond the limit the first of the strangers is turned away."""
        self._strangers[visitor] = None
        if len(self._strangers) > self._limit:
            first = next(iter(self._strangers))
            if len(self._leaving) < self._limit:
                first.turn_away()
            else:
                first.abort()
            self.part(first)

    def admit(self, visitor: Visitor) -> bool:
        """Let a stranger become a guest. False where there is no place."""
        if len(self._guests) >= self._limit:
            idlest = max(self._guests, key=lambda guest: guest.idle_s())
            if idlest.idle_s() < IDLE_S:
                return False
            idlest.abort()
            self.part(idlest)
        self._strangers.pop(visitor, None)
        self._guests.add(visitor)
        return True

    def part(self, visitor: Visitor) -> None:
        """It has been answered for the last time."""
        self.forget(visitor)
        self._leaving.add(visitor)

    def forget(self, visitor: Visitor) -> None:
        """It is gone."""
        self._strangers.pop(visitor, None)
        self._guests.discard(visitor)
        self._leaving.discard(visitor)
