"""Waits are told, bounded and ended."""

from __future__ import annotations

import time

import pytest
from kafka.errors import KafkaTimeoutError, NodeNotReadyError, TopicAuthorizationFailedError

from featherweight.apps.fraud.kafka import topics as kafka_topics
from featherweight.apps.fraud.kafka import waiting
from featherweight.apps.fraud.kafka.topics import Member, reaching
from featherweight.apps.fraud.kafka.waiting import StoppedError, Waiting
from featherweight.core.errors import UsageError


class Asked:
    """Whether the process was asked to end, and what it said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.end = False
        self.waiting = Waiting(lambda: self.end, self.said.append)


def test_a_wait_is_told_and_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TELL_S", 0.1)
    asked = Asked()
    wait = asked.waiting.begin(limit_s=0.4)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        wait.check(lambda: "the moon")
        time.sleep(0.01)
    time.sleep(0.1)
    with pytest.raises(KafkaTimeoutError, match="the moon"):
        wait.check("the moon")
    assert asked.said
    assert asked.said[0] == "waiting for the moon, since 0 s, at most 0"
    wait.renew()
    wait.check("the sun")


def test_a_wait_ends_when_the_process_is_asked_to_end_after_its_grace() -> None:
    asked = Asked()
    at_once, later = asked.waiting.begin(), asked.waiting.begin(grace_s=0.2)
    at_once.check("nothing")
    asked.end = True
    with pytest.raises(StoppedError):
        at_once.check("nothing")
    later.check("a commit")
    time.sleep(0.25)
    with pytest.raises(StoppedError):
        later.check("a commit")
    with pytest.raises(StoppedError):
        asked.waiting.pause(10)


def test_retriable_errors_are_tried_again_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "ROUND_S", 0.01)
    asked = Asked()
    errors: list[Exception] = [NodeNotReadyError("1"), KafkaTimeoutError("2")]

    def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "found"

    assert asked.waiting.patiently("it", attempt) == "found"
    errors = [NodeNotReadyError("1"), TopicAuthorizationFailedError("no")]
    with pytest.raises(TopicAuthorizationFailedError):
        asked.waiting.patiently("it", attempt)
    errors = [NodeNotReadyError("1")] * 1000
    asked.end = True
    with pytest.raises(StoppedError):
        asked.waiting.patiently("it", attempt)


def test_a_broker_that_is_not_there_at_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_topics, "START_S", 0.1)
    asked, member = Asked(), Member("nowhere:1")

    def opening() -> None:
        raise NodeNotReadyError("away")

    with pytest.raises(UsageError, match=r"nowhere:1.*away.*HOST:PORT"):
        reaching(member, asked.waiting, opening)
    with pytest.raises(UsageError, match="HOST:PORT"):
        reaching(member, asked.waiting, lambda: int("no number"))
    asked.end = True
    with pytest.raises(StoppedError):
        reaching(member, asked.waiting, opening)
