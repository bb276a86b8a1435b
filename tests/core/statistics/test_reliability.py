"""Calibration figures against scikit-learn, their definitions and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from featherweight.core.statistics import reliability as c
from featherweight.core.statistics.loss_bounds import least_bound, loss_upper_bound
from featherweight.core.statistics.own_losses import brier_own_losses


def cases(rng: np.random.Generator, count: int, sharpening: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right for sharpening 1, too sure of themselves above."""
    logits = rng.normal(size=count) * 1.5
    labels = (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    return 1 / (1 + np.exp(-sharpening * logits)), labels


def test_brier_equals_scikit_learns_and_calibration_error_its_definition():
    rng = np.random.default_rng(2)
    probabilities, labels = rng.uniform(size=500), rng.integers(2, size=500)
    assert c.brier_score(probabilities, labels) == pytest.approx(brier_score_loss(labels, probabilities))
    assert c.brier_interval(probabilities, labels).estimate == pytest.approx(brier_score_loss(labels, probabilities))
    bins = c.reliability_bins(probabilities, labels)
    expected = sum(b.cases * abs(b.mean_probability - b.positives.estimate) for b in bins) / 500
    assert c.expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)
    assert len(bins) == c.BINS
    assert sum(b.cases for b in bins) == 500
    assert c.expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])) == 0
    assert c.expected_calibration_error(np.array([1.0, 0.0]), np.array([0, 1])) == 1


def test_what_chance_adds_to_the_calibration_error_is_taken_off():
    """Of perfect probabilities the plain error is above 0 every time; the interval holds the truth in both cases."""
    rng = np.random.default_rng(1)
    for sharpening in (1.0, 2.5):
        many = cases(rng, 400_000, sharpening)
        truth = 0.0 if sharpening == 1 else c.expected_calibration_error(*many)
        found = [c.calibration_error_interval(*cases(rng, 400, sharpening), samples=300, seed=0) for _ in range(200)]
        plain = np.mean([c.expected_calibration_error(*cases(rng, 400, sharpening)) for _ in range(200)])
        assert abs(np.mean([one.estimate for one in found]) - truth) < 0.6 * abs(plain - truth) + 0.003
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.92
        assert all(0 <= one.low <= one.estimate <= one.high for one in found)


def test_slope_and_intercept_equal_scikit_learns_and_tell_the_sharpening():
    rng = np.random.default_rng(5)
    probabilities, labels = cases(rng, 3000, 2.0)
    slope, intercept = c.calibration_line(probabilities, labels)
    logits = np.log(probabilities / (1 - probabilities))[:, None]
    expected = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logits, labels)
    assert slope.estimate == pytest.approx(expected.coef_[0, 0], abs=1e-4)
    assert intercept.estimate == pytest.approx(expected.intercept_[0], abs=1e-4)
    assert slope.low < 0.5 < slope.high


def test_slopes_interval_covers_the_truth_with_clusters_too():
    rng, covered = np.random.default_rng(6), np.zeros(2)
    clusters = np.repeat(np.arange(100), 4)
    for _ in range(150):
        shared = np.repeat(rng.normal(size=(2, 100)), 4, axis=1)
        labels = (norm.cdf(shared[1]) < 1 / (1 + np.exp(-shared[0]))).astype(np.int64)  # alike within a cluster
        probabilities = 1 / (1 + np.exp(-shared[0]))
        for index, given in enumerate((clusters, None)):
            slope, _ = c.calibration_line(probabilities, labels, given)
            covered[index] += slope.low <= 1 <= slope.high
    assert covered[0] / 150 >= 0.88
    assert covered[1] / 150 <= 0.8


def test_where_no_line_can_be_fitted_there_is_none():
    ones = np.linspace(0.1, 0.9, 40)
    assert c.calibration_line(ones, np.repeat([0, 1], [35, 5])) == (None, None)
    assert c.calibration_line(ones, np.repeat([0, 1], [20, 20])) == (None, None)  # separated: the slope has no end
    assert c.calibration_line(np.full(40, 0.5), np.tile([0, 1], 20)) == (None, None)


def test_the_parts_of_the_brier_loss_add_up_and_its_bound_covers_the_truth():
    rng, covered = np.random.default_rng(7), 0
    for _ in range(300):
        labels = rng.integers(0, 2, 200)
        base, one, other = rng.normal(size=(3, 200))
        first, second = (norm.cdf(0.8 * (2 * labels - 1) + base + 0.4 * own) for own in (one, other))
        own = brier_own_losses(first, second, labels)
        covered += loss_upper_bound(own, "as-seen") >= 0
    assert covered / 300 >= 0.94
    assert own.loss == pytest.approx(brier_score_loss(labels, second) - brier_score_loss(labels, first))


def test_few_probabilities_that_turn_are_bounded_where_the_unseen_one_is_taken_for_lost():
    """A normal bound passes 13% of such studies."""
    rng, labels = np.random.default_rng(0), np.resize([0, 1], 390)
    right = np.where(labels == 1, 0.98, 0.02)
    share = 0.005 / (0.98**2 - 0.02**2)
    failed = 0
    for _ in range(400):
        turned = np.where(rng.random(390) < share, 1 - right, right)
        failed += loss_upper_bound(brier_own_losses(right, turned, labels), "lost") <= 0.005
    assert failed == 0  # 600 cases are the least that can show it
    assert least_bound(brier_own_losses(right, right, labels)) == pytest.approx(-np.log(0.05) / 390)


def test_balanced_accuracy_lies_between_its_parts():
    first, second = c.Interval(0.9, 0.85, 0.94), c.Interval(0.7, 0.6, 0.78)
    found = c.balanced_accuracy_interval(first, second)
    assert found.estimate == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8 - np.hypot(0.05, 0.1) / 2, 0.8 + np.hypot(0.04, 0.08) / 2))
    assert c.balanced_accuracy_interval(None, second) is None
