"""The same id with another amount, customer, terminal or time: marked, counted, and what is counted stays the first; in
all three ways of running."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from msgspec.structs import asdict, replace

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import CONFLICT, DUPLICATE, NEW, identify
from featherweight.apps.fraud.files.job import Job, score_file
from featherweight.apps.fraud.files.summary import Summary, render_summary
from featherweight.apps.fraud.http.app import Api
from featherweight.apps.fraud.http.service import Service
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.kafka.forwarding import Forwarded
from featherweight.apps.fraud.kafka.stages import Outgoing, Shard, Stream
from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Decision, Transaction
from featherweight.core.serving import ModelSource
from tests.fraud.serving import BACKEND
from tests.fraud.streaming import TOPICS, arrive_as
from tests.fraud.streams import DAY, START, transaction

FIRST = transaction("t1", START)
OTHERS = {
    "amount": replace(FIRST, amount=12.51),
    "customer": replace(FIRST, customer_id="berta"),
    "terminal": replace(FIRST, terminal_id="web"),
    "time": replace(FIRST, time_ms=START + 1),
    "huge amount": replace(FIRST, amount=12.5 + (1 << 31) / 100),
}
STREAM = [FIRST, FIRST, *OTHERS.values(), FIRST]
MARKS = [(False, False), (True, False), *[(False, True)] * len(OTHERS), (True, False)]
"""(duplicate, conflict) of each."""


def marks(decisions: list[Decision]) -> list[tuple[bool, bool]]:
    return [(decision.duplicate, decision.conflict) for decision in decisions]


@pytest.mark.parametrize("name", OTHERS)
def test_the_histories_tell_a_conflict_from_a_duplicate(name: str) -> None:
    engine = FeatureEngine()
    assert engine.advance(FIRST) == NEW
    assert engine.advance(FIRST) == DUPLICATE
    assert engine.advance(OTHERS[name]) == CONFLICT
    assert engine.advance(FIRST) == DUPLICATE, "the first stays what is counted"


def test_a_label_and_less_than_a_hundredth_are_no_conflict() -> None:
    engine = FeatureEngine()
    engine.advance(FIRST)
    engine.apply_label(label_of(FIRST, True))
    assert engine.advance(replace(FIRST, amount=12.501)) == DUPLICATE


LABEL = label_of(FIRST, True)
LABELS = {
    "customer": replace(LABEL, customer_id="berta"),
    "terminal": replace(LABEL, terminal_id="web"),
    "time": replace(LABEL, time_ms=START - 1),
}
NOBODYS = replace(LABEL, transaction_id="t2")


@pytest.mark.parametrize("name", LABELS)
def test_a_label_that_is_not_as_its_transaction_is_in_conflict(name: str) -> None:
    engine = FeatureEngine()
    engine.advance(FIRST)
    assert engine.apply_label(LABELS[name]) == CONFLICT
    assert engine.apply_label(LABEL) == DUPLICATE
    assert engine.apply_label(LABELS[name]) == CONFLICT, "also one that changes nothing"
    assert engine.apply_label(NOBODYS) == NEW


def test_labels_in_conflict_in_a_file(model: Path, tmp_path: Path) -> None:
    """Half of the histories learn of them, in silence it would be a worse decision for nobody knows what reason."""
    encode = msgspec.json.Encoder().encode_lines
    source, labels = tmp_path / "in.jsonl", tmp_path / "labels.jsonl"
    source.write_bytes(encode([FIRST, transaction("later", START + 30 * DAY)]))
    labels.write_bytes(encode([*LABELS.values(), LABEL, NOBODYS]))
    scorer = open_scorer(ModelSource(model, BACKEND))
    summary = score_file(Job(source, tmp_path / "out.jsonl", labels), scorer)
    scorer.close()
    assert (summary.labels, summary.labels_unknown, summary.labels_in_conflict) == (5, 1, 3)
    assert "  3 labels not as their transaction: with another customer, terminal or time" in render_summary(summary)


def test_labels_in_conflict_over_rest(app: Api) -> None:
    ask(app, "POST", "/v1/score", json=asdict(FIRST))
    labels = [asdict(label) for label in (*LABELS.values(), LABEL, NOBODYS)]
    answer = ask(app, "POST", "/v1/labels", json={"labels": labels}).json()
    assert answer == {"learned": 4, "unknown": 1, "conflicts": 3}
    assert "featherweight_conflicting_labels_total 3.0" in ask(app, "GET", "/metrics").text


@pytest.mark.parametrize("processes", [1, 2])
def test_labels_in_conflict_in_a_stream(processes: int, model: Path) -> None:
    """With two of them, what the customer's process answers to a label goes with it to the terminal's."""
    scorer, partitions = open_scorer(ModelSource(model, BACKEND)), 2
    source = 1 - identify(FIRST.terminal_id) % partitions
    streams = [Stream(TOPICS, partitions) for _ in range(processes)]
    for partition in range(partitions):
        streams[partition % processes].shards[partition] = Shard(7.0)
    labels = [*LABELS.values(), LABEL, NOBODYS]
    outs = []
    for rows, kind in (([FIRST], "transactions"), (labels, "labels")):
        values = [msgspec.json.encode(row) for row in rows]
        arrived = arrive_as(kind, source, values)
        sent = streams[source % processes].process([arrived], scorer)
        outs.append(sent)
        for target, records in sent.repartition.items():
            forwarded = arrive_as(TOPICS.repartition, target, [value for _, value in records])
            outs.append(streams[target % processes].process([forwarded], scorer))
    scorer.close()
    assert sum(out.label_conflicts for out in outs) == 3
    assert not any(out.rejected for out in outs)


def test_what_is_in_conflict_is_not_counted() -> None:
    engine, calm = FeatureEngine(), FeatureEngine()
    for each in (engine, calm):
        each.advance(FIRST)
    engine.advance(OTHERS["amount"])
    engine.advance(OTHERS["time"])
    for each in (engine, calm):
        each.advance(transaction("t2", START + 1000))
    np.testing.assert_array_equal(engine.row, calm.row)
    assert engine.row[CATALOGUE.index("customer_count_1d")] == 2


def test_in_a_file(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(msgspec.json.Encoder().encode_lines(STREAM))
    scorer = open_scorer(ModelSource(model, BACKEND))
    summary: Summary = score_file(Job(source, output), scorer)
    scorer.close()
    assert marks([msgspec.json.decode(line, type=Decision) for line in output.read_bytes().splitlines()]) == MARKS
    assert (summary.duplicates, summary.conflicts) == (2, len(OTHERS))
    assert f"  {len(OTHERS)} in conflict: the id of another one" in render_summary(summary)


@pytest.fixture
def app(model: Path) -> Iterator[Api]:
    service = Service(LiveModel(ModelSource(model, BACKEND)), None)
    yield Api(service)
    service.close()


def ask(app: Api, method: str, path: str, **more: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


@pytest.mark.parametrize("deadline", [{}, {"x-deadline-ms": "0.001"}], ids=["decided", "too late"])
@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/batch"])
def test_over_rest(path: str, deadline: dict[str, str], app: Api) -> None:
    rows = [asdict(row) for row in STREAM]
    if path == "/v1/score":
        answers = [ask(app, "POST", path, json=row, headers=deadline).json() for row in rows]
    else:
        answers = ask(app, "POST", path, json={"transactions": rows}, headers=deadline).json()["decisions"]
    assert [answer.get("fallback", False) for answer in answers] == [bool(deadline)] * len(rows)
    assert marks(msgspec.convert(answers, list[Decision])) == MARKS
    metrics = ask(app, "GET", "/metrics").text
    assert f"featherweight_conflicting_transactions_total {len(OTHERS)}.0" in metrics
    assert "featherweight_duplicate_transactions_total 2.0" in metrics


def test_unknown_fields_over_rest_are_counted(app: Api) -> None:
    row = asdict(FIRST)
    assert ask(app, "POST", "/v1/score", json=row | {"currency": "EUR"}).status_code == 200
    rows = {"transactions": [row, row | {"mcc": 5411}], "batch": 7}
    assert ask(app, "POST", "/v1/score/batch", json=rows).status_code == 200
    assert "featherweight_rows_with_unknown_fields_total 3.0" in ask(app, "GET", "/metrics").text
    row["amuont"] = row.pop("amount")
    refused = ask(app, "POST", "/v1/score", json=row)
    assert (refused.status_code, refused.json()["errors"]) == (
        422,
        [{"pointer": "#/amount", "detail": "amount: has no field amount; found amuont"}],
    )
    refused = ask(app, "POST", "/v1/score/batch", json={"transactions": [asdict(FIRST), row]})
    assert refused.json()["errors"][0]["pointer"] == "#/transactions/1/amount"


def arrive(rows: list[Transaction], partition: int = 0) -> list[Messages]:
    return [arrive_as(TOPICS.transactions, partition, [msgspec.json.encode(row) for row in rows])]


def test_in_a_stream(model: Path) -> None:
    scorer, stream = open_scorer(ModelSource(model, BACKEND)), Stream(TOPICS, 1)
    stream.shards[0] = Shard(7.0)
    out = stream.process(arrive(STREAM), scorer)
    scorer.close()
    found = [msgspec.json.decode(value or b"", type=Decision) for _, value in out.decisions[0]]
    assert marks(found) == MARKS
    assert out.conflicts == len(OTHERS)


def test_in_a_stream_of_two_processes(model: Path) -> None:
    """What the customer's process knows of a conflict goes with the transaction to the terminal's."""
    scorer = open_scorer(ModelSource(model, BACKEND))
    first, second, partitions = Stream(TOPICS, 2), Stream(TOPICS, 2), 2
    target = identify(FIRST.terminal_id) % partitions
    first.shards[1 - target], second.shards[target] = Shard(7.0), Shard(7.0)
    rows = [FIRST, OTHERS["amount"], FIRST]
    sent = first.process(arrive(rows, 1 - target), scorer)
    values = [value for _, value in sent.repartition[target]]
    out: Outgoing = second.process([arrive_as(TOPICS.repartition, target, values)], scorer)
    scorer.close()
    found = [msgspec.json.decode(value or b"", type=Decision) for _, value in out.decisions[1 - target]]
    assert marks(found) == [(False, False), (False, True), (True, False)]


def test_records_of_earlier_versions_are_read() -> None:
    old = msgspec.msgpack.encode([1, 0, [], [], b"", []])
    assert msgspec.msgpack.decode(old, type=Forwarded).conflicts == []


def test_unknown_fields_in_a_stream_are_counted(model: Path) -> None:
    scorer, stream = open_scorer(ModelSource(model, BACKEND)), Stream(TOPICS, 1)
    stream.shards[0] = Shard(7.0)
    misspelt = {key.replace("amount", "amuont"): value for key, value in asdict(FIRST).items()}
    rows = [asdict(FIRST) | {"currency": "EUR"}, misspelt]
    values = [json.dumps(row).encode() for row in rows]
    values.append(json.dumps(asdict(FIRST)).encode()[:-1] + b', "amount": 1}')
    out = stream.process([arrive_as(TOPICS.transactions, 0, values)], scorer)
    scorer.close()
    assert (out.unread.rows, out.unread.names) == (1, ["currency"])
    assert [rejected.reason for rejected in out.rejected] == [
        "ValidationError: has no field amount; found amuont",
        "ValidationError: has a field amount, and that more than once",
    ]
