"""What is answered at which path: a request in, an answer out. `connection.py` speaks HTTP around it."""

from __future__ import annotations

import itertools
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools
import msgspec

from apps.fraud.http.access import check_key
from apps.fraud.http.forms import BatchAnswer, Health, LabelsAnswer, decode_batch, decode_labels, decode_score, encode
from apps.fraud.http.openapi import describe
from apps.fraud.http.problems import CONTENT_TYPE, ProblemError, explain_decoding
from apps.fraud.http.service import RETRY, Service
from apps.fraud.metrics import CONTENT_TYPE as METRICS_TYPE
from apps.fraud.metrics import render_metrics
from core.errors import FeatherweightError

BODY_BYTES: Final = 1 << 20
HELD_BYTES: Final = 64 << 20
"""Of all bodies together that are being read or wait."""
DEADLINES_MS: Final = 0.001, 60_000.0
OTHER: Final = "other"
"""The route of metrics for a request that has none."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_JSON: Final = b"application/json"
_CHARSET: Final = re.compile(rb'.*;\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE | re.DOTALL)
_CHARSETS: Final = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
_undecodable = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
log = logging.getLogger("featherweight.fraud")

Headers = dict[bytes, bytes]


class Answer(NamedTuple):
    """headers: beyond content-type, content-length and x-request-id."""

    status: int
    content_type: bytes
    content: bytes
    request_id: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Request:
    """One request from its head on. fault: what it is answered, whatever its body says; route: None only with a fault;
    due: when its decision must be there; keep: whether the connection stays open behind it."""

    __slots__ = ("arrived", "body", "due", "fault", "headers", "held_bytes", "keep", "method", "route", "url")

    def __init__(self, method: bytes, url: bytes, headers: Headers, arrived: float) -> None:
        self.method, self.url, self.headers, self.arrived = method, url, headers, arrived
        self.route: Route | None = None
        self.fault: ProblemError | None = None
        self.keep = True
        self.due = math.inf
        self.body = b""
        self.held_bytes = 0


class Route(NamedTuple):
    """secured: asks for a key where there are any; whoever may have it becomes a guest, see `Door`."""

    path: str
    method: bytes
    handle: Callable[[Request], Answer] | None
    """None: `Api` has a coroutine for it."""
    secured: bool


class Api:
    """Owned by the event loop's thread. Whoever made the service closes it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.held_bytes = 0
        routes = (
            Route("/v1/score", b"POST", self._score, secured=True),
            Route("/v1/score/batch", b"POST", None, secured=True),
            Route("/v1/labels", b"POST", self._learn, secured=True),
            Route("/healthz", b"GET", self._tell_health, secured=False),
            Route("/readyz", b"GET", self._tell_readiness, secured=False),
            Route("/metrics", b"GET", self._tell_metrics, secured=True),
            Route("/openapi.json", b"GET", self._tell_interface, secured=False),
        )
        self._routes = {route.path.encode(): route for route in routes}
        self._render_metrics = render_metrics([service.metrics])
        self._document: tuple[object, bool, bytes] = (None, False, b"")
        self._boot = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def admit(self, request: Request) -> None:
        """Find who answers a request of which only the head is there. Raises ProblemError for one whose body need not
        even be read."""
        route = self._routes.get(request.url) or self._routes.get(find_path(request.url))
        if route is None:
            raise ProblemError("not-found", "nothing is here; /openapi.json says what is where")
        request.route = route
        if request.method != route.method:
            method = route.method.decode()
            raise ProblemError(
                "method-not-allowed", f"only {method} is answered here", headers=((b"allow", route.method),)
            )
        if route.secured:
            check_key(request.headers.get(b"authorization"), self.service.keys)
        if route.method == b"POST":
            request.due = find_due(request.headers, request.arrived, self.service.deadline_ms)
            check_body_headers(request.headers)

    def hold(self, request: Request, size: int) -> None:
        """So many bytes of its body have come. Raises ProblemError where they, or all bodies, are too many."""
        request.held_bytes += size
        self.held_bytes += size
        if request.held_bytes > BODY_BYTES:
            raise too_large()
        if self.held_bytes > HELD_BYTES:
            raise ProblemError("overloaded", "too many large bodies at once; try again later", headers=RETRY)

    def release(self, request: Request) -> None:
        """The body is no longer held."""
        self.held_bytes -= request.held_bytes
        request.held_bytes, request.body = 0, b""

    def answer(self, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        """A coroutine where others should have their turn meanwhile."""
        route = request.route
        if request.fault is not None or route is None:
            return self._conclude(request, None, request.fault)
        if route.handle is None:
            return self._answer_batch(request)
        try:
            return self._conclude(request, route.handle(request), None)
        except (ProblemError, FeatherweightError) as error:
            return self._conclude(request, None, error)

    async def _answer_batch(self, request: Request) -> Answer:
        try:
            return self._conclude(request, await self._score_batch(request), None)
        except (ProblemError, FeatherweightError) as error:
            return self._conclude(request, None, error)

    def _conclude(
        self, request: Request, answer: Answer | None, failed: ProblemError | FeatherweightError | None
    ) -> Answer:
        request_id = self.name_request(request.headers.get(b"x-request-id"))
        if answer is None:
            if not isinstance(failed, ProblemError):
                log.error("request %s failed", request_id.decode(), exc_info=failed)
                failed = ProblemError("internal", "the service failed; its log says why, by the request's id")
            answer = Answer(failed.status, CONTENT_TYPE, failed.encode(request_id.decode()), headers=failed.headers)
        self.release(request)
        route = OTHER if request.route is None else request.route.path
        self.service.metrics.answered(route, answer.status, time.perf_counter() - request.arrived)
        return answer._replace(request_id=request_id)

    def name_request(self, given: bytes | None) -> bytes:
        """The caller's own id where it is a short plain word, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._boot}-{next(self._numbers):x}".encode()

    def _score(self, request: Request) -> Answer:
        try:
            wanted = decode_score(request.body)
        except _undecodable as error:
            raise explain_decoding(error) from error
        return Answer(200, _JSON, encode(self.service.score(wanted, request.due)))

    async def _score_batch(self, request: Request) -> Answer:
        try:
            wanted = decode_batch(request.body).transactions
        except _undecodable as error:
            raise explain_decoding(error) from error
        decisions = await self.service.score_batch(wanted, request.due)
        return Answer(200, _JSON, encode(BatchAnswer(decisions=decisions)))

    def _learn(self, request: Request) -> Answer:
        try:
            labels = decode_labels(request.body).labels
        except _undecodable as error:
            raise explain_decoding(error) from error
        learned, unknown = self.service.learn(labels)
        return Answer(200, _JSON, encode(LabelsAnswer(learned=learned, unknown=unknown)))

    def _tell_health(self, _: Request) -> Answer:
        return Answer(200, _JSON, encode(Health(status="ok", model=self.service.pipeline.scorer.model)))

    def _tell_readiness(self, _: Request) -> Answer:
        model = self.service.pipeline.scorer.model
        if self.service.fault:
            return Answer(
                503, _JSON, encode(Health(status="unready", model=model, reason="the state cannot be written"))
            )
        return Answer(200, _JSON, encode(Health(status="ready", model=model)))

    def _tell_metrics(self, _: Request) -> Answer:
        return Answer(200, METRICS_TYPE.encode(), self._render_metrics())

    def _tell_interface(self, _: Request) -> Answer:
        """The document for the model that decides now: rendered once for each, because anybody may ask for it."""
        schema, secured = self.service.pipeline.scorer.schema, bool(self.service.keys)
        if self._document[0] is not schema or self._document[1] != secured:
            self._document = schema, secured, encode(describe(schema, secured=secured))
        return Answer(200, _JSON, self._document[2])


def find_path(url: bytes) -> bytes:
    """The path of a request's target, decoded. Raises ProblemError."""
    try:
        path: bytes = httptools.parse_url(url).path or b""
    except httptools.HttpParserInvalidURLError as error:
        raise ProblemError("malformed-request", "the request's target is neither a path nor a URL") from error
    return unquote(path, "latin-1").encode("latin-1") if b"%" in path else path


def check_body_headers(headers: Headers) -> None:
    """Raise ProblemError for a body that need not even be read."""
    kind = headers.get(b"content-type", b"")
    if kind != _JSON:
        charset = _CHARSET.fullmatch(kind)
        known = charset is None or charset[1].lower() in _CHARSETS
        if kind.partition(b";")[0].strip().lower() != _JSON or not known:
            raise ProblemError(
                "unsupported-media-type", "send Content-Type: application/json, in UTF-8", header="Content-Type"
            )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ProblemError(
            "unsupported-media-type",
            "send the body as it is, without Content-Encoding",
            header="Content-Encoding",
            headers=((b"accept-encoding", b"identity"),),
        )
    length = headers.get(b"content-length", b"0")
    if len(length.lstrip(b"0")) > len(str(BODY_BYTES)) or int(length) > BODY_BYTES:
        raise too_large()


def too_large() -> ProblemError:
    return ProblemError("too-large", f"at most {BODY_BYTES} bytes are read; send fewer transactions at once")


def find_due(headers: Headers, arrived: float, default_ms: float | None) -> float:
    """When the decision must be there: X-Deadline-Ms after the request's arrival, or the service's own deadline."""
    given = headers.get(b"x-deadline-ms")
    if given is None:
        return math.inf if default_ms is None else arrived + default_ms / 1000
    try:
        deadline_ms = float(given)
    except ValueError:
        deadline_ms = math.nan
    lowest, highest = DEADLINES_MS
    if not lowest <= deadline_ms <= highest:
        raise ProblemError(
            "malformed-request",
            f"X-Deadline-Ms: expected a number of milliseconds from {lowest:g} to {highest:g}",
            header="X-Deadline-Ms",
        )
    return arrived + deadline_ms / 1000
