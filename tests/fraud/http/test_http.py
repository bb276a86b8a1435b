"""The REST service over a real socket: what it decides, what it refuses, and how it says so."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.plausible import AHEAD_MS, END_MS
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.serving import ModelSource
from tests.fraud.serving import BACKEND, Served, label_of, make_transactions, serving

ONE = make_transactions(1, seed=99)[0]
GIVEN: dict[str, float | None] = {name: float(index) for index, name in enumerate(CATALOGUE)}


def problem(response: httpx.Response) -> dict[str, Any]:
    """The body, which must be problem details that agree with the answer."""
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["type"].startswith("urn:featherweight:problem:")
    return body


def pointers(response: httpx.Response) -> list[str]:
    return [error["pointer"] for error in problem(response)["errors"]]


def test_it_decides_as_the_embedded_pipeline(client: httpx.Client, model: Path) -> None:
    """One by one, in batches of every size and with labels in between."""
    stream = make_transactions(700, seed=1)
    pipeline = Pipeline(open_scorer(ModelSource(model, BACKEND)))
    expected, found = [], []
    for start, size in [(0, 1), (1, 1), (2, 64), (66, 65), (131, 300), (431, 1), (432, 268)]:
        rows = stream[start : start + size]
        if size == 1:
            found.append(client.post("/v1/score", json=rows[0]).raise_for_status().json())
        else:
            found += client.post("/v1/score/batch", json={"transactions": rows}).raise_for_status().json()["decisions"]
        expected += [pipeline.process(msgspec.convert(row, Transaction)) for row in rows]
        labels = [label_of(row) for row in rows[::5]]
        answer = client.post("/v1/labels", json={"labels": labels}).raise_for_status().json()
        assert answer == {"learned": len(labels), "unknown": 0}
        for label in labels:
            pipeline.apply_label(msgspec.convert(label, Label))
    assert [msgspec.convert(row, Decision) for row in found] == expected
    assert {row["outcome"] for row in found} >= {"approve", "review"}
    assert any(row.get("reasons") for row in found)


def test_a_transaction_sent_again_is_answered_and_not_counted(client: httpx.Client) -> None:
    row = make_transactions(1, seed=2)[0]
    first = client.post("/v1/score", json=row).json()
    again = client.post("/v1/score", json=row).json()
    batch = client.post("/v1/score/batch", json={"transactions": [row, row]}).json()["decisions"]
    assert "duplicate" not in first
    assert again == first | {"duplicate": True}
    assert batch == [again, again]


def test_a_label_of_an_unknown_transaction_has_no_effect(client: httpx.Client) -> None:
    label = label_of(make_transactions(1, seed=3)[0])
    assert client.post("/v1/labels", json={"labels": [label]}).json() == {"learned": 0, "unknown": 1}


def test_with_features_given_nothing_is_kept(client: httpx.Client, model: Path) -> None:
    row = make_transactions(1, seed=4)[0]
    features = GIVEN | {"hour": None}
    given = client.post("/v1/score", json=row | {"features": features}).raise_for_status().json()
    others = dict.fromkeys(CATALOGUE, 0.0)
    mixed = client.post(
        "/v1/score/batch", json={"transactions": [row | {"features": features}, row, row | {"features": others}]}
    )
    scorer = open_scorer(ModelSource(model, BACKEND))
    columns = np.array([np.nan if value is None else value for value in features.values()], np.float32)
    assert msgspec.convert(given, Decision) == scorer.decide(msgspec.convert(row, Transaction), columns)
    first, stateful, other = mixed.raise_for_status().json()["decisions"]
    assert first == given
    assert "duplicate" not in stateful
    assert other["probability"] != first["probability"]


FAULTS: list[tuple[str, Any, str]] = [
    ("negative amount", ONE | {"amount": -1}, "#/amount"),
    ("text amount", ONE | {"amount": "12"}, "#/amount"),
    ("no amount", {k: v for k, v in ONE.items() if k != "amount"}, "#/amount"),
    ("time before 1970", ONE | {"time_ms": -1}, "#/time_ms"),
    ("time after 2100", ONE | {"time_ms": 1 << 60}, "#/time_ms"),
    ("time with fractions", ONE | {"time_ms": 1.5}, "#/time_ms"),
    ("empty id", ONE | {"customer_id": ""}, "#/customer_id"),
    ("long id", ONE | {"terminal_id": "x" * 65}, "#/terminal_id"),
    ("number as id", ONE | {"transaction_id": 7}, "#/transaction_id"),
    ("misspelt features", ONE | {"feature": GIVEN}, "#/feature"),
    ("misspelt amount", {k.replace("amount", "amuont"): v for k, v in ONE.items()}, "#/amount"),
    ("a list", [ONE], "#"),
    ("features of the wrong type", ONE | {"features": [1, 2]}, "#/features"),
    ("a feature that is text", ONE | {"features": GIVEN | {"hour": "x"}}, "#/features"),
    ("a feature missing", ONE | {"features": {k: v for k, v in GIVEN.items() if k != "hour"}}, "#/features"),
    ("a feature too many", ONE | {"features": GIVEN | {"shoe_size": 43}}, "#/features"),
    ("a feature too large for float32", ONE | {"features": GIVEN | {"hour": 1e39}}, "#/features"),
]


@pytest.mark.parametrize(("body", "pointer"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_fault_names_its_field(body: Any, pointer: str, client: httpx.Client) -> None:
    response = client.post("/v1/score", json=body)
    assert response.status_code == 422
    assert pointers(response) == [pointer]
    assert client.post("/v1/score", json=ONE).status_code == 200


@pytest.mark.parametrize(
    ("path", "around", "pointer"),
    [
        ("/v1/score", "ROW", "#/amount"),
        ("/v1/score/batch", '{"transactions": [ROW]}', "#/transactions/0/amount"),
        ("/v1/labels", '{"labels": [ROW]}', "#/labels/0/is_fraud"),
    ],
)
def test_a_field_that_stands_twice_is_refused(path: str, around: str, pointer: str, client: httpx.Client) -> None:
    row, name = (label_of(ONE), "is_fraud") if path == "/v1/labels" else (ONE, "amount")
    text = f'{json.dumps(row)[:-1]}, "{name}": {json.dumps(row[name])}}}'
    response = client.post(path, content=around.replace("ROW", text), headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert pointers(response) == [pointer]
    assert "more than once" in response.json()["detail"]


@pytest.mark.parametrize(
    ("rows", "pointer"),
    [
        ([ONE, ONE, ONE | {"amount": -1}], "#/transactions/2/amount"),
        ([ONE, {}], "#/transactions/1/transaction_id"),
        ([ONE, ONE | {"features": {}}], "#/transactions/1/features"),
        ([], "#/transactions"),
        ([ONE] * 1001, "#/transactions"),
    ],
)
def test_one_fault_turns_a_batch_away_and_nothing_is_counted(
    rows: list[dict[str, Any]], pointer: str, client: httpx.Client
) -> None:
    fresh = make_transactions(1, seed=5)[0]
    response = client.post("/v1/score/batch", json={"transactions": [fresh, *rows[1:]] if rows else rows})
    assert response.status_code == 422
    assert pointers(response) == [pointer]
    assert client.post("/v1/labels", json={"labels": [label_of(fresh)]}).json()["unknown"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"amount": NaN}',
        b'{"amount": 1e999, "transaction_id": "x"',
        b"\xff\xfe",
        b'{"transaction_id": "\xff"}',
        b'{"transaction_id": "\\ud800"}',
        b"[" * 100_000,
        json.dumps(ONE).encode() + b"}",
        json.dumps(ONE).replace(str(ONE["amount"]), "NaN").encode(),
    ],
    ids=["empty", "cut", "nan", "huge", "utf-16", "latin-1", "surrogate", "deep", "trailing", "nan amount"],
)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/batch", "/v1/labels"])
def test_what_is_no_json_is_refused(body: bytes, path: str, client: httpx.Client) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    problem(response)


def test_bodies_are_bounded_before_they_are_read(client: httpx.Client, served: Served) -> None:
    large = b" " * (1 << 20) + json.dumps(ONE).encode()
    announced = client.post("/v1/score", content=large, headers={"content-type": "application/json"})
    assert (announced.status_code, problem(announced)["type"][-9:]) == (413, "too-large")
    before = served.memory_bytes()

    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * (1 << 20)

    try:
        chunked = client.post("/v1/score", content=endless(), headers={"content-type": "application/json"})
        assert chunked.status_code == 413
    except httpx.TransportError:
        pass  # it need not listen to the end
    assert served.memory_bytes() - before < 50 << 20
    assert client.post("/v1/score", json=ONE).status_code == 200


def test_only_json_and_only_posts(client: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = client.post("/v1/score", content=json.dumps(ONE), headers={"content-type": kind})
        assert response.status_code == 415
        assert problem(response)["header"] == "Content-Type"
    encoded = client.post(
        "/v1/score", content=json.dumps(ONE), headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert encoded.status_code == 200
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        response = client.request(method, "/v1/score")
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        problem(response)
    assert client.post("/healthz").status_code == 405
    assert client.get("/v1/nothing").status_code == 404
    problem(client.get("/v1/nothing"))


def test_a_request_keeps_its_id(client: httpx.Client) -> None:
    for path in ("/v1/score", "/healthz"):
        method = "POST" if path == "/v1/score" else "GET"
        known = client.request(method, path, headers={"x-request-id": "order-17"})
        assert known.headers["x-request-id"] == "order-17"
        for bad in ("a b", "x" * 65, "<script>", "é"):
            replaced = client.request(method, path, headers={b"x-request-id": bad.encode()})
            assert replaced.headers["x-request-id"] not in (bad, "")
    ids = {client.post("/v1/score", json=ONE).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_past_its_deadline_the_policy_decides(client: httpx.Client) -> None:
    small, large = make_transactions(2, seed=6)
    small["amount"], large["amount"] = 100.0, 100.01
    late = {"x-deadline-ms": "0.001"}
    decisions = client.post("/v1/score/batch", json={"transactions": [small, large]}, headers=late).json()["decisions"]
    assert [row["outcome"] for row in decisions] == ["approve", "review"]
    assert all(row["fallback"] and row["probability"] is None for row in decisions)
    again = client.post("/v1/score", json=small, headers=late).json()
    assert again["fallback"]
    assert again["duplicate"], "it was counted all the same"
    in_time = client.post("/v1/score", json=small, headers={"x-deadline-ms": "60000"}).json()
    assert "fallback" not in in_time
    assert in_time["probability"] is not None


def test_waiting_for_the_body_uses_up_the_deadline(served: Served) -> None:
    body = json.dumps(make_transactions(1, seed=7)[0]).encode()
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        head = ["POST /v1/score HTTP/1.1", "host: x", "content-type: application/json", "x-deadline-ms: 20"]
        head += [f"content-length: {len(body)}", "connection: close", "", ""]
        connection.sendall("\r\n".join(head).encode() + body[:10])
        time.sleep(0.1)
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b'"fallback":true' in answer


def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    """Quick ones and ordinary ones mixed, in one segment, the last one closing the connection."""
    rows = make_transactions(12, seed=8)
    requests = []
    for number, row in enumerate(rows):
        quick, last = number % 3 != 1, number == len(rows) - 1
        body = json.dumps(row if quick else {"transactions": [row]}).encode()
        head = [f"POST /v1/score{'' if quick else '/batch'} HTTP/1.1", "host: x", f"x-request-id: n{number}"]
        head += [
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(["connection: close"] if last else []),
        ]
        requests.append("\r\n".join([*head, "", ""]).encode() + body)
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"".join(requests))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"x-request-id: (\w+)", answer) == [b"n%d" % number for number in range(len(rows))]
    assert re.findall(rb'"transaction_id":"([^"]+)"', answer) == [row["transaction_id"].encode() for row in rows]
    assert answer.count(b"HTTP/1.1 200 OK") == len(rows)
    assert b"duplicate" not in answer
    assert answer.count(b"connection: close") == 1


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf", "60001", ""])
def test_a_deadline_that_is_not_valid(value: str, client: httpx.Client) -> None:
    response = client.post("/v1/score", json=ONE, headers={"x-deadline-ms": value})
    assert response.status_code == 400
    assert problem(response)["header"] == "X-Deadline-Ms"


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    client.post("/v1/score", json=ONE)
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    requests = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["featherweight_http_requests"].samples
    }
    assert requests["/v1/score", "200"] > 10
    assert requests["/v1/score", "422"] > 10
    assert {sample.labels["outcome"] for sample in families["featherweight_decisions"].samples} >= {"approve", "review"}
    assert families["featherweight_model_info"].samples[0].labels["model"] == ready["model"]
    assert families["featherweight_customers"].samples[0].value >= 20
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
    counts = [s for s in families["featherweight_http_request_seconds"].samples if s.name.endswith("_bucket")]
    by_route = [s.value for s in counts if s.labels["route"] == "/v1/score"]
    assert by_route == sorted(by_route)


def test_the_examples_of_the_document_work(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/v1/score", "/v1/score/batch", "/v1/labels", "/healthz", "/readyz", "/metrics"}
    for path in ("/v1/score", "/v1/score/batch", "/v1/labels"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert client.post(path, json=content["example"]).status_code == 200
    assert "description" in document["components"]["schemas"]["ScoreRequest"]


HOOKS = '''
import schemathesis

@schemathesis.hook
def map_body(context, body):
    """1.0 is an integer to JSON Schema, but not to us."""
    if isinstance(body, dict):
        return {key: map_body(context, value) for key, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body
'''


CLOCK = f"import time; time.time_ns = lambda: {(END_MS - AHEAD_MS) * 1_000_000}\n"
"""The document's latest time is the latest that is believed only then: no schema knows what time it is."""


@pytest.fixture(scope="module")
def served_in_2099(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), model, prologue=CLOCK) as running:
        yield running


def test_schemathesis_finds_nothing(served_in_2099: Served, tmp_path: Path) -> None:
    served = served_in_2099
    (tmp_path / "hooks_for_it.py").write_text(HOOKS)
    # HTTP wants headers that nobody knows to be ignored.
    (tmp_path / "schemathesis.toml").write_text("[generation]\nallow-extra-parameters = false\n")
    words = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json"]
    options = ["--max-examples", "25", "--phases", "examples,coverage,fuzzing", "--generation-deterministic"]
    ended = subprocess.run(
        [*words, *options],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks_for_it", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert "Traceback" not in served.said
