"""Planted faults of scores, on the cases of two made-up apps: each with three seeds, so that other cases are drawn."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from bench.gate import APPS, CARDS, IMAGES, cards, images
from featherweight.core.evidence import planted_trial
from featherweight.core.evidence.judge import Check, judge_one
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.planted import HARMLESS, PLANTED
from featherweight.core.evidence.planted_draws import MAX_CASES
from featherweight.core.evidence.planted_result import GateTrial, NoTrial, PlantedResult
from featherweight.core.evidence.planted_trial import try_gate
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.reports.planted import encode_gate, gate_part, gate_sentence

SEEDS = (0, 1, 2)


@functools.cache
def trial(app: str, seed: int = 0) -> GateTrial:
    cases, limits = APPS[app]
    found = try_gate(cases(seed), limits, seed=seed)
    assert isinstance(found, GateTrial)
    return found


def test_there_are_ninety_of_them_over_both_apps() -> None:
    assert sum(len(trial(app).faults) for app in APPS) >= 90
    assert len({fault.name for fault in (*PLANTED, *HARMLESS)}) == len(PLANTED) + len(HARMLESS)
    assert not trial("cards").not_planted


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("app", APPS)
def test_what_harms_more_than_a_limit_allows_is_refused(app: str, seed: int) -> None:
    found = trial(app, seed)
    assert len(found.beyond) >= 40
    assert found.caught >= 0.95 * found.should_be_caught
    for one in found.found("let through"):
        # Chance has its part near a limit, and where all harm is in one case: every third draw has none of it.
        assert one.loss < 2 * one.allowed or _rests_on_one_case(one), one


def _rests_on_one_case(one: PlantedResult) -> bool:
    return one.name == "The largest cluster is lost" or (one.just_beyond and one.times > 1.4)


@pytest.mark.parametrize("app", APPS)
def test_harmless_candidates_pass(app: str) -> None:
    found = [trial(app, seed) for seed in SEEDS]
    assert not any(one.refuses_a_copy for one in found)
    assert sum(one.false_refusals for one in found) <= 0.05 * sum(one.harmless_draws for one in found)


def test_a_gate_that_takes_the_estimate_for_the_bound_lets_more_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial of such a gate must show it: what it catches is no more than what happens to be seen."""
    honest = judge_one

    def estimate(*args: object, **kwargs: object) -> Check:
        check = honest(*args, **kwargs)  # type: ignore[arg-type]
        assert check.seen is not None
        return replace(check, status="passed" if check.seen <= check.limit else "failed")

    caught = [sum(one.refused for one in trial("images", seed).just_beyond) for seed in SEEDS]
    monkeypatch.setattr(planted_trial, "judge_one", estimate)
    weak = [try_gate(images(seed), IMAGES, seed=seed) for seed in SEEDS]
    weak = [found for found in weak if isinstance(found, GateTrial)]
    assert len(weak) == len(SEEDS)
    judged = sum(one.draws for found in weak for one in found.just_beyond)
    assert sum(caught) >= 0.93 * judged
    assert sum(one.refused for found in weak for one in found.just_beyond) <= 0.85 * judged


def test_a_gate_that_refuses_everything_is_shown_to_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = judge_one
    monkeypatch.setattr(planted_trial, "judge_one", lambda *a, **k: replace(honest(*a, **k), status="failed"))
    found = try_gate(images(0), IMAGES, seed=0)
    assert isinstance(found, GateTrial)
    assert found.false_refusals == found.harmless_draws > 0
    assert "the limits refuse even an exact copy of the baseline" in gate_sentence(found)


@pytest.mark.parametrize("app", APPS)
def test_faults_change_what_they_say_and_nothing_else(app: str) -> None:
    of = APPS[app][0](0)
    for fault in PLANTED:
        planted = fault.plant(of, np.random.default_rng(0))
        if planted is None:
            assert of.outcomes is None, fault.name
            assert "outcome" in fault.name, fault.name
            continue
        assert planted.ids == of.ids
        np.testing.assert_array_equal(planted.labels, of.labels)
        assert planted.probabilities is not None
        assert of.probabilities is not None
        same = np.array_equal(planted.scores, of.scores) and planted.outcomes == of.outcomes
        same = same and planted.threshold == of.threshold
        assert not same or not np.array_equal(planted.probabilities, of.probabilities), fault.name


def test_the_ranking_is_left_alone_where_only_thresholds_and_probabilities_are_hurt() -> None:
    of = cards(0)
    kept = {"The strongest answers become weak ones", "The weakest answers fall below"}
    for fault in (one for one in PLANTED if "hreshold" in one.name or "robabilit" in one.name or one.name in kept):
        planted = fault.plant(of, np.random.default_rng(0))
        assert planted is not None
        np.testing.assert_array_equal(np.argsort(planted.scores), np.argsort(of.scores), err_msg=fault.name)


def test_what_no_limit_looks_at_is_told() -> None:
    found = {one.name: one for one in trial("images").faults}
    blind = found["All probabilities are one number"]
    assert blind.finding == "no limit looks at it"
    assert blind.unlimited == "brier_score"
    assert "at which no limit looks" in gate_sentence(trial("images"))


def test_of_many_cases_some_are_used_and_all_clusters_with_a_positive_case() -> None:
    of = cards(0, cases=12_000)
    found = try_gate(of, CARDS, seed=0)
    assert isinstance(found, GateTrial)
    assert MAX_CASES - 50 <= found.cases <= MAX_CASES
    assert found.of == 12_000
    assert f"{found.cases:,} validation cases of 12,000" in gate_sentence(found)


def test_the_same_seed_gives_the_same_trial() -> None:
    assert try_gate(images(0), IMAGES, seed=0) == trial("images")


def test_what_cases_cannot_have_is_not_planted() -> None:
    of = replace(images(0, cases=400), groups={}, clusters=None, probabilities=None)
    found = try_gate(of, IMAGES, seed=0)
    assert isinstance(found, GateTrial)
    assert "The largest cluster is lost" in found.not_planted
    assert "The rarest group has one answer" in found.not_planted
    assert "All probabilities are one number" in found.not_planted
    part = gate_part(found, "patients")
    assert part is not None
    assert part["not_planted"] == [name.replace("clusters", "patients") for name in found.not_planted]


def test_a_fault_that_changes_nothing_is_not_planted() -> None:
    """The other sign of 0 is 0, and scores that are all positive have no sign to lose."""
    of = images(0, cases=400)
    of = replace(of, scores=np.abs(of.scores), threshold=0.0)
    found = try_gate(of, IMAGES, seed=0)
    assert isinstance(found, GateTrial)
    assert {"Threshold of the other sign", "The sign of the score is lost"} <= set(found.not_planted)


def test_a_floor_that_the_baseline_reaches_leaves_harmless_candidates_harmless() -> None:
    limits = Limits(auc_loss=0.01, auc_min=0.9)
    found = try_gate(images(0, cases=600), limits, seed=0)
    assert isinstance(found, GateTrial)
    assert found.harmless_draws >= 30
    assert {one.limit for one in found.faults} == {"auc_loss", "auc_min"}


def test_outcomes_that_vanish_are_refused() -> None:
    found = {one.name: one for one in trial("cards").faults}
    for name in ("The last outcome vanishes", "The second outcome becomes the first"):
        assert found[name].finding == "caught", found[name]


def test_nothing_is_tried_where_no_limit_looks_at_answers_and_it_is_said_why() -> None:
    of = images(0, cases=100)
    one_class = replace(of, labels=np.zeros(100, np.int64))
    never = replace(of, threshold=np.inf)
    for cases, limits, why in (
        (of, Limits(latency_ratio_min=2.0), "no limit looks at answers"),
        (of, Limits(), "no limit looks at answers"),
        (one_class, IMAGES, "all of one class"),
        (never, IMAGES, "a threshold is infinite"),
    ):
        found = try_gate(cases, limits, seed=0)
        assert isinstance(found, NoTrial)
        assert why in found.reason
        assert why in gate_sentence(found)
        encoded = encode_gate(found)
        assert encoded is not None
        assert encoded["no_trial"] == found.reason
        part = gate_part(found, "patients")
        assert part is not None
        assert why in part["sentence"]


def test_scores_near_the_largest_number_leave_room_for_fewer_faults() -> None:
    of = images(0, cases=100)
    far = replace(of, scores=np.where(of.labels == 1, 1e308, -1e308), threshold=0.0, clusters=None)
    found = try_gate(far, IMAGES, seed=0)
    assert isinstance(found, GateTrial)
    assert len(found.not_planted) > len(try_gate_of(of).not_planted)


def try_gate_of(of: Predictions) -> GateTrial:
    found = try_gate(of, IMAGES, seed=0)
    assert isinstance(found, GateTrial)
    return found


def test_a_fault_in_one_group_counts_against_the_limit_of_groups() -> None:
    """The whole loses too little for a limit; the limit of groups sees it, and refuses it, in one judgement."""
    limits = Limits(auc_loss=0.3, unseen_case="lost", **{"groups.sensitivity_loss": 0.3})
    found = try_gate(images(0), limits, seed=0)
    assert isinstance(found, GateTrial)
    harmed = {one.name: one for one in found.faults}["Positives of the rarest group sink"]
    assert (harmed.limit, harmed.finding, harmed.draws) == ("groups.sensitivity_loss", "caught", 1)
    assert harmed.loss > 0.5
    blind = try_gate(images(0), Limits(auc_loss=0.3, unseen_case="lost"), seed=0)
    assert isinstance(blind, GateTrial)
    missed = {one.name: one for one in blind.faults}["Positives of the rarest group sink"]
    assert missed.finding == "no limit looks at it"
    assert not found.false_refusals


def test_of_groups_only_those_count_that_a_limit_holds_in_and_can_show_it() -> None:
    limits = Limits(unseen_case="lost", group_columns=("device",), **{"groups.sensitivity_loss": 0.3})
    found = try_gate(images(0), limits, seed=0)
    assert isinstance(found, GateTrial)
    rare_site = {one.name: one for one in found.faults}["Positives of the rarest group sink"]
    assert rare_site.limit == "groups.sensitivity_loss"
    assert rare_site.loss < 0.3, "the rarest group is a site, spread over all devices"


def test_as_many_cases_are_used_as_show_that_a_copy_keeps_the_limits() -> None:
    """Too few refuse the faults as they refuse everything: that is no catch."""
    limits = Limits(auc_loss=0.003, unseen_case="lost")  # which 3,000 of these cases cannot show
    of = images(0, cases=10_000)
    found = try_gate(of, limits, seed=0)
    assert isinstance(found, GateTrial)
    assert found.cases == found.of
    assert not found.refuses_a_copy
    assert found.false_refusals == 0


def test_too_few_cases_refuse_even_a_copy() -> None:
    found = try_gate(images(0, cases=80), IMAGES, seed=0)
    assert isinstance(found, GateTrial)
    assert found.refuses_a_copy
    assert gate_sentence(found).startswith("Planted faults show nothing here: on 80 validation cases")
    assert "were refusals" not in gate_sentence(found)
