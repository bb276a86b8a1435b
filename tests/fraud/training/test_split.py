"""Our own form of data for training: what the files say, as where it is served."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import asdict, replace

from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.labels import label_later, label_of
from featherweight.apps.fraud.training.replay import replay
from featherweight.apps.fraud.training.split import read_labelled
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import DataError
from tests.fraud.streams import START, transaction

Events = Sequence[Transaction] | Sequence[Label]


def write_lines(path: Path, events: Events) -> None:
    path.write_bytes(msgspec.json.Encoder().encode_lines(events))


def write_csv(path: Path, events: Events) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, events[0].__struct_fields__)
        writer.writeheader()
        writer.writerows(asdict(event) for event in events)


def write_table(path: Path, events: Events) -> None:
    pq.write_table(pa.Table.from_pylist([asdict(event) for event in events]), path)


FORMS = {"jsonl": write_lines, "csv": write_csv, "parquet": write_table}


@pytest.mark.parametrize("form", FORMS)
def test_the_last_label_counts_as_where_it_is_served(form: str, tmp_path: Path) -> None:
    """Said, taken back, said of another customer's, and said anew."""
    rows = [transaction(f"t{number}", START + number) for number in range(4)]
    said = [
        label_of(rows[0], True),
        label_of(rows[1], True),
        label_of(rows[2], False),
        label_of(replace(rows[3], customer_id="another"), True),
        label_of(rows[1], False),
        label_of(rows[2], True),
    ]
    FORMS[form](tmp_path / f"transactions.{form}", rows)
    FORMS[form](tmp_path / f"labels.{form}", said)
    labelled = list(read_labelled(tmp_path))
    assert [row for row, _ in labelled] == rows
    engine = FeatureEngine()
    for row in rows:
        engine.advance(row)
    for label in said:
        engine.apply_label(label)
    assert [is_fraud for _, is_fraud in labelled] == [True, False, True, False]
    trained = replay(label_later(labelled))
    served = replay([*rows, *said])
    known = CATALOGUE.index("customer_frauds_30d_known")
    assert trained.labels.tolist()[:3] == served.labels.tolist()[:3] == [1, 0, 1]
    engine.advance(transaction("later", START + 10))
    assert engine.row[known] == 2


def test_of_two_forms_of_the_same_data_none_is_taken(tmp_path: Path) -> None:
    for name in ("transactions.jsonl", "labels.jsonl", "labels.csv"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"has labels\.jsonl and labels\.csv; leave the one that is meant"):
        list(read_labelled(tmp_path))


def test_what_training_does_not_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = transaction("t1", START)
    write_lines(tmp_path / "labels.jsonl", [label_of(row, True)])
    (tmp_path / "transactions.jsonl").write_bytes(msgspec.json.encode(asdict(row) | {"currency": "EUR"}))
    assert list(read_labelled(tmp_path)) == [(row, True)]
    assert "transactions.jsonl: 1 row with fields that are not known and not read: currency" in caplog.text


def test_frauds_that_are_no_transactions_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of another customer, of a transaction that is not there, and one that was taken back."""
    rows = [transaction(f"t{number}", START + number) for number in range(3)]
    another, lost = replace(rows[1], customer_id="another"), transaction("lost", START)
    said = [label_of(rows[0], True), label_of(another, True), label_of(lost, True), label_of(rows[2], False)]
    write_lines(tmp_path / "transactions.jsonl", rows)
    write_lines(tmp_path / "labels.jsonl", said[:1])
    assert [fraud for _, fraud in read_labelled(tmp_path)] == [True, False, False]
    assert not caplog.text
    write_lines(tmp_path / "labels.jsonl", said)
    assert [fraud for _, fraud in read_labelled(tmp_path)] == [True, False, False]
    assert "labels.jsonl: 2 transactions that it calls fraud cannot be found" in caplog.text
