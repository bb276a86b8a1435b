"""The FastAPI application: what is answered at which path.

Every endpoint is a FastAPI route. Those of the service itself can also be asked without ASGI, by `Api.answer`, which
`connection.py` does: a decision takes microseconds, and ASGI's task, scope and messages cost as much as that. Both ways
go through the same functions. Routes that are added are ordinary routes of FastAPI; where there are API keys, they ask
for one, unless their path is put into `Api.open_paths`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import operator
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import fastapi
from fastapi import FastAPI, Response
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from featherweight.apps.fraud.http.endpoints import Endpoints
from featherweight.apps.fraud.http.explaining import explain_errors, report_failure, respond
from featherweight.apps.fraud.http.forms import encode
from featherweight.apps.fraud.http.heads import (
    BODY_BYTES,
    JSON,
    RETRY,
    body_too_large,
    check_body_kind,
    check_body_length,
    check_repeated,
    find_due,
    find_path,
)
from featherweight.apps.fraud.http.messages import Answer, Endpoint, Request
from featherweight.apps.fraud.http.openapi import DESCRIPTION, TITLE, describe
from featherweight.apps.fraud.http.service import Service
from featherweight.apps.fraud.monitoring.metrics import RequestMetrics
from featherweight.core.errors import UsageError
from featherweight.core.web.access import check_key, read_keys
from featherweight.core.web.problems import CONTENT_TYPE, ProblemError

HELD_BYTES: Final = 64 << 20
"""Maximum size of all request bodies together that are being read or wait."""
OTHER: Final = "other"
"""The route of metrics for a request that has none."""
NO_TELEMETRY: Final[Any] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI would otherwise send traces and more to where the environment's OTEL_ variables say."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
log = logging.getLogger("featherweight.fraud")


class Api(FastAPI):
    """Owned by the event loop's thread. The creator of the service closes it."""

    def __init__(self, service: Service, *, keys_file: Path | None = None, deadline_ms: float | None = None) -> None:
        """keys_file: for `read_keys`, None asks for no key; deadline_ms: of requests that name none themselves. Raises
        UsageError."""
        super().__init__(
            title=TITLE,
            version="1",
            description=DESCRIPTION,
            lifespan=_keeping_up(service),
            # The document has a route of ours; the pages about it load scripts from elsewhere.
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            # A redirect would name the host that the caller named.
            redirect_slashes=False,
            telemetry=NO_TELEMETRY,
        )
        self.service = service
        self.keys = read_keys(keys_file) if keys_file else ()
        self.request_metrics = RequestMetrics()
        self.held_bytes = 0
        self.open_paths = {"/healthz", "/readyz", "/openapi.json"}
        """These need no key, and a request for one does not make its client a guest (see `Door`)."""
        self._keys_file, self._deadline_ms = keys_file, deadline_ms
        self._endpoints: dict[tuple[bytes, bytes], Endpoint] = {}
        document = Endpoint("/openapi.json", "GET", self._tell_interface)
        for endpoint in (*Endpoints(service, self.request_metrics), document):
            self._endpoints[endpoint.method.encode(), endpoint.path.encode()] = endpoint
            # `describe` has what the document says of them.
            self.add_api_route(
                endpoint.path, self._as_route(endpoint), methods=[endpoint.method], include_in_schema=False
            )
        explain_errors(self)
        self._document: tuple[object, ...] = (None, False, None)
        self._rendered = b""
        self._boot = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def reload(self) -> None:
        """Look for another artifact and read the keys: what SIGHUP asks for. What is broken is refused and logged."""
        self.service.live.request_reload()
        if self._keys_file is not None:
            try:
                self.keys = read_keys(self._keys_file)
            except UsageError as error:
                log.error("the old API keys stay: %s", error)

    # By ASGI.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As FastAPI's own, with the request's id, its key and its metrics around it."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        asks_for_head, scope = scope["method"] == "HEAD", self._head_as_get(scope)
        arrived = scope.setdefault("arrived", time.perf_counter())
        headers = dict(scope["headers"])
        request_id = self.name_request(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [field for field in message.get("headers", ()) if field[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*others, (b"x-request-id", request_id)]}
                route = getattr(scope.get("route"), "path", OTHER)
                self.request_metrics.answered(route, message["status"], time.perf_counter() - arrived)
            elif asks_for_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            self.check_access(scope["path"], headers)
        except ProblemError as problem:
            await respond(problem, request_id.decode())(scope, receive, tell)
            return
        await super().__call__(scope, receive, tell)

    def _head_as_get(self, scope: Scope) -> Scope:
        """HEAD asks for the head of what GET would be answered (RFC 9110, 9.3.2), unless a route answers it itself."""
        if scope["method"] != "HEAD" or any(route.matches(scope)[0] is Match.FULL for route in self.router.routes):
            return scope
        return {**scope, "method": "GET"}

    def openapi(self) -> dict[str, Any]:
        """The document for the model that decides now, and for whatever routes were added."""
        schema, secured = self.service.pipeline.scorer.schema, bool(self.keys)
        return describe(super().openapi(), schema, secured=secured, open_paths=self.open_paths)

    def _as_route(self, endpoint: Endpoint) -> Callable[[fastapi.Request], Coroutine[Any, Any, Response]]:
        async def answer(asked: fastapi.Request) -> Response:
            check_repeated(asked.headers.raw)
            method, path = endpoint.method.encode(), endpoint.path.encode()
            request = Request(method, path, asked.headers.raw, asked.scope["arrived"])
            self._prepare(request, endpoint)
            try:
                async for chunk in asked.stream():
                    self.hold(request, len(chunk))
                    request.body += chunk
                answer = endpoint.handle(request)
                answer = answer if isinstance(answer, Answer) else await answer
            finally:
                self.release(request)
            fields = {name.decode(): value.decode() for name, value in answer.headers}
            return Response(answer.content, answer.status, fields, media_type=answer.content_type.decode())

        return answer

    # Called by the reader of the request.

    def admit(self, request: Request) -> None:
        """Find who answers a request of which only the head is there. Raises ProblemError for one whose body need not
        even be read."""
        endpoint = self._endpoints.get((request.method, request.url))
        if endpoint is None:
            request.path = find_path(request.url)
            endpoint = self._endpoints.get((request.method, request.path.encode()))
        else:
            request.path = endpoint.path
        if self.user_middleware:
            endpoint = None  # that is to see every request
        request.endpoint = endpoint
        self.check_access(request.path, request.headers)
        if endpoint is None:
            check_body_length(request.headers)
        else:
            self._prepare(request, endpoint)

    def check_access(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Raise ProblemError for a request without the key that it needs."""
        if path not in self.open_paths:
            check_key(headers.get(b"authorization"), self.keys)

    def hold(self, request: Request, size: int) -> None:
        """So many bytes of its body have come. Raises ProblemError where they, or all bodies, are too many."""
        request.read_bytes += size
        if request.read_bytes > BODY_BYTES:
            raise body_too_large()
        if request.fault is None:  # else they are not kept
            request.held_bytes += size
            self.held_bytes += size
            if self.held_bytes > HELD_BYTES:
                raise ProblemError("overloaded", "too many large bodies at once; try again later", headers=RETRY)

    def release(self, request: Request) -> None:
        """Count the body as no longer held."""
        self.held_bytes -= request.held_bytes
        request.held_bytes, request.body = 0, b""

    def answer(self, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        """Answer a request that has an endpoint or a fault."""
        endpoint = request.endpoint
        if request.fault is not None or endpoint is None:
            return self.conclude(request, None, request.fault)
        try:
            answer = endpoint.handle(request)
        except Exception as error:  # noqa: BLE001  (an unexpected one is logged, answered and released too)
            return self.conclude(request, None, error)
        return self.conclude(request, answer, None) if isinstance(answer, Answer) else self._await(request, answer)

    def conclude(self, request: Request, answer: Answer | None, failed: Exception | None) -> Answer:
        """The answer to one that FastAPI does not answer, or why there is none; and count it."""
        request_id = self.name_request(request.headers.get(b"x-request-id"))
        if answer is None:
            if not isinstance(failed, ProblemError):
                failed = report_failure(request_id.decode(), failed)
            answer = Answer(failed.status, CONTENT_TYPE, failed.encode(request_id.decode()), headers=failed.headers)
        self.release(request)
        route = OTHER if request.endpoint is None else request.endpoint.path
        self.request_metrics.answered(route, answer.status, time.perf_counter() - request.arrived)
        # _replace would take longer than all the rest of this.
        return Answer(answer.status, answer.content_type, answer.content, request_id, answer.headers, answer.length)

    def name_request(self, given: bytes | None) -> bytes:
        """The caller's own id where it is a short plain word, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._boot}-{next(self._numbers):x}".encode()

    def _prepare(self, request: Request, endpoint: Endpoint) -> None:
        """Raises ProblemError for a request that the endpoint would not even read."""
        if endpoint.method == "POST":
            request.due = find_due(request.headers, request.arrived, self._deadline_ms)
            check_body_kind(request.headers)
        check_body_length(request.headers)

    async def _await(self, request: Request, answer: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return self.conclude(request, await answer, None)
        except Exception as error:  # noqa: BLE001  (as above)
            return self.conclude(request, None, error)

    def _tell_interface(self, _: Request) -> Answer:
        """Rendered once for each model, because anybody may ask for it."""
        whom = self.service.pipeline.scorer.schema, bool(self.keys), super().openapi()
        if not all(map(operator.is_, whom, self._document)):
            self._document, self._rendered = whom, encode(self.openapi())
        return Answer(200, JSON, self._rendered)


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
        await asyncio.wait([task])

    return lifespan
