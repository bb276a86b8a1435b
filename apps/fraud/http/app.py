"""The FastAPI application. What must be fast (everything below /v1) is answered before FastAPI's own layers; the rest
(health, metrics, the OpenAPI document) goes through them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from apps.fraud.http.access import check_key
from apps.fraud.http.forms import (
    BatchAnswer,
    Health,
    LabelsAnswer,
    decode_batch,
    decode_labels,
    decode_score,
    encode,
)
from apps.fraud.http.openapi import DESCRIPTION, describe
from apps.fraud.http.problems import CONTENT_TYPE, KINDS, ProblemError, explain_decoding
from apps.fraud.http.service import RETRY, Service
from apps.fraud.metrics import CONTENT_TYPE as METRICS_TYPE
from apps.fraud.metrics import render_metrics
from core.errors import FeatherweightError

BODY_BYTES: Final = 1 << 20
HELD_BYTES: Final = 64 << 20
"""Of all bodies together that are being read or wait."""
DEADLINES_MS: Final = 0.001, 60_000.0
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_JSON: Final = b"application/json"
_undecodable = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
log = logging.getLogger("featherweight.fraud")

Headers = dict[bytes, bytes]
Answer = Callable[[bytes, float], Awaitable[bytes]]
"""(body, due) -> body of the answer."""
Answered = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""


class Api(FastAPI):
    """Made by `create_app`."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            title="Featherweight fraud scorer",
            version="1",
            description=DESCRIPTION,
            lifespan=_keeping_up(service),
            # Their pages load scripts from elsewhere.
            docs_url=None,
            redoc_url=None,
            # It would send what is in requests to whatever collector the host's environment names.
            telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        )
        self.service = service
        self._hot: dict[str, Answer] = {
            "/v1/score": self._score,
            "/v1/score/batch": self._score_batch,
            "/v1/labels": self._learn,
        }
        self._held_bytes = 0
        self._boot = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._hot.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None:
            await super().__call__(scope, receive, send)
        else:
            await self._respond(answer, scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document for the model that decides now."""
        return describe(super().openapi(), self.service.pipeline.scorer.schema, secured=bool(self.service.keys))

    def name_request(self, given: bytes | None) -> bytes:
        """The caller's own id where it is a short plain word, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._boot}-{next(self._numbers):x}".encode()

    def answer_score(self, headers: Headers, body: bytes, arrived: float) -> Answered:
        """POST /v1/score at once, for a server that has the whole body."""
        content, failed = b"", None
        try:
            content = self._score_now(body, self._admit(headers, arrived))
        except (ProblemError, FeatherweightError) as error:
            failed = error
        return self._conclude("/v1/score", headers, content, failed, arrived)

    async def _respond(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        arrived: float = scope.get("arrived") or time.perf_counter()
        headers: Headers = dict(scope["headers"])
        content, failed = b"", None
        try:
            if scope["method"] != "POST":
                raise ProblemError("method-not-allowed", "only POST is answered here", headers=((b"allow", b"POST"),))
            content = await self._answer_body(answer, receive, self._admit(headers, arrived))
        except (ProblemError, FeatherweightError) as error:
            failed = error
        status, fields, content = self._conclude(scope["path"], headers, content, failed, arrived)
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    def _admit(self, headers: Headers, arrived: float) -> float:
        """When the answer is due. Raises ProblemError for what need not even be read."""
        check_key(headers.get(b"authorization"), self.service.keys)
        due = find_due(headers, arrived, self.service.deadline_ms)
        check_body_headers(headers)
        return due

    def _conclude(
        self,
        route: str,
        headers: Headers,
        content: bytes,
        failed: ProblemError | FeatherweightError | None,
        arrived: float,
    ) -> Answered:
        request_id = self.name_request(headers.get(b"x-request-id"))
        status, kind = 200, _JSON
        more: tuple[tuple[bytes, bytes], ...] = ()
        if failed is not None:
            if isinstance(failed, FeatherweightError):
                log.error("request %s failed", request_id.decode(), exc_info=failed)
                failed = ProblemError("internal", "the service failed; its log says why, by the request's id")
            status, kind, more = failed.status, CONTENT_TYPE, failed.headers
            content = failed.encode(request_id.decode())
        self.service.metrics.answered(route, status, time.perf_counter() - arrived)
        length = str(len(content)).encode()
        fields = [(b"content-type", kind), (b"content-length", length), (b"x-request-id", request_id), *more]
        return status, fields, content

    async def _answer_body(self, answer: Answer, receive: Receive, due: float) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return await answer(body, due)
        held = bytearray(body)
        self._held_bytes += len(body)
        try:
            while message.get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError("malformed-request", "the connection was closed before the body was whole")
                chunk: bytes = message.get("body", b"")
                held += chunk
                self._held_bytes += len(chunk)
                self._check_size(len(held))
            return await answer(bytes(held), due)
        finally:
            self._held_bytes -= len(held)

    def _check_size(self, size: int) -> None:
        if size > BODY_BYTES:
            raise too_large()
        if self._held_bytes > HELD_BYTES:
            raise ProblemError("overloaded", "too many large bodies at once; try again later", headers=RETRY)

    def _score_now(self, body: bytes, due: float) -> bytes:
        try:
            request = decode_score(body)
        except _undecodable as error:
            raise explain_decoding(error) from error
        return encode(self.service.score(request, due))

    async def _score(self, body: bytes, due: float) -> bytes:
        return self._score_now(body, due)

    async def _score_batch(self, body: bytes, due: float) -> bytes:
        try:
            requests = decode_batch(body).transactions
        except _undecodable as error:
            raise explain_decoding(error) from error
        return encode(BatchAnswer(decisions=await self.service.score_batch(requests, due)))

    async def _learn(self, body: bytes, due: float) -> bytes:
        try:
            labels = decode_labels(body).labels
        except _undecodable as error:
            raise explain_decoding(error) from error
        learned, unknown = self.service.learn(labels)
        return encode(LabelsAnswer(learned=learned, unknown=unknown))


def check_body_headers(headers: Headers) -> None:
    """Raise ProblemError for what need not even be read."""
    kind = headers.get(b"content-type", b"")
    if kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        raise ProblemError("unsupported-media-type", "send Content-Type: application/json", header="Content-Type")
    length = headers.get(b"content-length", b"0")
    if len(length) > len(str(BODY_BYTES)) or int(length) > BODY_BYTES:
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


def create_app(service: Service) -> Api:
    """The ASGI application; whoever made the service closes it."""
    app = Api(service)
    render = render_metrics([service.metrics])

    @app.middleware("http")
    async def name_requests(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        request_id = app.name_request(request.headers.get("x-request-id", "").encode("latin-1"))
        request.state.request_id = request_id.decode()
        response = await go_on(request)
        response.headers["x-request-id"] = request.state.request_id
        return response

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> Response:
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "internal")
        problem = ProblemError(kind, KINDS[kind][1].lower())
        content = problem.encode(request.state.request_id)
        return Response(content, problem.status, error.headers, media_type=CONTENT_TYPE.decode())

    @app.exception_handler(ProblemError)
    async def refuse(request: Request, problem: ProblemError) -> Response:
        headers = {name.decode(): value.decode() for name, value in problem.headers}
        content = problem.encode(request.state.request_id)
        return Response(content, problem.status, headers, media_type=CONTENT_TYPE.decode())

    @app.get("/healthz", tags=["health"], summary="The process lives")
    async def healthz() -> Response:
        return _health(Health(status="ok", model=service.pipeline.scorer.model))

    @app.get("/readyz", tags=["health"], summary="Send it work", responses={503: {"description": "Not now"}})
    async def readyz() -> Response:
        model = service.pipeline.scorer.model
        if service.fault:
            return _health(Health(status="unready", model=model, reason="the state cannot be written"), 503)
        return _health(Health(status="ready", model=model))

    @app.get("/metrics", tags=["health"], summary="For Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        authorization = request.headers.get("authorization")
        check_key(authorization.encode("latin-1") if authorization else None, service.keys)
        return Response(render(), media_type=METRICS_TYPE)

    return app


def _health(health: Health, status: int = 200) -> Response:
    return Response(encode(health), status, media_type="application/json")


def _keeping_up(service: Service) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    def complain(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("the upkeep has ended: restart the service", exc_info=task.exception())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(service.keep_up())
        task.add_done_callback(complain)
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return lifespan
