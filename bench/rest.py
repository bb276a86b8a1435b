"""The REST service against the same endpoint written with plain FastAPI and pydantic models (bench/plain_service.py).

    python -m bench.rest [--model DIR] [--backend native] [--requests 20000] [--rounds 5] [--connections 16]

One worker each, the same engine and model, uvicorn with uvloop and httptools, every transaction a new one. All services
stand ready; they are loaded in turns, in an order shuffled each round, by a client in this process, which answers each
response with the next request, made before, on the same connection. The medians of the rounds are shown. It wants two
cores for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

from bench.timing import median, show
from featherweight.core.bundled import data_directory

PLAIN = "plain FastAPI and pydantic"
SERVE = "from featherweight.core.cli import main; main()"
START_MS, STEP_MS = 1_522_540_800_000, 400
LENGTH = b"content-length: "
Request = Callable[[], bytes]


class Connection(asyncio.Protocol):
    """Sends a request, takes the time until its answer is whole, sends the next, until there is none."""

    def __init__(self, requests: deque[bytes], seconds: list[float], ended: asyncio.Future[None]) -> None:
        self._requests, self._seconds, self._ended = requests, seconds, ended
        self._waiting = b""
        self._size = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        if not self._size:
            head = self._waiting.find(b"\r\n\r\n")
            if head < 0:
                return
            length = self._waiting.find(LENGTH)
            if length < 0 or not self._waiting.startswith(b"HTTP/1.1 200"):
                self._ended.set_exception(SystemExit(self._waiting.decode()))
                self._transport.abort()
                return
            length += len(LENGTH)
            self._size = head + 4 + int(self._waiting[length : self._waiting.find(b"\r", length)])
        if len(self._waiting) >= self._size:
            self._seconds.append(time.perf_counter() - self._sent)
            self._waiting, self._size = b"", 0
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None) if error is None else self._ended.set_exception(error)

    def _send(self) -> None:
        if self._requests:
            request = self._requests.popleft()
            self._sent = time.perf_counter()
            self._transport.write(request)
        else:
            self._transport.close()


async def load(url: str, requests: deque[bytes], connections: int) -> tuple[float, list[float]]:
    """(requests a second, seconds of each)."""
    loop, address, taken = asyncio.get_running_loop(), urlsplit(url), list[float]()
    ends = [loop.create_future() for _ in range(connections)]
    start = time.perf_counter()
    for end in ends:
        await loop.create_connection(
            lambda end=end: Connection(requests, taken, end),  # type: ignore[misc]
            address.hostname,
            address.port,
        )
    await asyncio.gather(*ends)
    return len(taken) / (time.perf_counter() - start), taken


def transactions(seed: int) -> Iterator[str]:
    """Endless, in the order of time, by 5,000 customers at 10,000 terminals."""
    chance, number = random.Random(seed), 0  # noqa: S311
    while True:
        number += 1
        yield (
            f'{{"transaction_id":"{seed}-{number}","customer_id":"customer-{chance.randrange(5000)}",'
            f'"terminal_id":"terminal-{chance.randrange(10_000)}","time_ms":{START_MS + number * STEP_MS},'
            f'"amount":{chance.randrange(20_000) / 100}}}'
        )


def one_row(rows: Iterator[str]) -> Request:
    return lambda: frame("/v1/score", next(rows))


def many_rows(rows: Iterator[str], count: int) -> Request:
    return lambda: frame("/v1/score/batch", f'{{"transactions":[{",".join(next(rows) for _ in range(count))}]}}')


def frame(path: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


def start(words: Sequence[str]) -> tuple[subprocess.Popen[bytes], str]:
    """A service and its address, once it answers."""
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
        while not (found := re.search(r"serves at (\S+)", Path(log.name).read_text())):
            assert process.poll() is None, Path(log.name).read_text()
            time.sleep(0.05)
    time.sleep(1.0)
    return process, found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=data_directory() / "models" / "card-fraud")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--requests", type=int, default=20_000, help="a round; a sixteenth of it of 64 rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    ours = ["-c", SERVE, "fraud", "serve", "--port", "0", "--model", str(options.model), "--backend", options.backend]
    with tempfile.TemporaryDirectory() as folder:
        started = {
            PLAIN: start(["-m", "bench.plain_service", str(options.model), options.backend]),
            "featherweight, in memory": start(ours),
            "featherweight, state kept on disk": start([*ours, "--state-dir", folder]),
        }
        try:
            urls = {name: url for name, (_, url) in started.items()}
            compare(urls, "one row a request", 1, options)
            compare(urls, "64 rows a request", 64, options)
        finally:
            for process, _ in started.values():
                process.terminate()
                process.wait(60)


def compare(urls: dict[str, str], title: str, size: int, options: argparse.Namespace) -> None:
    chance, count = random.Random(0), options.requests if size == 1 else options.requests // 16  # noqa: S311
    requests = {name: one_row(transactions(n)) for n, name in enumerate(urls)}
    if size > 1:
        requests = {name: many_rows(transactions(100 + n), size) for n, name in enumerate(urls)}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    p50: dict[str, list[float]] = {name: [] for name in urls}
    p99: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(options.rounds):
        for name in chance.sample(list(urls), len(urls)):
            ready = deque(requests[name]() for _ in range(count))
            rate, taken = uvloop.run(load(urls[name], ready, options.connections))
            rates[name].append(rate)
            p50[name].append(float(np.percentile(taken, 50)) * 1000)
            p99[name].append(float(np.percentile(taken, 99)) * 1000)
    base, slow = median(rates[PLAIN]), median(p99[PLAIN])
    rows = [
        [
            name,
            f"{median(rates[name]):,.0f}",
            f"{median(rates[name]) * size:,.0f}",
            f"{median(rates[name]) / base:.2f}x",
            f"{median(p50[name]):.2f}",
            f"{median(p99[name]):.2f}",
            f"{median(p99[name]) / slow:.2f}x",
        ]
        for name in urls
    ]
    heading = f"{title}, {options.connections} connections, {options.rounds} rounds of {count:,} requests"
    show(heading, ["service", "requests/s", "rows/s", "against plain", "p50 ms", "p99 ms", "against plain"], rows)


if __name__ == "__main__":
    main()
