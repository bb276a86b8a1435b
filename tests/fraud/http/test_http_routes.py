"""The application as FastAPI's: its own endpoints by ASGI, and ordinary routes added to it, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.core.result import Ok

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.http.app import Api
from featherweight.apps.fraud.http.asgi import check_fields
from featherweight.apps.fraud.http.forms import encode
from featherweight.apps.fraud.http.service import Service
from featherweight.apps.fraud.plausible import AHEAD_MS, END_MS
from featherweight.core.serving import ModelSource
from tests.fraud import added_routes
from tests.fraud.http.test_http import problem
from tests.fraud.http.test_http_faults import KEY, wait_for
from tests.fraud.http.test_http_protocol import JAVA, connect, fresh, post, read_answers, talk
from tests.fraud.serving import BACKEND, Served, label_of, make_transactions, serving

PROLOGUE = (
    added_routes.PROLOGUE.format(function="add_routes")
    + "import featherweight.apps.fraud.http.connection as c; c.SEND_S = 2\n"
)
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), model, prologue=PROLOGUE) as running:
        yield running


@pytest.fixture
def app(model: Path) -> Iterator[Api]:
    """Its clock is one at which the document's latest time is believed: no schema knows what time it is."""
    live = LiveModel(ModelSource(model, BACKEND))
    service = Service(live, None, now_ms=lambda: END_MS - AHEAD_MS)
    yield Api(service)
    service.close()


def test_an_ordinary_route_is_told_what_was_asked(client: httpx.Client) -> None:
    headers = [("cookie", "a=1"), ("cookie", "b=2"), ("x-request-id", "note-1")]
    answer = client.get("/v1/notes/d%C3%A9j%C3%A0%20vu?limit=3", headers=headers)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["name"], told["limit"], told["cookies"]) == ("déjà vu", 3, ["a=1", "b=2"])
    assert told["ip"][0] == "127.0.0.1"
    assert answer.headers["x-request-id"] == "note-1"
    assert answer.headers["content-type"] == "application/json"
    assert "date" in answer.headers
    assert client.put("/v1/notes/n", json={"text": "good", "stars": 5}).json() == {"text": "good", "stars": 5}
    assert client.get("/v1/labels").json() == ["one"], "beside a POST that is answered without FastAPI"


def test_an_answer_without_a_body_has_none(client: httpx.Client) -> None:
    head, get = client.head("/v1/notes/n"), client.get("/v1/notes/n")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(get.content))
    deleted = client.delete("/v1/notes/n")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "content-length" not in deleted.headers


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/labels", "/teapot", "/nothing"]
)
def test_head_is_answered_as_get_without_the_body(path: str, client: httpx.Client, served: Served) -> None:
    """Also on routes that were added for GET alone."""
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # which counts on
        assert head.headers["content-length"] == get.headers["content-length"]
    question = f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(question.encode())
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.count(b"HTTP/1.1 ") == 2
    assert received.split(b"\r\n\r\n", 1)[1].startswith(b"HTTP/1.1 200"), "nothing stands between the two answers"


def test_head_of_what_is_only_posted_is_refused(client: httpx.Client) -> None:
    refused = client.head("/v1/score")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert client.post("/healthz").headers["allow"] == "GET, HEAD"
    counted_before = counted(client)["/healthz", "200"]
    client.head("/healthz")
    assert counted(client)["/healthz", "200"] == counted_before + 1


def test_what_a_route_refuses_is_a_problem(client: httpx.Client) -> None:
    assert problem(client.get("/nothing"))["type"].endswith("not-found")
    wrong_method = client.patch("/v1/notes/n")
    assert wrong_method.status_code == 405
    assert set(wrong_method.headers["allow"].split(", ")) <= {"GET", "HEAD", "PUT", "DELETE"}
    problem(wrong_method)
    details = problem(client.put("/v1/notes/n", json={"stars": 9}))
    assert {error["pointer"] for error in details["errors"]} == {"#/text", "#/stars"}
    assert "limit" in problem(client.get("/v1/notes/n?limit=0"))["detail"]
    broken = client.put("/v1/notes/n", content=b"{", headers={"content-type": "application/json"})
    assert problem(broken)["status"] == 400
    teapot = client.get("/teapot")
    assert (teapot.status_code, teapot.headers["x-pot"]) == (418, "tea")
    assert teapot.json()["detail"] == "no coffee"
    assert teapot.json()["title"] == "I'm a Teapot"


@pytest.mark.parametrize("path", ["/fails", "/large", "/split"])
def test_a_route_that_fails_is_logged_and_not_told(path: str, client: httpx.Client, served: Served) -> None:
    answer = client.get(path, headers={"x-request-id": f"n{path[1:]}"})
    assert answer.status_code == 500
    assert problem(answer)["type"].endswith("internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "set-cookie" not in answer.headers
    assert served.said.count(f"request n{path[1:]} failed") == 1
    assert client.get("/v1/notes/n").status_code == 200


def test_bodies_come_whole_whatever_they_are(served: Served, client: httpx.Client) -> None:
    body = b"\x00\xff" * 50_000
    assert client.post("/echo", content=body, headers={"content-type": "image/png"}).content == body
    chunks = client.post("/echo", content=iter([body] * 5), headers={"content-type": "image/png"})
    assert chunks.content == body * 5
    assert client.post("/echo", content=b" " * ((1 << 20) + 1)).status_code == 413
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
    upgraded, asked = talk(served, post(b"whole", JAVA, head), b"GET /v1/notes/n HTTP/1.1\r\nHost: x\r\n\r\n", count=2)
    assert (upgraded.body, asked.status) == (b"whole", 200)


def test_a_trailer_is_no_header(served: Served) -> None:
    """Else it would pass by what a proxy has looked at."""
    head = b"POST /headers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"1\r\na\r\n0\r\nX-Admin: yes\r\nAuthorization: Bearer x\r\n\r\n"
    for parts in ((whole,), (whole[: len(head) + 10], whole[len(head) + 10 :])):
        (answer,) = talk(served, *parts, count=1)
        assert json.loads(answer.body) == ["host", "transfer-encoding", "x-request-id"]


def test_ordinary_and_own_ones_are_answered_in_their_order(served: Served) -> None:
    """Also after the client has said all."""
    requests = []
    for number in range(12):
        head, body = b"POST /echo HTTP/1.1\r\nHost: x\r\n", b"echo"
        if number % 2:
            head, body = (
                b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
                fresh(f"m{number}"),
            )
        requests.append(post(body, b"X-Request-ID: n%d\r\n" % number, head))
    with connect(served) as connection:
        connection.sendall(b"".join(requests))
        connection.shutdown(socket.SHUT_WR)
        answers = read_answers(connection)
    assert [answer.headers["x-request-id"] for answer in answers] == [f"n{number}" for number in range(12)]
    assert {answer.status for answer in answers} == {200}


def test_background_tasks_hold_no_answer_back(client: httpx.Client, served: Served) -> None:
    assert client.post("/later").json() == "first"
    assert "the background task" not in served.said
    assert client.post("/now").json() == "second"
    wait_for(lambda: "the background task has ended" in served.said)


@pytest.mark.parametrize("abruptly", [True, False])
def test_a_route_learns_that_its_client_has_left(abruptly: bool, served: Served) -> None:
    """One that only says that it has said all may still listen, and is believed to for a while."""
    begun, ended = (served.said.count(f"the endless route has {word}") for word in ("begun", "ended"))
    with connect(served) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: served.said.count("the endless route has begun") > begun)
        if abruptly:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: served.said.count("the endless route has ended") > ended)


def test_added_routes_are_documented_and_counted(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/score", "/healthz", "/v1/notes/{name}"} <= set(document["paths"])
    assert set(document["paths"]["/v1/labels"]) == {"get", "post"}
    assert {"Note", "ScoreRequest"} <= set(document["components"]["schemas"])
    before = counted(client)
    client.get("/v1/notes/a")
    client.get("/v1/notes/b")
    client.get("/nowhere")
    after = counted(client)
    assert after["/v1/notes/{name}", "200"] - before["/v1/notes/{name}", "200"] == 2
    assert after["other", "404"] - before["other", "404"] == 1


def counted(client: httpx.Client) -> Counter[tuple[str, str]]:
    """(route, status) -> answers; 0 for what was not asked yet, which the metrics do not list."""
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    samples = families["featherweight_http_requests"].samples
    return Counter({(sample.labels["route"], sample.labels["status"]): int(sample.value) for sample in samples})


def test_nothing_is_sent_to_where_the_environment_says(served: Served, client: httpx.Client) -> None:
    """FastAPI would, or say that it cannot."""
    assert client.get("/v1/notes/n").status_code == 200
    assert "telemetry configuration" not in served.said


def test_where_there_are_keys_an_added_route_asks_for_one_and_middleware_sees_all(model: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(DIGEST + "\n")
    prologue = added_routes.PROLOGUE.format(function="add_middleware")
    options = ("--api-keys", str(tmp_path / "keys"))
    with serving(tmp_path, model, *options, prologue=prologue) as served, served.client() as client:
        assert client.get("/v1/open").json() == "told"
        for path in ("/v1/closed", "/nothing", "/v1/score", "/metrics"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        client.headers["authorization"] = f"Bearer {KEY}"
        closed = client.get("/v1/closed")
        assert (closed.json(), closed.headers["x-marked"]) == ("told", "yes")
        scored = client.post("/v1/score", json=make_transactions(1)[0])
        assert (scored.status_code, scored.headers["x-marked"]) == (200, "yes")
        paths = client.get("/openapi.json").json()["paths"]
        assert paths["/v1/closed"]["get"]["security"] == [{"key": []}]
        assert "security" not in paths["/v1/open"]["get"]


def test_strangers_without_a_key_hold_no_room_for_bodies(model: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(DIGEST + "\n")
    prologue = "import featherweight.apps.fraud.http.app as app; app.HELD_BYTES = 10_000\n"
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12000\r\n\r\n"
    options = ("--api-keys", str(tmp_path / "keys"))
    with serving(tmp_path, model, *options, prologue=prologue) as served, connect(served) as stranger:
        stranger.sendall(head + b" " * 9_950)
        key = b"Authorization: Bearer %b\r\n" % KEY.encode()
        (answer,) = talk(served, post(fresh("room"), key), count=1)
        assert answer.status == 200


def test_asked_to_end_it_waits_for_ordinary_routes(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, model, prologue=PROLOGUE) as served:
        with connect(served) as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: "the slow route has begun" in served.said)
            served.process.send_signal(signal.SIGTERM)
            (answer,) = read_answers(connection)
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b'"done"', "close")
        assert served.process.wait(30) == 0


def test_asked_to_end_before_it_has_begun_it_ends_well(model: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from featherweight.apps.fraud.http.server import ServerSettings, serve
from featherweight.core.serving import ModelSource
source = ModelSource(Path({str(model)!r}), {BACKEND!r})
settings = ServerSettings(source, port=0, state=Path({str(tmp_path / "state")!r}))
serve(settings, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    assert list((tmp_path / "state").glob("snapshot-*/*"))


def ask_app(app: Api, method: str, path: str, **more: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def test_every_endpoint_answers_by_asgi_as_over_its_own_connection(app: Api, client: httpx.Client) -> None:
    rows = [
        row | {"customer_id": f"asgi-{row['customer_id']}", "terminal_id": f"asgi-{row['terminal_id']}"}
        for row in make_transactions(70, seed=31)
    ]
    questions: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/score", {"json": rows[0]}),
        ("POST", "/v1/score", {"json": rows[0]}),
        ("POST", "/v1/score/batch", {"json": {"transactions": rows[1:]}}),
        ("POST", "/v1/labels", {"json": {"labels": [label_of(rows[0])]}}),
        ("GET", "/healthz", {}),
        ("HEAD", "/healthz", {}),
        ("HEAD", "/v1/score", {}),
        ("GET", "/readyz", {}),
        ("POST", "/v1/score", {"json": rows[0] | {"amount": -1}}),
        ("POST", "/v1/score", {"content": json.dumps(rows[0])}),
        ("POST", "/v1/score", {"json": rows[0], "headers": {"x-deadline-ms": "0"}}),
        ("POST", "/v1/score", {"json": rows[0], "headers": {"x-deadline-ms": "0.001"}}),
        ("POST", "/v1/score", {"json": rows[0], "headers": {"content-encoding": "br"}}),
        ("POST", "/v1/score", {"json": rows[0], "headers": [("x-request-id", "a"), ("x-request-id", "b")]}),
        ("POST", "/v1/score", {"content": b" " * (1 << 21), "headers": {"content-type": "application/json"}}),
        ("PUT", "/v1/score", {"json": rows[0]}),
        ("GET", "/healthz/", {}),
    ]
    for method, path, more in questions:
        by_asgi, by_socket = ask_app(app, method, path, **more), client.request(method, path, **more)
        assert by_asgi.status_code == by_socket.status_code, (method, path, more)
        without_id = [re.sub(r'"request_id":"[^"]*"', "", answer.text) for answer in (by_asgi, by_socket)]
        assert without_id[0] == without_id[1]
        kept = [{k: v for k, v in a.headers.items() if k not in IGNORED} for a in (by_asgi, by_socket)]
        assert kept[0] == kept[1]
    metrics = ask_app(app, "GET", "/metrics")
    assert re.search(r'http_requests_total\{route="/v1/score",status="200"\} 3', metrics.text)
    assert app.held_bytes == 0


IGNORED = frozenset({"date", "connection", "x-request-id", "content-length"})


def test_the_document_is_as_fastapi_gives_it_and_rendered_once(app: Api) -> None:
    first = ask_app(app, "GET", "/openapi.json")
    assert first.content == encode(app.openapi())
    rendered = app._rendered
    assert ask_app(app, "GET", "/openapi.json").content == first.content
    assert app._rendered is rendered
    app.get("/v1/late")(lambda: "late")
    assert "/v1/late" in ask_app(app, "GET", "/openapi.json").json()["paths"]


def with_integers(body: Any) -> Any:
    """1.0 is an integer to JSON Schema, but not to us."""
    if isinstance(body, dict):
        return {key: with_integers(value) for key, value in body.items()}
    if isinstance(body, list):
        return [with_integers(value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() and abs(body) < 1 << 53 else body


def test_schemathesis_finds_nothing_in_the_application(app: Api) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def check(case: Any) -> None:
            case.body = with_integers(case.body)
            case.call_and_validate()

        check()


@pytest.mark.parametrize("field", [(b"x y", b"a"), (b"", b"a"), (b"x:", b"a"), (b"x", b"a\nb"), (b"x", b"a\0")])
def test_a_header_of_a_route_cannot_end_the_head(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="characters"):
        check_fields([field])
    assert check_fields([(b"X-A", b"b\tc"), (b"Connection", b"close")]) == [(b"x-a", b"b\tc")]
