"""The exact bound of a paired difference: against its definition, and what the asymptotic one gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binom, binomtest, multinomial

from featherweight.core.statistics import paired as p
from featherweight.core.statistics.intervals import Difference

Z = 1.6448536269514722
SMALL = [(44, 0, 1), (44, 1, 0), (40, 3, 9), (40, 6, 6), (30, 0, 0), (25, 12, 3)]
"""trials, gained, lost"""


def rights(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, gained, lost, neither]
    return np.repeat([True, False, True, False], counts), np.repeat([True, True, False, False], counts)


def pairs(trials: int) -> np.ndarray:
    """All [pairs, 2] of lost and gained."""
    lost, gained = np.meshgrid(np.arange(trials + 1), np.arange(trials + 1), indexing="ij")
    inside = lost + gained <= trials
    return np.stack([lost[inside], gained[inside]], axis=1)


def likelihoods(trials: int, found: np.ndarray, difference: float, share: float) -> np.ndarray:
    rest = trials - found.sum(axis=1)
    shares = np.clip([share, share + difference, 1 - 2 * share - difference], 0, 1)
    return multinomial.pmf(np.column_stack([found, rest]), trials, shares / shares.sum())


def shares(difference: float, count: int = 400) -> np.ndarray:
    """Of lost cases: all that a difference allows."""
    return np.linspace(max(0.0, -difference), (1 - difference) / 2, count)


@pytest.mark.parametrize(
    ("trials", "gained", "lost"),
    [(44, 0, 1), (44, 1, 0), (60, 3, 9), (50, 6, 6), (60, 0, 7), (390, 12, 12), (134, 3, 9)],
)
def test_the_score_bound_is_where_the_score_test_turns(trials, gained, lost):
    """The same test by another road: the nuisance share is found by maximizing the multinomial likelihood."""
    delta = p.score_bound(trials, gained, lost, Z)

    def unlikely(share_lost):
        shares = share_lost + delta, share_lost, 1 - 2 * share_lost - delta
        return -float(xlogy((gained, lost, trials - gained - lost), np.maximum(shares, 0)).sum())

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    found = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12})
    error = np.sqrt(trials * (2 * found.x + delta - delta**2))
    assert (gained - lost - trials * delta) / error == pytest.approx(Z, abs=2e-3)


@pytest.mark.parametrize(("trials", "gained", "lost"), SMALL)
def test_at_the_exact_bound_no_share_of_lost_cases_makes_what_was_seen_likely(trials, gained, lost):
    """By the definition: all pairs that Tango's bound puts at least as high, over all shares, one by one."""
    bound, found = p.exact_bound(trials, gained, lost), pairs(trials)
    seen = p.score_bound(trials, gained, lost, Z)
    extreme = found[p.score_statistic(trials, *found.T.astype(float), seen) >= Z - 1e-6]
    plausible = binomtest(lost, trials).proportion_ci(0.999)
    likely = [
        likelihoods(trials, extreme, bound, share).sum()
        for share in shares(bound)
        if plausible.low - 0.01 <= share <= plausible.high
    ]
    assert 0.046 <= max(likely) <= 0.0492


def rejected(trials: int, margin: float, bound) -> np.ndarray:
    """[pairs, 2] from which non-inferiority is concluded; more gained cases never conclude less."""
    found = []
    for lost in range(trials + 1):
        too_few, enough = -1, trials - lost + 1
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (too_few, middle) if bound(trials, middle, lost) > -margin else (middle, enough)
        found += [(lost, gained) for gained in range(enough, trials - lost + 1)]
    return np.array(found)


@pytest.mark.parametrize(("trials", "margin"), [(20, 0.2)])
def test_the_exact_bound_errs_in_at_most_5_percent_and_the_score_bound_in_more(trials, margin):
    """Exactly, not by simulation: the probability of concluding `not worse` when the loss is the whole margin."""

    def worst(bound):
        concluded = rejected(trials, margin, bound)
        return max(likelihoods(trials, concluded, -margin, share).sum() for share in shares(-margin, 150))

    def contradicts(*pair):
        """Whether the exact bound lies above -margin, asked at that one point."""
        return 0 if p._Extreme(*pair, p.score_bound(*pair, Z), 0.001).p_value(-margin) <= 0.05 else -1

    asymptotic, exact = worst(lambda *pair: p.score_bound(*pair, Z)), worst(contradicts)
    assert asymptotic > 0.065
    assert 0.03 < exact <= 0.05


@settings(max_examples=5)
@given(st.integers(1, 400), st.data())
def test_losing_a_case_lowers_the_bound_and_gaining_one_raises_it(trials, data):
    lost = data.draw(st.integers(0, min(20, trials - 1)))
    gained = data.draw(st.integers(0, min(20, trials - lost - 1)))
    bound = p.exact_bound(trials, gained, lost)
    assert -1 <= bound <= (gained - lost) / trials
    assert p.exact_bound(trials, gained, lost + 1) <= bound + 1e-6
    assert p.exact_bound(trials, gained + 1, lost) >= bound - 1e-6


@pytest.mark.parametrize("trials", [1, 10, 134, 390, 10_000])
def test_cases_that_all_agree_do_not_prove_that_all_do(trials):
    """Rule of three: with nothing lost the bound is that of a share of which none was seen."""
    found = p.paired_share_difference(*rights(trials, 0, 0, 0))
    assert found.estimate == 0
    assert found.low == pytest.approx(-(1 - 0.049 ** (1 / trials)), abs=1e-4)


def test_no_case_no_difference():
    assert p.paired_share_difference(np.array([], bool), np.array([], bool)) is None
    assert p.paired_share_difference(np.array([True]), np.array([False])) == Difference(-1.0, -1.0)


def test_the_p_value_and_the_bound_agree():
    bound = p.exact_bound(390, 4, 7)
    assert p.exact_p_value(390, 4, 7, bound - 0.002) < 0.05 < p.exact_p_value(390, 4, 7, bound + 0.002)
    assert p.exact_p_value(390, 4, 7, -0.9) == pytest.approx(1e-5)


@settings(max_examples=25)
@given(st.integers(1, 3000), st.floats(1e-4, 0.9999), st.data())
def test_binomial_tails_are_those_of_the_distribution(trials, share, data):
    count = data.draw(st.integers(0, trials))
    found = p._at_least(np.array([count]), np.array([trials]), np.array([share]))[0]
    assert found == pytest.approx(binom.sf(count - 1, trials, share), rel=1e-7, abs=1e-12)


def test_changes_that_come_in_clusters_tell_less():
    baseline, candidate = rights(370, 0, 20, 0)
    apart, together = np.arange(390) % 195, np.repeat(np.arange(39), 10)
    plain = p.paired_share_difference(baseline, candidate)
    assert p.paired_share_difference(baseline, candidate, [np.arange(390)]) == plain
    assert p.paired_share_difference(baseline, candidate, [apart]).low == pytest.approx(plain.low, abs=0.002)
    clustered = p.paired_share_difference(baseline, candidate, [together])
    assert clustered.estimate == plain.estimate
    assert clustered.low < plain.low - 0.03


def test_the_clustered_bound_covers_the_truth_where_the_plain_one_does_not():
    """Patients of five images each; a patient's images are lost or kept together, 8% of them."""
    rng = np.random.default_rng(0)
    clusters, covered = np.repeat(np.arange(120), 5), np.zeros(2)
    for _ in range(40):
        lost = np.repeat(rng.random(120) < 0.08, 5)
        right = np.ones(600, bool)
        lows = [p.paired_share_difference(right, right & ~lost, given).low for given in ([clusters], [])]
        covered += np.array(lows) <= -0.08
    assert covered[0] / 40 >= 0.9
    assert covered[1] / 40 <= 0.85


def test_patients_of_whom_none_changed_prove_no_more_than_as_many_cases():
    """Patients lost whole, 2% of them: among 40 none is in 45 studies of 100, which ten images each do not change."""
    baseline, candidate = rights(400, 0, 0, 0)
    patients = np.repeat(np.arange(40), 10)
    found = p.paired_share_difference(baseline, candidate, [patients])
    assert found.low == pytest.approx(-(1 - 0.049 ** (1 / 40)), abs=1e-4)
    candidate[0] = False
    assert p.paired_share_difference(baseline, candidate, [patients]).low <= found.low
    better = p.paired_share_difference(np.repeat([True, False], 200), np.ones(400, bool), [patients])
    assert better.low > 0.25
