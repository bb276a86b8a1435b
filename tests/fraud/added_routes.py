"""Routes as later work adds them to the service; the process under test imports this."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import BackgroundTasks, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from featherweight.apps.fraud.http.app import Api

PROLOGUE = """
import os
import featherweight.apps.fraud.http.server as server
from tests.fraud import added_routes
made = server.Api
server.Api = lambda service, **settings: added_routes.{function}(made(service, **settings))
os.environ.update(FASTAPI_OTEL_AUTO_CONFIGURE="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
"""
LARGE_BYTES = 17 << 20


class Note(BaseModel):
    text: str
    stars: int = Field(ge=1, le=5)


def add_routes(app: Api) -> Api:
    add_pages(app)
    add_failures(app)
    add_slow_ones(app)
    return app


def add_middleware(app: Api) -> Api:
    """It sees what the service answers itself too."""
    app.open_paths.add("/v1/open")

    @app.get("/v1/open")
    @app.get("/v1/closed")
    async def tell() -> str:
        return "told"

    @app.middleware("http")
    async def mark(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await go_on(request)
        response.headers["x-marked"] = "yes"
        return response

    return app


def add_pages(app: Api) -> None:
    @app.api_route("/v1/notes/{name}", methods=["GET", "HEAD"])
    async def read_note(request: Request, name: str, limit: Annotated[int, Query(ge=1)] = 1) -> dict[str, object]:
        cookies = request.headers.getlist("cookie")
        return {"name": name, "limit": limit, "cookies": cookies, "path": request.url.path, "ip": request.client}

    @app.put("/v1/notes/{name}")
    async def write_note(name: str, note: Note) -> Note:
        return note

    @app.delete("/v1/notes/{name}", status_code=204)
    async def delete_note(name: str) -> None:
        return None

    @app.get("/v1/labels")
    def list_labels() -> list[str]:
        """Beside the service's own POST; on a thread, because it is no coroutine."""
        return ["one"]

    @app.post("/headers")
    async def tell_headers(request: Request) -> list[str]:
        return sorted(request.headers)

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type=request.headers.get("content-type"))


def add_failures(app: Api) -> None:
    @app.get("/fails")
    async def fail() -> None:
        raise ValueError("a secret")

    @app.get("/teapot")
    async def refuse() -> None:
        raise HTTPException(418, "no coffee", {"x-pot": "tea"})

    @app.get("/large")
    async def answer_too_much() -> Response:
        return Response(b"x" * LARGE_BYTES)

    @app.get("/split")
    async def split_the_head() -> Response:
        return Response(headers={"x-split": "a\r\nset-cookie: b"})


def add_slow_ones(app: Api) -> None:
    log, go_on = logging.getLogger("featherweight.fraud"), asyncio.Event()

    async def wait() -> None:
        await go_on.wait()
        log.info("the background task has ended")

    @app.post("/later")
    async def answer_then_work(tasks: BackgroundTasks) -> str:
        tasks.add_task(wait)
        return "first"

    @app.post("/now")
    async def let_it_work() -> str:
        go_on.set()
        return "second"

    @app.get("/slow")
    async def take_time() -> str:
        log.info("the slow route has begun")
        await asyncio.sleep(1)
        return "done"

    @app.get("/endless")
    async def never_end() -> StreamingResponse:
        async def tick() -> AsyncIterator[bytes]:
            try:
                log.info("the endless route has begun")
                while True:
                    yield b"x"
                    await asyncio.sleep(0.01)
            finally:
                log.info("the endless route has ended")

        return StreamingResponse(tick())
