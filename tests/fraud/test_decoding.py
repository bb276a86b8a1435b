"""One rule for what is sent: unknown fields are ignored and counted, a misspelt required one is named."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.fraud.decoding import NAMES_SHOWN, Decoder, Unread
from apps.fraud.http.forms import BatchRequest, LabelRequest, LabelsRequest, ScoreRequest
from apps.fraud.transactions import Label, Transaction

GOOD = {"transaction_id": "t1", "customer_id": "c1", "terminal_id": "p1", "time_ms": 1_533_686_400_000, "amount": 12.34}
LABEL = {key: value for key, value in GOOD.items() if key != "amount"} | {"is_fraud": True}
BATCH = Decoder(BatchRequest, rows=("transactions", ScoreRequest))


def decode(row: dict[str, Any], kind: type[Transaction] | type[Label] = Transaction) -> tuple[Any, Unread]:
    unread = Unread()
    return Decoder(kind).decode(msgspec.json.encode(row), unread), unread


def test_unknown_fields_are_ignored_and_their_rows_counted() -> None:
    plain, none = decode(GOOD)
    found, unread = decode({"currency": "EUR", **GOOD, "more": {"deep": [1, 2]}})
    assert found == plain == Transaction(**GOOD)  # type: ignore[arg-type]
    assert type(found) is Transaction
    assert (none.rows, none.names) == (0, [])
    assert (unread.rows, unread.names) == (1, ["currency", "more"])
    assert decode(LABEL | {"amount": 5}, Label)[1].rows == 1


@given(
    st.dictionaries(st.text(min_size=1).filter(lambda name: name not in GOOD), st.none() | st.text() | st.floats(0, 1))
)
def test_what_is_read_does_not_depend_on_what_is_ignored(more: dict[str, Any]) -> None:
    found, unread = decode(more | GOOD)
    assert found == Transaction(**GOOD)  # type: ignore[arg-type]
    assert unread.rows == bool(more)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amuont": 5.0}, "has no field amount; found amuont"),
        ({"Amount": 5.0}, "has no field amount; found Amount"),
        ({"zeta": 1, "yota": 2, "amt": 3, "xi": 4}, "has no field amount; found amt, "),
        ({"4111111111111111": 1}, "has no field amount; found 1 whose names are not shown"),
        ({"x" * 41: 1}, "has no field amount; found 1 whose names are not shown"),
        ({}, "has no field amount"),
    ],
)
def test_a_misspelt_required_field_is_named(change: dict[str, Any], told: str) -> None:
    row = {key: value for key, value in GOOD.items() if key != "amount"} | change
    with pytest.raises(msgspec.ValidationError) as error:
        decode(row)
    assert str(error.value).startswith(told)
    assert "4111" not in str(error.value)


def test_of_many_names_a_few_are_shown_the_likeliest_first() -> None:
    row = {f"field_{number}": 0 for number in range(40)} | {"ammount": 1} | {f"other_{n}": 0 for n in range(200)}
    with pytest.raises(msgspec.ValidationError, match=r"has no field .*; found ammount, \w+, \w+ and 238 more$"):
        decode({key: value for key, value in GOOD.items() if key != "amount"} | row)
    unread = decode(GOOD | row)[1]
    assert len(unread.names) <= NAMES_SHOWN + 1


@pytest.mark.parametrize("field", GOOD)
def test_a_wrong_value_is_told_with_its_field_beside_unknown_ones_too(field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{field}"):
        decode({"currency": "EUR"} | GOOD | {field: None})


def test_of_a_batch_the_row_is_named_and_each_row_counted() -> None:
    unread = Unread()
    rows = [ScoreRequest(**GOOD)] * 3  # type: ignore[arg-type]
    sent = {"transactions": [GOOD, GOOD | {"a": 1}, GOOD | {"b": 1, "c": 2}], "source": "pos"}
    assert BATCH.decode(msgspec.json.encode(sent), unread).transactions == rows
    assert unread.rows == 3, "two rows, and what is around them"
    misspelt = {key.replace("amount", "amuont"): value for key, value in GOOD.items()}
    with pytest.raises(msgspec.ValidationError, match=r"found amuont - at `\$\.transactions\[1\]`"):
        BATCH.decode(msgspec.json.encode({"transactions": [GOOD, misspelt]}), unread)
    with pytest.raises(msgspec.ValidationError, match=r"has no field transactions; found transaction$"):
        BATCH.decode(msgspec.json.encode({"transaction": [GOOD]}), unread)
    with pytest.raises(msgspec.ValidationError, match=r"\$\.transactions\[1\]\.amount"):
        BATCH.decode(msgspec.json.encode({"transactions": [GOOD | {"a": 1}, GOOD | {"amount": -1}]}), unread)
    with pytest.raises(msgspec.ValidationError, match="length >= 1"):
        BATCH.decode(b'{"transactions": [], "more": 1}', unread)
    assert unread.rows == 3, "what is refused is not counted"
    labels = Decoder(LabelsRequest, rows=("labels", LabelRequest))
    assert labels.decode(msgspec.json.encode({"labels": [LABEL | {"who": "me"}]}), unread).labels[0].is_fraud
    assert unread.rows == 4


@pytest.mark.parametrize("name", ["feature", "Features", "FEATURE"])
def test_what_looks_like_the_optional_field_is_not_ignored(name: str) -> None:
    """With `features` nothing is kept: to ignore it would count the transaction into the histories."""
    with pytest.raises(msgspec.ValidationError, match=f"has a field {name}, which is not known; is features"):
        Decoder(ScoreRequest).decode(msgspec.json.encode(GOOD | {name: {"hour": 1}}), Unread())


def repeat(row: dict[str, Any], field: str, value: str, more: str = "") -> bytes:
    """The field's first value stays, behind all comes another one."""
    return f"{json.dumps(row)[:-1]}, {more}{json.dumps(field)}: {value}}}".encode()


@pytest.mark.parametrize("more", ["", '"currency": "EUR", ', '"currency": "\\u0022", '])
@pytest.mark.parametrize(
    ("kind", "row"), [(Transaction, GOOD), (Label, LABEL), (ScoreRequest, GOOD | {"features": {"hour": 1}})]
)
def test_a_field_that_stands_twice_is_refused(kind: type[Transaction], row: dict[str, Any], more: str) -> None:
    for name, value in row.items():
        for again in {json.dumps(value), json.dumps(value).replace("1", "2"), '"\\"\\u0022"'}:
            with pytest.raises(msgspec.ValidationError) as error:
                Decoder(kind).decode(repeat(row, name, again, more), Unread())
            assert again.startswith('"\\') or str(error.value) == f"has a field {name}, and that more than once"
    escaped = repeat(row, "NAME", '"other"', more).replace(b"NAME", rb"\u0074erminal_id")
    with pytest.raises(msgspec.ValidationError, match="has a field terminal_id, and that more than once"):
        Decoder(kind).decode(escaped, Unread())


def test_an_unknown_field_that_stands_twice_is_refused_without_what_looks_like_data() -> None:
    for twice, told in [
        (b'"x": 1, "x": 2', "^has a field x, and that more than once$"),
        (b'"4111111111111111": 1, "4111111111111111": 1', "^names a field more than once, whose name is not shown$"),
        (b'"x": {"y": 1, "y": 1}', "^an object inside of it names a field more than once$"),
    ]:
        with pytest.raises(msgspec.ValidationError, match=told):
            Decoder(Transaction).decode(json.dumps(GOOD).encode()[:-1] + b", " + twice + b"}", Unread())


@pytest.mark.parametrize("more", [b"", b'"source": 1, ', b'"source": "\\u0022", '])
def test_of_a_batch_the_row_is_named_that_has_a_field_twice(more: bytes) -> None:
    rows = [json.dumps(GOOD).encode(), repeat(GOOD, "amount", "1"), repeat(GOOD, "features", '{"a": 1, "a": 2}')]

    def send(*sent: bytes) -> Any:
        return BATCH.decode(b"{" + more + b'"transactions": [' + b",".join(sent) + b"]}", Unread())

    assert len(send(rows[0], rows[0]).transactions) == 2
    with pytest.raises(msgspec.ValidationError, match=r"^has a field amount, .* - at `\$\.transactions\[1\]`$"):
        send(rows[0], rows[1])
    with pytest.raises(msgspec.ValidationError, match="inside of it names a field more than once"):
        send(rows[0], rows[2])
    with pytest.raises(msgspec.ValidationError, match=r"^has a field transactions, and that more than once$"):
        BATCH.decode(b"{" + more + b'"transactions": [1], "transactions": [' + rows[0] + b"]}", Unread())


@given(
    st.text(min_size=1, max_size=9), st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.floats(0, 1))
)
def test_texts_with_quotes_and_escapes_are_no_repetition(identity: str, more: dict[str, Any]) -> None:
    row = GOOD | {"transaction_id": identity}
    for content in (msgspec.json.encode(row), json.dumps(row).encode(), json.dumps(row | {"more": more}).encode()):
        if "\\ud" not in content.decode():
            assert Decoder(Transaction).decode(content, Unread()).transaction_id == identity


@given(st.binary(max_size=200))
def test_no_bytes_are_a_failure(content: bytes) -> None:
    for decoder in (Decoder(Transaction), BATCH):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decoder.decode(content, Unread())
