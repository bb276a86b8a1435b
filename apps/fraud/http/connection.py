"""One connection, for uvicorn's server: HTTP/1.1 on httptools' parser, bounded in everything that comes from outside.

It stands in the place of uvicorn's own class, which loses the body behind an upgrade, drops good requests before a bad
one and the answers of a client that has said all, and bounds neither pipelining nor readers.

Requests are answered in their order, each once it is whole; what cannot be understood is the last one, and answered in
its turn. Upgrades (h2c, which Java's client offers with its first request, or websocket) are ignored, as RFC 9110 lets
a server do: the request is read as if nothing had been offered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.server import ServerState

from featherweight.apps.fraud.http.app import Api
from featherweight.apps.fraud.http.asgi import Exchange
from featherweight.apps.fraud.http.door import Door
from featherweight.apps.fraud.http.heads import (
    HEAD_BYTES,
    RETRY,
    check_framing,
    check_head_size,
    check_repeated,
    head_too_large,
    wants_permission,
)
from featherweight.apps.fraud.http.messages import Answer, Request, render_answer
from featherweight.core.web.problems import ProblemError

SLICE_BYTES: Final = 8 << 10
"""So much is parsed at once: it may hold a few hundred requests, and no more are read before they are answered."""
PIPELINED: Final = 8
"""While so many requests wait for their answers, nothing more is read."""
RECEIVE_S: Final = 10.0
"""So long a request may take to come in, and a new connection to begin one."""
SEND_S: Final = 30.0
"""So long an answer may wait for being read."""
KEEP_ALIVE_S: Final = 60.0
LINGER_S: Final = 1.0
"""What a client still sends when it has had its last answer is read and thrown away for so long: closing at once would
reset the connection, and the answer might never be seen."""
log = logging.getLogger("featherweight.fraud")
clock = time.perf_counter


class Connection(asyncio.Protocol):
    """Made by uvicorn for each one that comes in. Times are in `clock`'s seconds."""

    api: Api
    door: Door

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app, self._state, self._app_state = config.loaded_app, server_state, app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._unread = b""
        """Has come, and waits until there is room for more requests."""
        self._url, self._fields = b"", list[tuple[bytes, bytes]]()
        self._begun = False
        """Whether a request has begun to come in and is not whole."""
        self._incoming: Request | None = None
        """That one, from the end of its head on; and its body."""
        self._chunks: list[bytes] = []
        self._waiting: deque[Request] = deque()
        self._turning = False
        self._answering: asyncio.Task[None] | None = None
        self._exchange: Exchange | None = None
        self._arrived = self._since = clock()
        """_since: when what we wait for began: a request, its end, or the end of the connection."""
        self._head_bytes = 0
        """Read since the last byte of a body: heads, trailers, what stands around the chunks."""
        self._moved = False
        self._fault: ProblemError | None = None
        self._expects = self._known = self._asked = False
        self._paused = self._deaf = self._ended = self._leaving = self._ending = False
        self._clogged_since: float | None = None

    # What the loop tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.door.enter(self)

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            self._unread = self._unread + data if self._unread else data
            self._read()

    def eof_received(self) -> bool:
        """The other side has said all: what is whole is answered (True: the connection stays for that)."""
        self._ended = self._deaf = True
        if self._leaving:
            return False
        self._drop_incoming()
        self._since = clock()
        if self._waiting or self._answering:
            return True
        self._leave()  # so that `sweep` ends it where the last answer is never read
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self.door.forget(self)
        if self._exchange is not None:
            self._exchange.leave()
        self._deaf = self._leaving = True
        self._drop_incoming()
        while self._waiting:
            self.api.release(self._waiting.popleft())
        self._parser, self._unread = None, b""

    def pause_writing(self) -> None:
        self._clogged_since = clock()

    def resume_writing(self) -> None:
        self._clogged_since = None
        self._go_on()

    # What the parser tells. An exception in here ends its work; `_fault` says why.

    def on_message_begin(self) -> None:
        if self._deaf:
            raise ProblemError("malformed-request", "nothing is read after this")
        self._url, self._fields, self._chunks = b"", [], []
        self._begun, self._arrived = True, clock()
        self._since = self._arrived

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming is None:  # else a trailer, which nobody may take for a part of the head (RFC 9110, 6.5.1)
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # it comes again, see `_without_upgrade`
        version = self._parser.get_http_version()
        request = self._incoming = Request(self._parser.get_method(), self._url, self._fields, self._arrived)
        headers = request.headers
        request.keep = version == "1.1" and self._parser.should_keep_alive()
        try:
            if len(headers) != len(self._fields):
                check_repeated(self._fields)
            if self._head_bytes > HEAD_BYTES - SLICE_BYTES:
                check_head_size(self._url, self._fields)
            check_framing(version, headers)
            self._expects = b"expect" in headers and wants_permission(version, headers)
        except ProblemError as problem:
            self._fail(problem)
        try:
            self.api.admit(request)
        except ProblemError as problem:
            if problem.status == 413 or self._expects:
                self._fail(problem)  # the body would be read for nothing
            request.fault = problem

    def on_body(self, body: bytes) -> None:
        self._moved = True
        if (request := self._incoming) is None:
            return  # never: its head came before
        try:
            self.api.hold(request, len(body))
        except ProblemError as problem:
            self._fail(problem)
        if request.fault is None:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        if (request := self._incoming) is None:
            return  # as above
        if not self._known and request.fault is None:
            self._admit(request)
        self._moved, self._begun, self._expects, self._incoming = True, False, False, None
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._deaf = not request.keep
        self._waiting.append(request)

    # Reading.

    def _read(self) -> None:
        """As much of what has come as there is room for."""
        while self._unread and not self._deaf and len(self._waiting) < PIPELINED:
            part, self._unread = self._unread[:SLICE_BYTES], self._unread[SLICE_BYTES:]
            self._feed(part)
        if self._deaf:
            self._unread = b""
        if self._unread and not self._paused:
            self._transport.pause_reading()
            self._paused = True
        elif self._paused and not self._unread:
            self._transport.resume_reading()
            self._paused, self._since = False, clock()
        if self._waiting and not self._turning:
            # Not at once: others whose requests have come wait as long.
            self._turning = True
            self._loop.call_soon(self._take_turn)
        elif self._expects and not self._waiting and self._answering is None:
            self._expects = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _feed(self, part: bytes) -> None:
        self._head_bytes += len(part)
        self._moved = False
        try:
            while part:
                try:
                    self._parser.feed_data(part)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    part = part[upgrade.args[0] :]
                    self._read_without_upgrade()
        except httptools.HttpParserCallbackError as error:
            if self._fault is None and not self._deaf:
                log.error("a request could not be read", exc_info=error)
                self._transport.abort()
        except httptools.HttpParserError as error:
            self._fault = ProblemError("malformed-request", f"the request is not HTTP/1.1: {error}")
        if self._moved:
            self._head_bytes = 0
        elif self._head_bytes > HEAD_BYTES:
            self._fault = self._fault or head_too_large()
        if self._fault is not None and not self._deaf:
            self._refuse(self._fault)

    def _read_without_upgrade(self) -> None:
        """The parser has read a head that offers to speak something else, and takes what follows for that. It is given
        the same head again, without the offer: then the body belongs to it."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._fault = ProblemError("method-not-allowed", "this is not a proxy", headers=((b"allow", b"GET, POST"),))
            raise httptools.HttpParserCallbackError
        version = self._parser.get_http_version().encode()
        lines = [name + b": " + value for name, value in self._fields if name != b"upgrade"]
        first, arrived = b"%b %b HTTP/%b" % (method, self._url, version), self._arrived
        self._parser.feed_data(b"\r\n".join([first, *lines, b"", b""]))
        self._arrived = self._since = arrived

    def _admit(self, request: Request) -> None:
        """Admit a request that is complete: a client that sends a part of one and stops takes no guest's place."""
        if request.path not in self.api.open_paths:
            self._known = self.door.admit(self)
            if not self._known:
                self._fail(self._count_refused())

    def _count_refused(self) -> ProblemError:
        self.api.request_metrics.refused_connections += 1
        return ProblemError("overloaded", "too many connections; try again later", headers=RETRY)

    def _fail(self, problem: ProblemError) -> None:
        """Stop the parser: the request that comes in is the last."""
        self._fault = problem
        raise problem

    def _refuse(self, problem: ProblemError) -> None:
        """What comes in is answered with this in its turn, and nothing after it."""
        request = self._incoming or Request(b"", b"", (), self._arrived)
        self._drop_incoming()
        request.fault, request.keep = problem, False
        self._deaf, self._unread = True, b""
        self._waiting.append(request)

    def _drop_incoming(self) -> None:
        if self._incoming is not None:
            self.api.release(self._incoming)
        self._incoming, self._chunks = None, []
        self._begun = self._expects = False

    # Answering.

    def _take_turn(self) -> None:
        """Answer one request: then others have their turn."""
        self._turning = False
        if not self._waiting or self._answering is not None or self._clogged_since is not None:
            return
        request, done = self._waiting.popleft(), False
        try:
            ordinary = request.endpoint is None and request.fault is None
            answer = self._ask(request) if ordinary else self.api.answer(request)
            if isinstance(answer, Answer):
                self._write(request, answer)
                self._go_on()
            else:
                self._answering = self._start(self._write_later(request, answer))
            done = True
        finally:
            if not done:  # a bug, which the loop logs; nobody should wait for it
                self.api.release(request)
                self._transport.abort()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """uvicorn waits for its end when it has been told to end."""
        task = self._loop.create_task(work)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)
        return task

    async def _ask(self, request: Request) -> Answer:
        """What FastAPI answers."""
        request.headers[b"x-request-id"] = self.api.name_request(request.headers.get(b"x-request-id"))
        self._exchange = Exchange(request, self._transport, self._app_state)
        self._start(self._exchange.run(self._app))
        answer, self._exchange = await self._exchange.answer, None
        if answer is not None:
            return answer
        problem = ProblemError("internal", "the service failed; its log says why, by the request's id")
        return self.api.conclude(request, None, problem)

    async def _write_later(self, request: Request, answer: Coroutine[Any, Any, Answer]) -> None:
        done = False
        try:
            self._write(request, await answer)
            done = True
        finally:
            self._answering = None
            self.api.release(request)
            if not done:
                self._transport.abort()
        self._go_on()

    def _write(self, request: Request, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        last = self._ending and not (self._waiting or self._begun or self._unread)
        keep = request.keep and not last
        head_only = request.method == b"HEAD"
        self._transport.write(render_answer(answer, self.door.default_lines, head_only=head_only, keep=keep))
        self._state.total_requests += 1
        self._asked = True
        # The next request may have begun to come in meanwhile; it has its time from now on, and once only: until it is
        # whole there is no other answer.
        self._since = clock()
        if not keep:
            self._leave()

    def _go_on(self) -> None:
        """After an answer, or once there is room for one."""
        if self._leaving:
            return
        self._read()
        nothing_waits = not (self._waiting or self._unread or self._answering)
        if nothing_waits and (self._ended or (self._ending and not self._begun)):
            self._leave()

    # Ending.

    def shutdown(self) -> None:
        """What has begun is answered, then the connection ends."""
        self._ending = True
        if not self._begun:
            self._go_on()

    def turn_away(self) -> None:
        problem = self._count_refused()
        if not self._deaf:
            self._refuse(problem)
            self._read()

    def abort(self) -> None:
        self._transport.abort()

    def idle_s(self) -> float:
        busy = self._waiting or self._answering
        return 0.0 if busy else clock() - self._since

    def _leave(self) -> None:
        """The last answer has been written."""
        self._leaving = self._deaf = True
        self._unread, self._since = b"", clock()
        self.door.part(self)
        if self._ended:
            self._transport.close()
        elif not self._transport.is_closing():
            if self._paused:
                self._transport.resume_reading()
            self._transport.write_eof()

    def sweep(self, now: float) -> None:
        """End what takes too long; called every second or so."""
        if self._leaving:
            unsent = self._transport.get_write_buffer_size()
            if now - self._since > (SEND_S if unsent else LINGER_S):
                self._transport.abort()
        elif self._clogged_since is not None:
            if now - self._clogged_since > SEND_S:
                self._transport.abort()
        elif self._waiting or self._answering or self._deaf:
            if self._exchange is not None and self._ended and now - self._since > SEND_S:
                self._exchange.leave()  # it may well be gone: that can be seen by writing only
        elif self._begun or not self._asked:
            if now - self._since > RECEIVE_S:
                self._refuse(ProblemError("too-slow", f"it must come in within {RECEIVE_S:g} s"))
                self._read()
        elif now - self._since > KEEP_ALIVE_S:
            self._leave()
