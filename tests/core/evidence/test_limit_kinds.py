"""Limits beyond losses of rankings and decisions: calibration, floors, groups, predictive values, and absurd ones."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from featherweight.core.errors import LimitError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.absurd import absurd_limits
from featherweight.core.evidence.enough import check_cases_suffice
from featherweight.core.evidence.judge import Check, judge, warnings
from featherweight.core.evidence.metrics import UNSEEN_CASES, Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.statistics.predictive_values import (
    PairedDecisions,
    predictive_value,
    predictive_value_difference,
)
from featherweight.core.statistics.reliability import calibration_in_the_large
from featherweight.core.task import Alerts, HeldOut, Outcomes
from tests.core import evidence_cases as made


def check_of(before: Predictions, after: Predictions, limits: Limits) -> Check:
    (check,) = judge(Measured("before", before), Measured("after", after), limits, seed=0)
    return check


def test_a_brier_score_that_rises_beyond_its_limit_is_refused():
    before = made.predictions(0.0)
    after = replace(before, probabilities=before.probabilities * 0.55)
    assert check_of(before, before, Limits(brier_loss=0.01)).status == "passed"
    check = check_of(before, after, Limits(brier_loss=0.01))
    assert check.status == "failed"
    assert check.explanation.startswith("Brier score rose by")


def logits(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count) * 2 - 1


def drawn(shift: float, slope: float, count: int = 4000, seed: int = 1) -> Predictions:
    """Cases whose stated logits are off by `shift` and too sure by 1 / `slope`."""
    true = logits(count, seed)
    labels = (np.random.default_rng(seed + 1).random(count) < made.sigmoid(true)).astype(np.int64)
    stated = made.sigmoid(true / slope - shift)
    return Predictions(tuple(map(str, range(count))), labels, true, 0.0, stated)


@pytest.mark.parametrize(
    ("found", "limits", "status"),
    [
        (drawn(0.0, 1.0), Limits(calibration_in_the_large_max=0.2), "passed"),
        (drawn(0.4, 1.0), Limits(calibration_in_the_large_max=0.2), "failed"),
        (drawn(0.0, 1.0), Limits(calibration_slope_deviation_max=0.2), "passed"),
        (drawn(0.0, 0.5), Limits(calibration_slope_deviation_max=0.2), "failed"),
        (drawn(0.0, 1.0, count=150), Limits(calibration_slope_deviation_max=0.2), "failed"),
        (replace(drawn(0.0, 1.0), probabilities=None), Limits(calibration_slope_deviation_max=0.2), "not measured"),
    ],
)
def test_calibration_is_judged_by_the_worse_end_of_its_interval(found, limits, status):
    assert check_of(found, found, limits).status == status


def test_calibration_in_the_large_finds_the_shift_and_holds_its_level():
    found = drawn(0.4, 1.0)
    at = calibration_in_the_large(found.probabilities, found.labels)
    assert at.low < 0.4 < at.high
    outside = 0
    for seed in range(200):
        one = drawn(0.0, 1.0, count=300, seed=seed)
        interval = calibration_in_the_large(one.probabilities, one.labels)
        outside += not interval.low <= 0 <= interval.high
    assert outside / 200 <= 0.1


def test_a_baseline_that_guesses_is_refused_by_a_floor_and_passes_without():
    before = made.predictions(0.0)
    guess = replace(before, scores=np.random.default_rng(0).normal(size=len(before.labels)))
    assert check_of(guess, guess, Limits(auc_loss=0.02)).status == "passed"
    assert check_of(guess, guess, Limits(auc_min=0.9)).status == "failed"
    assert check_of(guess, guess, Limits(average_precision_min=0.9)).status == "failed"
    assert check_of(before, before, Limits(auc_min=0.9)).status == "passed"
    assert check_of(before, before, Limits(average_precision_min=0.9)).status == "passed"


def sites(broken: float, sizes: dict[str, int]) -> tuple[Predictions, Predictions]:
    generator = np.random.default_rng(4)
    site = np.repeat(list(sizes), list(sizes.values()))
    labels = np.arange(len(site)) % 2
    scores = labels * 4.0 - 2 + generator.normal(size=len(site))
    after = np.where(site == "south", scores - broken, scores)
    before = Predictions(tuple(map(str, range(len(site)))), labels, scores, 0.0, groups={"site": site})
    return before, replace(before, scores=after)


def test_no_group_may_lose_more_than_the_limit_of_groups():
    limits = Limits(sensitivity_loss=0.1, **{"groups.sensitivity_loss": 0.1})
    before, after = sites(1.5, {"north": 4000, "south": 400})
    whole, groups = judge(Measured("a", before), Measured("b", after), limits, seed=0)
    assert whole.status == "passed"
    assert (groups.name, groups.status) == ("groups.sensitivity_loss", "failed")
    assert "worst is site south (400 cases)" in groups.explanation
    assert [check.status for check in judge(Measured("a", before), Measured("b", before), limits, seed=0)] == [
        "passed",
        "passed",
    ]


def test_a_group_that_cannot_show_it_is_not_measured_and_named():
    limits = Limits(**{"groups.sensitivity_loss": 0.05})
    before, _ = sites(0.0, {"north": 4000, "south": 60})
    check = check_of(before, before, limits)
    assert check.status == "passed"
    assert "Not measured, because so few cases cannot show it: site south (60 cases)." in check.explanation
    small, _ = sites(0.0, {"north": 60, "south": 60})
    assert check_of(small, small, limits).status == "not measured"


def test_a_small_group_that_is_shown_to_lose_more_is_refused():
    before, after = sites(9.0, {"north": 4000, "south": 60})
    assert check_of(before, after, Limits(**{"groups.sensitivity_loss": 0.05})).status == "failed"


def test_limits_of_groups_hold_in_the_named_columns_alone_and_a_column_must_be_there():
    before, after = sites(1.5, {"north": 4000, "south": 400})
    other = {"sex": np.resize(np.array(["f", "f", "m", "m"]), len(before.labels))}
    both = [replace(one, groups={**one.groups, **other}) for one in (before, after)]
    held = {"groups.sensitivity_loss": 0.1}
    assert check_of(*both, Limits(group_columns=("sex",), **held)).status == "passed"
    assert check_of(*both, Limits(**held)).status == "failed"
    missing = check_of(*both, Limits(group_columns=("age",), **held))
    assert missing.status == "not measured"
    assert "no column age" in missing.explanation


shares = st.floats(0.02, 0.98)


@given(shares, shares, shares)
def test_predictive_values_are_bayes(sensitivity: float, specificity: float, prevalence: float):
    positive = predictive_value("positive", sensitivity, specificity, prevalence)
    negative = predictive_value("negative", sensitivity, specificity, prevalence)
    assert positive == pytest.approx(
        sensitivity * prevalence / (sensitivity * prevalence + (1 - specificity) * (1 - prevalence))
    )
    assert negative == pytest.approx(predictive_value("positive", specificity, sensitivity, 1 - prevalence))


def decide(generator: np.random.Generator, positive: np.ndarray, share: tuple[float, float]) -> np.ndarray:
    right = generator.random(len(positive)) < np.where(positive, *share)
    return np.asarray(right == positive)


def test_the_bound_of_a_predictive_value_holds_its_level():
    generator, above = np.random.default_rng(2), 0
    positive = np.arange(600) % 3 == 0
    truth = predictive_value("positive", 0.9, 0.9, 0.05) - predictive_value("positive", 0.9, 0.93, 0.05)
    for _ in range(300):
        before = decide(generator, positive, (0.9, 0.93))
        # The candidate repeats most decisions, and raises some false alarms more.
        after = before | (~positive & ~before & (generator.random(600) < 0.03 / 0.93))
        found = predictive_value_difference("positive", PairedDecisions(positive, before, after), 0.05)
        above += found.low > truth
    assert above / 300 <= 0.09


def test_a_loss_of_predictive_value_is_refused_and_no_decision_is_not_measured():
    before = made.predictions(0.0)
    after = replace(before, scores=before.scores + 1.5)
    limits = Limits(prevalence=0.02, ppv_loss=0.1)
    check = check_of(before, after, limits)
    assert check.status == "failed"
    assert "at a prevalence of 2.00% fell by" in check.explanation
    assert check_of(before, before, Limits(prevalence=0.02, npv_loss=0.01)).status == "passed"
    never = replace(before, scores=np.full(len(before.labels), -9.0))
    assert check_of(before, never, limits).status == "not measured"


def test_limits_that_do_not_fit_together_are_named():
    assert [fault.key for fault in Limits(ppv_loss=0.1).faults()] == ["limits.ppv_loss"]
    assert [fault.key for fault in Limits(prevalence=0.1).faults()] == ["limits.prevalence"]
    assert [fault.key for fault in Limits(prevalence=1.0, ppv_loss=0.1).faults()] == ["limits.prevalence"]
    assert [fault.key for fault in Limits(group_columns=("site",)).faults()] == ["limits.groups.columns"]
    assert [fault.key for fault in Limits(auc_min=1.5).faults()] == ["limits.auc_min"]


@pytest.mark.parametrize(
    "limits",
    [
        {"auc_loss": 1.0},
        {"average_precision_loss": 0.9},
        {"sensitivity_loss": 1.0},
        {"specificity_loss": 0.99},
        {"brier_loss": 0.5},
        {"flip_ratio_max": 1.0},
        {"latency_ratio_min": 0.01},
        {"size_ratio_min": 0.5},
        {"auc_min": 0.4},
        {"average_precision_min": 0.1},
        {"calibration_slope_deviation_max": 1.0},
        {"groups.sensitivity_loss": 1.0},
    ],
)
def test_absurd_limits_are_pointed_out(limits):
    before = Measured("a", made.predictions(0.0))
    (name,) = limits
    assert any(name in line for line in warnings(before, before, Limits(**limits), seed=0))
    assert any(name in line for line in absurd_limits(before.predictions, Limits(**limits)))


@pytest.mark.parametrize(("name", "prevalence"), [("ppv_loss", 0.01), ("ppv_loss", 0.5), ("npv_loss", 0.01)])
def test_predictive_values_that_may_fall_to_those_of_a_guess_are_pointed_out(name, prevalence):
    before = made.predictions(0.9)
    sign = "positive" if name == "ppv_loss" else "negative"
    shares = [(before.decisions == (before.labels == 1))[before.labels == kind].mean() for kind in (1, 0)]
    most = predictive_value(sign, *shares, prevalence) - (prevalence if sign == "positive" else 1 - prevalence)
    assert 0 < most < 0.9
    for limit, told in ((most + 1e-6, True), (most - 1e-6, False)):
        assert (
            any(name in line for line in absurd_limits(before, Limits(prevalence=prevalence, **{name: limit}))) == told
        )


def test_no_limit_of_the_table_is_left_out_of_those_that_are_pointed_out():
    """At its widest each refuses nothing, whatever it is on."""
    before = made.baseline(1)
    desk = {"clusters": np.arange(624) // 4, "alerts": Alerts(np.arange(624) % 5, np.ones(624, bool), 20)}
    before = replace(before, predictions=replace(before.predictions, **desk))
    for name, (metric, rule) in metrics.limits("binary").items():
        widest = 1e-9 if rule.kind == "min" else 1.0
        predictive = {"prevalence": 0.01} if name in ("ppv_loss", "npv_loss") else {}
        lines = list(absurd_limits(before.predictions, Limits(**{name: widest}, **predictive)))
        assert [name in line for line in lines] == [True], (name, metric.name)


def test_sensible_limits_are_not():
    wide = Limits(calibration_in_the_large_max=0.5, ppv_loss=0.02, npv_loss=0.001, prevalence=0.01)
    assert list(absurd_limits(made.predictions(0.9), wide)) == []
    assert list(absurd_limits(made.predictions(0.0), made.LIMITS)) == []
    sensible = Limits(auc_min=0.9, brier_loss=0.02, average_precision_min=0.9, calibration_slope_deviation_max=0.3)
    assert list(absurd_limits(made.predictions(0.0), sensible)) == []


def ranked(positives: int, negatives: int, shift: float, seed: int = 0) -> Predictions:
    labels = np.repeat([1, 0], [positives, negatives])
    scores = np.random.default_rng(seed).normal(size=len(labels)) + shift * labels
    return Predictions(tuple(map(str, range(len(labels)))), labels, scores, 0.5)


@pytest.mark.parametrize("limits", [Limits(average_precision_min=0.8), Limits(auc_min=0.8)])
def test_a_floor_is_not_shown_by_a_perfect_ranking_of_few(limits):
    few = ranked(2, 300, 50.0)
    check = check_of(few, few, limits)
    assert check.status == "not measured"
    assert "cannot be shown with 2 positive cases: 20 are needed" in check.explanation
    many = ranked(40, 300, 50.0)
    assert check_of(many, many, limits).status == "passed"
    patients = replace(many, clusters=np.arange(340) // 4, cluster_noun="patients")
    assert "with 10 patients with positive cases" in check_of(patients, patients, limits).explanation
    perfect = Limits(**{name: 1.0 for name, _ in limits.values_set})
    assert check_of(many, many, perfect).status == "failed"


@pytest.mark.parametrize(
    ("limit", "true"), [("average_precision_min", 0.962), ("average_precision_min", 0.657), ("auc_min", 0.9976)]
)
def test_a_floor_at_the_truth_is_seldom_reached(limit, true):
    """Percentiles of a bootstrap, and DeLong's variance, let 8 to 15% pass with so few positive cases."""
    shift = 2.5 if true == 0.657 else 4.0
    passed = 0
    for seed in range(120):
        one = ranked(20, 600, shift, seed)
        passed += check_of(one, one, Limits(**{limit: true})).status == "passed"
    assert passed / 120 <= 0.09


LIMITED = [name for name, (metric, _) in metrics.limits().items() if metric.reads != "running"]


def spread_out(cases: int, seed: int, lost: int) -> tuple[Predictions, Predictions]:
    """Two programs with everything that limits ask for: groups, clusters of two kinds, probabilities, alerts, outcomes;
    the first cases are lost."""
    draw = np.random.default_rng(seed)
    labels = np.resize([1, 0, 0], cases).astype(np.int64)
    scores = np.round(draw.normal(size=cases) + 2 * labels, 2)
    before = Predictions(
        tuple(map(str, range(cases))),
        labels,
        scores,
        0.5,
        made.sigmoid(scores),
        groups={"site": draw.choice(["a", "b", "c"], cases)},
        clusters=draw.integers(0, cases, cases),
        cross_clusters=draw.integers(0, 1 + cases // 3, cases),
        alerts=Alerts(draw.integers(0, 3, cases), np.ones(cases, bool), 2),
        outcomes=Outcomes(("approve", "review", "decline"), (0.5, 2.0)),
    )
    after = np.where(np.arange(cases) < lost, -scores, scores)
    return before, replace(before, scores=after, probabilities=made.sigmoid(after))


@settings(max_examples=5, phases=(Phase.explicit, Phase.generate))
@given(
    st.sampled_from([1, 2, 3, 30]),
    st.integers(0, 5),
    st.integers(0, 1000),
    st.sampled_from([0.0, 5e-324, 1e-300, 1e-12, 0.05, 1.0 - 1e-16, 1.0]),
    st.sampled_from(UNSEEN_CASES),
)
def test_no_limit_however_small_or_large_is_more_than_missed(cases, lost, seed, limit, unseen):
    before, after = spread_out(cases, seed, lost)
    limits = Limits(unseen_case=unseen, prevalence=0.02, **dict.fromkeys(LIMITED, limit))
    for one in (before, after):
        checks = judge(Measured("a", before), Measured("b", one), limits, seed=0)
        assert [check.name for check in checks] == LIMITED
        for check in checks:
            assert check.found is None or np.isfinite(check.found)
            assert check.cases_in_sight is None or check.cases_in_sight > 0
            if check.metric.limit.kind == "loss" and check.seen is not None and check.seen > limit:
                assert check.status != "passed"
    tuple(warnings(Measured("a", before), Measured("b", after), limits, seed=0))
    held = HeldOut(before.ids, {}, before.labels, before.groups, before.clusters, alerts=before.alerts)
    with contextlib.suppress(LimitError):
        check_cases_suffice({"test": held}, limits, seed=0)
