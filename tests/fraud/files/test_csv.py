"""Transactions and labels as CSV: what spreadsheets and databases write, read strictly, a line at a time."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.files.readers import LONGEST_LINE, RejectedRow, read_lines, read_rows
from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import DataError
from tests.fraud.streams import START, transaction

HEAD = b"transaction_id,customer_id,terminal_id,time_ms,amount\n"
ROW = b"t1,anna,kiosk,1522540800000,12.5\n"
ONE = transaction("t1", START)


def read(content: bytes, *, is_csv: bool = False, unread: Unread | None = None) -> list[Transaction | RejectedRow]:
    return list(read_lines(io.BytesIO(content), "input", Transaction, unread=unread, is_csv=is_csv))


@pytest.mark.parametrize(
    "content",
    [
        HEAD + ROW,
        HEAD + ROW.rstrip(),
        b"\xef\xbb\xbf" + HEAD + ROW,
        (HEAD + ROW).replace(b"\n", b"\r\n"),
        (HEAD + ROW).replace(b",", b";"),
        (HEAD + ROW).replace(b",", b"\t"),
        b"\n \n" + HEAD + b"\n" + ROW + b"\n\n",
        b'"amount","time_ms","terminal_id","customer_id","transaction_id"\n"12.5","1522540800000","kiosk","anna","t1"\n',
        HEAD + ROW.replace(b"12.5", b"1.25e1"),
        HEAD + ROW.replace(b"1522540800000", b"1.522540800000000000e+12"),
        HEAD + ROW.replace(b"1522540800000", b"1522540800000.0"),
    ],
)
def test_it_is_read_in_every_usual_form(content: bytes, tmp_path: Path) -> None:
    assert read(content) == [ONE]
    (tmp_path / "rows.csv").write_bytes(content)
    assert list(read_rows(tmp_path / "rows.csv", Transaction)) == [ONE]


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20)


@given(st.lists(st.tuples(names, names, names, st.integers(0, START), st.integers(0, 10**15)), max_size=8))
def test_what_a_writer_of_csv_writes_is_read(rows: list[tuple[str, str, str, int, int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Transaction.__struct_fields__)
    writer.writerows((*row[:4], repr(row[4] / 100)) for row in rows)
    made = [dict(zip(Transaction.__struct_fields__, (*row[:4], row[4] / 100), strict=True)) for row in rows]
    assert read(text.getvalue().encode()) == msgspec.convert(made, list[Transaction])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"t1,anna,kiosk,1522540800000", "has 4 values, but the first line names 5 columns"),
        (b"t1,anna,kiosk,1522540800000,12,5", "has 6 values"),
        (b"t1,anna,kiosk,1522540800000,", r"\$\.amount"),
        (b"t1,anna,kiosk,1522540800000,free", r"Expected a number such as 57\.16 - at `\$\.amount`"),
        (b't1,anna,kiosk,1522540800000,"57,16"', r"Expected a number such as 57\.16 - at `\$\.amount`"),
        (b"t1,anna,kiosk,1522540800000,nan", r"\$\.amount|number"),
        (b"t1,anna,kiosk,1522540800000,inf", r"\$\.amount|number"),
        (b"t1,anna,kiosk,1522540800000,0x10", r"\$\.amount"),
        (b"t1,anna,kiosk,1522540800000,-1", r"\$\.amount"),
        (b"t1,anna,kiosk,1522540800000,1_000", r"\$\.amount"),
        (b't1,anna,kiosk,1522540800000,"1,000.00"', r"\$\.amount"),
        (b"t1,anna,kiosk,2018-04-01,12.5", r"Expected a whole number - at `\$\.time_ms`"),
        (b"t1,anna,kiosk,1522540800000.5,12.5", r"\$\.time_ms"),
        (b"t1,anna,kiosk,1.52254E+12,12.5", "^time_ms is rounded, as spreadsheets write"),
        (b"t1,anna,kiosk,2E+12,12.5", "^time_ms is rounded"),
        (b"4.55673E+15,anna,kiosk,1522540800000,12.5", "^transaction_id is rounded"),
        (b't1,"4,55673E+15",kiosk,1522540800000,12.5', "^customer_id is rounded"),
        (b",anna,kiosk,1522540800000,12.5", r"\$\.transaction_id"),
        (b"x" * 65 + b",anna,kiosk,1522540800000,12.5", r"\$\.transaction_id"),
        (b"t\xff,anna,kiosk,1522540800000,12.5", "not UTF-8"),
        (b'"t1,anna,kiosk,1522540800000,12.5', "not a line of CSV"),
        (b'"t"1,anna,kiosk,1522540800000,12.5', "not a line of CSV"),
        (b"t\x001,anna,kiosk,1522540800000,12.5\x00,", "values|NUL"),
        (b"x" * LONGEST_LINE * 3, "longer than"),
    ],
)
def test_a_bad_row_is_rejected_where_it_stands_and_the_rest_goes_on(row: bytes, reason: str) -> None:
    first, bad, last = read(HEAD + ROW + row + b"\n" + ROW)
    assert first == last == ONE
    assert isinstance(bad, RejectedRow)
    assert str(bad).startswith("input:3: ")
    assert re.search(reason, bad.reason), bad.reason
    assert "anna" not in bad.reason


@pytest.mark.parametrize("head", [HEAD.upper(), HEAD.replace(b",", b" , "), b" " + HEAD.title().replace(b",", b";")])
def test_a_head_that_only_capitals_or_blanks_hide_is_told_in_a_pipe_too(head: bytes) -> None:
    """And not every row as bad JSON: a pipe has no name that says what it is."""
    with pytest.raises(DataError, match=r"input: has no column .*; found .*; expected transaction_id, "):
        read(head + ROW)


def test_columns_that_are_not_known_are_ignored_and_their_rows_counted() -> None:
    unread = Unread()
    more = b"\n".join(line + b",EUR" for line in (HEAD + ROW + ROW).splitlines()).replace(b"EUR", b"currency", 1)
    assert read(more, unread=unread) == [ONE, ONE]
    assert (unread.rows, unread.names) == (2, ["currency"])


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (HEAD.replace(b"amount", b"amuont"), "has no column amount; found amuont; expected transaction_id, "),
        (HEAD.replace(b",", b", "), r"has no column customer_id, .*; found ' customer_id', "),
        (HEAD.replace(b"customer_id", b"amount"), "has more than one column amount"),
        (b"id,who,where,when,how much\n", "has no column transaction_id, .*; found .* and 2 more; "),
        (HEAD.upper(), "has no column transaction_id, .*; found TRANSACTION_ID, .*; expected transaction_id, "),
        (HEAD.upper().replace(b",", b";"), "has no column transaction_id, .*; found TRANSACTION_ID, "),
        (HEAD.title().replace(b",", b" \t "), r"has no column transaction_id, .*; found 'Transaction_Id '"),
        (HEAD.replace(b",", b" ,").replace(b"amount", b" amount"), "has no column transaction_id, .*; found '"),
        (b'"transaction_id" ,"amount"\n', "the first line must name the columns: .*found: not a line of CSV"),
        (b"t1,anna,kiosk,1522540800000,12.5\n", "has no column transaction_id"),
        (b"\xff\xfet\x00", "is UTF-16"),
        (HEAD.decode().encode("utf-16-le"), "begins with NUL bytes and is not text; if it is UTF-16"),
        (HEAD.decode().encode("utf-16-be"), "begins with NUL bytes and is not text; if it is UTF-16"),
        (b"PK\x03\x04", "is compressed with zip"),
        (b"\x1f\x8b\x08" + b"x" * 3 * LONGEST_LINE, "is compressed with gzip"),
        (b"BZh9", "is compressed with bzip2"),
        (b"\xfd7zXZ\x00", "is compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "is compressed with zstd"),
        (b'"transaction_id\n', "the first line must name the columns"),
    ],
)
def test_a_file_without_the_columns_is_told_in_words(head: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(head + ROW)
    with pytest.raises(DataError, match=rf"rows\.csv: {told}"):
        list(read_rows(tmp_path / "rows.csv", Transaction))


def test_what_has_neither_the_name_nor_the_head_of_a_csv_is_read_as_json() -> None:
    assert all(isinstance(row, RejectedRow) for row in read(b"a,b,c\n1,2,3\n"))
    assert read(b'{"transaction_id": "t1,customer_id"}\n')[0].reason.startswith("has no field customer_id")  # type: ignore[union-attr]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (msgspec.json.encode([ONE, ONE]), ".[]"),
        (b"[\n" + msgspec.json.encode(ONE) + b",\n" + msgspec.json.encode(ONE) + b"\n]\n", ".[]"),
        (msgspec.json.format(msgspec.json.encode([ONE, ONE]), indent=2), ".[]"),
        (msgspec.json.format(msgspec.json.encode(ONE), indent=2), "."),
    ],
)
def test_json_that_is_not_one_object_a_line_is_refused_as_a_whole(mark: bytes, content: bytes, wanted: str) -> None:
    """Line by line, nothing of an array would be read but its last object."""
    with pytest.raises(DataError, match=rf"input: its JSON is not one object a line; .* jq -c '{re.escape(wanted)}' "):
        read(mark + content)


@pytest.mark.parametrize("identity", ["5e10", "1E+2x", "12.5E+3", "E+12", "1.25E+1"])
def test_an_identifier_may_look_nearly_like_a_rounded_number(identity: str) -> None:
    assert read(HEAD + ROW.replace(b"t1", identity.encode())) == [msgspec.structs.replace(ONE, transaction_id=identity)]


def test_json_lines_with_a_mark_of_byte_order_are_read() -> None:
    assert read(b"\xef\xbb\xbf" + msgspec.json.encode(ONE) + b"\n" + msgspec.json.encode(ONE)) == [ONE, ONE]


@pytest.mark.parametrize(("words", "truth"), [("true,TRUE,True,1", True), ("false,FALSE,False,0", False)])
def test_labels(words: str, truth: bool) -> None:
    head = b"transaction_id,customer_id,terminal_id,time_ms,is_fraud\n"
    lines = "".join(f"t1,anna,kiosk,{START},{word}\n" for word in words.split(",")).encode()
    found = list(read_lines(io.BytesIO(head + lines), "input", Label))
    assert found == [label_of(ONE, truth)] * 4
    (bad,) = read_lines(io.BytesIO(head + f"t1,anna,kiosk,{START},perhaps\n".encode()), "input", Label)
    assert isinstance(bad, RejectedRow)


def test_blanks_are_a_part_of_a_value_as_rfc_4180_has_it() -> None:
    (row,) = read(HEAD + ROW.replace(b"anna", b" anna"))
    assert isinstance(row, Transaction)
    assert row.customer_id == " anna"
    assert [type(row) for row in read(HEAD + b" " * (LONGEST_LINE + 5) + ROW)] == [RejectedRow]


def test_a_pipe_is_answered_line_by_line() -> None:
    """Whoever writes may wait for the first decision before the second row."""
    receiver, sender = os.pipe()
    with os.fdopen(receiver, "rb") as file, os.fdopen(sender, "wb", buffering=0) as pipe:
        pipe.write(HEAD + ROW)
        rows = read_lines(file, "input", Transaction)
        assert next(rows) == ONE
        pipe.write(ROW.replace(b"t1", b"t2"))
        assert next(rows) == transaction("t2", START)


def test_memory_is_bounded() -> None:
    """A million bytes in one line, or a quote that never ends, are one rejected row each."""
    content = HEAD + b'"' + b"x" * (1 << 20) + b"\n" + ROW * 3
    assert [type(row) for row in read(content)] == [RejectedRow, Transaction, Transaction, Transaction]
    assert read(HEAD + b'"' + ROW * 10)[1:] == [ONE] * 9
