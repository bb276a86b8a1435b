"""Waits for a broker: each is reported, bounded, and ended when the process is asked to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kafka.errors import KafkaTimeoutError, RetriableError

TELL_S = 5.0
"""A wait that takes this long is reported, and again after each further such time."""
LIMIT_S = 60.0
"""A wait that takes this long has failed."""
ROUND_S = 0.2
"""How often a wait looks whether the process shall end."""

Found = TypeVar("Found")
Say = Callable[[str], None]


class StoppedError(Exception):
    """The process was asked to end while something waited."""


class Waiting:
    """Begins the waits of one process. stopping: whether it was asked to end."""

    def __init__(self, stopping: Callable[[], bool], say: Say) -> None:
        self.stopping, self.say = stopping, say

    def begin(self, limit_s: float = LIMIT_S, grace_s: float = 0.0) -> Wait:
        """A wait that is reported after `grace_s` and given up after `limit_s`."""
        return Wait(self, limit_s, grace_s)

    def patiently(self, what: str, attempt: Callable[[], Found], limit_s: float = LIMIT_S) -> Found:
        """What `attempt` gives, which is tried again while its errors are retriable ones."""
        wait = self.begin(limit_s)
        while True:
            try:
                return attempt()
            except RetriableError as error:
                wait.check(f"{what} ({error})")
                time.sleep(ROUND_S)

    def pause(self, seconds: float) -> None:
        """Raises StoppedError."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.stopping():
                raise StoppedError
            time.sleep(min(left, ROUND_S))


class Wait:
    """grace_s: for how long it goes on when the process is asked to end, because it will be done at any moment."""

    def __init__(self, waiting: Waiting, limit_s: float, grace_s: float) -> None:
        self._waiting, self._limit_s, self._grace_s = waiting, limit_s, grace_s
        self._asked: float | None = None
        self._last = self._told = time.monotonic()

    def check(self, what: str | Callable[[], str]) -> None:
        """Call it in every round. what: it waits for. Raises StoppedError when the process is asked to end, and
        KafkaTimeoutError when nothing has come for the whole limit."""
        now = time.monotonic()
        if self._waiting.stopping():
            self._asked = self._asked or now
            if now >= self._asked + self._grace_s:
                raise StoppedError
        if now >= min(self._told + TELL_S, self._last + self._limit_s):
            words = what() if callable(what) else what
            if now >= self._last + self._limit_s:
                raise KafkaTimeoutError(f"waited {self._limit_s:.0f} s for {words}")
            self._told = now
            self._waiting.say(f"waiting for {words}, since {now - self._last:.0f} s, at most {self._limit_s:.0f}")

    def renew(self) -> None:
        """Something has come: the limit counts from now."""
        self._last = self._told = time.monotonic()
