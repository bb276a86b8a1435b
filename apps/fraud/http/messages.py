"""A request and its answer, as the application and the connection hand them to each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from featherweight.apps.fraud.http.heads import Fields
from featherweight.core.web.problems import ProblemError

BODILESS: Final = frozenset({204, 304})


class Answer(NamedTuple):
    """headers: beyond content-type, content-length and x-request-id. length: of what a HEAD asks about, where the
    content is not there to be measured."""

    status: int
    content_type: bytes
    content: bytes
    request_id: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    length: int | None = None


class Request:
    """One request from its head on. fault: what it is answered, whatever its body says; endpoint: None for what
    FastAPI's router answers; due: when its decision must be there; keep: whether the connection stays open behind it;
    held_bytes: of the body, as counted among all bodies."""

    __slots__ = (
        "arrived",
        "body",
        "due",
        "endpoint",
        "fault",
        "fields",
        "headers",
        "held_bytes",
        "keep",
        "method",
        "path",
        "read_bytes",
        "url",
    )

    def __init__(self, method: bytes, url: bytes, fields: Fields, arrived: float) -> None:
        self.method, self.url, self.fields, self.arrived = method, url, fields, arrived
        self.headers = dict(fields)
        self.path = ""
        self.endpoint: Endpoint | None = None
        self.fault: ProblemError | None = None
        self.keep = True
        self.due = math.inf
        self.body = b""
        self.read_bytes = self.held_bytes = 0


class Endpoint(NamedTuple):
    """An endpoint of the service itself. handle: a coroutine where other requests should run meanwhile; raises
    ProblemError."""

    path: str
    method: str
    handle: Callable[[Request], Answer | Coroutine[Any, Any, Answer]]


def render_answer(answer: Answer, default_lines: bytes, *, head_only: bool, keep: bool) -> bytes:
    """As HTTP/1.1. default_lines: of every head. keep: whether the connection stays open."""
    more = answer.headers if keep else (*answer.headers, (b"connection", b"close"))
    bodiless = answer.status in BODILESS
    length = len(answer.content) if answer.length is None else answer.length
    head = b"%b%b%b%bx-request-id: %b\r\n%b\r\n" % (
        STATUS_LINE[answer.status],
        default_lines,
        b"content-type: %b\r\n" % answer.content_type if answer.content_type else b"",
        b"" if bodiless else b"content-length: %d\r\n" % length,
        answer.request_id,
        b"".join([name + b": " + value + b"\r\n" for name, value in more]),
    )
    return head if head_only or bodiless else head + answer.content
