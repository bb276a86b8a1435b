"""Figures of several classes against scikit-learn, and each case's own part of their losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from featherweight.core.arrays import Integers
from featherweight.core.statistics.class_losses import kappa, kappa_interval, kappa_own_losses, recall_own_losses
from featherweight.core.statistics.intervals import auc_influence, roc_auc
from featherweight.core.statistics.loss_bounds import loss_upper_bound

_Places = tuple[Integers, Integers, Integers]


@st.composite
def places(draw: st.DrawFn) -> _Places:
    """Labels and two programs' decisions, [N] each, of three classes."""
    count = draw(st.integers(3, 40))
    some = st.lists(st.integers(0, 2), min_size=count, max_size=count).map(lambda found: np.array(found, np.int64))
    return draw(some), draw(some), draw(some)


@settings(max_examples=60, deadline=None)
@given(places())
def test_parts_add_up_to_the_loss_and_none_is_larger_than_a_case_that_is_lost(found: _Places) -> None:
    labels, before, after = found
    recall = recall_own_losses(before == labels, after == labels, labels)
    assert recall is not None
    shares = [np.mean([(one == labels)[labels == k].mean() for k in np.unique(labels)]) for one in (before, after)]
    assert recall.loss == pytest.approx(shares[0] - shares[1], abs=1e-12)
    assert np.abs(recall.parts).max() <= recall.lost + 1e-12
    own = kappa_own_losses(before, after, labels, 3)
    figures = kappa(before, labels, 3), kappa(after, labels, 3)
    if own is None or figures[0] is None or figures[1] is None:
        assert None in figures
        return
    assert own.loss == pytest.approx(figures[0] - figures[1], abs=1e-9)
    assert loss_upper_bound(own, "as-seen") >= own.loss
    assert loss_upper_bound(own, "lost") >= loss_upper_bound(own, "as-seen")
    assert loss_upper_bound(own, "as-seen") == 0 or (before != after).any()


def test_figures_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 500)
    decided = np.where(draw.random(500) < 0.7, labels, draw.integers(0, 4, 500))
    assert kappa(decided, labels, 4) == pytest.approx(cohen_kappa_score(labels, decided))
    recall = recall_own_losses(labels == labels, decided == labels, labels)
    assert recall is not None
    assert 1 - recall.loss == pytest.approx(balanced_accuracy_score(labels, decided))
    assert kappa(np.zeros(5, int), np.zeros(5, int), 3) is None


def test_the_interval_of_kappa_holds_the_true_one() -> None:
    draw, held = np.random.default_rng(1), 0
    for _ in range(300):
        labels = draw.choice(3, 200, p=[0.6, 0.3, 0.1])
        decided = np.where(draw.random(200) < 0.8, labels, draw.choice(3, 200, p=[0.6, 0.3, 0.1]))
        found = kappa_interval(decided, labels, 3)
        assert found is not None
        held += found.low <= 0.8 <= found.high
    assert 0.92 <= held / 300 <= 0.98
    perfect = kappa_interval(labels, labels, 3)
    assert perfect is not None
    assert perfect.low < perfect.estimate == perfect.high == 1
    clustered = kappa_interval(np.repeat(decided, 5), np.repeat(labels, 5), 3, np.repeat(np.arange(200), 5))
    plain = kappa_interval(np.repeat(decided, 5), np.repeat(labels, 5), 3)
    assert clustered is not None
    assert plain is not None
    assert clustered.high - clustered.low > 2 * (plain.high - plain.low)


def test_the_influence_on_auc_is_its_derivative_by_the_weight_of_a_case() -> None:
    draw = np.random.default_rng(2)
    labels, scores = draw.integers(0, 2, 40), draw.normal(size=40).round(1)
    influence = auc_influence(scores, labels)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    for place in (0, 7, 23):
        grown = [
            roc_auc(np.append(scores, [scores[place]] * n), np.append(labels, [labels[place]] * n)) for n in (0, 1)
        ]
        assert grown[0] is not None
        assert grown[1] is not None
        same = int((labels == labels[place]).sum())
        assert grown[1] - grown[0] == pytest.approx(influence[place] * same / (same + 1), abs=1e-12)
