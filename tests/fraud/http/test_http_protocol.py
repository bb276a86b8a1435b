"""HTTP/1.1 spoken badly, by strangers and by proxies: what is refused, ignored, bounded, and still answered."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
import pytest

from tests.fraud.serving import Served, label_of, make_transactions, serving

HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\nUpgrade: h2c\r\n"


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), model) as running:
        yield running
        assert "Traceback" not in running.said


def connect(served: Served) -> socket.socket:
    address = urlsplit(served.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def talk(served: Served, *parts: bytes, count: int | None = None) -> list[Answered]:
    """Each part in a segment of its own. Reads `count` answers, or all until the service closes."""
    with connect(served) as connection:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.1)
            connection.sendall(part)
        return read_answers(connection, count)


def read_answers(connection: socket.socket, count: int | None = None) -> list[Answered]:
    answers: list[Answered] = []
    with connection.makefile("rb") as stream:
        while count is None or len(answers) < count:
            first = stream.readline()
            if not first:
                break
            lines = list(iter(stream.readline, b"\r\n"))
            headers = dict(line.decode().strip().split(": ", 1) for line in lines)
            body = stream.read(int(headers["content-length"]))
            answers.append(Answered(int(first.split()[1]), headers, body))
    return answers


def fresh(name: str) -> bytes:
    return json.dumps(make_transactions(1)[0] | {"transaction_id": name, "customer_id": name}).encode()


def post(body: bytes, more: bytes = b"", head: bytes = HEAD) -> bytes:
    return head + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def is_known(served: Served, name: str) -> bool:
    """Whether it was counted. Asked by a label, which counts nothing itself."""
    label = label_of(json.loads(fresh(name)))
    body = json.dumps({"labels": [label]}).encode()
    (answer,) = talk(served, post(body, head=HEAD.replace(b"score", b"labels")), count=1)
    return bool(json.loads(answer.body)["learned"])


@pytest.mark.parametrize("upgrade", [JAVA, b"Connection: upgrade\r\nUpgrade: websocket\r\n"], ids=["h2c", "websocket"])
@pytest.mark.parametrize("size", [1, 100], ids=["score", "batch"])
@pytest.mark.parametrize("cut", ["one segment", "head and body", "amid the head"])
def test_an_upgrade_is_ignored_and_the_body_read(upgrade: bytes, size: int, cut: str, served: Served) -> None:
    body, head = fresh(f"{upgrade[:20]!r}{size}{cut}"), HEAD
    if size > 1:
        body, head = b'{"transactions":[%s]}' % body, HEAD.replace(b"score", b"score/batch")
    request = post(body, upgrade, head)
    at = {"one segment": len(request), "head and body": len(request) - len(body), "amid the head": 150}[cut]
    after = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = talk(served, *filter(None, (request[:at], request[at:] + after)), count=2)
    assert [answer.status for answer in answers] == [200, 200]
    assert b'"outcome"' in answers[0].body
    assert b'"status":"ok"' in answers[1].body


@pytest.mark.parametrize("segments", [1, 2])
def test_a_body_behind_an_upgrade_is_no_request(segments: int, served: Served) -> None:
    """Else whoever may fill in a field could ask with the key of the proxy before us."""
    hidden = post(fresh(f"hidden{segments}"))
    request = post(hidden, JAVA)
    parts = [request] if segments == 1 else [request[: -len(hidden)], hidden]
    (answer,) = talk(served, *parts, count=1)
    assert answer.status == 400
    assert not is_known(served, f"hidden{segments}")


def test_an_upgrade_with_a_chunked_body(served: Served) -> None:
    body = fresh("chunked")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    (answer,) = talk(served, HEAD + JAVA + b"Transfer-Encoding: chunked\r\n\r\n", chunks, count=1)
    assert answer.status == 200


def test_a_tunnel_is_refused_and_nothing_in_it_is_read(served: Served) -> None:
    tunnel = b"CONNECT other:443 HTTP/1.1\r\nHost: other\r\n\r\n"
    answers = talk(served, tunnel + post(fresh("tunnel")))
    assert [answer.status for answer in answers] == [405]
    assert not is_known(served, "tunnel")


JAVA_CLIENT = """
import java.net.URI; import java.net.http.*;
public class Client {
  public static void main(String[] words) throws Exception {
    for (var version : new HttpClient.Version[]{HttpClient.Version.HTTP_2, HttpClient.Version.HTTP_1_1}) {
      var client = HttpClient.newBuilder().version(version).build();
      for (int i = 0; i < 3; i++) {
        var body = "{\\"transaction_id\\": \\"" + version + i + "\\", \\"customer_id\\": \\"java\\", "
            + "\\"terminal_id\\": \\"t\\", \\"time_ms\\": 1522540831000, \\"amount\\": 57.16}";
        var request = HttpRequest.newBuilder(URI.create(words[0] + "/v1/score"))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
      }
    }
  }
}
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="no java here")
def test_the_default_client_of_java(served: Served, tmp_path: Path) -> None:
    (tmp_path / "Client.java").write_text(JAVA_CLIENT)
    words = ["java", "-Xmx256m", str(tmp_path / "Client.java"), served.url]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.split() == ["200"] * 6, ended.stdout + ended.stderr


BODY = fresh("never")
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
AMBIGUOUS: dict[str, tuple[int, bytes]] = {
    "two hosts": (400, HEAD + b"Host: y\r\n" + LENGTH + b"\r\n"),
    "the same host twice": (400, HEAD + b"Host: x\r\n" + LENGTH + b"\r\n"),
    "no host": (400, HEAD.replace(b"Host: x\r\n", b"") + LENGTH + b"\r\n"),
    "two keys": (400, HEAD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n" + LENGTH + b"\r\n"),
    "two types": (400, HEAD + b"Content-Type: text/plain\r\n" + LENGTH + b"\r\n"),
    "two deadlines": (400, HEAD + b"X-Deadline-Ms: 5\r\nx-deadline-ms: 50\r\n" + LENGTH + b"\r\n"),
    "two ids": (400, HEAD + b"X-Request-ID: a\r\nX-Request-ID: b\r\n" + LENGTH + b"\r\n"),
    "two lengths": (400, HEAD + LENGTH + LENGTH + b"\r\n"),
    "a list of lengths": (400, HEAD + b"Content-Length: 5, 5\r\n\r\n"),
    "a signed length": (400, HEAD + b"Content-Length: +5\r\n\r\n"),
    "length and chunks": (400, HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n"),
    "chunks and length": (400, HEAD + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n"),
    "two codings": (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "gzip, then chunks": (400, HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks, then gzip": (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "identity, then chunks": (400, HEAD + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks, then identity": (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
    "packed chunks": (415, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "unknown coding": (415, HEAD + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "chunks in HTTP/1.0": (415, HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n"),
    "a folded header": (400, HEAD + b"X: a\r\n b\r\n" + LENGTH + b"\r\n"),
    "bare line feeds": (400, (HEAD + LENGTH + b"\r\n").replace(b"\r\n", b"\n")),
    "one bare line feed": (400, HEAD + b"X: a\nY: b\r\n" + LENGTH + b"\r\n"),
    "a bare return": (400, HEAD + b"X: a\rY: b\r\n" + LENGTH + b"\r\n"),
    "a space before the colon": (400, HEAD + b"Content-Length : %d\r\n\r\n" % len(BODY)),
    "a zero byte": (400, HEAD + b"X: a\0b\r\n" + LENGTH + b"\r\n"),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /healthz HTTP/0.9\r\n\r\n"),
    "no method": (400, b"GARBAGE\r\n\r\n"),
    "no target": (400, b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize(("status", "request_"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_a_proxy_could_read_differently_is_refused_and_ends_the_connection(
    status: int, request_: bytes, served: Served
) -> None:
    """And good requests before it, in the same segment, are answered: they count."""
    answers = talk(served, post(fresh(f"before {request_!r}"[:60])) + request_ + BODY + post(BODY))
    assert [answer.status for answer in answers] == [200, status]
    assert answers[-1].headers["connection"] == "close"
    details = json.loads(answers[-1].body)
    assert details["status"] == status
    assert details["request_id"] == answers[-1].headers["x-request-id"]
    assert not is_known(served, "never"), "what follows was read as a request"


@pytest.mark.parametrize("first", [b"gzip", b"identity"])
def test_two_codings_are_refused_though_the_chunks_are_sound(first: bytes, served: Served) -> None:
    codings = b"Transfer-Encoding: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % first
    (answer,) = talk(served, HEAD + codings + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), count=1)
    assert (answer.status, answer.headers["connection"]) == (400, "close")


@pytest.mark.parametrize("path", ["/metrics/", "/v1/score/", "//v1/score", "/healthz/", "/%2e%2e/healthz", "/v1"])
def test_nothing_redirects(path: str, served: Served) -> None:
    (answer,) = talk(served, b"GET %b HTTP/1.1\r\nHost: evil.example\r\n\r\n" % path.encode(), count=1)
    assert answer.status == 404
    assert "location" not in answer.headers
    assert b"evil" not in answer.body


def test_targets_that_mean_the_same(served: Served) -> None:
    for target in (b"/healthz?x=1", b"/h%65althz", b"http://other/healthz"):
        (answer,) = talk(served, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target, count=1)
        assert answer.status == 200, target


def test_http_1_0_is_answered_and_closed(served: Served) -> None:
    request = post(fresh("old"), head=b"POST /v1/score HTTP/1.0\r\nContent-Type: application/json\r\n")
    (answer,) = talk(served, request.replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1))
    assert (answer.status, answer.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("path", [b"/v1/score", b"/v1/score/batch"])
def test_who_has_said_all_gets_its_answers(path: bytes, served: Served) -> None:
    rows = b",".join(fresh(f"half{number}{path!r}") for number in range(300))
    body = fresh("half" + path.decode()) if path == b"/v1/score" else b'{"transactions":[%b]}' % rows
    with connect(served) as connection:
        connection.sendall(post(body, head=HEAD.replace(b"/v1/score", path)) * 2)
        connection.shutdown(socket.SHUT_WR)
        answers = read_answers(connection)
    assert [answer.status for answer in answers] == [200, 200]


def test_who_leaves_amid_a_request_is_not_counted(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall(post(fresh("half said"))[:-5])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert not is_known(served, "half said")


def test_heads_are_bounded_to_the_byte(served: Served) -> None:
    """Also where the body comes in the same segment."""
    body = fresh("head")
    whole = len(post(body, b"X: \r\n")) - len(body)
    for size, status in ((65_536, 200), (65_537, 431), (70_000, 431)):
        request = post(body, b"X: %b\r\n" % (b"a" * (size - whole)))
        assert len(request) == size + len(body)
        for parts in ([request], [request[:40_000], request[40_000:]], [post(fresh("h")) + request]):
            answers = talk(served, *parts, count=1 if len(parts) > 1 or parts[0] is request else 2)
            assert answers[-1].status == status, (size, len(parts))


def test_a_body_is_taken_as_it_is(served: Served) -> None:
    plain = fresh("coded")
    for more, body in ((b"gzip", gzip.compress(plain)), (b"deflate", plain), (b"GZIP, identity", plain)):
        (answer,) = talk(served, post(body, b"Content-Encoding: %b\r\n" % more), count=1)
        details = json.loads(answer.body)
        assert (answer.status, details["header"]) == (415, "Content-Encoding")
        assert answer.headers["accept-encoding"] == "identity"
    for kind, status in (
        (b"application/json; charset=utf-8", 200),
        (b'application/json;charset="UTF-8"', 200),
        (b"application/json; charset=utf-16", 415),
        (b"application/json; charset=iso-8859-1", 415),
        (b"application/jsonp", 415),
        (b"application/problem+json", 415),
    ):
        head = HEAD.replace(b"application/json", kind)
        (answer,) = talk(served, post(plain, b"Content-Encoding: identity\r\n", head), count=1)
        assert answer.status == status, kind


def test_who_waits_for_permission_gets_it_or_the_answer(served: Served) -> None:
    body = fresh("expects")
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(body)
    with connect(served) as connection:
        connection.sendall(head + b"\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answers(connection, 1)[0].status == 200
    (answer,) = talk(served, head + b"Content-Encoding: gzip\r\n\r\n")
    assert answer.status == 415


def test_what_else_is_expected_is_refused(served: Served) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(BODY)
    for expected in (b"200-ok", b"100-continue, 200-ok", b""):
        (answer,) = talk(served, HEAD + b"Expect: %b\r\n" % expected + length)
        assert (answer.status, json.loads(answer.body)["header"]) == (417, "Expect")
    with connect(served) as connection:
        connection.sendall(HEAD + b"Expect: 100-Continue\r\n" + length)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_head_asked_for_has_no_body(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as stream:
            answer = stream.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


def test_the_document_is_rendered_once_and_many_may_ask(served: Served) -> None:
    """Thousands in one segment: each is answered, and others have their turn in between."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    (first,) = talk(served, ask, count=1)
    before, used = served.memory_bytes(), processor_seconds(served)
    with connect(served) as connection:
        connection.sendall(ask * 2000)
        read = 0
        while read < 500 * len(first.body):
            read += len(connection.recv(1 << 20))
    assert (processor_seconds(served) - used) / 500 < 0.003, "rendering it takes longer"
    assert served.memory_bytes() - before < 30 << 20
    with connect(served) as connection:
        connection.sendall(ask * 5000)  # and leaves
    assert talk(served, post(fresh("after")), count=1)[0].status == 200


def processor_seconds(served: Served) -> float:
    times = psutil.Process(served.process.pid).cpu_times()
    return float(times.user + times.system)


@pytest.fixture(scope="module")
def hasty(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with few places and little patience with those who do not read; much with those who do not speak."""
    prologue = "import featherweight.apps.fraud.http.connection as c; c.SEND_S, c.RECEIVE_S = 1.0, 60.0\n"
    with serving(tmp_path_factory.mktemp("hasty"), model, "--max-connections", "20", prologue=prologue) as running:
        yield running
        assert "Traceback" not in running.said


def test_a_reader_that_never_reads_is_ended(hasty: Served) -> None:
    rows = b",".join(fresh(f"deaf{number}") for number in range(1000))
    request = post(b'{"transactions":[%b]}' % rows, head=HEAD.replace(b"score", b"score/batch"))
    before = hasty.memory_bytes()
    with connect(hasty) as connection:
        connection.settimeout(15)
        with pytest.raises(ConnectionError):
            connection.sendall(request * 100)
    assert hasty.memory_bytes() - before < 60 << 20
    assert talk(hasty, post(fresh("speaks")), count=1)[0].status == 200


def test_the_silent_lock_nobody_out(hasty: Served) -> None:
    """Half-open ones, those that speak slowly, those that ask for what is free, again and again."""
    attack: list[socket.socket] = []
    known = connect(hasty)
    known.sendall(post(fresh("known")))
    assert read_answers(known, 1)[0].status == 200
    try:
        for number in range(200):
            connection = connect(hasty)
            attack.append(connection)
            try:
                connection.sendall([b"", HEAD, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3])
            except ConnectionError:
                continue
            if number % 20 == 0:
                assert talk(hasty, post(fresh(f"speaks{number}")), count=1)[0].status == 200
                assert talk(hasty, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", count=1)[0].status == 200
                known.sendall(post(fresh(f"known{number}")))
                assert read_answers(known, 1)[0].status == 200
    finally:
        for connection in (*attack, known):
            connection.close()


def test_parts_of_bodies_take_no_place(hasty: Served) -> None:
    """More than there are places, of clients that are new and of one that was answered before."""
    part = HEAD + b"Content-Length: 100\r\n\r\n{"
    attack = [connect(hasty) for _ in range(20)]
    try:
        for connection in attack:
            connection.sendall(part)
            # The part has been read: what is asked behind it, on another connection, comes after it.
            assert talk(hasty, post(fresh("honest")), count=1)[0].status == 200
        assert talk(hasty, post(fresh("honest")), count=1)[0].status == 200
    finally:
        for connection in attack:
            connection.close()


def test_a_guest_that_stops_amid_a_body_gives_way(hasty: Served) -> None:
    guests = [connect(hasty) for _ in range(20)]
    try:
        for number, guest in enumerate(guests):
            guest.sendall(post(fresh(f"part{number}")))
            assert read_answers(guest, 1)[0].status == 200
            guest.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        deadline = time.monotonic() + 20  # it has 60 s for coming in, but gives way after 5
        while talk(hasty, post(fresh("after parts")), count=1)[0].status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        for guest in guests:
            guest.close()


def test_the_idle_give_way(hasty: Served) -> None:
    guests = [connect(hasty) for _ in range(20)]
    try:
        for number, guest in enumerate(guests):
            guest.sendall(post(fresh(f"guest{number}")))
            assert read_answers(guest, 1)[0].status == 200
        (refused,) = talk(hasty, post(fresh("one more")))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert talk(hasty, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", count=1)[0].status == 200
        deadline = time.monotonic() + 15
        while talk(hasty, post(fresh("one more")), count=1)[0].status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert guests[0].recv(1000) == b""
    finally:
        for guest in guests:
            guest.close()


def test_metrics_count_what_was_refused(served: Served) -> None:
    (answer,) = talk(served, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", count=1)
    assert re.search(rb'http_requests_total\{route="other",status="400"\} \d', answer.body)
