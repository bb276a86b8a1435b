"""A real broker for tests: the one that FEATHERWEIGHT_KAFKA names (HOST:PORT), or Apache Kafka where `make test-tools`
has brought it, or noida-db. Tests use topics of their own, by a prefix drawn at random.

noida-db speaks Kafka's protocol, but loses and doubles records around restarts, answers fetches at once and evicts
nobody: what only Apache Kafka can judge is marked with `needs_kafka`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaError

GIVEN = os.environ.get("FEATHERWEIGHT_KAFKA")
LIBRARIES = Path(__file__).parents[2] / ".tools" / "kafka" / "libs"
HAS_KAFKA = LIBRARIES.with_name(".complete").is_file() and shutil.which("java") is not None
needs_kafka = pytest.mark.skipif(
    GIVEN is None and not HAS_KAFKA, reason="only Apache Kafka can judge this; make test-tools brings it"
)
restarts_kafka = pytest.mark.skipif(
    GIVEN is not None or not HAS_KAFKA,
    reason="needs an Apache Kafka of its own to stop and start; make test-tools brings it",
)
NOIDA = "noida_db"
MEMORY = Path("/dev/shm")  # noqa: S108  (every broker makes a folder of its own in it)
MEMORY_BYTES = 2 << 30
"""What must be free there for a broker's data; a container often has 64 MB."""
JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBRARIES}/*")
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
}


class Broker:
    """A process with its data; `restart` keeps both the port and the data."""

    def __init__(self, data: Path) -> None:
        self.data, self._port = data, _free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def words(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        self._process = subprocess.Popen(self.words(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.address, self._process)

    def stop(self) -> None:
        """In order: it writes its state when it is asked to end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(60)
        self._process = None

    def remove(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(30)
        shutil.rmtree(self.data, ignore_errors=True)


class Kafka(Broker):
    """Apache Kafka, broker and controller in one process. settings: of server.properties, beside those of all."""

    def __init__(self, data: Path, settings: Mapping[str, str]) -> None:
        super().__init__(data)
        controller = f"127.0.0.1:{_free_port()}"
        chosen = {
            **SETTINGS,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(data / "log"),
            **settings,
        }
        self._properties = data / "server.properties"
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
        words = [*JAVA, "kafka.tools.StorageTool", "format", "-t", "A" * 22, "-c", str(self._properties)]
        subprocess.run(words, check=True, capture_output=True)

    def words(self) -> list[str]:
        return [*JAVA, "kafka.Kafka", str(self._properties)]


class Noida(Broker):
    def words(self) -> list[str]:
        # The command of that name is a parent of this one, and signals would reach only the parent.
        found = importlib.util.find_spec(NOIDA)
        assert found is not None, "the extra `dev` brings noida-db"
        assert found.origin is not None
        program = Path(found.origin).with_name("noida-db")
        port = str(self._port)
        return [str(program), "start", "--only", "kafka", "--kafka-port", port, "--data-dir", str(self.data)]


def start_broker(**settings: str) -> Broker:
    """settings: of Apache Kafka's, with _ for a dot; noida-db has none of them."""
    try:
        return _start_broker(settings)
    except (OSError, KafkaError):  # another process may have taken a port that was free a moment ago
        return _start_broker(settings)


def has_room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free > MEMORY_BYTES
    except OSError:
        return False


def _start_broker(settings: Mapping[str, str]) -> Broker:
    data = Path(tempfile.mkdtemp(prefix="featherweight-kafka-", dir=MEMORY if has_room(MEMORY) else None))
    named = {name.replace("_", "."): value for name, value in settings.items()}
    broker: Broker = Kafka(data, named) if HAS_KAFKA else Noida(data)
    try:
        broker.start()
    except BaseException:
        broker.remove()
        raise
    return broker


def wait_for(address: str, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """Until a consumer can be opened, or the process has ended."""
    until = time.monotonic() + seconds
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            KafkaConsumer(bootstrap_servers=address, bootstrap_timeout_ms=2000).close()
        except (OSError, KafkaError):
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
