"""The service on uvicorn: one process, one event loop, bounded in everything that comes from outside."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from apps.fraud.http.access import check_exposure, read_keys
from apps.fraud.http.app import Api, Headers, create_app
from apps.fraud.http.problems import CONTENT_TYPE, ProblemError
from apps.fraud.http.service import RETRY, Service
from apps.fraud.live import LiveModel
from apps.fraud.pipeline import warm_up
from apps.fraud.store import open_store
from core.errors import FeatherweightError, UsageError

HEAD_BYTES: Final = 64 << 10
RECEIVE_S: Final = 10.0
"""So long a request may take to come in, and a new connection to begin one."""
LINGER_S: Final = 1.0
QUICK_PATH: Final = b"/v1/score"
QUICK_DIGITS: Final = 5
"""Of the content-length: bodies of up to 100 kB."""
CLOSE: Final = (b"connection", b"close")
KEEP_ALIVE_S: Final = 60
DRAIN_S: Final = 20
BACKLOG: Final = 1024
log = logging.getLogger("featherweight.fraud")


@dataclass(frozen=True)
class Settings:
    """model, state: folders; state None keeps histories in memory only. keys: a file for `read_keys`, None asks for no
    key. connections: more are answered 503. deadline_ms: of requests that name none themselves."""

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    state: Path | None = None
    keys: Path | None = None
    allow_anonymous: bool = False
    connections: int = 512
    deadline_ms: float | None = None
    backend: str | None = None
    verify_parity: bool = False
    """Whether an artifact must give the sealed decisions on the sealed probes before it decides."""


def serve(settings: Settings, on_ready: Callable[[str, Service], object]) -> None:
    """Serve until SIGINT or SIGTERM, then drain, write the state and return. on_ready: called with the address once
    the port is open. Raises UsageError (port in use, nobody may ask), and what opening the model and state raises."""
    keys = read_keys(settings.keys) if settings.keys else ()
    check_exposure(settings.host, keys, allow_anonymous=settings.allow_anonymous)
    listener = listen(settings.host, settings.port)
    try:
        service = open_service(settings)
    except FeatherweightError:
        listener.close()
        raise
    try:
        host, port = listener.getsockname()[:2]
        on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", service)
        with _signals(service):
            make_server(service, settings.connections).run(sockets=[listener])
    finally:
        service.close()


def open_service(settings: Settings) -> Service:
    live = LiveModel(settings.model, settings.backend, verify_parity=settings.verify_parity)
    try:
        warm_up(live.scorer.schema.delay_days)
        store = open_store(settings.state, live.scorer.schema.delay_days) if settings.state else None
        return Service(live, store, keys_file=settings.keys, deadline_ms=settings.deadline_ms)
    except FeatherweightError:
        live.close()
        raise


def listen(host: str, port: int) -> socket.socket:
    """Raises UsageError. Bound before the model is opened, listening only once it is: the first who gets through finds
    a service that is ready."""
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        if listener is not None:
            listener.close()
        raise UsageError(
            f"{host}:{port} cannot be served: {getattr(error, 'strerror', '') or error}; choose another"
        ) from error
    return listener


def make_server(service: Service, connections: int) -> uvicorn.Server:
    app = create_app(service)

    class Protocol(BoundedProtocol):
        api = app
        limit = connections

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return _Server(config)


class BoundedProtocol(HttpToolsProtocol):
    """A connection of uvicorn, with what uvicorn leaves open: how many there are, how large a request's head is, how
    long a request may take to come in. Notes when a request came, for its deadline.

    A POST /v1/score of ordinary size is quick: answered as soon as its body is here, without the task, scope and
    messages of ASGI, which cost as much as the answer itself. Anything unusual goes the ordinary way.
    """

    api: Api
    limit: int
    _quick: Headers | None = None
    """The headers of a quick request whose body is coming in."""
    _body = b""
    _unanswered = 0
    """Quick requests begun and not answered."""
    _ending = False
    _turned_away = False
    _discarding = False
    _receiving_since: float | None = None
    _head_bytes = 0
    """Since the last byte of a body: heads, but also what stands around the chunks of a body."""
    _body_came = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._receiving_since = time.monotonic()
        if len(self.connections) > self.limit:
            self.api.service.refused_connections += 1
            self._turned_away = True
            if len(self.connections) > 2 * self.limit:
                transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._turned_away:
            self._answer_and_close(_OVERLOADED)
            return
        self._body_came = False
        super().data_received(data)
        if self._receiving_since is not None and not self._body_came:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._answer_and_close(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._receiving_since, self._head_bytes = time.monotonic(), 0
        self.scope["arrived"] = time.perf_counter()  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        if self.url == QUICK_PATH and self._may_be_quick():
            headers = dict(self.headers)
            if len(headers.get(b"content-length", b"too long")) <= QUICK_DIGITS:
                self._quick, self._body = headers, b""
                self._unanswered += 1
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_came, self._head_bytes = True, 0
        if self._quick is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        self._receiving_since = None
        if self._quick is None:
            super().on_message_complete()
            return
        keep = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        # Not at once: an error in here would be taken for one of the client's, and others have waited longer.
        self.loop.call_soon(self._answer, self._quick, self._body, self.scope["arrived"], keep)  # type: ignore[typeddict-item]
        self._quick = None

    def shutdown(self) -> None:
        if self._unanswered:
            self._ending = True
        else:
            super().shutdown()

    def _may_be_quick(self) -> bool:
        """Whether nothing before it is still under way, and nothing about it is unusual."""
        idle = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        plain = self.parser.get_method() == b"POST" and not self.expect_100_continue
        return idle and plain and not self.flow.write_paused and not self.parser.should_upgrade()

    def _answer(self, headers: Headers, body: bytes, arrived: float, keep: bool) -> None:
        keep = keep and not self._ending
        answered = False
        try:
            status, fields, content = self.api.answer_score(headers, body, arrived)
            answered = True
        finally:
            self._unanswered -= 1
            if not answered:  # a bug, which the loop logs; nobody should wait for it
                self.transport.abort()
        if self.transport.is_closing():
            return
        lines = [*self.server_state.default_headers, *fields, *(() if keep else (CLOSE,))]
        head = b"".join([STATUS_LINE[status], *(name + b": " + value + b"\r\n" for name, value in lines), b"\r\n"])
        self.transport.write(head + content)
        if not keep:
            self.transport.close()
        elif self.cycle is None or self.cycle.response_complete:
            self.on_response_complete()

    def sweep(self, now: float) -> None:
        """End a request that takes too long to come in."""
        if self._receiving_since is None or now - self._receiving_since <= RECEIVE_S or self._discarding:
            return
        if (
            self._quick is None
            and self.cycle is not None
            and self.cycle.response_started
            and not self.cycle.response_complete
        ):
            self.transport.abort()
        else:
            self._answer_and_close(_TOO_SLOW)

    def _answer_and_close(self, answer: bytes) -> None:
        """What the other side still sends is read and thrown away for a moment: closing at once would reset the
        connection, and the answer might never be seen."""
        self._discarding = True
        self.flow.resume_reading()
        self.transport.write(answer)
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)


class _Server(uvicorn.Server):
    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.sweep(now)
        return await super().on_tick(counter)


def _render(status: str, problem: ProblemError) -> bytes:
    body = problem.encode("")
    fields = {b"content-type": CONTENT_TYPE, b"content-length": str(len(body)).encode(), b"connection": b"close"}
    lines = [f"HTTP/1.1 {status}".encode(), *(n + b": " + v for n, v in (*fields.items(), *problem.headers))]
    return b"\r\n".join([*lines, b"", body])


_OVERLOADED: Final = _render(
    "503 Service Unavailable", ProblemError("overloaded", "too many connections; try again later", headers=RETRY)
)
_HEAD_TOO_LARGE: Final = _render(
    "431 Request Header Fields Too Large", ProblemError("head-too-large", f"at most {HEAD_BYTES} bytes are read")
)
_TOO_SLOW: Final = _render("408 Request Timeout", ProblemError("too-slow", f"it must come in within {RECEIVE_S:g} s"))


@contextmanager
def _signals(service: Service) -> Iterator[None]:
    """SIGHUP reloads. SIGINT and SIGTERM are uvicorn's, which sends them on once it has drained: ignored by then, so
    that the state is written and the process ends well."""

    def reload(_: int, __: FrameType | None) -> None:
        service.reload()

    wanted: dict[signal.Signals, Any] = {
        signal.SIGHUP: reload,
        signal.SIGINT: signal.SIG_IGN,
        signal.SIGTERM: signal.SIG_IGN,
    }
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
