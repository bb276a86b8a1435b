"""The optimizer judges the same outcomes that the app decides."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.decision.policy import choose_outcome
from featherweight.apps.fraud.sealed import DecisionRule, rule_outcomes
from featherweight.apps.fraud.training.calibration import raw_threshold


@given(
    st.floats(-20, 20),
    st.one_of(st.just(1.0), st.floats(0.01, 0.99)),
    st.floats(0.01, 0.99),
    st.floats(0.1, 5),
    st.floats(-3, 3),
)
def test_outcomes_by_score_are_those_of_the_policy(score: float, one: float, other: float, slope: float, at: float):
    """At the thresholds and next to them too; a decline threshold of 1 is reached by no score."""
    review, decline = sorted((one, other))
    rule = DecisionRule(
        slope=slope, intercept=at, review_threshold=review, decline_threshold=decline, chosen_for="a test"
    )
    outcomes = rule_outcomes(rule)
    near = [np.nextafter(at, to) for at in outcomes.thresholds for to in (-np.inf, at, np.inf)]
    for each in (score, *map(float, near)):
        place = int(np.searchsorted(outcomes.thresholds, each, side="right"))
        if np.isfinite(each):
            assert outcomes.names[place] == choose_outcome(rule.probability(each), rule)
    assert raw_threshold(rule) in outcomes.thresholds
