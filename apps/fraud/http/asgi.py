"""A request that is whole, asked of an ASGI application, whose answer is collected until it is whole too.

So the application knows nothing of the connection: it neither waits for slow readers nor breaks an answer off. What has
no end (server-sent events, say) cannot be answered in this way.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Any, Final

import httptools
from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from featherweight.apps.fraud.http.messages import Answer, Request

ANSWER_BYTES: Final = 16 << 20
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_OURS: Final = frozenset({b"connection", b"date", b"keep-alive", b"transfer-encoding"})
"""Headers that are the connection's to say."""
log = logging.getLogger("featherweight.fraud")


class Exchange:
    """request: one that has an id. answer: there as soon as it is whole, which may be before the application has ended;
    None where it failed to give one, and the log says why."""

    def __init__(self, request: Request, transport: asyncio.Transport, state: dict[str, Any]) -> None:
        target = httptools.parse_url(request.url)
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._body, self._is_head = request.body, request.method == b"HEAD"
        others = [field for field in request.fields if field[0] != b"x-request-id"]
        self._given = False
        self._over = asyncio.Event()
        self._status = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._content = bytearray()
        self._scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method.decode(),
            "scheme": "http",
            "path": request.path,
            "raw_path": target.path or b"/",
            "query_string": target.query or b"",
            "root_path": "",
            "headers": [*others, (b"x-request-id", request.headers[b"x-request-id"])],
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "state": state.copy(),
            "arrived": request.arrived,
        }

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer. What it raises is logged; `answer` is None where no whole answer came."""
        try:
            await app(self._scope, self._receive, self._send)
            if not self._over.is_set():
                log.error("%s: the route ended without a whole answer", self._scope["path"])
        except Exception as error:
            log.error("request %s failed", self._scope["state"].get("request_id", ""), exc_info=error)
        finally:
            self._over.set()
            if not self.answer.done():
                self.answer.set_result(None)

    def leave(self) -> None:
        """The client is gone before it had the answer."""
        self._over.set()

    async def _receive(self) -> Message:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.answer.done():
            return
        if message["type"] == "http.response.start":
            self._status, self._fields = message["status"], check_fields(message.get("headers", ()))
            return
        self._content += message.get("body", b"")
        if len(self._content) > ANSWER_BYTES:
            raise RuntimeError(f"an answer of more than {ANSWER_BYTES} bytes")
        if not message.get("more_body", False):
            self.answer.set_result(self._collect())
            self._over.set()

    def _collect(self) -> Answer:
        fields = dict(self._fields)
        length = fields.get(b"content-length") if self._is_head else None
        apart = (b"content-length", b"content-type", b"x-request-id")
        return Answer(
            self._status,
            fields.get(b"content-type", b""),
            bytes(self._content),
            fields.get(b"x-request-id", b""),
            tuple(field for field in self._fields if field[0] not in apart),
            None if length is None else int(length),
        )


def check_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those that the connection does not say itself. Raises ValueError for one that could end the head."""
    checked = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError("a header of the answer has characters that HTTP does not allow")
        if name.lower() not in _OURS:
            checked.append((name.lower(), bytes(value)))
    return checked
