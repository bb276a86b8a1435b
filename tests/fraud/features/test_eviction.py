"""Memory has a bound: of too many keys, the one not seen for the longest time is forgotten, wherever histories live."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.features.catalogue import CUSTOMER_FEATURES
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import CustomerHistories, Histories
from featherweight.apps.fraud.features.store import open_store
from featherweight.apps.fraud.files.job import Job, score_file
from featherweight.apps.fraud.files.summary import render_summary
from featherweight.apps.fraud.http.server import ServerSettings, open_service
from featherweight.apps.fraud.kafka.stages import Shard, Stream
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.serving import BACKEND, make_transactions, serving
from tests.fraud.streaming import TOPICS, arrive_as
from tests.fraud.streams import DAY, START

LIMIT = 5
OUT = np.zeros(len(CUSTOMER_FEATURES), np.float32)


def visit(histories: Histories, key: str, number: int) -> None:
    histories.advance(key, number, START + number * 1000, 100, 1, OUT)


def transaction(name: str, time_ms: int, *, customer: str, terminal: str = "t") -> Transaction:
    return Transaction(transaction_id=name, customer_id=customer, terminal_id=terminal, time_ms=time_ms, amount=1.0)


ALL = [f"k{number}" for number in range(9)]


@settings(max_examples=60)
@given(
    visits=st.lists(st.sampled_from(ALL), max_size=80),
    stops=st.lists(st.sampled_from(["", "", "", "drain", "restore", "snapshot"]), min_size=80, max_size=80),
)
def test_the_least_recently_used_is_forgotten(
    tmp_path_factory: pytest.TempPathFactory, visits: list[str], stops: list[str]
) -> None:
    """Always that one, also after a stop; the changelog says the same."""
    path = tmp_path_factory.mktemp("snapshots") / "histories"
    histories, expected, log = CustomerHistories(7.0, LIMIT), OrderedDict[str, int](), dict[bytes, bytes | None]()
    evicted = 0
    for number, (key, stop) in enumerate(zip(visits, stops, strict=False)):
        visit(histories, key, number)
        expected[key] = number
        expected.move_to_end(key)
        if len(expected) > LIMIT:
            expected.popitem(last=False)
            evicted += 1
        if stop in ("drain", "restore"):
            log |= dict(histories.drain())
            log = {name: value for name, value in log.items() if value is not None}
        if stop == "snapshot":
            histories.write_snapshot(path)
            histories.read_snapshot(path)
        if stop == "restore":
            again = CustomerHistories(7.0, LIMIT)
            for name, value in log.items():
                again.restore(name, value)
            again.settle()
            assert sorted(again._slots) == sorted(expected)
        assert sorted(histories._slots) == sorted(expected)
        assert all(histories.apply_label(key, number, 0, False) for key, number in expected.items())
    assert histories.evicted == evicted


def test_restored_beyond_the_limit_the_last_changed_stay() -> None:
    """A process that is started again with a lower limit."""
    histories = CustomerHistories(7.0, 100)
    log = []
    for number in range(60):
        visit(histories, f"k{number % 50}", number)
        log += histories.drain()
    again = CustomerHistories(7.0, 20)
    for key, value in log:
        again.restore(key, value)
    again.settle()
    assert set(again._slots) == {f"k{number}" for number in [*range(40, 50), *range(10)]}
    assert sum(value is None for _, value in again.drain()) == 30


def test_memory_does_not_grow_with_keys_that_come_once() -> None:
    engine, sizes = FeatureEngine(7.0, 1000), []
    for number in range(30_000):
        engine.advance(transaction(f"t{number}", START + number * 100, customer=f"c{number}", terminal=f"s{number}"))
        if number % 5000 == 4999:
            sizes.append(engine.customers.used_bytes + engine.terminals.used_bytes)
    assert len(engine.customers) == len(engine.terminals) == 1000
    assert engine.evicted == 2 * 29_000
    assert sizes[-1] <= 1.05 * sizes[0]
    for half in (engine.customers, engine.terminals):
        assert len(half._queued) <= 2 * 1001
        assert len(half._table) <= 2048
        assert len(half._pages) <= 2048


def test_who_comes_back_is_new(tmp_path: Path) -> None:
    engine = FeatureEngine(7.0, 2)
    rows = [transaction(f"t{number}", START + number * DAY, customer=f"c{number % 3}") for number in range(4)]
    assert [engine.advance(row) for row in rows] == [False] * 4
    assert engine.row[CUSTOMER_FEATURES.index("customer_count_30d")] == 1
    assert not engine.customers.apply_label("c1", 0, 0, True)


def test_a_store_forgets_the_same_as_a_process_that_never_stopped(tmp_path: Path) -> None:
    rows = [
        transaction(row["transaction_id"], row["time_ms"], customer=row["customer_id"], terminal=row["terminal_id"])
        for row in make_transactions(300, seed=5, customers=30)
    ]
    calm = FeatureEngine(7.0, 10)
    for number, row in enumerate(rows):
        if number % 25 == 0:
            store = open_store(tmp_path / "state", 7.0, 10)
        store.record([row])
        assert store.engine.advance(row) == calm.advance(row)
        assert store.engine.row.tobytes() == calm.row.tobytes()
        if number % 25 == 24:
            if number % 2:
                store.snapshot()
            store.close()
    assert list(calm.customers._slots) != sorted(calm.customers._slots)


def test_the_stream_forgets_with_tombstones(tmp_path: Path) -> None:
    """What a member restores from the changelogs is what the one before had."""
    write_fraud_model(tmp_path / "model")
    scorer, stream = open_scorer(ModelSource(tmp_path / "model", BACKEND)), Stream(TOPICS, 1)
    shard = stream.shards[0] = Shard(7.0, 10)
    logs: tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]] = {}, {}
    rows = [json.dumps(row).encode() for row in make_transactions(400, seed=6, customers=40)]
    for start in range(0, 400, 50):
        out = stream.process([arrive_as(TOPICS.transactions, 0, rows[start : start + 50], start)], scorer)
        for log, records in zip(logs, (out.customers[0], out.terminals[0]), strict=True):
            log |= dict(records)
    again = Shard(7.0, 10)
    for log, restored, kept in zip(
        logs, (again.customers, again.terminals), (shard.customers, shard.terminals), strict=True
    ):
        for key, value in log.items():
            restored.restore(key, value)
        restored.settle()
        assert restored.evicted == 0, "the changelog has no more than the limit"
        assert sorted(restored._slots) == sorted(kept._slots)
        assert kept.evicted > 20
    assert stream.evicted == shard.customers.evicted + shard.terminals.evicted


def test_a_file_says_what_was_forgotten(tmp_path: Path) -> None:
    write_fraud_model(tmp_path / "model")
    scorer = open_scorer(ModelSource(tmp_path / "model", BACKEND))
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in make_transactions(100, seed=7)))
    summary = score_file(Job(source, tmp_path / "out.jsonl", max_histories=10), scorer)
    assert f"{summary.evicted:,} histories forgotten, the least recent" in render_summary(summary)
    assert summary.evicted > 30
    assert "forgotten" not in render_summary(score_file(Job(source, tmp_path / "out.jsonl"), scorer))


def test_the_service_counts_and_says_it(tmp_path: Path) -> None:
    write_fraud_model(tmp_path / "model")
    options = ["--max-histories", "10", "--state-dir", str(tmp_path / "state")]
    with serving(tmp_path, tmp_path / "model", *options) as served, served.client() as client:
        rows = make_transactions(60, seed=8)
        client.post("/v1/score/batch", json={"transactions": rows}).raise_for_status()
        metrics = client.get("/metrics").text
        found = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("featherweight_"))
        assert float(found["featherweight_histories_evicted"]) > 20
        assert float(found["featherweight_customers"]) == float(found["featherweight_terminals"]) == 10
        assert served.stop() == 0
        assert "more customers or terminals than --max-histories" in served.said
    service = open_service(
        ServerSettings(ModelSource(tmp_path / "model", BACKEND), state=tmp_path / "state", max_histories=4)
    )
    assert len(service.pipeline.engine.customers) == 4
    service.close()
