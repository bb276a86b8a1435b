"""Thresholds and bands include their lower edge, and amounts the largest that falls back."""

from __future__ import annotations

import numpy as np
import pytest

from featherweight.apps.fraud.decision.policy import choose_outcome, fall_back
from featherweight.apps.fraud.sealed import DecisionRule
from featherweight.apps.fraud.training.task import BANDS, LABELS, _bands
from featherweight.apps.fraud.transactions import Transaction

RULE = DecisionRule(
    slope=1.0, intercept=0.0, review_threshold=0.25, decline_threshold=0.75, chosen_for="a test", fallback_amount=100.0
)


@pytest.mark.parametrize(
    ("probability", "outcome"),
    [(0.2499, "approve"), (0.25, "review"), (0.7499, "review"), (0.75, "decline")],
)
def test_from_a_threshold_on(probability: float, outcome: str) -> None:
    assert choose_outcome(probability, RULE) == outcome


@pytest.mark.parametrize(("amount", "outcome"), [(100.0, "approve"), (100.01, "review")])
def test_up_to_the_fallbacks_amount(amount: float, outcome: str) -> None:
    bought = Transaction(transaction_id="t", customer_id="c", terminal_id="p", time_ms=0, amount=amount)
    found = fall_back(bought, RULE, "m")
    assert found.outcome == outcome
    assert found.fallback
    assert found.probability is None


def test_bands_begin_at_their_edges_and_what_is_missing_is_said() -> None:
    values = np.array([9.99, 10, 50, 200, np.nan], np.float32)
    told = ["below 10", "10 to 50", "50 to 100", "200 and more", "(missing)"]
    assert _bands(values, (10, 50, 100, 200)).tolist() == told
    name, edges = BANDS["hour"]
    assert name == "hour"
    assert list(edges) == [7, 13, 19]
    assert list(LABELS) == ["legitimate", "fraud"], "the first is what a low score means"
