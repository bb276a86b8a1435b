"""The REST service under load, killed, with strangers at the door, with a full disk, with another artifact."""

from __future__ import annotations

import hashlib
import itertools
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import psutil
import pytest

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.http.server import ServerSettings, serve
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.errors import FeatherweightError
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.http.test_http import problem
from tests.fraud.serving import BACKEND, COMMAND, Served, label_of, make_transactions, serving, start

KEY = "correct horse battery staple"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_fraud_model(tmp_path / "model")
    return tmp_path / "model"


def test_killed_again_and_again_it_decides_as_if_undisturbed(model: Path, tmp_path: Path) -> None:
    """Each kill comes while requests are under way; what was not answered is sent again."""
    stream = make_transactions(500, seed=11)
    labels = [label_of(row) for row in stream[:300:7]]
    pipeline = Pipeline(open_scorer(ModelSource(model, BACKEND)))
    expected = []
    for number, row in enumerate(stream):
        if number == 300:
            for label in labels:
                pipeline.apply_label(msgspec.convert(label, Label))
        expected.append(pipeline.process(msgspec.convert(row, Transaction)))

    def send(client: httpx.Client, row: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/v1/score", json=row).raise_for_status().json()
        return answer

    served = start(tmp_path, model, "--state-dir", str(tmp_path / "state"))
    answers: dict[str, dict[str, Any]] = {}
    kills = 0
    for kill_at in (100, 200, 400, 10_000):
        killer = threading.Thread(target=kill_soon, args=(served,)) if kill_at < 10_000 else None
        with served.client() as client:
            try:
                for number, row in enumerate(stream):
                    if number == 300:
                        client.post("/v1/labels", json={"labels": labels}).raise_for_status()
                    if row["transaction_id"] not in answers:
                        if number >= kill_at and killer is not None and not killer.ident:
                            killer.start()
                        answers[row["transaction_id"]] = send(client, row)
            except httpx.TransportError:
                kills += 1
        if killer is not None:
            killer.join()
            served = start(tmp_path, model, "--state-dir", str(tmp_path / "state"))
    assert kills == 3
    found = [answers[row["transaction_id"]] for row in stream]
    # What was counted but not answered when the kill came was answered the second time as seen before.
    assert sum(answer.pop("duplicate", False) for answer in found) <= kills
    assert [msgspec.convert(answer, Decision) for answer in found] == expected
    assert served.stop() == 0
    assert [path.name for path in (tmp_path / "state").glob("snapshot-*/*")]


def kill_soon(served: Served) -> None:
    time.sleep(0.03)
    served.kill()


def test_asked_to_end_it_answers_writes_and_ends_well(model: Path, tmp_path: Path) -> None:
    stream = make_transactions(1, seed=12)
    served = start(tmp_path, model, "--state-dir", str(tmp_path / "state"))
    body = json.dumps(stream[0]).encode()
    with socket.create_connection(("127.0.0.1", urlsplit(served.url).port or 0), timeout=20) as connection:
        head = f"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + body[:20])
        time.sleep(0.2)
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[20:])  # under way when it was asked: answered
        assert b"200 OK" in connection.recv(65536)
    assert served.process.wait(30) == 0
    with serving(tmp_path, model, "--state-dir", str(tmp_path / "state")) as again, again.client() as client:
        assert client.post("/v1/score", json=stream[0]).json()["duplicate"] is True
        # Meanwhile nobody else may have the folder.
        ended = run_serve("--model", str(model), "--state-dir", str(tmp_path / "state"), "--port", "0")
    assert ended.returncode == 2
    assert "another process" in ended.stderr
    assert "Traceback" not in ended.stderr


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", COMMAND, "fraud", "serve", *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_keys_are_asked_for_and_can_change(model: Path, tmp_path: Path) -> None:
    row = make_transactions(1, seed=13)[0]
    keys = tmp_path / "keys"
    keys.write_text(f"# of the shop\n{hashlib.sha256(KEY.encode()).hexdigest()}  shop\n")
    with serving(tmp_path, model, "--api-keys", str(keys)) as served, served.client() as client:
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": KEY}, {"authorization": f"Basic {KEY}"}):
            for method, path in (("POST", "/v1/score"), ("GET", "/metrics")):
                refused = client.request(method, path, headers=given, json=row)
                assert refused.status_code == 401, (given, path)
                assert refused.headers["www-authenticate"] == "Bearer"
                assert refused.headers["content-type"] == "application/problem+json"
        right = {"authorization": f"Bearer {KEY}"}
        assert client.post("/v1/score", headers=right, json=row).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert "key" in client.get("/openapi.json").json()["components"]["securitySchemes"]
        keys.write_text("no digest\n")
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old API keys stay" in served.said)
        assert client.post("/v1/score", headers=right, json=row).status_code == 200
        keys.write_text(hashlib.sha256(b"other").hexdigest() + "\n")
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: client.post("/v1/score", headers=right, json=row).status_code == 401)
        assert KEY not in served.said


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"host": "0.0.0.0"}, "--allow-anonymous"),  # noqa: S104
        ({"host": "203.0.113.1", "allow_anonymous": True}, "cannot be served"),
        ({"host": "a..b", "allow_anonymous": True}, "cannot be served"),
        ({"host": "a" * 70, "allow_anonymous": True}, "cannot be served"),
        ({"keys": Path("/nowhere")}, "the API keys cannot be read"),
        ({"model": ModelSource(Path("/nowhere"))}, "there is no such folder"),
    ],
)
def test_what_cannot_be_served_is_said(changed: dict[str, Any], says: str, model: Path) -> None:
    settings = replace(ServerSettings(model=ModelSource(model, BACKEND), port=0), **changed)
    with pytest.raises(FeatherweightError, match=says):
        serve(settings, lambda *_: pytest.fail("it serves"))


def test_another_artifact_takes_over_under_load(model: Path, tmp_path: Path) -> None:
    """No request fails, each is answered once, and the models do not alternate; a broken one changes nothing."""
    with serving(tmp_path, model) as served:
        ended, answers = threading.Event(), dict[int, list[str]]()
        threads = [threading.Thread(target=keep_asking, args=(served, n, ended, answers)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        write_fraud_model(model, seed=1)
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "decides from now on" in served.said)
        time.sleep(0.2)
        next(model.rglob("*.onnx*")).write_bytes(b"broken")
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "is refused" in served.said)
        time.sleep(0.2)
        shutil.rmtree(model)
        write_fraud_model(model, seed=2)  # without a signal: the folder is watched
        wait_for(lambda: served.said.count("decides from now on") == 2)
        time.sleep(0.2)
        ended.set()
        for thread in threads:
            thread.join()
        with served.client() as client:
            metrics = client.get("/metrics").text
    assert "featherweight_artifact_swaps 2.0" in metrics
    total = sum(map(len, answers.values()))
    assert f'featherweight_http_requests_total{{route="/v1/score",status="200"}} {float(total)}' in metrics
    for models in answers.values():
        assert len([name for name, _ in itertools.groupby(models)]) == 3


def keep_asking(served: Served, number: int, ended: threading.Event, answers: dict[int, list[str]]) -> None:
    models = answers.setdefault(number, [])
    with served.client() as client:
        for row in itertools.cycle(make_transactions(2000, seed=20 + number)):
            if ended.is_set():
                return
            models.append(client.post("/v1/score", json=row).raise_for_status().json()["model"])


def test_more_connections_than_it_takes_are_turned_away(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, model, "--max-connections", "20") as served:
        body = json.dumps({"transactions": make_transactions(200, seed=14)}).encode()
        head = (
            b"POST /v1/score/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        request = head % len(body) + body
        before = served.memory_bytes()
        statuses: list[bytes] = []
        for _ in range(3):
            connections = [connect(served) for _ in range(60)]
            with_answers = [ask(connection, request) for connection in connections]
            statuses += [answer.split(b"\r\n")[0] for answer in with_answers]
            for answer in with_answers:
                if b" 503 " in answer[:20]:
                    assert b"retry-after: 1" in answer
                    assert b"application/problem+json" in answer
            for connection in connections:
                connection.close()
            wait_for(lambda: is_served(served))
        assert statuses.count(b"HTTP/1.1 200 OK") >= 3 * 19
        assert statuses.count(b"HTTP/1.1 503 Service Unavailable") >= 3 * 10
        assert served.memory_bytes() - before < 40 << 20


def connect(served: Served) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=20)


def ask(connection: socket.socket, request: bytes) -> bytes:
    """The first part of the answer; empty where the connection was simply closed."""
    try:
        connection.sendall(request)
        return connection.recv(65536)
    except ConnectionError:
        return b""


def is_served(served: Served) -> bool:
    try:
        return httpx.get(f"{served.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_it_sheds_load_and_goes_on(model: Path, tmp_path: Path) -> None:
    """More rows than it can decide: 503 for some, an answer for each, memory bounded."""
    with serving(tmp_path, model) as served:
        batch = {"transactions": make_transactions(1000, seed=15)}
        before, statuses = served.memory_bytes(), list[int]()

        def push() -> None:
            with served.client() as client:
                response = client.post("/v1/score/batch", json=batch)
                statuses.append(response.status_code)
                if response.status_code == 503:
                    assert response.headers["retry-after"] == "1"
                    assert response.json()["type"].endswith("overloaded")

        threads = [threading.Thread(target=push) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(statuses) == 40
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert served.memory_bytes() - before < 150 << 20
        assert is_served(served)


def test_the_slow_and_the_endless_are_cut_off(model: Path, tmp_path: Path) -> None:
    prologue = "import featherweight.apps.fraud.http.connection as connection; connection.RECEIVE_S = 0.5\n"
    with serving(tmp_path, model, prologue=prologue) as served:
        silent, slow_head, slow_body, endless = connections = [connect(served) for _ in range(4)]
        slow_head.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\n")
        body = b"content-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        slow_body.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\n" + body)
        answer = ask(endless, b"GET /healthz HTTP/1.1\r\nx-long: " + b"a" * 300_000)
        assert answer.startswith(b"HTTP/1.1 431")
        for connection in (silent, slow_head, slow_body):
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
            assert connection.recv(65536) == b""
        assert is_served(served)
        for connection in connections:
            connection.close()


def test_what_begins_while_another_one_is_answered_has_its_time_from_the_answer_on(model: Path, tmp_path: Path) -> None:
    prologue = SLOW_BATCHES + "c.RECEIVE_S = 2.0\n"
    with serving(tmp_path, model, prologue=prologue) as served, connect(served) as connection:
        head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        row = json.dumps(make_transactions(1)[0]).encode()
        batch = b'{"transactions":[%b]}' % row
        connection.sendall(head % (b"/v1/score/batch", len(batch)) + batch + head % (b"/v1/score", len(row)) + row[:9])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")  # after three seconds
        time.sleep(1.2)  # there is a sweep meanwhile
        connection.sendall(row[9:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"POST ")  # and no longer than that
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


SLOW_BATCHES = """
import asyncio
import featherweight.apps.fraud.http.connection as c
from featherweight.apps.fraud.http.service import Service
score_batch = Service.score_batch
async def wait_and_score(*given):
    await asyncio.sleep(3)
    return await score_batch(*given)
Service.score_batch = wait_and_score
"""


def test_who_has_said_all_and_never_reads_is_ended(model: Path, tmp_path: Path) -> None:
    """Also where all is answered, and the answers wait for being sent."""
    ask_document = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    count = 1000
    with serving(tmp_path, model, prologue=PATIENT) as served, socket.socket() as connection, served.client() as other:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = urlsplit(served.url)
        connection.connect((address.hostname or "", address.port or 0))
        connection.sendall(ask_document * count)
        said = f'featherweight_http_requests_total{{route="/openapi.json",status="200"}} {float(count)}'
        wait_for(lambda: said in other.get("/metrics").text)
        process, port = psutil.Process(served.process.pid), connection.getsockname()[1]

        def is_held() -> bool:
            return any(found.raddr and found.raddr[1] == port for found in process.net_connections("tcp"))

        assert is_held()
        connection.shutdown(socket.SHUT_WR)
        wait_for(lambda: not is_held())


PATIENT = """
import featherweight.apps.fraud.http.connection as c
c.SEND_S = 1.0
connection_made = c.Connection.connection_made
def keep_all(self, transport):
    transport.set_write_buffer_limits(high=1 << 30)
    connection_made(self, transport)
c.Connection.connection_made = keep_all
"""


def test_an_endpoint_that_fails_is_answered_logged_counted_and_holds_nothing(model: Path, tmp_path: Path) -> None:
    row = make_transactions(1)[0]
    bodies = {
        "/v1/score": row,
        "/v1/score/batch": {"transactions": [row]},
        "/v1/labels": {"labels": [label_of(row)]},
    }
    with serving(tmp_path, model, prologue=FAILING) as served, served.client() as client:
        for _ in range(10):  # more bytes than may be held together
            for number, (path, body) in enumerate(bodies.items()):
                answer = client.post(path, json=body, headers={"x-request-id": f"bug-{number}"})
                assert answer.status_code == 500
                assert problem(answer)["type"].endswith("internal")
                assert "a secret" not in answer.text
        metrics = client.get("/metrics").text
        for number, path in enumerate(bodies):
            assert f'featherweight_http_requests_total{{route="{path}",status="500"}} 10.0' in metrics
            assert served.said.count(f"request bug-{number} failed") == 10


FAILING = """
import asyncio
import featherweight.apps.fraud.http.app as app
from featherweight.apps.fraud.http.service import Service
app.HELD_BYTES = 1000
def fail(*_):
    raise ValueError("a secret")
async def fail_later(*_):
    await asyncio.sleep(0)
    fail()
Service.score, Service.score_batch, Service.apply_labels = fail, fail_later, fail
"""


def test_trailers_are_bounded(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, model) as served, connect(served) as endless, connect(served) as extended:
        head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        chunked = head + b"transfer-encoding: chunked\r\n\r\n1"
        assert ask(endless, chunked + b"\r\n{\r\n0\r\nx: " + b"a" * 1_000_000).startswith(b"HTTP/1.1 431")
        assert ask(extended, chunked + b";x=" + b"a" * 1_000_000).startswith(b"HTTP/1.1 431")


def test_what_came_whole_is_answered_before_what_does_not_end(model: Path, tmp_path: Path) -> None:
    body = json.dumps(make_transactions(1)[0]).encode()
    head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with serving(tmp_path, model) as served, connect(served) as connection:
        answer = ask(connection, head % len(body) + body + b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert is_served(served)
        assert "Traceback" not in served.said


def test_a_disk_that_is_full_stops_counting_and_says_so(model: Path, tmp_path: Path) -> None:
    stream = make_transactions(30, seed=16)
    state = tmp_path / "state"
    with serving(tmp_path, model, "--state-dir", str(state)) as served, served.client() as client:
        for row in stream[:10]:
            client.post("/v1/score", json=row).raise_for_status()
        journal = next(state.glob("journal-*"))
        whole = journal.read_bytes()
        unlimited = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (len(whole) + 10, unlimited[1]))
        for path, body in (("/v1/score", stream[10]), ("/v1/score/batch", {"transactions": stream[10:20]})):
            refused = client.post(path, json=body)
            assert refused.status_code == 503
            assert refused.json()["type"].endswith("state-unavailable")
            assert journal.read_bytes() == whole
        assert client.get("/readyz").status_code == 503
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, unlimited)
        answer = client.post("/v1/score", json=stream[10]).raise_for_status().json()
        assert "duplicate" not in answer, "what was refused was not counted"
        assert client.get("/readyz").status_code == 200
        assert "Traceback" not in served.said
