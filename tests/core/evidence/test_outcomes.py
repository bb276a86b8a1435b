"""Every threshold that an app acts on is judged, and any change of outcome counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.errors import DataError
from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.outcomes import compare_outcomes
from featherweight.core.evidence.predictions import Measured, Predictions, changed_outcomes, outcome_table
from featherweight.core.evidence.report import Comparison, flipped_cases
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import evidence_as_dict
from featherweight.core.statistics.share_bounds import share_upper_bound
from featherweight.core.thresholds import Outcomes
from tests.core import evidence_cases as made

NAMES = ("approve", "review", "decline")


def with_outcomes(found: Predictions, decline: float = 2.0) -> Predictions:
    return replace(found, outcomes=Outcomes(NAMES, (found.threshold, decline)))


def pair(decline: float) -> tuple[Measured, Measured]:
    before = with_outcomes(made.predictions(0.0))
    after = replace(before, outcomes=Outcomes(NAMES, (before.threshold, decline)))
    return Measured("before", before), Measured("after", after)


def test_declines_that_all_vanish_are_changed_decisions():
    before, after = pair(decline=1e9)
    (check,) = judge(before, after, Limits(flip_ratio_max=0.05), seed=0)
    assert check.status == "failed"
    assert "decline to review" in check.explanation
    declined = int((before.predictions.scores >= 2.0).sum())
    assert check.seen == declined / len(before.predictions.ids)


def test_sensitivity_is_judged_at_every_threshold_and_the_worst_is_named():
    before, after = pair(decline=1e9)
    limits = Limits(sensitivity_loss=0.02, specificity_loss=0.04)
    sensitivity, specificity = judge(before, after, limits, seed=0)
    assert (sensitivity.status, specificity.status) == ("failed", "passed")
    assert sensitivity.explanation.startswith("At the threshold of decline, the worst of 2: Sensitivity fell by")
    single = judge(
        replace(before, predictions=replace(before.predictions, outcomes=None)),
        replace(after, predictions=replace(after.predictions, outcomes=None)),
        limits,
        seed=0,
    )
    assert [check.status for check in single] == ["passed", "passed"]


def test_flips_are_held_by_their_upper_bound_and_the_text_gives_both():
    before = made.predictions(0.0)
    scores = before.scores.copy()
    scores[np.argsort(np.abs(scores - before.threshold))[:25]] = before.threshold - 1
    after = replace(before, scores=scores)
    changed = changed_outcomes(before, after).count
    share = changed / len(scores)
    (check,) = judge(Measured("a", before), Measured("b", after), Limits(flip_ratio_max=share * 1.05), seed=0)
    assert check.status == "failed"
    assert check.seen == share
    assert f"({share:.2%})" in check.explanation
    assert f"with 95% confidence at most {check.found:.2%}" in check.explanation


def test_no_flip_among_few_cases_proves_little():
    few = made.predictions(0.0, positives=20, negatives=20)
    (check,) = judge(Measured("a", few), Measured("a", few), Limits(flip_ratio_max=0.05), seed=0)
    assert check.found == pytest.approx(1 - 0.05 ** (1 / 40))
    assert check.status == "failed"


@given(st.integers(0, 40), st.integers(40, 400))
def test_upper_bound_is_clopper_and_pearsons(hits: int, cases: int):
    from scipy.stats import binom

    found = share_upper_bound(np.arange(cases) < hits)
    if hits < cases:
        assert binom.cdf(hits, cases, found) == pytest.approx(0.05, abs=1e-9)
    assert found >= hits / cases


@given(st.integers(0, 30), st.integers(2, 60))
def test_clusters_never_make_the_bound_smaller(hits: int, clusters: int):
    cases = 240
    flags = np.arange(cases) < hits
    kinds = (np.arange(cases) * clusters // cases,)
    assert share_upper_bound(flags, kinds) >= share_upper_bound(flags)
    assert share_upper_bound(flags, kinds) >= 1 - 0.05 ** (1 / clusters) - 1e-9


def test_upper_bound_of_clusters_holds_its_level():
    """Clusters of eight that flip whole: 5% may lie below the truth."""
    generator, below = np.random.default_rng(0), 0
    for _ in range(400):
        flipped = np.repeat(generator.random(80) < 0.05, 8)
        below += share_upper_bound(flipped, (np.repeat(np.arange(80), 8),)) < 0.05
    assert below / 400 <= 0.08


@given(st.integers(0, 100), st.floats(0.0, 1.0))
def test_table_counts_every_case_once_and_its_diagonal_what_stayed(seed: int, noise: float):
    before = with_outcomes(made.predictions(0.0, positives=50, negatives=50))
    moved = before.scores + noise * np.random.default_rng(seed).normal(size=100)
    after = replace(before, scores=moved)
    table = outcome_table(before, after)
    assert table.sum() == 100
    assert table.sum() - np.trace(table) == changed_outcomes(before, after).count == len(flipped_cases(before, after))
    assert compare_outcomes(before, after, seed=0).changed == changed_outcomes(before, after).count


def test_page_json_and_notes_tell_of_every_outcome():
    before, after = pair(decline=1e9)
    part = Comparison("test", before, after, judge(before, after, Limits(flip_ratio_max=0.5), seed=0))
    evidence = replace(made.evidence(), test=part, limits=Limits(flip_ratio_max=0.5))
    page, document = render_html(evidence), evidence_as_dict(evidence)
    assert any("leads no case to decline" in note for note in document["warnings"])
    assert any("at the threshold of decline sensitivity fell by" in note for note in document["warnings"])
    outcomes = document["test"]["outcomes"]
    assert outcomes["names"] == list(NAMES)
    assert outcomes["moves"][2][1] == part.checks[0].seen * len(before.predictions.ids)
    assert document["test"]["flipped"][0]["outcomes"] == ["decline", "review"]
    assert "Between which outcomes" in page
    assert "decline → review" in page
    assert "Between which outcomes" not in render_html(made.evidence())


def test_outcomes_that_do_not_fit_are_refused():
    found = made.predictions(0.0)
    with pytest.raises(DataError, match="one more than there are thresholds"):
        Outcomes(("a", "b"), (1.0, 2.0))
    with pytest.raises(DataError, match="expected rising ones"):
        Outcomes(("a", "b", "c"), (2.0, 1.0))
    with pytest.raises(DataError, match="none of those of the outcomes"):
        replace(found, outcomes=Outcomes(NAMES, (5.0, 6.0)))
    with pytest.raises(DataError, match="leads to the outcomes negative, positive"):
        judge(Measured("a", found), Measured("b", with_outcomes(found)), Limits(), seed=0)
