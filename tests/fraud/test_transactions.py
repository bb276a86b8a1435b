from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.transactions import Decision, Reason, Transaction

GOOD = {"transaction_id": "t1", "customer_id": "c1", "terminal_id": "p1", "time_ms": 1_533_686_400_000, "amount": 12.34}
DECODER = msgspec.json.Decoder(Transaction)


def encoded(**changes: object) -> bytes:
    return msgspec.json.encode({**GOOD, **changes})


def test_a_transaction_is_read() -> None:
    found = DECODER.decode(encoded())
    assert msgspec.to_builtins(found) == GOOD
    assert found.cents == 1234


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transaction_id", ""),
        ("transaction_id", "x" * 65),
        ("customer_id", 7),
        ("terminal_id", None),
        ("time_ms", -1),
        ("time_ms", (1 << 61) + 1),
        ("time_ms", 1.5),
        ("time_ms", "2018-08-08"),
        ("amount", -0.01),
        ("amount", 10_000_000_000_000.01),
        ("amount", None),
        ("amount", "12.34"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{field}"):
        DECODER.decode(encoded(**{field: value}))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_amounts_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        DECODER.decode(encoded(amount=0).replace(b'"amount":0', f'"amount":{text}'.encode()))


@given(st.integers(0, 10**15))
def test_hundredths_survive_the_way_through_json(cents: int) -> None:
    assert DECODER.decode(encoded(amount=cents / 100)).cents == cents


def test_a_decision_says_only_what_there_is_to_say() -> None:
    plain = Decision(
        transaction_id="t1", customer_id="c1", terminal_id="p1", time_ms=1, amount=2.0, outcome="approve",
        probability=0.01, model="m@1",
    )  # fmt: skip
    assert not {"reasons", "duplicate", "fallback"} & msgspec.to_builtins(plain).keys()
    alert = msgspec.structs.replace(plain, outcome="review", reasons=(Reason(feature="amount", value=2.0, effect=1.5),))
    assert msgspec.json.decode(msgspec.json.encode(alert), type=Decision) == alert
