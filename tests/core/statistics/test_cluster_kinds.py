"""Clusters of two kinds: whatever is computed between clusters reaches at least as far as with either kind alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from featherweight.core.arrays import Clusters
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics import reliability as r
from featherweight.core.statistics.average_precision import average_precision_interval
from featherweight.core.statistics.cluster_kinds import Kinds, numbered_kinds
from featherweight.core.statistics.predictive_values import PairedDecisions, predictive_value_difference
from featherweight.core.statistics.share_bounds import share_upper_bound


class Cases:
    """Cases of cards at terminals: both move scores, labels are drawn of the probabilities."""

    def __init__(self, seed: int, cards: int, terminals: int, count: int = 300, effect: float = 1.0) -> None:
        draw = np.random.default_rng(seed)
        self.card, self.terminal = draw.integers(0, cards, count), draw.integers(0, terminals, count)
        shared = draw.normal(size=cards)[self.card] + draw.normal(size=terminals)[self.terminal]
        self.labels = (draw.random(count) < 0.4).astype(np.int64)
        self.scores = draw.normal(size=count) + 2 * self.labels + effect * shared
        self.probabilities = 1 / (1 + np.exp(1 - self.scores))
        self.right = self.scores > draw.normal(size=count)


def _lower(interval: s.Interval | None) -> float:
    assert interval is not None
    return interval.low


def _predictive(cases: Cases, kinds: Kinds) -> float:
    clusters: tuple[Clusters, ...] = () if kinds is None else tuple(kinds)
    positive = cases.labels == 1
    decisions = PairedDecisions(positive, cases.scores > 0.5, cases.scores > 0.8, clusters)
    found = predictive_value_difference("negative", decisions, 0.3)
    assert found is not None
    return found.low


LOWER: dict[str, Callable[[Cases, Kinds], float]] = {
    "auc": lambda of, kinds: _lower(s.roc_auc_floor(of.scores, of.labels, kinds)),
    "average precision": lambda of, kinds: _lower(average_precision_interval(of.scores, of.labels, kinds)),
    "share": lambda of, kinds: _lower(s.share_interval(of.right, kinds)),
    "brier": lambda of, kinds: _lower(r.brier_interval(of.probabilities, of.labels, kinds)),
    "slope": lambda of, kinds: _lower(r.calibration_line(of.probabilities, of.labels, kinds)[0]),
    "intercept": lambda of, kinds: _lower(r.calibration_line(of.probabilities, of.labels, kinds)[1]),
    "in the large": lambda of, kinds: _lower(r.calibration_in_the_large(of.probabilities, of.labels, kinds)),
    "flips": lambda of, kinds: -share_upper_bound(~of.right, kinds),
    "predictive value": _predictive,
}


@pytest.mark.parametrize("figure", LOWER)
@settings(max_examples=12, phases=(Phase.explicit, Phase.generate))
@given(st.integers(0, 10**6), st.integers(4, 200), st.integers(4, 200))
def test_two_kinds_reach_at_least_as_far_as_either_and_their_order_is_the_same(
    figure: str, seed: int, cards: int, terminals: int
) -> None:
    cases, low = Cases(seed, cards, terminals), LOWER[figure]
    both = low(cases, [cases.card, cases.terminal])
    assert both <= min(low(cases, [kind]) for kind in (cases.card, cases.terminal)) + 1e-9
    assert both == pytest.approx(low(cases, [cases.terminal, cases.card]))
    assert low(cases, [np.arange(300)]) == pytest.approx(low(cases, None), rel=0.02, abs=0.02)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 2**62)), min_size=1, max_size=30))
def test_intersections_are_the_pairs(pairs: list[tuple[int, int]]) -> None:
    kinds = [np.array(kind, np.int64) for kind in zip(*pairs, strict=True)]
    both = numbered_kinds(kinds)[2]
    assert len(set(both.tolist())) == len(set(pairs))
    assert all((both[i] == both[j]) == (pairs[i] == pairs[j]) for i in range(len(pairs)) for j in range(len(pairs)))


def test_the_bound_of_flips_and_the_floor_of_auc_hold_where_cards_and_terminals_both_matter() -> None:
    """By either kind alone 10% and 9% are below the truth."""
    below, reached, studies = 0, 0, 120
    true_share = 0.0525
    true_auc = s.roc_auc(many.scores, many.labels) if (many := Cases(0, 10**6, 10**6, 200_000)) else None
    for seed in range(studies):
        draw = np.random.default_rng(seed)
        card, terminal = draw.integers(0, 100, 3000), draw.integers(0, 100, 3000)
        shared = 1.2 * (draw.normal(size=100)[card] + draw.normal(size=100)[terminal])
        flipped = draw.random(3000) < 1 / (1 + np.exp(4 - shared))
        below += share_upper_bound(flipped, [card, terminal]) <= true_share
        cases = Cases(seed, 600, 60, 2000)
        found = s.roc_auc_floor(cases.scores, cases.labels, [cases.card, cases.terminal])
        assert found is not None
        assert true_auc is not None
        reached += found.low >= true_auc
    assert below / studies <= 0.09
    assert reached / studies <= 0.06
