"""Subgroups: a planted harm is found, chance is not called harm, and what cannot be judged is said to be so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.core.evidence.figures import compare
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.subgroups import (
    MAX_HELD_VALUES,
    MAX_VALUES,
    MIN_CASES,
    OTHER_VALUES,
    Subgroup,
    compare_subgroups,
    holm,
)
from featherweight.core.evidence.worse import worse_notes
from featherweight.core.statistics.loss_bounds import LEAST_AS_SEEN
from featherweight.core.task import Outcomes

LIMITS = Limits(auc_loss=0.02, sensitivity_loss=0.05)


def pair(seed: int, noise: float = 0.2, cases: int = 1200) -> tuple[Predictions, Predictions]:
    """Two programs, the second noisier; a column of four sites and one of a subtype of the positives."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(cases) % 2).astype(np.int64)
    scores = rng.normal(size=cases) + 2.5 * labels - 1.2
    groups = {
        "site": np.array(["north", "east", "south", "west"])[rng.integers(0, 4, cases)],
        "kind": np.where(labels == 0, "normal", np.array(["bacteria", "virus"])[rng.integers(0, 2, cases)]),
    }
    before = Predictions(tuple(map(str, range(cases))), labels, scores, 0.0, groups=groups)
    return before, replace(before, scores=scores + noise * rng.normal(size=cases))


def found(rows: tuple[Subgroup, ...], column: str, value: str) -> Subgroup:
    return next(row for row in rows if (row.column, row.value) == (column, value))


def test_harm_in_one_group_is_shown_there_and_nowhere_else() -> None:
    before, after = pair(1, noise=0.02)
    harmed = (before.groups["site"] == "east") & (before.labels == 1)
    after = replace(after, scores=after.scores - 1.5 * harmed)
    table = compare_subgroups(before, after, LIMITS, seed=0)
    assert [row.value for row in table.rows if row.column == "site" and row.status == "shown worse"] == ["east"]
    east = found(table.rows, "site", "east")
    assert {one.name: one.status for one in east.figures} == {
        "auc": "shown worse",
        "sensitivity": "shown worse",
        "specificity": "no sign of harm",
    }
    sensitivity = next(one for one in east.figures if one.name == "sensitivity")
    assert sensitivity.low is not None
    assert sensitivity.difference is not None
    assert sensitivity.low < sensitivity.difference < -0.05
    assert east.flips > 0
    assert east.cases == int((before.groups["site"] == "east").sum())


def test_a_good_candidate_is_not_worse_where_there_are_cases_enough() -> None:
    before, after = pair(2, noise=0.005, cases=6000)
    table = compare_subgroups(before, after, LIMITS, seed=0)
    for row in table.rows:
        statuses = {one.name: one.status for one in row.figures}
        assert all(status in ("not worse", "no sign of harm") for status in statuses.values())
        assert statuses.get("sensitivity", "not worse") == "not worse"
        assert statuses.get("specificity", "no sign of harm") == "no sign of harm"  # no limit, so nothing to keep


def test_a_subtype_is_ranked_against_the_other_class() -> None:
    before, after = pair(3)
    table = compare_subgroups(before, after, LIMITS, seed=0)
    virus, normal = found(table.rows, "kind", "virus"), found(table.rows, "kind", "normal")
    assert [one.name for one in virus.figures] == ["auc", "sensitivity"]
    assert [one.name for one in normal.figures] == ["auc", "specificity"]
    assert virus.positives == virus.cases
    assert normal.positives == 0


def test_few_cases_have_wide_bounds_and_rare_values_are_one_group() -> None:
    before, after = pair(4)
    rng = np.random.default_rng(0)
    scanner = np.array([f"scanner {min(n, 39)}" for n in rng.geometric(0.08, 1200)])
    one_of = np.where(np.arange(1200) < 12, "rare", "common")
    groups = {"scanner": scanner, "one": one_of}
    table = compare_subgroups(replace(before, groups=groups), replace(after, groups=groups), LIMITS, seed=0)
    rare = found(table.rows, "one", "rare")
    assert {one.status for one in rare.figures} <= {"too few cases", "worse, not shown"}
    assert all(one.low is not None and one.p_value is not None for one in rare.figures)
    assert not any(one.can_show for one in rare.figures)
    rows = [row for row in table.rows if row.column == "scanner"]
    assert len(rows) == MAX_VALUES + 1
    assert [row.cases for row in rows[:-1]] == sorted((row.cases for row in rows[:-1]), reverse=True)
    assert rows[-1].value == OTHER_VALUES
    assert sum(row.cases for row in rows) == 1200
    assert len(table.notes) == 1
    assert f"judged as {OTHER_VALUES} ({rows[-1].cases} cases)" in table.notes[0]
    judged = [one for row in table.rows for one in row.figures if one.p_value is not None]
    assert table.tests == len(judged)


def test_average_precision_is_judged_where_the_recipe_limits_it() -> None:
    before, after = pair(5, noise=0.01)
    harmed = before.groups["site"] == "west"
    shuffled = np.where(harmed, np.random.default_rng(0).permutation(after.scores), after.scores)
    table = compare_subgroups(before, replace(after, scores=shuffled), Limits(average_precision_loss=0.02), seed=0)
    assert table.rows[0].figures[0].name == "average_precision"
    assert found(table.rows, "site", "west").status == "shown worse"
    assert found(table.rows, "site", "north").figures[0].status == "not worse"


def test_without_columns_there_are_no_rows() -> None:
    before, after = pair(6)
    table = compare_subgroups(replace(before, groups={}), replace(after, groups={}), LIMITS, seed=0)
    assert (table.rows, table.tests, table.notes) == ((), 0, ())


def test_four_alike_images_of_a_patient_count_as_one() -> None:
    def four_times(found: Predictions) -> Predictions:
        groups = {column: np.repeat(values, 4) for column, values in found.groups.items()}
        labels, scores = np.repeat(found.labels, 4), np.repeat(found.scores, 4)
        return Predictions(tuple(map(str, range(len(labels)))), labels, scores, 0.0, groups=groups)

    single, many = pair(7), [four_times(one) for one in pair(7)]
    patients = np.repeat(np.arange(1200), 4)
    clustered = [replace(one, clusters=patients) for one in many]
    tables = [compare_subgroups(*two, LIMITS, seed=0) for two in (single, clustered, many)]
    for rows in zip(*(table.rows for table in tables), strict=True):
        for alone, together, blind in zip(*(row.figures for row in rows), strict=True):
            assert alone.difference is not None
            reaches = [alone.difference - one.low for one in (alone, together, blind) if one.low is not None]
            assert reaches[1] == pytest.approx(reaches[0], rel=0.15)
            assert reaches[2] < 0.75 * reaches[0]


def test_in_all_groups_together_harm_is_called_by_chance_in_at_most_5_percent() -> None:
    """Every loss is the margin: of eight groups of two figures, one would look bad in most tables."""
    rng, alarms, uncorrected = np.random.default_rng(0), 0, 0
    labels = np.repeat([0, 1], 400)
    groups = {"site": np.array([f"s{i}" for i in range(8)])[np.arange(800) % 8]}
    right = np.ones(800)
    for _ in range(60):
        lost = rng.random(800) < 0.1
        scores = np.where(lost, -right, right) * (2 * labels - 1)
        before = Predictions(tuple(map(str, range(800))), labels, right * (2 * labels - 1), 0.0, groups=groups)
        limits = Limits(average_precision_loss=None, auc_loss=1.0, sensitivity_loss=0.1, specificity_loss=0.1)
        table = compare_subgroups(before, replace(before, scores=scores), limits, seed=0)
        statuses = [one.status for row in table.rows for one in row.figures if one.name != "auc"]
        alarms += "shown worse" in statuses
        p_values = [one.p_value for row in table.rows for one in row.figures if one.name != "auc"]
        uncorrected += min(p for p in p_values if p is not None) / table.tests < 0.05
    assert alarms / 60 <= 0.1
    assert uncorrected / 60 > 0.2


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected, rest = set(), sorted(range(len(p_values)), key=p_values.__getitem__)
        for rank, place in enumerate(rest):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(place)
        assert {place for place, value in enumerate(adjusted) if value <= level} == rejected
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))


def test_holm_of_a_known_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_value_that_stands_for_single_cases_is_not_written_down() -> None:
    before, after = pair(4)
    names = np.array([f"name of {place}" for place in range(1200)])
    few = np.where(np.arange(1200) < MIN_CASES - 1, "one family", "all others")
    groups = {"patient": names, "family": few}
    table = compare_subgroups(replace(before, groups=groups), replace(after, groups=groups), LIMITS, seed=0)
    assert [(row.column, row.value) for row in table.rows] == [
        ("patient", OTHER_VALUES),
        ("family", "all others"),
        ("family", OTHER_VALUES),
    ]
    assert [note.split(":")[0] for note in table.notes] == ["patient", "family"]
    assert "1,200 of 1,200" in table.notes[0]
    assert not any("name of" in note or "one family" in note for note in table.notes)


def lost(positives: int, others: int, gone: int) -> tuple[Predictions, Predictions]:
    """Right decisions in a small group and a large one; of the small group's positives so many are lost."""
    site = np.repeat(["small", "large"], [positives + 30, others])
    labels = np.concatenate([np.ones(positives), np.zeros(30), np.arange(others) % 2]).astype(np.int64)
    scores = 2.0 * labels - 1 + 0.001 * np.arange(len(labels))
    after = np.where(np.arange(len(labels)) < gone, -9.0, scores)
    before = Predictions(tuple(map(str, range(len(labels)))), labels, scores, 0.0, groups={"site": site})
    return before, replace(before, scores=after)


@given(st.integers(1, 25), st.sampled_from([0.01, 0.05, 0.2]))
def test_losing_all_positives_of_a_group_is_shown_whenever_chance_does_not_explain_it(
    positives: int, margin: float
) -> None:
    """However few they are. A net loss of the margin may be of many changes both ways: all of the changes are losses
    with a probability of up to ((1 + margin) / 2) ** positives."""
    limits = Limits(group_columns=("site",), **{"groups.sensitivity_loss": margin})
    table = compare_subgroups(*lost(positives, 400, positives), limits, seed=0)
    (figure,) = [one for one in found(table.rows, "site", "small").figures if one.name == "sensitivity"]
    likely = min(1.0, 2 * (((1 + margin) / 2) ** positives + 1e-5))  # of two groups
    assert figure.p_value == pytest.approx(likely, rel=1e-3, abs=1e-5)
    assert figure.status == ("shown worse" if likely <= 0.05 else "worse, not shown")


def test_columns_that_no_limit_names_change_nothing_of_what_it_judges() -> None:
    before, after = lost(60, 1200, 5)
    noise = {f"c{place}": np.random.default_rng(place).choice(list("abcdefghijkl"), 1290) for place in range(3)}
    for columns in ((), ("site",)):
        limits = Limits(auc_loss=0.01, group_columns=columns, **{"groups.sensitivity_loss": 0.06})
        tables = [
            compare_subgroups(*(replace(one, groups={**one.groups, **more}) for one in (before, after)), limits, seed=0)
            for more in ({}, noise)
        ]
        alone, among = (
            next(one for one in found(table.rows, "site", "small").figures if one.name == "sensitivity")
            for table in tables
        )
        assert (alone.can_show, among.can_show) == (True, True)
        assert alone.low is not None
        assert among.low is not None
        if columns:
            assert alone == among
        else:  # all columns are named then: a bound may reach further, and none nearer (but for the steps of a search)
            assert among.low - 1e-3 <= alone.low < -0.06


@settings(max_examples=15)
@given(st.integers(LEAST_AS_SEEN, 200), st.sampled_from([0.02, 0.05, 0.1]), st.integers(0, 5))
def test_a_group_that_lost_nothing_keeps_what_it_is_said_to_be_able_to_show(
    positives: int, margin: float, columns: int
) -> None:
    """The bound and what the cases could show at best are one reading, of shares and of rankings."""
    before, _ = lost(positives, 400, 0)
    more = {f"c{place}": np.resize(list("xxyyzz"), len(before.labels)) for place in range(columns)}
    before = replace(before, groups={**before.groups, **more})
    for unseen in ("as-seen", "lost", "lost-where-possible"):
        limits = Limits(unseen_case=unseen, **{"groups.sensitivity_loss": margin, "groups.auc_loss": margin})
        for row in compare_subgroups(before, replace(before), limits, seed=0).rows:
            for figure in row.figures:
                if figure.name in ("sensitivity", "auc"):
                    assert figure.can_show == (figure.low is not None and figure.low >= -margin)
                    assert figure.status == ("not worse" if figure.can_show else "no sign of harm")


def test_the_unseen_case_of_a_group_is_what_the_limits_say_of_it() -> None:
    before, _ = lost(40, 400, 0)
    lows = {}
    for unseen in ("as-seen", "lost", "lost-where-possible"):
        limits = Limits(unseen_case=unseen, group_columns=("site",), **{"groups.auc_loss": 0.05})
        row = found(compare_subgroups(before, replace(before), limits, seed=0).rows, "site", "small")
        lows[unseen] = next((one.low, one.can_show) for one in row.figures if one.name == "auc")
    assert lows["as-seen"] == (0, True)
    assert lows["lost"][0] == pytest.approx(np.log(0.05 / 2) / 30, abs=1e-3)  # one of the rarer class, none seen
    assert lows["lost"][1] is False
    assert lows["lost-where-possible"] == (0, True)


@pytest.mark.parametrize(("positives", "believed"), [(LEAST_AS_SEEN - 1, False), (LEAST_AS_SEEN, True)])
def test_the_ranking_of_a_group_is_believed_as_seen_from_where_that_of_all_cases_is(
    positives: int, believed: bool
) -> None:
    before, _ = lost(positives, 400, 0)
    limits = Limits(unseen_case="as-seen", group_columns=("site",), **{"groups.auc_loss": 0.05})
    row = found(compare_subgroups(before, replace(before), limits, seed=0).rows, "site", "small")
    assert [one.can_show for one in row.figures if one.name == "auc"] == [believed]


def test_a_group_is_judged_at_every_threshold_that_the_app_acts_on() -> None:
    before, _ = lost(60, 600, 0)
    outcomes = Outcomes(("approve", "review", "decline"), (0.0, 0.5))
    before = replace(before, outcomes=outcomes)
    small = (before.groups["site"] == "small") & (before.labels == 1)
    after = replace(before, scores=np.where(small, 0.25, before.scores))  # still reviewed, no longer declined
    limits = Limits(**{"groups.sensitivity_loss": 0.1})
    row = found(compare_subgroups(before, after, limits, seed=0).rows, "site", "small")
    assert [(one.threshold, one.status) for one in row.figures if one.name == "sensitivity"] == [
        ("", "not worse"),
        ("decline", "shown worse"),
    ]
    (check,) = judge(Measured("a", before), Measured("b", after), limits, seed=0)
    assert check.status == "failed"
    assert "threshold of decline" in check.explanation
    found_notes = worse_notes(
        before, after, compare(before, after, samples=50, seed=0), compare_subgroups(before, after, limits, seed=0),
        limits,
    )  # fmt: skip
    assert any("site small" in line and "at the threshold of decline" in line for line in found_notes)


def test_what_few_cases_lost_beyond_a_limit_is_named_apart_and_never_called_unmeasured() -> None:
    limits = Limits(**{"groups.sensitivity_loss": 0.05})
    before, after = lost(6, 600, 1)
    (check,) = judge(Measured("a", before), Measured("b", after), limits, seed=0)
    assert check.status == "passed"
    assert "chance may explain it: site small (36 cases) 0.1667" in check.explanation
    assert "Not measured" not in check.explanation
    groups = compare_subgroups(before, after, limits, seed=0)
    notes = worse_notes(before, after, compare(before, after, samples=50, seed=0), groups, limits)
    assert any(
        "chance may explain" in line and "site small (36 cases, few): sensitivity fell" in line for line in notes
    )


def many_sites(sites: int, each: int) -> Predictions:
    """Of so many sites with the same number of cases, and three of a single case each."""
    count = sites * each + 3
    labels = (np.arange(count) % 2).astype(np.int64)
    scores = np.random.default_rng(0).normal(size=count) + 3.0 * labels
    site = np.array([f"s{min(place // each, sites) + max(0, place - sites * each):03}" for place in range(count)])
    return Predictions(tuple(map(str, range(count))), labels, scores, 1.5, groups={"site": site})


def judged(before: Predictions, after: Predictions, limits: Limits) -> Check:
    return judge(Measured("a", before), Measured("b", after), limits, seed=0)[0]


def test_no_site_vanishes_in_a_limit_of_groups_however_many_there_are() -> None:
    before, limits = many_sites(60, 60), Limits(**{"groups.auc_loss": 0.3})
    kept = judged(before, replace(before), limits)
    assert kept.status == "passed"
    pooled = "site: 43 of 63 values, the rarest, of which 3 with fewer than 5 cases are not named, are also judged"
    assert pooled in kept.explanation
    assert "other values (2,403 cases)" in kept.explanation
    for site in ("s001", "s030", "s059"):
        inside = before.groups["site"] == site
        reversed_there = replace(before, scores=np.where(inside, 3.0 - before.scores, before.scores))
        check = judged(before, reversed_there, limits)
        assert check.status == "failed"
        assert f"worst is site {site} (60 cases)" in check.explanation


def test_many_small_sites_that_lose_a_little_each_are_judged_together() -> None:
    before, limits = many_sites(100, 16), Limits(**{"groups.sensitivity_loss": 0.1})
    place = np.arange(len(before.labels))
    hit = (place >= 20 * 16) & (place % 8 == 1)  # two of eight positives of each site but the first twenty
    check = judged(before, replace(before, scores=np.where(hit, -9.0, before.scores)), limits)
    assert check.status == "failed"
    assert "worst is site other values" in check.explanation


def test_a_column_of_too_many_values_is_none_of_groups() -> None:
    before = many_sites(MAX_HELD_VALUES + 1, 6)
    check = judged(before, replace(before), Limits(**{"groups.auc_loss": 0.3}))
    assert check.status == "not measured"
    assert "site has 501 values of 5 cases or more" in check.explanation
    assert "name the columns" in check.explanation
    sites = replace(before, groups={**before.groups, "sex": np.where(np.arange(len(before.ids)) % 4 < 2, "f", "m")})
    limits = Limits(group_columns=("sex",), **{"groups.auc_loss": 0.3})
    assert judged(sites, replace(sites), limits).status == "passed"
