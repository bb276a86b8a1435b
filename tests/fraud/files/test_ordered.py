"""Files in any order, pipes that run backwards, times that are not believed: for scoring and for training."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import write_csv

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.files import job as score_command
from featherweight.apps.fraud.files import ordered, sorting
from featherweight.apps.fraud.files.readers import HANDBOOK_COLUMNS
from featherweight.apps.fraud.synthetic import synthesize, write_synthetic
from featherweight.apps.fraud.training import models as models
from featherweight.apps.fraud.training.description import SplitDays
from featherweight.apps.fraud.training.split import Split, read_parts
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.errors import DataError, OutputError
from tests.fraud.files.test_job import expected, read_decisions, score, write_lines
from tests.fraud.serving import COMMAND, label_of, make_transactions
from tests.fraud.streams import DAY, START

ROWS = make_transactions(600, seed=41)
LABELS = [label_of(row, is_fraud=number % 2 == 0) for number, row in enumerate(ROWS[:400:3])]
LAYOUT = SplitDays(train_days=8, delay_days=3, validation_days=5, test_days=5)
FAR = 4_000_000_000_000


@pytest.fixture(params=[64 << 20, 4000], ids=["in memory", "many runs"])
def run_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", request.param)


def shuffled(rows: Sequence[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(rows, len(rows))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    if path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(json.dumps(value).strip('"') for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return path
    return write_lines(path, rows)


def customer(count: int, *, amount: float = 20.0) -> list[dict[str, Any]]:
    """Three transactions a day of one customer."""
    return [
        {
            "transaction_id": f"n{number}",
            "customer_id": "C",
            "terminal_id": "M",
            "time_ms": START + number * DAY // 3,
            "amount": amount + number % 5,
        }
        for number in range(count)
    ]


@pytest.mark.usefixtures("run_bytes")
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_file_in_any_order_is_decided_as_in_the_order_of_time(form: str, model: Path, tmp_path: Path) -> None:
    """Transactions and labels; the decisions are in the order of the input."""
    rows = shuffled(ROWS, 1)
    source = write(tmp_path / f"in.{form}", rows)
    labels = write(tmp_path / f"labels.{form}", shuffled(LABELS, 2))
    output = tmp_path / ("out.parquet" if form == "parquet" else "out.jsonl")
    result = score(model, source, output, "--labels", str(labels))
    assert result.exit_code == 0, result.stderr
    found = read_decisions(output)
    assert [decision.transaction_id for decision in found] == [row["transaction_id"] for row in rows]
    by_id = {decision.transaction_id: decision for decision in expected(model, ROWS, LABELS)}
    assert {decision.transaction_id: decision for decision in found} == by_id
    assert found != expected(model, rows), "the order must matter"
    assert "not in the order of time" in result.stderr
    assert f"{len(LABELS)} labels became known, 0 of unknown transactions" in result.stderr
    strongest = max(enumerate(found, 1), key=lambda pair: pair[1].probability or 0)
    assert f"row {strongest[0]:,}: {strongest[1].outcome}" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, labels.name, output.name]


def test_rows_of_the_same_time_keep_the_order_of_the_file(model: Path, tmp_path: Path) -> None:
    """The first of two with the same id is the transaction, the second is sent again."""
    rows = [row | {"time_ms": START + number // 4} for number, row in enumerate(customer(40))]
    source = write_lines(tmp_path / "in.jsonl", [*rows[20:], rows[20], *rows[:20]])
    score(model, source, tmp_path / "out.jsonl")
    found = read_decisions(tmp_path / "out.jsonl")
    assert [decision.duplicate for decision in found] == [False] * 20 + [True] + [False] * 20


def test_what_is_in_order_is_not_sorted(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "sort_items", None)
    monkeypatch.setattr(score_command, "sort_items", None)
    source = write_lines(tmp_path / "in.jsonl", [*ROWS[:50], ROWS[49], *ROWS[50:]])
    result = score(model, source, tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert "order of time" not in result.stderr


def test_rejected_rows_keep_their_lines_and_come_in_their_order(model: Path, tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in shuffled(ROWS[:100], 3)]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join([*rows[:10], "{", "", *rows[10:], json.dumps(ROWS[0] | {"time_ms": FAR})]))
    assert score(model, source, tmp_path / "out.jsonl").exit_code == 3
    rejected = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [11, 103]
    assert rejected[1]["reason"] == "time_ms lies far beyond the times of the other rows"
    assert len(read_decisions(tmp_path / "out.jsonl")) == 100


def test_labels_that_are_not_due_are_told(model: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS)
    labels = write_lines(tmp_path / "labels.jsonl", [label_of(row) for row in ROWS[-9:]])
    result = score(model, source, tmp_path / "out", "--labels", str(labels))
    assert "0 labels became known, 0 of unknown transactions; 9 not due yet" in result.stderr
    (tmp_path / "labels.jsonl").write_text("")
    result = score(model, source, tmp_path / "out", "--labels", str(labels))
    assert "0 labels became known, 0 of unknown transactions\n" in result.stderr
    assert "labels" not in score(model, source, tmp_path / "out").stderr


def test_without_delay_a_label_comes_behind_its_transaction(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "labels.jsonl", [label_of(row) for row in customer(3)])
    due = score_command.DueLabels(ordered.open_labels(rows, tmp_path, lambda: FAR, Unread()), 0.0, lambda row: None)
    assert list(due.until(START)) == []
    assert [label.transaction_id for label in due.until(START + 1)] == ["n0"]
    assert due.count_rest() == 2


def test_rows_dated_in_the_future_change_no_other_decision(model: Path, tmp_path: Path) -> None:
    rows = customer(60)
    last = rows[-1] | {"transaction_id": "big", "time_ms": rows[-1]["time_ms"] + DAY // 3, "amount": 400}
    future = [rows[0] | {"transaction_id": f"f{number}", "time_ms": FAR + number} for number in range(3)]
    state = ["--state-dir", str(tmp_path / "state")]
    for name, between in (("base", []), ("future", future)):
        source = write_lines(tmp_path / f"{name}.jsonl", [*rows, *between, last])
        result = score(model, source, tmp_path / f"{name}.out", "--state-dir", str(tmp_path / name))
        assert result.exit_code == (3 if between else 0)
    base, found = (read_decisions(tmp_path / f"{name}.out") for name in ("base", "future"))
    assert found == base
    piped = score(model, "-", "-", *state, given=(tmp_path / "future.jsonl").read_bytes())
    assert piped.exit_code == 3
    assert json.loads(piped.stdout_bytes.splitlines()[-1])["probability"] == base[-1].probability
    assert "time_ms lies more than a day ahead of the clock" in piped.stderr
    later = write_lines(tmp_path / "later.jsonl", [last | {"transaction_id": "l", "time_ms": last["time_ms"] + DAY}])
    score(model, later, tmp_path / "base.later", "--state-dir", str(tmp_path / "base"))
    score(model, later, tmp_path / "future.later", "--state-dir", str(tmp_path / "future"))
    assert read_decisions(tmp_path / "future.later") == read_decisions(tmp_path / "base.later")


def test_rows_months_ahead_of_their_file_take_nothing_from_the_next_one(model: Path, tmp_path: Path) -> None:
    """Of old data, so that the clock says nothing: a file by itself may have them, one with --state-dir may not."""
    rows = customer(60)
    ahead = [rows[0] | {"transaction_id": f"a{n}", "time_ms": rows[-1]["time_ms"] + 300 * DAY + n} for n in range(3)]
    late = rows[-1] | {"transaction_id": "l", "time_ms": rows[-1]["time_ms"] + DAY, "amount": 400}
    later = write_lines(tmp_path / "later.jsonl", [late])
    for name, more in (("base", []), ("ahead", ahead)):
        source, state = write_lines(tmp_path / f"{name}.jsonl", [*rows, *more]), ["--state-dir", str(tmp_path / name)]
        assert score(model, source, tmp_path / "out", *state).exit_code == (3 if more else 0)
        assert score(model, later, tmp_path / f"{name}.later", *state).exit_code == 0
    (base,), (found,) = (read_decisions(tmp_path / f"{name}.later") for name in ("base", "ahead"))
    assert found == base
    assert not found.late
    assert score(model, tmp_path / "ahead.jsonl", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("what", ["transactions", "labels"])
def test_a_file_in_seconds_is_refused_with_the_hint(what: str, form: str, model: Path, tmp_path: Path) -> None:
    def convert(rows: Sequence[dict[str, Any]], is_wrong: bool) -> list[dict[str, Any]]:
        return [row | {"time_ms": row["time_ms"] // 1000} if is_wrong else row for row in rows]

    source = write(tmp_path / f"in.{form}", convert(ROWS, what == "transactions"))
    labels = write(tmp_path / f"labels.{form}", convert(LABELS, what == "labels"))
    with pytest.raises(DataError, match="are these seconds"):
        score(model, source, tmp_path / "out", "--labels", str(labels))
    assert not (tmp_path / "out").exists()


def test_labels_with_times_that_are_not_believed_are_rejected(model: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS)
    wrong = [LABELS[3] | {"time_ms": LABELS[3]["time_ms"] // 1000}, LABELS[4] | {"time_ms": FAR}]
    labels = write_lines(tmp_path / "labels.jsonl", [*LABELS, *wrong])
    result = score(model, source, tmp_path / "out", "--labels", str(labels))
    assert result.exit_code == 3
    rejected = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [len(LABELS) + 1, len(LABELS) + 2]
    assert read_decisions(tmp_path / "out") == expected(model, ROWS, LABELS)


def test_a_pipe_that_runs_backwards_is_refused_with_its_place(model: Path, tmp_path: Path) -> None:
    rows = customer(30)
    lines = "".join(json.dumps(row) + "\n" for row in [*rows[:20], rows[14], *rows[20:25], rows[19]]).encode()
    state = ["--state-dir", str(tmp_path / "state")]
    with pytest.raises(
        DataError, match=r"standard input:21: runs backwards: .*1\.7 days before that of line 20; .*file"
    ):
        score(model, "-", tmp_path / "out.jsonl", *state, given=lines)
    assert not list(tmp_path.glob("*out*"))
    assert "duplicate" not in score(model, "-", "-", *state, given=json.dumps(rows[0]).encode()).stdout


def test_a_pipe_may_be_late_by_a_day(model: Path) -> None:
    rows = customer(60)
    mixed = [row for start in range(0, 60, 3) for row in reversed(rows[start : start + 3])]
    lines = "".join(json.dumps(row) + "\n" for row in mixed).encode()
    result = score(model, "-", "-", given=lines)
    assert result.exit_code == 0
    assert "late" not in result.stdout


@pytest.mark.parametrize("in_order", [True, False])
def test_a_pipe_that_has_a_name(in_order: bool, model: Path, tmp_path: Path) -> None:
    """As of <(...) in a shell: transactions are taken as they come, labels are sorted."""
    rows, labels = ROWS if in_order else shuffled(ROWS, 5), shuffled(LABELS, 6)
    write_lines(tmp_path / "in.jsonl", rows)
    write_lines(tmp_path / "labels.jsonl", labels)
    words = f"--input <(cat {tmp_path}/in.jsonl) --labels <(cat {tmp_path}/labels.jsonl) --output {tmp_path}/out.jsonl"
    command = f"{sys.executable} -c '{COMMAND}' fraud score --model {model} --backend onnxruntime {words}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    if in_order:
        assert done.returncode == 0, done.stderr
        assert read_decisions(tmp_path / "out.jsonl") == expected(model, ROWS, LABELS)
    else:
        assert done.returncode == 2
        assert "runs backwards" in done.stderr
        assert "Traceback" not in done.stderr


def test_where_nothing_can_be_sorted_it_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 4000)
    monkeypatch.setattr(score_command.tempfile, "gettempdir", lambda: str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match="nowhere: rows cannot be put in the order of time here"):
        score(model, write_lines(tmp_path / "in.jsonl", shuffled(ROWS, 7)), "-")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_synthetic(folder, 150, 150, 30, seed=0, form="parquet")
    return folder


def assert_same(found: Split, wanted: Split) -> None:
    for name in ("train", "validation", "test"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert len(one)
        for each in ("rows", "features", "labels", "days", "customers"):
            np.testing.assert_array_equal(getattr(one, each), getattr(other, each))


@pytest.mark.usefixtures("run_bytes")
def test_training_on_shuffled_files_is_training_on_sorted_ones(cards: Path, tmp_path: Path) -> None:
    for name in ("transactions", "labels"):
        write_lines(tmp_path / f"{name}.jsonl", shuffled(pq.read_table(cards / f"{name}.parquet").to_pylist(), 8))
    found = read_parts(str(tmp_path), "records", LAYOUT, models.COLUMNS)
    assert_same(found, read_parts(str(cards), "records", LAYOUT, models.COLUMNS))


def write_handbook(path: Path, pairs: Sequence[Any]) -> Path:
    rows = [
        (t.transaction_id, t.time_ms, t.customer_id, t.terminal_id, t.amount, int(is_fraud)) for t, is_fraud in pairs
    ]
    columns = dict(zip(HANDBOOK_COLUMNS, zip(*rows, strict=True), strict=True))
    table = pa.table({name: list(values) for name, values in columns.items()})
    times = table.column("TX_DATETIME").cast(pa.timestamp("ms"))
    pq.write_table(table.set_column(1, "TX_DATETIME", times), path)
    return path


def test_the_handbooks_transactions_are_put_in_order_too(tmp_path: Path) -> None:
    pairs = list(synthesize(150, 150, 30))
    found, wanted = (
        read_parts(str(write_handbook(tmp_path / name, rows)), "handbook", LAYOUT, models.COLUMNS)
        for name, rows in (("mixed", shuffled(pairs, 9)), ("sorted", pairs))
    )
    assert_same(found, wanted)


@pytest.mark.parametrize("name", ["transactions", "labels"])
def test_a_row_dated_in_the_future_is_not_trained_on(name: str, cards: Path, tmp_path: Path) -> None:
    for each in ("transactions", "labels"):
        rows = pq.read_table(cards / f"{each}.parquet").to_pylist()
        if each == name:
            rows[7] |= {"time_ms": FAR}
        write_lines(tmp_path / f"{each}.jsonl", rows)
    with pytest.raises(DataError, match=rf"{name}\.jsonl:8: time_ms lies far beyond .*correct or remove the row"):
        read_parts(str(tmp_path), "records", LAYOUT, models.COLUMNS)


def test_a_transaction_with_the_id_of_another_one_is_not_trained_on_and_told(
    cards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for each in ("transactions", "labels"):
        rows = pq.read_table(cards / f"{each}.parquet").to_pylist()
        if each == "transactions":
            rows.append(rows[7] | {"amount": rows[7]["amount"] + 1})
        write_lines(tmp_path / f"{each}.jsonl", rows)
    found = read_parts(str(tmp_path), "records", LAYOUT, models.COLUMNS)
    assert "1 transaction with the id of another one" in caplog.text
    assert_same(found, read_parts(str(cards), "records", LAYOUT, models.COLUMNS))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_where_columns_are_missing_it_is_said_of_all_of_them(form: str, tmp_path: Path) -> None:
    """Not only of the time, which is all that the first look at a file reads."""
    path = tmp_path / f"rows.{form}"
    table = pa.table({"id": ["1"], "customer_id": ["c"], "when": [1]})
    write_csv(table, path) if form == "csv" else pq.write_table(table, path)
    with pytest.raises(DataError, match="has no column transaction_id, terminal_id, time_ms, amount; found"):
        ordered.check_file_order(path, Transaction, 0)
