"""Files of transactions: good rows go on, bad ones are reported where they stand."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.files.readers import (
    CARD_FEATURES,
    HANDBOOK_COLUMNS,
    LONGEST_LINE,
    RejectedRow,
    read_cards,
    read_handbook,
    read_lines,
    read_rows,
)
from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import DataError
from tests.datasets import local_copy
from tests.fraud.streams import START, transaction

GOOD = msgspec.json.encode(transaction("t1", START))
BAD = {
    b"{": "truncated",
    GOOD[:40]: "malformed|truncated",
    b"not json": "malformed",
    b"[]": "Expected `object`",
    b"\xff\xfe\x00": "malformed",
    GOOD.replace(b"t1", b"\xff\xff"): "utf-8",
    GOOD.replace(b"12.5", b"-12.5"): r"\$.amount",
    GOOD.replace(b"12.5", b"NaN"): "malformed",
    GOOD.replace(b"12.5", b"1e400"): "number out of range",
    GOOD.replace(b"12.5", b'"12.5"'): r"\$.amount",
    GOOD.replace(b'"t1"', b'""'): r"\$.transaction_id",
    GOOD.replace(b'"t1"', b'"' + b"x" * 65 + b'"'): r"\$.transaction_id",
    GOOD.replace(b'"t1"', b'"' + b"x" * LONGEST_LINE + b'"'): "longer than",
    b"[" * 5000: "nested|malformed|truncated|Expected",
    GOOD.replace(b"amount", b"amounts"): "has no field amount; found amounts",
}


def lines(content: bytes) -> list[Transaction | RejectedRow]:
    return list(read_lines(io.BytesIO(content), "input", Transaction))


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_line_is_rejected_where_it_stands_and_the_rest_goes_on(line: bytes, reason: str) -> None:
    before, blank, rejected, after = GOOD + b"\n", b" \n", line + b"\n", GOOD.replace(b"t1", b"t2")
    first, found, last = lines(before + blank + rejected + after)
    assert isinstance(first, Transaction)
    assert isinstance(last, Transaction)
    assert last.transaction_id == "t2"
    assert isinstance(found, RejectedRow)
    assert str(found).startswith("input:3: ")
    assert re.search(reason, found.reason, re.IGNORECASE), found.reason
    assert "kiosk" not in found.reason
    assert "xxx" not in found.reason


@given(st.binary(max_size=300))
def test_no_bytes_are_a_failure(content: bytes) -> None:
    with suppress(DataError):  # of what another program has compressed, say
        assert all(isinstance(row, (Transaction, RejectedRow)) for row in lines(content))


def test_a_long_line_at_the_end_of_the_file_ends() -> None:
    assert [type(row) for row in lines(b"x" * (3 * LONGEST_LINE))] == [RejectedRow]


def test_json_lines_and_parquet_of_our_own_form(tmp_path: Path) -> None:
    rows = [transaction(f"t{number}", START + number) for number in range(9000)]
    (tmp_path / "rows.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(rows))
    assert list(read_rows(tmp_path / "rows.jsonl", Transaction)) == rows
    table = pa.Table.from_pylist([{**msgspec.structs.asdict(row), "more": 1} for row in rows])
    pq.write_table(table, tmp_path / "rows.parquet")
    assert list(read_rows(tmp_path / "rows.parquet", Transaction)) == rows
    labels = [label_of(row, True) for row in rows[:10]]
    (tmp_path / "labels").write_bytes(msgspec.json.Encoder().encode_lines(labels))
    assert list(read_rows(tmp_path / "labels", Label)) == labels


def test_bad_rows_of_a_parquet_file(tmp_path: Path) -> None:
    rows = [msgspec.structs.asdict(transaction(f"t{number}", START + number)) for number in range(5)]
    rows[1]["amount"], rows[2]["amount"], rows[3]["customer_id"] = float("nan"), None, None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = list(read_rows(tmp_path / "rows.parquet", Transaction))
    assert [type(row).__name__ for row in found] == ["Transaction", *["RejectedRow"] * 3, "Transaction"]
    assert [str(row).split(": ")[0] for row in found[1:4]] == [f"{tmp_path / 'rows.parquet'}:{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        (
            "customer_id",
            pa.StringArray.from_buffers(3, pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b"c\xfec")),
        ),
        ("time_ms", pa.array([START, 2**62, START], pa.timestamp("us", "UTC"))),
        ("time_ms", pa.array([1, 2, 3], pa.timestamp("us", "Mars/Phobos"))),
        ("time_ms", pa.array([1, 2**62, 3], pa.duration("s"))),
    ],
)
def test_values_that_python_cannot_hold_are_bad_rows(name: str, column: pa.Array, tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([msgspec.structs.asdict(transaction(f"t{n}", START + n)) for n in range(3)])
    path = tmp_path / "rows.parquet"
    pq.write_table(rows.set_column(rows.schema.names.index(name), name, column), path)
    found = list(read_rows(path, Transaction))
    assert isinstance(found[1], RejectedRow)
    assert found[1].line == 2
    assert [isinstance(row, Transaction) for row in found] == [name == "customer_id", False, name == "customer_id"]


def test_a_pipe_is_read_as_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as writer:
        writer.submit((tmp_path / "pipe").write_bytes, GOOD + b"\n" + GOOD)
        assert len(list(read_rows(tmp_path / "pipe", Transaction))) == 2


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("TX_AMOUNT", pa.array([1.0, None])),
        ("TX_AMOUNT", pa.array([1.0, -5.0])),
        ("TX_AMOUNT", pa.array(["1", "x"])),
        ("TX_DATETIME", pa.array(["2018-04-01", "b"])),
        ("TX_DATETIME", pa.array([0, None], pa.timestamp("us"))),
        ("CUSTOMER_ID", pa.array(["1", None])),
        ("TX_FRAUD", pa.array([0, None])),
        ("TX_FRAUD", pa.array([0.0, float("nan")])),
        ("TX_FRAUD", pa.array(["0", "1"])),
        ("TX_FRAUD", pa.array([-1, 1])),
    ],
)
def test_a_bad_row_of_the_handbook_is_an_error(name: str, column: pa.Array, tmp_path: Path) -> None:
    good = dict.fromkeys(HANDBOOK_COLUMNS, pa.array([1, 2])) | {"TX_DATETIME": pa.array([1, 2], pa.timestamp("ms"))}
    good["TX_FRAUD"] = pa.array([0, 1])
    pq.write_table(pa.table(good), tmp_path / "good.parquet")
    assert len(list(read_handbook(tmp_path / "good.parquet"))) == 2
    pq.write_table(pa.table(good | {name: column}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        list(read_handbook(tmp_path / "bad.parquet"))


@pytest.mark.parametrize(
    ("rows", "name", "values"),
    [
        (0, "Time", []),
        (2, "V1", ["x", "y"]),
        (2, "V1", [[1.0], [2.0]]),
        (2, "Time", [0.0, None]),
        (2, "Amount", [float("inf"), 1.0]),
        (2, "Class", [0, None]),
        (2, "Class", [0, 256]),
    ],
)
def test_cards_that_are_none_are_an_error(rows: int, name: str, values: list[Any], tmp_path: Path) -> None:
    good = {column: pa.array([1.0] * rows) for column in (*CARD_FEATURES, "Class")}
    pq.write_table(pa.table(good | {name: pa.array(values)}), tmp_path / "cards.parquet")
    with pytest.raises(DataError, match=r"cards\.parquet: "):
        read_cards(tmp_path / "cards.parquet")


def test_files_that_cannot_be_read_are_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path / "nothing", Transaction))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path, Transaction))
    (tmp_path / "damaged").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DataError, match="not a sound Parquet file"):
        list(read_rows(tmp_path / "damaged", Transaction))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="has no column transaction_id, "):
        list(read_rows(tmp_path / "other.parquet", Transaction))
    with pytest.raises(DataError, match="has no column TRANSACTION_ID, "):
        list(read_handbook(tmp_path / "other.parquet"))
    with pytest.raises(DataError, match="has no column Time, "):
        read_cards(tmp_path / "other.parquet")


def test_the_handbooks_transactions() -> None:
    pairs = list(islice(read_handbook(local_copy("fraud_handbook")), 50_000))
    first, is_fraud = pairs[0]
    assert (first.transaction_id, first.customer_id, first.terminal_id) == ("0", "596", "3156")
    assert (first.time_ms, first.amount, is_fraud) == (1_522_540_831_000, 57.16, False)
    times = [pair.time_ms for pair, _ in pairs]
    assert times == sorted(times)
    assert all(abs(pair.cents - 100 * pair.amount) < 1e-6 for pair, _ in pairs)
    assert Counter(is_fraud for _, is_fraud in pairs)[True] > 50


def test_the_ulb_cards() -> None:
    cards = read_cards(local_copy("creditcard"))
    assert cards.features.shape == (284_807, 30) == (len(cards.labels), len(CARD_FEATURES))
    assert cards.labels.sum() == 492
    assert np.all(np.diff(cards.time_s) >= 0)
    assert cards.features.dtype == np.float32
    assert abs(cards.features[0, 1] + 1.359807) < 3e-6
    assert (cards.amounts[0], cards.features[0, -1]) == (149.62, np.float32(149.62))
