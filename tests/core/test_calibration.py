"""Platt scaling is written once: what is fitted is what is sealed is what decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.sealed import decode_rule, encode
from featherweight.apps.fraud.training.calibration import fit_rule, raw_threshold
from featherweight.apps.imaging.sealed import DecisionRule
from featherweight.apps.imaging.sealed import encode as encode_decision
from featherweight.core.calibration import fit_temperature
from featherweight.core.errors import DataError
from featherweight.core.platt import LARGEST_LOGIT, PlattScaling
from featherweight.core.softmax import TemperatureScaling, softmax

PLAIN = PlattScaling(slope=1.0, intercept=0.0)


@given(st.floats(allow_nan=False), st.floats(1e-9, 1e9), st.floats(-1e9, 1e9))
def test_every_probability_lies_between_0_and_1_and_is_ordered_as_the_scores(
    score: float, slope: float, intercept: float
) -> None:
    scaling = PlattScaling(slope=slope, intercept=intercept)
    found = scaling.probability(score)
    assert 0 < found < 1
    assert scaling.probability(score - 1) <= found <= scaling.probability(score + 1)
    inside = PLAIN.probability(-LARGEST_LOGIT) < found < PLAIN.probability(LARGEST_LOGIT)
    assert math.isfinite(scaling.score_at(found)) or not inside


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1e-6, 1e6), st.floats(-1e4, 1e4), st.integers(0, 100))
def test_a_score_reaches_the_threshold_where_its_probability_does(
    probability: float, slope: float, intercept: float, steps: int
) -> None:
    """What is judged by scores is what is served by probabilities, also at the threshold and next to it."""
    scaling = PlattScaling(slope=slope, intercept=intercept)
    threshold = scaling.score_at(probability)
    unit = math.ulp(threshold)
    scores = [threshold, threshold - unit, threshold + unit, threshold - steps * unit, threshold + steps * unit]
    scores += [float(np.float32(score)) for score in scores] + [threshold - 1e-9 / slope, threshold + 1e-9 / slope]
    for score in scores:
        assert (score >= threshold) == (scaling.probability(score) >= probability), score - threshold


def test_a_threshold_that_no_score_reaches_is_never_reached_and_0_always() -> None:
    assert PLAIN.score_at(1.0) == math.inf
    assert PLAIN.score_at(0.0) == -math.inf
    assert PLAIN.score_at(PLAIN.probability(math.inf)) <= LARGEST_LOGIT
    for wrong in (math.nan, -0.1, 1.1):
        with pytest.raises(DataError, match="not a probability"):
            PLAIN.score_at(wrong)


def test_a_score_that_is_no_number_has_no_probability() -> None:
    assert math.isnan(PLAIN.probability(math.nan))
    assert np.isnan(PLAIN.probabilities(np.array([math.nan]))).all()


def test_the_ends_are_told_apart_from_0_and_1() -> None:
    assert PLAIN.probability(math.inf) == PLAIN.probability(LARGEST_LOGIT) < 1
    assert 1 / (1 + math.exp(-LARGEST_LOGIT - 1)) == 1.0, "from here on float64 does not tell a probability from one"
    assert issubclass(DecisionRule, PlattScaling)


def outlying(far: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(-2, 1, 900), generator.normal(2, 1, 90), far + np.arange(10.0)])
    labels = np.repeat([0, 1], [900, 100]).astype(np.int64)
    labels[:60] = 1  # an unsure model, whose calibration stays flat
    return scores, labels


def test_a_threshold_far_out_is_sealed_and_keeps_the_capacity() -> None:
    scores, labels = outlying(25)
    rule = fit_rule(scores, labels, days=1, alerts_per_day=5)
    again = decode_rule(encode(rule))
    assert again == rule
    assert (scores >= raw_threshold(again)).sum() == 5
    assert (again.probabilities(scores) >= again.review_threshold).sum() == 5


def test_a_threshold_that_no_probability_tells_apart_is_refused() -> None:
    """All ten would be alerts, though there is room for five."""
    with pytest.raises(DataError, match="5 alerts a day end at the score 64"):
        fit_rule(*outlying(60), days=1, alerts_per_day=5)


@pytest.mark.parametrize("changed", [{"slope": 1e10}, {"intercept": math.nan}, {"threshold": 1.0}])
def test_what_could_not_be_read_again_is_not_sealed(changed: dict[str, float]) -> None:
    decision = DecisionRule(**{"slope": 1.0, "intercept": 0.0, "threshold": 0.5, **changed})
    with pytest.raises(DataError, match="cannot be sealed"):
        encode_decision(decision)


# ------------------------------------------------------------------------------------------ several classes


def test_the_temperature_that_made_the_labels_is_found() -> None:
    draw = np.random.default_rng(0)
    logits = 2 * draw.normal(size=(20_000, 4))
    chances = softmax(logits)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    labels = (chances.cumsum(axis=1) < draw.random(20_000)[:, None]).sum(axis=1)
    for temperature in (0.01, 1.0, 300.0):
        found = fit_temperature(temperature * logits, labels)
        assert found == pytest.approx(temperature, rel=0.05)
        scaling = TemperatureScaling(temperature=found)
        assert (scaling.probabilities(temperature * logits).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_a_temperature_is_found_where_all_are_right_and_refused_where_scores_say_nothing() -> None:
    labels = np.arange(300) % 3
    right = np.eye(3)[labels]
    scaling = TemperatureScaling(temperature=fit_temperature(right, labels))
    assert 0.99 < scaling.probabilities(right)[0, labels[0]] < 1
    for useless in (np.zeros((300, 3)), -right):
        with pytest.raises(DataError, match="the scores say nothing of the classes"):
            fit_temperature(useless, labels)
