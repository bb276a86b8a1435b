"""The service as a process: uvicorn's server, a listening socket, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.features.engine import warm_up
from featherweight.apps.fraud.features.histories import LIMIT
from featherweight.apps.fraud.features.store import open_store
from featherweight.apps.fraud.http.app import Api
from featherweight.apps.fraud.http.connection import Connection, clock
from featherweight.apps.fraud.http.door import Door
from featherweight.apps.fraud.http.service import Service
from featherweight.core.errors import FeatherweightError, UsageError
from featherweight.core.serving import ModelSource
from featherweight.core.signals import came_early
from featherweight.core.web.access import check_exposure, read_keys

DRAIN_S: Final = 20
DRAIN_SWEEP_S: Final = 0.1
BACKLOG: Final = 1024
SPARE_FILES: Final = 256
"""Open files beside the connections."""
log = logging.getLogger("featherweight.fraud")


@dataclass(frozen=True)
class ServerSettings:
    """state: a folder; None keeps histories in memory only. keys: a file for `read_keys`, None asks for no key.
    connections: more are answered 503. deadline_ms: of requests that name none themselves."""

    model: ModelSource
    host: str = "127.0.0.1"
    port: int = 8000
    state: Path | None = None
    keys: Path | None = None
    allow_anonymous: bool = False
    connections: int = 512
    deadline_ms: float | None = None
    max_histories: int = LIMIT
    """Maximum number of customers, and of terminals."""


def serve(settings: ServerSettings, on_ready: Callable[[str, Service], object]) -> None:
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
        server = make_server(service, settings)
    except BaseException:
        service.close()
        listener.close()
        raise
    with _signals(server):
        try:
            host, port = listener.getsockname()[:2]
            on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", service)
            allow_files(3 * settings.connections + SPARE_FILES)
            server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the loop has put back what ends the process
            service.close()


def open_service(settings: ServerSettings) -> Service:
    """The model and the histories of the settings, compiled and ready to answer."""
    live = LiveModel(settings.model)
    try:
        warm_up(live.scorer.schema.delay_days)
        delay_days, limit = live.scorer.schema.delay_days, settings.max_histories
        store = open_store(settings.state, delay_days, limit) if settings.state else None
        return Service(live, store, max_histories=limit)
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


def make_server(service: Service, settings: ServerSettings) -> uvicorn.Server:
    """uvicorn's, with the application and the connections that are ours. Raises UsageError (the file of keys)."""
    app = Api(service, keys_file=settings.keys, deadline_ms=settings.deadline_ms)

    class Bound(Connection):
        api = app
        door = Door(settings.connections)

    config = uvicorn.Config(
        app,
        http=Bound,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return Server(config, app, Bound.door)


class Server(uvicorn.Server):
    """SIGHUP reloads; SIGINT and SIGTERM are uvicorn's."""

    def __init__(self, config: uvicorn.Config, api: Api, door: Door) -> None:
        super().__init__(config)
        self._api, self._door = api, door

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; from then on SIGHUP loads the model anew."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._api.reload)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn asks ten times a second: whether to end. Once a second the waiting connections are looked at."""
        ending = await super().on_tick(counter)
        if counter % 10 == 0:  # once a second, as uvicorn renews its headers
            headers = self.server_state.default_headers
            self._door.default_lines = b"".join([b"%b: %b\r\n" % field for field in headers])
            self._sweep()
        return ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has come, then close."""
        sweeping = asyncio.get_running_loop().create_task(self._keep_sweeping())
        await super().shutdown(sockets)
        sweeping.cancel()
        for connection in list(self._connections()):
            connection.abort()
        await asyncio.sleep(0)  # so that they are told

    async def _keep_sweeping(self) -> None:
        """While uvicorn drains, it ticks no more."""
        while True:
            await asyncio.sleep(DRAIN_SWEEP_S)
            self._sweep()

    def _sweep(self) -> None:
        now = clock()
        for connection in self._connections():
            connection.sweep(now)

    def _connections(self) -> list[Connection]:
        return [found for found in self.server_state.connections if isinstance(found, Connection)]


def allow_files(wanted: int) -> None:
    """As many open files as that, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        log.warning(
            "only %d open files are allowed, %d may be wanted: lower --max-connections, or raise the limit",
            hard,
            wanted,
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    """While uvicorn runs, SIGINT and SIGTERM are its own, and it sends them on once it has drained. Before and after
    that they ask it to end too, instead of ending the process at once: the state is to be written. SIGHUP has nothing
    to reload then."""
    wanted: dict[signal.Signals, Any] = {
        signal.SIGINT: server.handle_exit,
        signal.SIGTERM: server.handle_exit,
        signal.SIGHUP: signal.SIG_IGN,
    }
    server.should_exit = came_early()
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
