"""The optimizer judges the same outcomes that the app decides."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from featherweight.apps.fraud.decision.policy import choose_outcome, rule_outcomes
from featherweight.apps.fraud.sealed import DecisionRule
from featherweight.apps.fraud.training.calibration import raw_threshold


@given(st.floats(-20, 20), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.1, 5), st.floats(-3, 3))
def test_outcomes_by_score_are_those_of_the_policy(score: float, one: float, other: float, slope: float, at: float):
    review, decline = sorted((one, other))
    rule = DecisionRule(
        slope=slope, intercept=at, review_threshold=review, decline_threshold=decline, chosen_for="a test"
    )
    outcomes = rule_outcomes(rule)
    assume(min(abs(score - threshold) for threshold in outcomes.thresholds) > 1e-6)
    place = int(np.searchsorted(outcomes.thresholds, score, side="right"))
    assert outcomes.names[place] == choose_outcome(rule.probability(score), rule)
    assert raw_threshold(rule) in outcomes.thresholds
