"""The service as a process: one event loop, a listening socket, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from apps.fraud.http.access import check_exposure, read_keys
from apps.fraud.http.app import Api
from apps.fraud.http.connection import Connection, clock, render_date
from apps.fraud.http.door import Door
from apps.fraud.http.service import Service
from apps.fraud.live import LiveModel
from apps.fraud.pipeline import warm_up
from apps.fraud.state import LIMIT
from apps.fraud.store import open_store
from core.errors import FeatherweightError, UsageError

DRAIN_S: Final = 20
SWEEP_S: Final = 1.0
BACKLOG: Final = 1024
SPARE_FILES: Final = 256
"""Open files beside the connections."""
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
    max_histories: int = LIMIT
    """Of customers, and of terminals."""
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
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(service, listener, settings.connections))
    finally:
        service.close()


def open_service(settings: Settings) -> Service:
    live = LiveModel(settings.model, settings.backend, verify_parity=settings.verify_parity)
    try:
        warm_up(live.scorer.schema.delay_days)
        delay_days, limit = live.scorer.schema.delay_days, settings.max_histories
        store = open_store(settings.state, delay_days, limit) if settings.state else None
        return Service(live, store, keys_file=settings.keys, deadline_ms=settings.deadline_ms, max_histories=limit)
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


async def run(service: Service, listener: socket.socket, connections: int) -> None:
    """Answer until SIGINT or SIGTERM, then let everything that has begun end, for DRAIN_S at most. SIGHUP reloads."""
    allow_files(3 * connections + SPARE_FILES)
    loop, ending, api, door = asyncio.get_running_loop(), asyncio.Event(), Api(service), Door(connections)
    door.date_line = render_date()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    upkeep = loop.create_task(service.keep_up())
    upkeep.add_done_callback(_complain)
    server = await loop.create_server(lambda: Connection(api, door), sock=listener, backlog=BACKLOG)
    while not ending.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), SWEEP_S)
        _sweep(door)
    server.close()
    await _drain(door)
    upkeep.cancel()
    await asyncio.wait([upkeep])


def allow_files(wanted: int) -> None:
    """As many open files as that, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        log.warning(
            "only %d open files are allowed, %d may be wanted: lower --connections, or raise the limit", hard, wanted
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _sweep(door: Door) -> None:
    door.date_line = render_date()
    now = clock()
    for visitor in door:
        visitor.sweep(now)


async def _drain(door: Door) -> None:
    deadline = clock() + DRAIN_S
    for visitor in door:
        visitor.shutdown()
    while len(door) and clock() < deadline:
        await asyncio.sleep(0.05)
        _sweep(door)
    for visitor in door:
        visitor.abort()
    await asyncio.sleep(0)  # so that they are told


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("the upkeep has ended: restart the service", exc_info=task.exception())
