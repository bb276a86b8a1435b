"""A real Kafka broker for tests: noida-db on a free port with a data folder in memory, or the one that
FEATHERWEIGHT_KAFKA names (HOST:PORT). Tests use topics of their own, by a prefix drawn at random."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from kafka import KafkaConsumer
from kafka.errors import KafkaError

GIVEN = os.environ.get("FEATHERWEIGHT_KAFKA")
NOIDA = "noida_db"


class Broker:
    """A process with its data; `restart` keeps both the port and the data."""

    def __init__(self, data: Path) -> None:
        self._data, self._port = data, _free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # The command of that name is a parent of this one, and signals would reach only the parent.
        found = importlib.util.find_spec(NOIDA)
        assert found is not None, "the extra `dev` brings noida-db"
        assert found.origin is not None
        words = [
            Path(found.origin).with_name("noida-db"),
            "start",
            "--only",
            "kafka",
            "--kafka-port",
            str(self._port),
            "--data-dir",
            self._data,
        ]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.address)

    def stop(self) -> None:
        """It writes its state when it is asked to end, so that is how it ends here."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        self._process = None

    def remove(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        shutil.rmtree(self._data, ignore_errors=True)


def start_broker() -> Broker:
    memory = Path("/dev/shm")  # noqa: S108  (a folder of its own is made in it)
    broker = Broker(Path(tempfile.mkdtemp(prefix="featherweight-kafka-", dir=memory if memory.is_dir() else None)))
    broker.start()
    return broker


def wait_for(address: str, seconds: float = 20.0) -> None:
    """Until a consumer can be opened."""
    until = time.monotonic() + seconds
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            KafkaConsumer(bootstrap_servers=address, bootstrap_timeout_ms=2000).close()
        except (OSError, KafkaError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
