"""Files in, decisions out: the embedded pipeline as a command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from featherweight.apps.fraud.cli import app
from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.files.summary import Latencies
from featherweight.apps.fraud.labels import DAY_MS
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.errors import DataError, LimitError, OutputError, UsageError
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.serving import BACKEND, COMMAND, label_of, make_transactions

ROWS = make_transactions(600, seed=41)
LABELS = [label_of(row, is_fraud=number % 2 == 0) for number, row in enumerate(ROWS[:400:5])]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(model: Path, source: Path | str, output: Path | str, *options: str, given: bytes = b"") -> Result:
    words = ["score", "--input", str(source), "--output", str(output), "--model", str(model), "--backend", BACKEND]
    result = CliRunner().invoke(app, [*words, *options], input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def read_decisions(path: Path) -> list[Decision]:
    if path.suffix == ".parquet":
        return [msgspec.convert(row, Decision) for row in pq.read_table(path).to_pylist()]
    return [msgspec.json.decode(line, type=Decision) for line in path.read_bytes().splitlines()]


def expected(model: Path, rows: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]] = ()) -> list[Decision]:
    """Labels count from seven days after their transaction."""
    pipeline, waiting = Pipeline(open_scorer(ModelSource(model, BACKEND))), list(labels)
    decisions = []
    for row in rows:
        while waiting and waiting[0]["time_ms"] + 7 * DAY_MS <= row["time_ms"]:
            pipeline.apply_label(msgspec.convert(waiting.pop(0), Label))
        decisions.append(pipeline.process(msgspec.convert(row, Transaction)))
    return decisions


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
def test_every_form_gives_the_same_decisions(source: str, output: str, model: Path, tmp_path: Path) -> None:
    if source.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / source)
        pq.write_table(pa.Table.from_pylist(LABELS), tmp_path / "labels")
    else:
        write_lines(tmp_path / source, ROWS)
        write_lines(tmp_path / "labels", LABELS)
    result = score(model, tmp_path / source, tmp_path / output, "--labels", str(tmp_path / "labels"))
    assert result.exit_code == 0, result.stderr
    found = read_decisions(tmp_path / output)
    assert found == expected(model, ROWS, LABELS)
    assert found != expected(model, ROWS), "the labels must have changed decisions"
    assert any(decision.reasons for decision in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, "labels", output])


def test_the_summary_says_what_happened(model: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [*ROWS, ROWS[0]])
    labels = write_lines(
        tmp_path / "labels.jsonl", [*LABELS[:3], label_of(ROWS[3] | {"customer_id": "x", "terminal_id": "y"})]
    )
    text = score(model, source, tmp_path / "out", "--labels", str(labels)).stderr
    assert "601 transactions" in text
    assert "tiny-fraud@" in text
    assert "1 seen before" in text
    assert "4 labels became known, 1 of unknown" in text
    assert "p50" in text
    highest = max(read_decisions(tmp_path / "out")[:600], key=lambda decision: decision.probability or 0)
    assert f"{highest.outcome} {highest.probability:.3f} {highest.reasons[0].feature}" in text
    assert ROWS[0]["customer_id"] + " " not in text


def test_through_a_pipe(model: Path, tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[:50]).encode()
    result = score(model, "-", "-", given=lines)
    found = [msgspec.json.decode(line, type=Decision) for line in result.stdout_bytes.splitlines()]
    assert found == expected(model, ROWS[:50])


def test_rejected_rows_are_told_apart_and_the_others_scored(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    bad = [
        b"{",
        b'{"transaction_id": "x"}',
        json.dumps(ROWS[0] | {"amount": -5}).encode(),
        json.dumps(ROWS[0] | {"amount": float("nan")}).encode(),
        json.dumps(ROWS[0] | {"time_ms": "now"}).encode(),
        b"\xff\xfe\x00",
        b"[" * 200_000,
    ]
    good = [json.dumps(row).encode() for row in ROWS[:20]]
    source.write_bytes(b"\n".join([*good[:10], *bad, *good[10:]]) + b"\n" + json.dumps(ROWS[20]).encode()[:40])
    result = score(model, source, tmp_path / "out.jsonl")
    assert result.exit_code == 3
    assert read_decisions(tmp_path / "out.jsonl") == expected(model, ROWS[:20])
    rejected = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [11, 12, 13, 14, 15, 16, 17, 28]
    assert "amount" in rejected[2]["reason"]
    assert "8 rows rejected" in result.stderr
    piped = score(model, "-", "-", given=source.read_bytes())
    assert piped.exit_code == 3
    assert "standard input:12" in piped.stderr
    # The next run has none, and leaves no list of an earlier run's.
    assert score(model, write_lines(source, ROWS[:5]), tmp_path / "out.jsonl").exit_code == 0
    assert not (tmp_path / "out.jsonl.rejected.jsonl").exists()


@pytest.mark.parametrize("content", [b"", b"\n \n", b"transaction_id,customer_id,terminal_id,time_ms,amount\n"])
def test_an_input_without_rows_is_told_from_a_day_without_transactions(
    content: bytes, model: Path, tmp_path: Path
) -> None:
    """As `imaging classify` tells them: nothing may have been mounted, or fetched."""
    source, state = tmp_path / "in.jsonl", tmp_path / "state"
    source.write_bytes(content)
    (tmp_path / "out").write_bytes(b"yesterday's")
    for given, out in ((source, tmp_path / "out"), ("-", tmp_path / "out"), ("-", "-")):
        with pytest.raises(UsageError, match="holds no transactions to score; --allow-empty makes"):
            score(model, given, out, "--state-dir", str(state), given=content)
        assert (tmp_path / "out").read_bytes() == b"yesterday's"
    for given, out in (("-", "-"), (source, tmp_path / "out"), (source, tmp_path / "out.parquet")):
        assert score(model, given, out, "--allow-empty", "--state-dir", str(state), given=content).exit_code == 0
    assert read_decisions(tmp_path / "out") == read_decisions(tmp_path / "out.parquet") == []


@pytest.mark.parametrize("what", ["transactions", "labels"])
def test_more_rejected_rows_than_were_said_are_a_limit_that_is_missed(what: str, model: Path, tmp_path: Path) -> None:
    """Of transactions and labels each by itself: a day without labels would hide among its transactions."""
    rows, labels = list(ROWS[:10]), list(LABELS[:10])
    for number in range(4):
        (rows if what == "transactions" else labels)[number] = {"time_ms": number}
    words = ["--labels", str(write_lines(tmp_path / "labels.jsonl", labels))]
    source, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out"
    assert score(model, source, out, *words).exit_code == 3
    assert score(model, source, out, *words, "--max-rejected-share", "0.4").exit_code == 3
    out.unlink()
    with pytest.raises(LimitError, match=f"4 of 10 {what} rejected, more than --max-rejected-share 0.3;.*are written"):
        score(model, source, out, *words, "--max-rejected-share", "0.3")
    assert len(read_decisions(out)) == (6 if what == "transactions" else 10)
    none = write_lines(tmp_path / "none.jsonl", [{"amount": 1}])
    assert score(model, none, out).exit_code == 3, "what was all rejected was there"
    with pytest.raises(LimitError, match="1 of 1 transaction rejected"):
        score(model, none, out, "--max-rejected-share", "0.99")


def test_day_after_day_it_goes_on_with_the_histories(model: Path, tmp_path: Path) -> None:
    found = []
    for number, part in enumerate([ROWS[:200], ROWS[200:201], ROWS[201:]]):
        source = write_lines(tmp_path / "in.jsonl", part)
        score(model, source, tmp_path / f"{number}.parquet", "--state-dir", str(tmp_path / "state"))
        found += read_decisions(tmp_path / f"{number}.parquet")
    assert found == expected(model, ROWS)
    again = score(model, write_lines(tmp_path / "in.jsonl", ROWS[-3:]), "-", "--state-dir", str(tmp_path / "state"))
    assert again.stdout.count('"duplicate":true') == 3


def test_what_fails_leaves_everything_as_it_was(model: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS[:50])
    state, out = str(tmp_path / "state"), tmp_path / "out.parquet"
    score(model, source, out, "--state-dir", state)
    before = out.read_bytes()
    damaged = tmp_path / "damaged.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), damaged)
    damaged.write_bytes(damaged.read_bytes()[:200] + b"\0" * 900 + damaged.read_bytes()[1100:])
    with pytest.raises(DataError):
        score(model, damaged, out, "--state-dir", state)
    with pytest.raises(OutputError):
        score(model, write_lines(source, ROWS[50:60]), tmp_path / "no" / "out", "--state-dir", state)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*partial"))
    assert "duplicate" not in score(model, source, "-", "--state-dir", state).stdout


def test_what_is_read_is_not_written_over(model: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl.rejected.jsonl", ROWS[:2])
    before = source.read_bytes()
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "link", tmp_path / "a.jsonl"):
        with pytest.raises(UsageError, match="is read"):
            score(model, source, output)
    with pytest.raises(UsageError, match="is read"):
        score(model, "-", source, "--labels", str(source))
    assert source.read_bytes() == before


def test_only_files_are_replaced(model: Path, tmp_path: Path) -> None:
    """Not a device or a pipe, which root could replace: nobody would ever read from it again."""
    source = write_lines(tmp_path / "in.jsonl", ROWS[:2])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out.rejected.jsonl").mkdir()
    for output in (tmp_path / "pipe", tmp_path, "", ".", "/", tmp_path / "out", tmp_path / ("x" * 244)):
        with pytest.raises(OutputError):
            score(model, source, output)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        ("> /dev/full", 6, "standard output: cannot be written"),
        (">&-", 6, "standard output: cannot be written"),
        ("<&-", 2, "standard input: cannot be read"),
        ("0> /dev/null", 2, "standard input: cannot be read"),
    ],
)
def test_standard_streams_that_are_none(redirection: str, code: int, says: str, model: Path) -> None:
    words = [sys.executable, "-c", COMMAND, "fraud", "score", "--input", "-", "--output", "-", "--model", str(model)]
    command = f"{shlex.join([*words, '--backend', BACKEND])} {redirection}"
    done = subprocess.run(
        ["sh", "-c", command], input=json.dumps(ROWS[0]), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr


def test_a_model_whose_features_are_given_is_refused(tmp_path: Path) -> None:
    from tests.fraud.decision.test_live import seal

    seal(tmp_path / "m", source="given")
    with pytest.raises(UsageError, match="`serve` scores them"):
        score(tmp_path / "m", write_lines(tmp_path / "in", ROWS[:1]), tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read"):
        score(tmp_path / "m2", tmp_path / "missing", tmp_path / "out") if write_fraud_model(tmp_path / "m2") else None


def test_interrupted_it_writes_nothing(model: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    words = ["fraud", "score", "--input", "-", "--output", str(tmp_path / "out"), "--model", str(model)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words, "--backend", BACKEND, "--state-dir", str(tmp_path / "state")],
        stdin=reader,
        stderr=subprocess.PIPE,
    )
    os.write(writer, json.dumps(ROWS[0]).encode() + b"\n")
    deadline = time.monotonic() + 60
    while not (tmp_path / ".out.partial").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    os.close(reader)
    os.close(writer)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert not list(tmp_path.glob("*out*"))
    assert not list((tmp_path / "state").glob("snapshot*"))


def test_latencies_are_percentiles() -> None:
    latencies = Latencies()
    assert latencies.percentile_us(50) == 0
    for us in range(1, 101):
        latencies.add(us * 1000 + 20)
    latencies.add(10**9)
    assert latencies.percentile_us(50) == pytest.approx(51, abs=0.2)
    assert latencies.percentile_us(99) == pytest.approx(100, abs=0.2)
    assert latencies.percentile_us(100) == 2000
