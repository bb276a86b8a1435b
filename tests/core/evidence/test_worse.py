"""What the evidence itself shows to be worse is said, limited or not, overall or in a group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.evidence.figures import compare
from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import Comparison
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import evidence_as_dict
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.evidence.subgroups import compare_subgroups
from featherweight.core.evidence.worse import MAX_NAMED, worse_notes
from featherweight.core.thresholds import Outcomes
from tests.core import evidence_cases as made


def notes_of(before: Predictions, after: Predictions, limits: Limits = made.LIMITS) -> tuple[str, ...]:
    found = compare(before, after, samples=50, seed=0)
    return worse_notes(before, after, found, compare_subgroups(before, after, limits, seed=0), limits)


def test_nothing_is_said_where_nothing_is_worse():
    before = made.grouped(made.predictions(0.0))
    assert notes_of(before, replace(before)) == ()


def test_a_brier_score_that_rises_without_a_limit_is_said_and_shown():
    before = made.predictions(0.0)
    after = replace(before, probabilities=np.clip(before.probabilities * 0.55, 0, 1))
    lines = notes_of(before, after)
    assert "Shown to be worse" in lines[0]
    assert "Brier score rose by" in lines[0]
    assert "no limit is on it" in lines[0]


def test_a_loss_that_chance_may_explain_is_said_to_be_so():
    before = made.predictions(0.0)
    place = np.flatnonzero((before.labels == 1) & before.decisions)[0]
    scores = before.scores.copy()
    scores[place] = before.threshold - 0.01
    (line,) = [line for line in notes_of(before, replace(before, scores=scores)) if "sensitivity" in line]
    assert line.startswith("Worse than the baseline in these cases, which chance may explain: ")


def test_probabilities_that_are_one_number_are_called_worthless_though_they_are_calibrated():
    before = made.predictions(0.0)
    after = replace(before, probabilities=np.full(len(before.labels), before.labels.mean()))
    found = compare(before, after, samples=50, seed=0).candidate.metrics["calibration_error"]
    assert found is not None
    assert found.estimate < 0.01
    assert any("no longer tell cases apart" in line for line in notes_of(before, after))


def test_probabilities_that_the_candidate_lost_are_said():
    before = made.predictions(0.0)
    (line,) = notes_of(before, replace(before, probabilities=None))
    assert "The baseline has probabilities and the candidate none" in line
    assert notes_of(replace(before, probabilities=None), before) == ()  # it gained them


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda values: 1 - values, "the calibration lost or turned the order"),
        (lambda values: np.round(values), "the calibration lost or turned the order"),
        (lambda values: 0.5 + (values - 0.5) / 50, "lie closer together than a tenth"),
    ],
)
def test_probabilities_that_tell_less_than_the_scores_are_named(changed, said):
    before = made.predictions(0.9)
    lines = notes_of(before, replace(before, probabilities=changed(before.probabilities)))
    assert any(said in line for line in lines)


def sites(cases: int, broken: tuple[str, ...]) -> tuple[Predictions, Predictions]:
    """25 cases of each site; in the broken ones the candidate guesses."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, cases)
    scores = labels * 3.0 + generator.normal(size=cases)
    site = np.array([f"s{place // 25:02}" for place in range(cases)])
    after = np.where(np.isin(site, broken), generator.normal(size=cases) + 1.5, scores)
    before = Predictions(tuple(map(str, range(cases))), labels, scores, 1.5, groups={"site": site})
    return before, replace(before, scores=after)


def test_a_site_whose_cases_are_few_is_named_when_it_gets_worse():
    lines = notes_of(*sites(1000, ("s07",)), Limits(auc_loss=0.02))
    (line,) = [line for line in lines if "groups" in line and "site s07 (25 cases, few): AUC fell by" in line]
    assert line.startswith("Worse in groups")


def test_of_many_groups_the_worst_are_named_and_the_others_counted():
    lines = notes_of(*sites(1000, tuple(f"s{place:02}" for place in range(20))))
    (line,) = [line for line in lines if line.startswith("Worse in groups")]
    assert line.count("site s") == MAX_NAMED
    assert "more figures of groups, which the page has" in line


@given(st.floats(0.01, 1.5), st.integers(0, 50))
def test_every_difference_below_nothing_is_named(noise: float, seed: int):
    before = made.predictions(0.0, positives=40, negatives=40)
    moved = np.random.default_rng(seed).normal(size=80) * noise
    after = replace(before, scores=before.scores + moved)
    found = compare(before, after, samples=20, seed=0)
    text = " ".join(worse_notes(before, after, found, compare_subgroups(before, after, Limits(), seed=0), Limits()))
    for name, difference in found.differences.items():
        if difference is not None and difference.estimate <= -0.0001:
            assert name.replace("_", " ").lower() in text.lower()


def test_page_json_and_card_say_it():
    before, after = made.baseline(1), made.candidate(1)
    worse = replace(after.predictions, probabilities=after.predictions.probabilities * 0.55)
    after = replace(after, predictions=worse)
    part = Comparison("test", before, after, judge(before, after, made.LIMITS, seed=0))
    evidence = replace(made.evidence(), test=part)
    for text in (render_html(evidence), render_figures(evidence), " ".join(evidence_as_dict(evidence)["warnings"])):
        assert "Brier score rose by" in text


def by_kind(found: Predictions) -> Predictions:
    """In two sites; half of the positives are of a subtype."""
    place = np.arange(len(found.labels))
    kinds = np.where(found.labels == 0, "normal", np.where(place % 2 == 0, "virus", "bacteria"))
    return replace(found, groups={"site": np.where(place % 4 < 2, "A", "B"), "kind": kinds})


def test_probabilities_that_are_ruined_in_one_group_are_said_without_a_limit_on_them():
    before = by_kind(made.predictions(0.0))
    for column, value in (("site", "A"), ("kind", "virus")):  # of both classes, and of one alone
        inside = before.groups[column] == value
        ruined = np.where(inside, before.probabilities * 0.45, before.probabilities)
        lines = notes_of(before, replace(before, probabilities=ruined), Limits(auc_loss=0.02, flip_ratio_max=0.01))
        (line,) = [line for line in lines if line.startswith("Shown to be worse in groups")]
        assert f"{column} {value}" in line
        assert "Brier score rose by" in line


def test_the_probabilities_of_a_subtype_are_judged_on_its_own_cases():
    """Not thinned out by those of the other class, which a ranking needs."""
    before = by_kind(made.predictions(0.0))
    inside = before.groups["kind"] == "virus"
    after = replace(before, probabilities=np.where(inside, 1 - before.probabilities, before.probabilities))
    groups = compare_subgroups(before, after, Limits(**{"groups.brier_loss": 0.1}), seed=0)
    (row,) = [row for row in groups.rows if row.value == "virus"]
    (figure,) = [one for one in row.figures if one.name == "brier_score"]
    own = np.mean((after.probabilities[inside] - 1) ** 2 - (before.probabilities[inside] - 1) ** 2)
    assert (figure.loss, figure.status) == (pytest.approx(own), "shown worse")
    same = compare_subgroups(before, replace(before), Limits(**{"groups.brier_loss": 0.1}), seed=0)
    assert {one.status for row in same.rows for one in row.figures if one.name == "brier_score"} == {"not worse"}


def test_declines_that_vanish_in_one_group_are_said_without_a_limit_on_decisions():
    before = by_kind(made.predictions(0.0))
    before = replace(before, outcomes=Outcomes(("approve", "review", "decline"), (before.threshold, 2.0)))
    inside = before.groups["site"] == "B"
    after = replace(before, scores=np.where(inside, np.minimum(before.scores, 1.9), before.scores))
    lines = notes_of(before, after, Limits(auc_loss=0.02, flip_ratio_max=0.1))
    declined = int((inside & (before.scores >= 2.0)).sum())
    (vanished,) = [line for line in lines if line.startswith("The candidate leads no case of a group")]
    assert f"site B: decline, the baseline {declined} cases" in vanished
    (shown,) = [line for line in lines if line.startswith("Shown to be worse in groups")]
    assert "site B" in shown
    assert "at the threshold of decline sensitivity fell" in shown
    # What vanished from all cases is told of the whole, not of each group again.
    everywhere = replace(before, scores=np.minimum(before.scores, 1.9))
    assert not any("no case of a group" in line for line in notes_of(before, everywhere))
    same = notes_of(before, replace(before))
    assert same == ()


def test_what_no_limit_of_groups_holds_is_corrected_apart():
    """Groups at thresholds whose figures no limit holds are notes: they make no limit easier, nor harder, to keep."""
    before = by_kind(made.predictions(0.0))
    limits = Limits(**{"groups.auc_loss": 0.05})
    more = replace(before, outcomes=Outcomes(("approve", "review", "decline"), (before.threshold, 2.0)))
    found = []
    for one in (before, more):
        after = replace(one, scores=one.scores + 0.1 * np.random.default_rng(0).normal(size=len(one.scores)))
        (check,) = judge(Measured("a", one), Measured("b", after), limits, seed=0)
        found.append((check.found, compare_subgroups(one, after, limits, seed=0).tests))
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1]
