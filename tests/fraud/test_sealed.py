from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.decision.policy import choose_outcome, fall_back
from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, decode_features, decode_rule, encode
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.errors import ArtifactError

RULE = DecisionRule(
    slope=1.5, intercept=-0.5, review_threshold=0.3, decline_threshold=0.8, chosen_for="100 alerts a day"
)
SCHEMA = FeatureSchema(names=("amount", "hour"), reference_values=(40.0, 12.0))


def changed(content: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(content), **fields}).encode()


def test_sealed_files_come_back() -> None:
    assert decode_features(encode(SCHEMA)) == SCHEMA
    assert decode_rule(encode(RULE)) == RULE


def test_what_is_no_text_is_no_settings() -> None:
    content = encode(SCHEMA).replace(b"hour", b"\xff\xfe")
    with pytest.raises(ArtifactError, match=r"features\.json"):
        decode_features(content)
    with pytest.raises(ArtifactError, match=r"decision\.json"):
        decode_rule(encode(RULE).replace(b"100 alerts", b"\xff\xfe"))
    with pytest.raises(ArtifactError, match=r"features\.json"):
        decode_features(b'{"names":' + b"[" * 100_000)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"names": []},
        {"names": ["amount"]},
        {"names": ["amount", "amount"]},
        {"source": "elsewhere"},
        {"typical": [1.0, "12"]},
        {"typical": [1.0, 1e39]},
        {"typical": [math.nan, 1.0]},
        {"delay_days": math.nan},
        {"delay_days": -1},
        {"surprise": 1},
    ],
)
def test_a_schema_that_does_not_fit_together_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"features\.json"):
        decode_features(changed(encode(SCHEMA), **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"slope": 0.0},
        {"slope": -1.0},
        {"review_threshold": 0.9},
        {"review_threshold": 0.0},
        {"decline_threshold": 1.0},
        {"slope": 5e-324},
        {"slope": 1e308},
        {"slope": math.nan},
        {"slope": math.inf},
        {"intercept": -1e308},
        {"intercept": math.nan},
        {"review_threshold": 5e-324},
        {"review_threshold": 1e-17},
        {"decline_threshold": 1 - 2**-53},
        {"review_threshold": math.nan},
        {"decline_threshold": math.nan},
        {"fallback_amount": math.nan},
        {"fallback": "maybe"},
        {"surprise": 1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"decision\.json"):
        decode_rule(changed(encode(RULE), **fields))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{" * 10_000])
def test_bytes_that_are_no_json_are_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode_rule(content)


@given(st.floats(0.001, 0.999))
def test_a_probability_has_its_score(probability: float) -> None:
    assert RULE.probability(RULE.score_at(probability)) == pytest.approx(probability, rel=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_one_and_many_probabilities_are_the_same(scores: list[float]) -> None:
    many = RULE.probabilities(np.array(scores))
    assert many.tolist() == [RULE.probability(score) for score in scores]


def test_thresholds_belong_to_the_stricter_outcome() -> None:
    found = [choose_outcome(p, RULE) for p in (0.0, 0.2999, 0.3, 0.7999, 0.8, 1.0)]
    assert found == ["approve", "approve", "review", "review", "decline", "decline"]


@pytest.mark.parametrize(("amount", "outcome"), [(0.0, "approve"), (100.0, "approve"), (100.01, "review")])
def test_without_a_score_small_amounts_follow_the_rule_and_large_ones_are_reviewed(amount: float, outcome: str) -> None:
    transaction = Transaction(transaction_id="t", customer_id="c", terminal_id="p", time_ms=1, amount=amount)
    decision = fall_back(transaction, RULE, "m@1")
    assert (decision.outcome, decision.fallback, decision.probability) == (outcome, True, None)
