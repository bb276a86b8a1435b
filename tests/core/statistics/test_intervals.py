"""The statistics against scikit-learn, scipy, published examples and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from featherweight.core.statistics import intervals as s
from featherweight.core.statistics import resampling as r


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores on a coarse grid, so that ties are common, with both classes present."""
    size = draw(st.integers(4, 60))
    scores = draw(st.lists(st.integers(-8, 8), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    assume(0 < sum(labels) < size)
    return np.array(scores, dtype=np.float64) / 4, np.array(labels, dtype=np.int64)


def binormal(rng: np.random.Generator, positives: int, negatives: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([1, 0], [positives, negatives])
    return rng.normal(size=positives + negatives) + shift * labels, labels


@given(scored_cases())
def test_auc_and_average_precision_equal_scikit_learns(cases):
    scores, labels = cases
    assert s.roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert r.average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(scored_cases())
def test_roc_points_are_the_curve_and_their_area_the_auc(cases):
    scores, labels = cases
    alarms, hits = s.roc_points(scores, labels)
    assert np.trapezoid(hits, alarms) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected_alarms, expected_hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    known = set(zip(expected_alarms.round(9), expected_hits.round(9), strict=True))
    assert set(zip(alarms.round(9), hits.round(9), strict=True)) <= known


@given(scored_cases())
def test_auc_knows_only_the_order(cases):
    scores, labels = cases
    for stretched in (np.exp(scores), scores**3 * 100 + 7, np.arctan(scores)):
        assert s.roc_auc(stretched, labels) == pytest.approx(s.roc_auc(scores, labels), abs=1e-12)
        assert s.roc_auc_interval(stretched, labels) == s.roc_auc_interval(scores, labels)
        assert s.roc_auc_difference(scores, stretched, labels) == s.Difference(0.0, 0.0)
    assert s.roc_auc(-scores, labels) == pytest.approx(1 - s.roc_auc(scores, labels), abs=1e-12)


@given(scored_cases())
def test_auc_interval_holds_the_estimate_and_stays_inside_0_and_1(cases):
    interval = s.roc_auc_interval(*cases)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.low < interval.high


@given(scored_cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(cases, random):
    scores, labels = cases
    order = np.array(random.sample(range(len(labels)), len(labels)))
    other = np.roll(scores, 3)
    first = s.roc_auc_difference(scores, other, labels)
    second = s.roc_auc_difference(scores[order], other[order], labels[order])
    assert first.estimate == pytest.approx(second.estimate, abs=1e-12)
    assert first.low == pytest.approx(second.low, abs=1e-9)


def test_delong_variance_equals_the_definition_over_all_pairs():
    rng = np.random.default_rng(5)
    baseline, labels = binormal(rng, 23, 31, 1.2)
    candidate = np.round(baseline + rng.normal(size=len(labels)) * 0.5, 1)
    baseline = np.round(baseline, 1)

    def components(scores):
        pairs = scores[labels == 1][:, None] - scores[labels == 0][None, :]
        order = (pairs > 0) + 0.5 * (pairs == 0)
        return order.mean(), order.mean(axis=1), order.mean(axis=0)

    (auc_a, pos_a, neg_a), (auc_b, pos_b, neg_b) = components(baseline), components(candidate)
    error = np.sqrt(np.var(pos_b - pos_a, ddof=1) / 23 + np.var(neg_b - neg_a, ddof=1) / 31)
    found = s.roc_auc_difference(baseline, candidate, labels)
    assert found.estimate == pytest.approx(auc_b - auc_a, abs=1e-12)
    assert found.low == pytest.approx(auc_b - auc_a - 1.6448536269514722 * error, abs=1e-12)


def test_two_perfect_scorers_that_differ_do_not_prove_equality():
    labels = np.repeat([1, 0], [30, 30])
    baseline = np.arange(60)[::-1].astype(float)
    candidate = baseline.copy()
    candidate[[0, 1]] = candidate[[1, 0]]
    found = s.roc_auc_difference(baseline, candidate, labels)
    assert found.estimate == 0
    assert -0.15 < found.low < -0.02


def test_without_one_class_there_is_no_figure():
    scores, ones = np.array([0.1, 0.2]), np.array([1, 1])
    assert s.roc_auc(scores, ones) is None
    assert s.roc_auc_interval(scores, ones) is None
    assert s.roc_auc_difference(scores, scores, ones) is None
    assert r.average_precision(scores, 1 - ones) is None
    assert s.confusion(scores > 0.15, ones).specificity() is None
    assert r.compare_rankings(scores, scores, ones, seed=0) is None
    assert r.average_precision_difference(scores, scores, ones, seed=0) is None


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson_equals_scipys(successes, trials):
    successes = min(successes, trials)
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    found = s.wilson_interval(successes, trials)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def resampled_differences(baseline, candidate, labels, samples, seed):
    """By the book: draw cases, class by class, and compute both figures anew."""
    rng = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    for _ in range(samples):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in (positive, negative)])
        before, after = (average_precision_score(labels[drawn], scores[drawn]) for scores in (baseline, candidate))
        yield after - before


@pytest.mark.parametrize(("positives", "negatives", "digits"), [(20, 300, 1), (60, 60, 0), (8, 900, 6)])
def test_average_precision_difference_is_that_of_resampled_cases(positives, negatives, digits):
    rng = np.random.default_rng(positives)
    baseline, labels = binormal(rng, positives, negatives, 1.5)
    candidate = (baseline + rng.normal(size=len(labels)) * 0.4).round(digits)
    found = r.average_precision_difference(baseline, candidate, labels, samples=8000, seed=0)
    drawn = list(resampled_differences(baseline, candidate, labels, 400, seed=1))
    before, after = (average_precision_score(labels, scores) for scores in (baseline, candidate))
    assert found.estimate == pytest.approx(after - before, abs=1e-12)
    assert found.low == pytest.approx(np.percentile(drawn, 5), abs=4 * np.std(drawn) / np.sqrt(0.05 * 400))
    assert found.low < found.estimate


@given(scored_cases())
def test_average_precision_of_the_same_order_does_not_differ(cases):
    scores, labels = cases
    assert r.average_precision_difference(scores, np.exp(scores), labels, samples=20, seed=0) == s.Difference(0.0, 0.0)
    noisy = scores + np.random.default_rng(0).normal(size=len(scores))
    found = r.average_precision_difference(scores, noisy, labels, samples=20, seed=0)
    expected = average_precision_score(labels, noisy) - average_precision_score(labels, scores)
    assert found.estimate == pytest.approx(expected, abs=1e-12)


# The next ones keep the statistics honest: with 400 repetitions the standard error of a coverage of 95% is 1.1%.


def test_auc_interval_covers_the_truth():
    rng = np.random.default_rng(7)
    truth = 0.9217  # normal cdf of 2 / sqrt(2)
    intervals = [s.roc_auc_interval(*binormal(rng, 50, 80, 2.0)) for _ in range(400)]
    assert 0.92 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.985


def test_paired_auc_bound_covers_the_truth():
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(400):
        baseline, labels = binormal(rng, 60, 90, 1.5)
        noise = rng.normal(size=len(labels))
        candidate = 0.8 * (baseline - 1.5 * labels) + 0.6 * noise + 1.5 * labels  # as good, correlated 0.8
        covered += s.roc_auc_difference(baseline, candidate, labels).low <= 0
    assert 0.92 <= covered / 400 <= 0.985


def test_bound_of_the_average_precision_difference_covers_the_truth():
    """Two scorers that are equally good: the bound may lie above 0 in one case of twenty, for small bootstraps more."""
    rng = np.random.default_rng(11)
    above = 0
    for seed in range(200):
        labels = np.repeat([1, 0], [80, 800])
        shared, one, other = rng.normal(size=(3, len(labels)))
        first, second = (shared + 0.5 * own + 2 * labels for own in (one, other))
        above += r.average_precision_difference(first, second, labels, samples=200, seed=seed).low > 0
    assert above / 200 <= 0.11


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_flips_name_each_changed_decision_once(baseline, data):
    candidate = data.draw(st.lists(st.booleans(), min_size=len(baseline), max_size=len(baseline)))
    flips = s.flipped_decisions(np.array(baseline), np.array(candidate))
    changed = [i for i, (a, b) in enumerate(zip(baseline, candidate, strict=True)) if a != b]
    assert sorted([*flips.to_positive, *flips.to_negative]) == changed
    assert flips.count == len(changed)
    assert all(candidate[i] for i in flips.to_positive)


@settings(max_examples=30)
@given(st.floats(0.2, 5.0))
def test_median_ratio_is_that_of_the_medians_and_its_interval_holds_it(factor):
    samples = np.random.default_rng(4).gamma(9, size=300)
    found = r.median_ratio(samples * factor, samples, samples=200, seed=0)
    assert found.estimate == pytest.approx(factor)
    assert found.low < factor < found.high


def test_quantiles_are_numpys():
    samples = np.arange(101.0)
    assert s.quantiles(samples) == s.Quantiles(50, 95, 99)
