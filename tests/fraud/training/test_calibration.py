from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.fraud.training.calibration import DECLINE_PROBABILITY, fit_rule, raw_threshold
from featherweight.core.errors import DataError, UsageError

Scores = npt.NDArray[np.float64]


def draw(count: int, seed: int = 0) -> tuple[Scores, npt.NDArray[np.int64]]:
    """Margins whose true probability of fraud is sigmoid(2 x - 1)."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(-1, 1.5, count)
    return scores, (generator.random(count) < 1 / (1 + np.exp(1 - 2 * scores))).astype(np.int64)


def test_probabilities_are_the_true_ones() -> None:
    scores, labels = draw(40_000)
    rule = fit_rule(scores, labels, days=10, alerts_per_day=100)
    assert rule.slope == pytest.approx(2, abs=0.1)
    assert rule.intercept == pytest.approx(-1, abs=0.1)
    assert rule.probabilities(scores).mean() == pytest.approx(labels.mean(), abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 30), st.floats(2, 20))
def test_alerts_fill_the_capacity_and_no_more(seed: int, days: float, alerts_per_day: float) -> None:
    scores, labels = draw(700, seed)
    rule = fit_rule(scores, labels, days=days, alerts_per_day=alerts_per_day)
    alerts = int((rule.probabilities(scores) >= rule.review_threshold).sum())
    assert alerts == int((scores >= raw_threshold(rule)).sum()) == round(days * alerts_per_day)
    assert rule.decline_threshold >= max(DECLINE_PROBABILITY, rule.review_threshold)


def test_equal_scores_never_exceed_the_capacity() -> None:
    """Trees give few different scores: those that are equal become alerts together, or none of them does."""
    scores, labels = draw(2000)
    coarse = np.round(scores)
    rule = fit_rule(coarse, labels, days=10, alerts_per_day=20)
    alerts = int((rule.probabilities(coarse) >= rule.review_threshold).sum())
    assert alerts == int((coarse >= 2).sum()) < 200 < int((coarse >= 1).sum())
    whole = fit_rule(coarse, labels, days=10, alerts_per_day=0.1)
    assert int((whole.probabilities(coarse) >= whole.review_threshold).sum()) == int((coarse == coarse.max()).sum())


@pytest.mark.parametrize("alerts_per_day", [0.01, 10, 1000, math.inf, math.nan])
def test_a_capacity_that_says_nothing_is_refused(alerts_per_day: float) -> None:
    scores, labels = draw(100)
    with pytest.raises(UsageError, match=r"--alerts-per-day a number from 0.1 to 9.9"):
        fit_rule(scores, labels, days=10, alerts_per_day=alerts_per_day)


def test_data_that_teaches_nothing_is_refused() -> None:
    scores, labels = draw(200)
    with pytest.raises(DataError, match="0 frauds and 200 others"):
        fit_rule(scores, np.zeros_like(labels), days=1, alerts_per_day=10)
    with pytest.raises(DataError, match="do not rise with the label"):
        fit_rule(-scores, labels, days=1, alerts_per_day=10)
    with pytest.raises(DataError, match="do not rise with the label"):
        fit_rule(np.ones_like(scores), labels, days=1, alerts_per_day=10)
