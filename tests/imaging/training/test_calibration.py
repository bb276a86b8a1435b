from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.imaging.training.calibration import fit_decision, raw_threshold
from featherweight.core.errors import DataError


def logits_of(seed: int, positives: int, negatives: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = np.concatenate([generator.normal(1.5, 1, positives), generator.normal(-1.5, 1, negatives)]) + shift
    return logits, np.array([1] * positives + [0] * negatives, dtype=np.int64)


@given(st.floats(-5, 5), st.floats(0.2, 5))
def test_the_decision_does_not_depend_on_the_networks_scale(shift: float, scale: float) -> None:
    logits, labels = logits_of(0, 200, 200)
    plain, moved = fit_decision(logits, labels), fit_decision(logits * scale + shift, labels)
    expected = logits >= raw_threshold(plain)
    # A case within rounding of the boundary may fall to either side.
    assert np.mean(expected != (logits * scale + shift >= raw_threshold(moved))) <= 0.005


def test_the_threshold_ignores_how_many_there_are_of_each_class() -> None:
    few, many = fit_decision(*logits_of(1, 3000, 3000)), fit_decision(*logits_of(2, 9000, 1000))
    assert raw_threshold(few) == pytest.approx(0, abs=0.1)
    assert raw_threshold(many) == pytest.approx(0, abs=0.2)


def test_probabilities_are_calibrated_at_the_stated_prevalence() -> None:
    # Two unit normals at -1.5 and 1.5 have the log odds 3x.
    decision = fit_decision(*logits_of(3, 20000, 20000))
    assert decision.slope == pytest.approx(3, rel=0.1)
    assert decision.probability(0.5) == pytest.approx(1 / (1 + np.exp(-1.5)), abs=0.02)


def test_separated_classes_still_give_finite_numbers() -> None:
    decision = fit_decision(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
    assert np.isfinite([decision.slope, decision.intercept]).all()
    assert raw_threshold(decision) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("labels", "message"), [([1, 1, 1], "both classes"), ([1, 1, 0], "do not rise")])
def test_what_cannot_be_calibrated_is_an_error(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_decision(np.array([-1.0, 0.0, 3.0]), np.array(labels))
