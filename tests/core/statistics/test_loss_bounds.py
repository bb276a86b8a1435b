"""Each case's own part of a loss, and the bound that is made of the parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaincinv
from sklearn.metrics import average_precision_score, roc_auc_score

from featherweight.core.arrays import Clusters, Floats, Labels
from featherweight.core.statistics.intervals import midranks
from featherweight.core.statistics.loss_bounds import (
    OwnLosses,
    least_bound,
    loss_lower_bound,
    loss_upper_bound,
    p_value,
)
from featherweight.core.statistics.own_losses import auc_own_losses, average_precision_own_losses


@st.composite
def studies(draw: st.DrawFn) -> tuple[Floats, Floats, Labels]:
    """Scores of two programs, with ties, and labels with both classes."""
    count = draw(st.integers(2, 25))
    numbers = st.lists(st.integers(0, 7), min_size=count, max_size=count)
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=count - 2, max_size=count - 2))])
    return np.array(draw(numbers), float), np.array(draw(numbers), float), labels


@given(studies())
def test_the_parts_of_all_cases_are_the_loss(study: tuple[Floats, Floats, Labels]) -> None:
    before, after, labels = study
    for parts, figure in (
        (auc_own_losses, roc_auc_score),
        (average_precision_own_losses, average_precision_score),
    ):
        assert parts(before, after, labels).loss == pytest.approx(
            figure(labels, before) - figure(labels, after), abs=1e-9
        )


@given(studies())
def test_a_case_that_moves_alone_has_all_of_the_loss(study: tuple[Floats, Floats, Labels]) -> None:
    before, after, labels = study
    ranks = midranks(before)
    for place in range(len(labels)):
        moved = ranks.copy()
        moved[place] = midranks(after)[place]
        own = average_precision_own_losses(ranks, moved, labels)
        loss = average_precision_score(labels, ranks) - average_precision_score(labels, moved)
        assert own.loss == pytest.approx(loss, abs=1e-9)


@given(studies(), st.sampled_from([auc_own_losses, average_precision_own_losses]), st.integers(2, 5))
def test_what_is_assumed_and_asked_only_widens_the_bound(
    study: tuple[Floats, Floats, Labels], parts: object, size: int
) -> None:
    before, after, labels = study
    clusters: Clusters = np.arange(len(labels)) // size
    own = parts(before, after, labels, [clusters])  # type: ignore[operator]
    seen, lost = loss_upper_bound(own, "as-seen"), loss_upper_bound(own, "lost")
    assert loss_lower_bound(own) <= own.loss <= seen <= lost
    assert seen <= loss_upper_bound(own, "as-seen", confidence=0.99)
    assert least_bound(own) > 0
    both = replace(own, clusters=[clusters, np.arange(len(labels)) % 3])
    assert loss_upper_bound(both, "as-seen") >= seen - 1e-12


def test_one_case_lost_of_a_hundred() -> None:
    """Fay and Feuer's limit with one event more is then the exact Poisson limit of one event: 4.74 of 100."""
    parts = np.zeros(200)
    parts[0] = 0.01
    own = OwnLosses(parts, 0.01, np.arange(200) < 100)
    assert loss_upper_bound(own, "as-seen") == pytest.approx(0.01 * float(gammaincinv(2, 0.95)))
    assert loss_upper_bound(own, "as-seen") == pytest.approx(0.0474, abs=1e-4)
    assert least_bound(own) == pytest.approx(0.01 * -np.log(0.05))  # the rule of three


def test_programs_that_rank_alike_differ_by_nothing_that_was_seen() -> None:
    scores, labels = np.arange(50.0), np.arange(50) % 2
    own = auc_own_losses(scores, np.exp(scores / 10), labels)
    assert (own.loss, loss_upper_bound(own, "as-seen")) == (0, 0)
    assert loss_upper_bound(own, "lost") == pytest.approx(-np.log(0.05) / 25)


def test_the_p_value_is_the_level_at_which_the_lower_bound_reaches_the_margin() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    before = generator.normal(size=400) + 2 * labels
    own = auc_own_losses(before, before + generator.normal(size=400), labels)
    assert own.loss > 0.02
    margin = own.loss / 2
    found = p_value(own, margin)
    assert 0 < found < 0.5
    assert loss_lower_bound(own, confidence=1 - found) == pytest.approx(margin, abs=1e-6)
    assert p_value(own, own.loss) == 1


@pytest.mark.parametrize(
    ("lost_share", "positives", "negatives"), [(0.01, 390, 234), (0.003, 390, 234), (0.02, 30, 600)]
)
def test_few_lost_cases_are_bounded_where_the_unseen_one_is_taken_for_lost(
    lost_share: float, positives: int, negatives: int
) -> None:
    """The bound by the standard error (DeLong) is below the loss in 14 to 23% of such studies. `bench/levels.py` has
    the whole table."""
    generator = np.random.default_rng(1)
    labels = np.repeat([1, 0], [positives, negatives])
    failed = 0
    for _ in range(200):
        before = generator.normal(size=len(labels)) + 2.77 * labels  # AUC .975
        lost = (generator.random(len(labels)) < lost_share) & (labels == 1)
        own = auc_own_losses(before, np.where(lost, -50 + before, before), labels)
        failed += loss_upper_bound(own, "lost") < lost_share * 0.975
    assert failed <= 10
