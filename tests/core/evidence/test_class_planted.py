"""Faults of several classes that the gate must refuse, and candidates that it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.planted_classes import CLASS_FAULTS, CLASS_GRADED, CLASS_HARMLESS
from featherweight.core.evidence.planted_draws import MAX_CASES, Units
from featherweight.core.evidence.planted_result import GateTrial, NoTrial
from featherweight.core.evidence.planted_trial import try_gate
from tests.core import class_cases as made

LIMITS = Limits(
    sensitivity_loss=0.1, macro_auc_loss=0.02, accuracy_loss=0.02, class_brier_loss=0.02, flip_ratio_max=0.1
)


@pytest.fixture(scope="module")
def trial() -> GateTrial:
    site = np.array(["north", "south", "south", "south"] * 300)
    of = made.predictions(1200, weights=(5, 3, 3, 1), groups={"site": site}, clusters=np.arange(1200) // 2)
    found = try_gate(of, LIMITS, seed=0)
    assert isinstance(found, GateTrial)
    return found


def test_what_harms_more_than_a_limit_allows_is_refused(trial: GateTrial) -> None:
    assert trial.not_planted == ()
    assert len(trial.faults) == len(CLASS_FAULTS) + len(CLASS_GRADED)
    assert len(trial.beyond) >= 30
    assert trial.caught >= 0.95 * trial.should_be_caught
    caught = {one.name for one in trial.found("caught")}
    assert {
        "The two largest classes are exchanged",
        "The rarest class is never decided",
        "All classes are one further",
        "Noise of 1 deviation on all scores",
        "Probabilities of the next class",
        "The classes of the rarest group are one further",
    } <= caught


def test_what_does_no_harm_is_not_refused(trial: GateTrial) -> None:
    assert [one.name for one in trial.harmless] == [one.name for one in CLASS_HARMLESS]
    assert trial.false_refusals == 0


def test_without_a_limit_in_each_class_a_lost_class_is_let_through() -> None:
    """The trial itself can fail: limits that look at the whole alone do not see it."""
    of = made.predictions(1600, weights=(8, 8, 8, 1))
    found = try_gate(of, Limits(accuracy_loss=0.06), seed=0)
    assert isinstance(found, GateTrial)
    lost = next(one for one in found.faults if one.name == "The rarest class is never decided")
    assert lost.finding == "no limit looks at it"
    assert lost.unlimited == "macro_recall"


def test_cases_that_lack_a_class_are_not_tried() -> None:
    of = made.predictions()
    found = try_gate(replace(of, labels=of.labels % 3), LIMITS, seed=0)
    assert found == NoTrial("a class has no validation case")


def test_of_many_cases_the_rarest_classes_are_kept() -> None:
    of = made.predictions(8000, weights=(40, 30, 9, 1), clusters=np.arange(8000) // 2)
    units = Units.of(of)
    assert len(units.strata) == 4
    assert sorted(np.concatenate(units.strata).tolist()) == list(range(4000))
    places, clusters = units.thinned(np.random.default_rng(0), MAX_CASES)
    assert len(places) <= MAX_CASES
    assert clusters is not None
    kept = np.bincount(of.labels[places], minlength=4)
    assert kept[3] >= 95
    assert kept.min() > 0
