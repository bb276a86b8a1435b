"""The service in a process of its own, as systemd or a person runs it."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

COMMAND = "from featherweight.core.cli import main; main()"
BACKEND = "onnxruntime"
START_S = 120
"""The first start on a machine compiles."""


@dataclass
class Served:
    """A running service. log: what it says on standard error."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **settings)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def memory_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def said(self) -> str:
        return self.log.read_text()


def start(folder: Path, model: Path, *options: str, prologue: str = "") -> Served:
    """prologue: Python that runs before the command."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"serve-{time.monotonic_ns()}.log"
    words = ["fraud", "serve", "--model", str(model), "--port", "0", "--backend", BACKEND, *options]
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", prologue + COMMAND, *words], stderr=file, stdout=file)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = re.search(r"serves at (\S+)", log.read_text())
        if found:
            wait_until_ready(found[1])
            return Served(process, found[1], log)
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"not ready after {START_S} s: {log.read_text()}")


def wait_until_ready(url: str) -> None:
    for _ in range(500):
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise AssertionError(f"{url} does not answer")


@contextmanager
def serving(folder: Path, model: Path, *options: str, prologue: str = "") -> Iterator[Served]:
    served = start(folder, model, *options, prologue=prologue)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.kill()


def make_transactions(count: int, *, seed: int = 0, customers: int = 20) -> list[dict[str, Any]]:
    """A stream in the order of time, small enough that histories fill."""
    chance, time_ms, rows = random.Random(seed), 1_522_540_800_000, []
    for number in range(count):
        time_ms += chance.randrange(7_200_000)
        rows.append(
            {
                "transaction_id": f"{seed}-{number}",
                "customer_id": f"c{chance.randrange(customers)}",
                "terminal_id": f"t{chance.randrange(2 * customers)}",
                "time_ms": time_ms,
                "amount": round(chance.expovariate(1 / 60), 2),
            }
        )
    return rows


def label_of(transaction: dict[str, Any], *, is_fraud: bool = True) -> dict[str, Any]:
    return {key: value for key, value in transaction.items() if key != "amount"} | {"is_fraud": is_fraud}
