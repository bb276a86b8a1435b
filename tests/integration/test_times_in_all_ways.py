"""Late, early and implausible: a file, a pipe, REST and Kafka decide alike, and refuse with the same words."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apps.fraud.transactions import Decision, Label, Transaction
from tests.fraud.serving import BACKEND, serving
from tests.fraud.streaming import Bench, end, kill, wait_restored, wait_until
from tests.fraud.streams import DAY, START
from tests.fraud.test_score_command import read_decisions, score, write_lines

# kafka-python leaves a socket behind when a client is closed while it connects; these are clients of the test.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

Row = dict[str, Any]
YEAR = 366 * DAY


def row(name: str, time_ms: int, *, customer: str = "c0", terminal: str = "t0", amount: float = 20.0) -> Row:
    return {
        "transaction_id": name,
        "customer_id": customer,
        "terminal_id": terminal,
        "time_ms": time_ms,
        "amount": amount,
    }


HISTORY = [row(f"h{number}", START + number * DAY // 2, amount=20 + number % 7) for number in range(120)]
NEWEST = HISTORY[-1]["time_ms"]
LATER = [
    row("half a day late", NEWEST - DAY // 2, amount=90),
    row("three days late", NEWEST - 3 * DAY, amount=91),
    row("late of the terminal alone", NEWEST - 3 * DAY, customer="c2", amount=92),
    row("of nobody known", NEWEST - 3 * DAY, customer="c4", terminal="t4", amount=93),
    row("before everything", START - 300 * DAY, amount=94),
    row("three days late", NEWEST - 3 * DAY, amount=91),
    row("now again", NEWEST + 1, amount=95),
]
LATE = ["three days late", "late of the terminal alone", "before everything", "three days late"]


def wrong_times() -> list[tuple[int, str]]:
    return [
        (START // 1000, "time_ms is not in milliseconds since 1970; are these seconds?"),
        (START * 1000, "time_ms is not in milliseconds since 1970; are these microseconds?"),
        (START - 20 * YEAR, "time_ms lies before the year 2000"),
        (time.time_ns() // 1_000_000 + 3 * DAY, "time_ms lies more than a day ahead of the clock"),
    ]


def as_file(model: Path, folder: Path) -> list[Decision]:
    """A file is put in order, so that what is late comes in files of its own."""
    folder.mkdir()
    for number, rows in enumerate([HISTORY, *([one] for one in LATER)]):
        source = write_lines(folder / "in.jsonl", rows)
        result = score(model, source, folder / f"{number}.jsonl", "--state", str(folder / "state"))
        assert result.exit_code == 0, result.stderr
        assert (": more than a day after younger ones" in result.stderr) == (number in (2, 3, 5, 6))
    return [read_decisions(folder / f"{number}.jsonl")[0] for number in range(1, len(LATER) + 1)]


def as_pipes(model: Path, folder: Path) -> list[Decision]:
    """None of these runs backwards by more than a day."""
    found = []
    for rows in [HISTORY, LATER[:1], LATER[1:4], *([one] for one in LATER[4:])]:
        lines = "".join(json.dumps(one) + "\n" for one in rows).encode()
        found.append(score(model, "-", "-", "--state", str(folder / "state"), given=lines).stdout_bytes.splitlines())
    return [msgspec.json.decode(line, type=Decision) for lines in found[1:] for line in lines]


def as_service(model: Path, folder: Path, *, in_batches: bool) -> list[Decision]:
    with serving(folder, model) as served, served.client() as client:
        client.post("/v1/score/batch", json={"transactions": HISTORY}).raise_for_status()
        if in_batches:
            answer = client.post("/v1/score/batch", json={"transactions": LATER}).raise_for_status()
            found = answer.json()["decisions"]
        else:
            found = [client.post("/v1/score", json=one).raise_for_status().json() for one in LATER]
        assert f"featherweight_late_transactions_total {float(len(LATE))}" in client.get("/metrics").text
    return msgspec.convert(found, list[Decision])


def as_stream(model: Path, bench: Bench) -> list[Decision]:
    """In one partition, whose order is kept."""
    process = bench.start(model, "--backend", BACKEND)
    try:
        wait_restored(process, bench.partitions)
        bench.feed(msgspec.convert([*HISTORY, *LATER], list[Transaction]))
        found = bench.decisions(len(HISTORY) + len(LATER))[len(HISTORY) :]
        said = end(process)
    finally:
        kill([process])
    assert f"transactions that came more than a day late so far: {len(LATE)}" in said
    return found


def test_what_is_late_is_decided_alike_in_all_ways(fraud_model: Path, bench: Bench, tmp_path: Path) -> None:
    found = {
        "file": as_file(fraud_model, tmp_path / "file"),
        "pipes": as_pipes(fraud_model, tmp_path / "pipes"),
        "REST": as_service(fraud_model, tmp_path / "rest", in_batches=False),
        "REST in batches": as_service(fraud_model, tmp_path / "batches", in_batches=True),
        "Kafka": as_stream(fraud_model, bench),
    }
    assert [one.transaction_id for one in found["file"] if one.late] == LATE
    assert [one.duplicate for one in found["file"]] == [False] * 5 + [True, False]
    for way, decisions in found.items():
        assert decisions == found["file"], way


def test_what_is_not_believed_is_refused_with_the_same_words_in_all_ways(
    fraud_model: Path, bench: Bench, tmp_path: Path
) -> None:
    wrong = [row(f"w{number}", time_ms, amount=9) for number, (time_ms, _) in enumerate(wrong_times())]
    reasons = [reason for _, reason in wrong_times()]
    labels = [{key: value for key, value in one.items() if key != "amount"} | {"is_fraud": True} for one in wrong]
    since = time.time_ns() // 1_000_000 - NEWEST - DAY
    recent = [one | {"time_ms": one["time_ms"] + since} for one in HISTORY]
    told = {
        "file": refused_by_a_file(fraud_model, tmp_path, recent, wrong, labels),
        "pipe": refused_by_a_pipe(fraud_model, recent, wrong),
        "REST": refused_by_the_service(fraud_model, tmp_path, wrong, labels),
        "Kafka": refused_by_the_stream(fraud_model, bench, recent, wrong, labels),
    }
    for way, found in told.items():
        assert found == (reasons if way == "pipe" else reasons * 2), way


def refused_by_a_file(model: Path, folder: Path, good: list[Row], wrong: list[Row], labels: list[Row]) -> list[str]:
    source = write_lines(folder / "in.jsonl", [*good, *wrong])
    sound = [{key: value for key, value in one.items() if key != "amount"} | {"is_fraud": False} for one in good]
    known = write_lines(folder / "labels.jsonl", [*sound, *labels])
    assert score(model, source, folder / "out", "--labels", str(known)).exit_code == 3
    lines = (folder / "out.rejected.jsonl").read_text().splitlines()
    rejected = sorted((json.loads(line) for line in lines), key=lambda one: (one["source"], one["line"]))
    return [one["reason"] for one in rejected]


def refused_by_a_pipe(model: Path, good: list[Row], wrong: list[Row]) -> list[str]:
    lines = "".join(json.dumps(one) + "\n" for one in [*good, *wrong]).encode()
    result = score(model, "-", "-", given=lines)
    assert (result.exit_code, result.stdout.count("\n")) == (3, len(good))
    return [line.split(": ", 1)[1] for line in result.stderr.splitlines() if line.startswith("    standard input:")]


def refused_by_the_service(model: Path, folder: Path, wrong: list[Row], labels: list[Row]) -> list[str]:
    told = []
    with serving(folder, model) as served, served.client() as client:
        for one in wrong:
            alone = client.post("/v1/score", json=one)
            among = client.post("/v1/score/batch", json={"transactions": [HISTORY[0], one]})
            assert (alone.status_code, among.status_code) == (422, 422)
            assert [found.json()["errors"][0]["pointer"] for found in (alone, among)] == [
                "#/time_ms",
                "#/transactions/1/time_ms",
            ]
            assert alone.json()["detail"] == among.json()["detail"]
            told.append(alone.json()["detail"])
        for one in labels:
            answer = client.post("/v1/labels", json={"labels": [one]})
            assert answer.json()["errors"][0]["pointer"] == "#/labels/0/time_ms"
            told.append(answer.json()["detail"])
        assert "duplicate" not in client.post("/v1/score", json=HISTORY[0]).json(), "nothing was counted"
    return told


def refused_by_the_stream(model: Path, bench: Bench, good: list[Row], wrong: list[Row], labels: list[Row]) -> list[str]:
    process = bench.start(model, "--backend", BACKEND)
    try:
        wait_restored(process, bench.partitions)
        bench.feed(msgspec.convert([*good, *wrong], list[Transaction]))
        bench.feed(msgspec.convert(labels, list[Label]))
        wait_until(lambda: bench.committed(bench.topics.labels) == len(labels), "labels read")
        letters = bench.read(bench.topics.dead_letter, 2 * len(wrong))
        assert len(bench.decisions(len(good))) == len(good)
        end(process)
    finally:
        kill([process])
    headers = [dict(letter.headers) for letter in letters]
    for name in (bench.topics.transactions, bench.topics.labels):
        assert sum(one["topic"] == name.encode() for one in headers) == len(wrong)
    return [
        one["reason"].decode() for one in sorted(headers, key=lambda one: one["topic"] == bench.topics.labels.encode())
    ]
