"""Judging a candidate against its baseline."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from featherweight.core.errors import DataError
from featherweight.core.evidence.figures import compare
from featherweight.core.evidence.judge import Check, all_passed, judge, warnings
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import evidence_as_dict
from featherweight.core.statistics.intervals import Difference, roc_auc_difference
from featherweight.core.statistics.paired import exact_bound
from featherweight.core.statistics.resampling import median_ratio
from featherweight.core.statistics.sample_size import Needed, cases_needed, cases_needed_of_share
from featherweight.core.task import Alerts
from tests.core import evidence_cases as made


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_limits_that_make_no_sense_are_all_named():
    faults = Limits(auc_loss=-0.1, sensitivity_loss=float("nan"), latency_ratio_min=0, flip_ratio_max=2).faults()
    assert [fault.key for fault in faults] == [
        "limits.auc_loss",
        "limits.sensitivity_loss",
        "limits.flip_ratio_max",
        "limits.latency_ratio_min",
    ]
    assert made.LIMITS.faults() == ()


def test_a_good_candidate_passes_and_only_set_limits_are_judged():
    before, after = made.baseline(1), made.candidate(1)
    assert all_passed(judge(before, after, made.LIMITS, seed=0))
    assert [check.name for check in judge(before, after, Limits(auc_loss=0.01), seed=0)] == ["auc_loss"]
    assert judge(before, after, Limits(), seed=0) == ()


def test_a_limit_on_average_precision_is_judged_and_shown():
    limits = Limits(average_precision_loss=0.01)
    before, after = made.baseline(1), made.candidate(1)
    (check,) = judge(before, after, limits, seed=0)
    assert check.status == "passed"
    assert check.explanation.startswith("Average precision ")
    noisy = replace(after.predictions, scores=after.predictions.scores + made.predictions(2.0, seed=1).scores * 2)
    assert judge(before, replace(after, predictions=noisy), limits, seed=0)[0].status == "failed"


@pytest.mark.parametrize(
    ("fault", "missed"),
    [
        (lambda p: replace(p, scores=p.scores - 1.5), "sensitivity_loss"),
        (lambda p: replace(p, scores=p.scores + 1.5), "specificity_loss"),
        (lambda p: replace(p, scores=-p.scores), "auc_loss"),
        (lambda p: replace(p, scores=np.zeros_like(p.scores)), "auc_loss"),
        (lambda p: replace(p, threshold=p.threshold + 3), "flip_ratio_max"),
    ],
)
def test_planted_faults_are_caught(fault, missed):
    before, after = made.baseline(1), made.candidate(1)
    checks = by_name(judge(before, replace(after, predictions=fault(after.predictions)), made.LIMITS, seed=0))
    assert checks[missed].status == "failed"
    assert checks[missed].found > checks[missed].limit


def test_equal_sensitivity_on_too_few_cases_is_not_proof():
    few = made.predictions(0.0, positives=40, negatives=400)
    same = Measured("same", few)
    check = by_name(judge(same, same, Limits(sensitivity_loss=0.02, specificity_loss=0.02), seed=0))
    assert check["sensitivity_loss"].status == "failed"
    assert "so few cases" in check["sensitivity_loss"].explanation
    assert "40 positive cases" in check["sensitivity_loss"].explanation
    assert check["specificity_loss"].status == "passed"


def test_what_was_not_measured_does_not_pass():
    bare = Measured("bare", made.predictions(0.0))
    checks = judge(bare, bare, Limits(latency_ratio_min=1, size_ratio_min=1), seed=0)
    assert [check.status for check in checks] == ["not measured"] * 2
    assert not all_passed(checks)
    positives = Measured("ones", Predictions(("a", "b"), np.array([1, 1]), np.array([0.2, 0.4]), 0.3))
    assert judge(positives, positives, Limits(auc_loss=0.1, specificity_loss=0.1), seed=0)[0].status == "not measured"


def test_latency_at_other_batch_sizes_is_not_compared():
    before, after = made.baseline(1), made.candidate(1)
    other = replace(after, latency=replace(after.latency, batch=8))
    assert by_name(judge(before, other, made.LIMITS, seed=0))["latency_ratio_min"].status == "not measured"


def test_a_candidate_that_is_not_faster_or_smaller_is_told_so():
    before = made.baseline(1)
    slow = made.measured("magnitude pruned", made.predictions(0.1), ms=41.3, size=44_712_003)
    lines = warnings(before, slow, seed=0)
    assert "not shown to be faster than ResNet-18 fp32 on the host that measured it" in lines[0]
    assert "as shipped" in lines[1]
    assert warnings(before, made.candidate(1), seed=0) == ()


def test_other_cases_are_not_compared():
    with pytest.raises(DataError, match="same cases"):
        judge(made.baseline(1), made.baseline(2), Limits(auc_loss=0.1), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 2])}, "labels"),
        ({"scores": np.array([0.1, np.nan])}, "case b has the score nan"),
        ({"scores": np.array([0.1])}, "lengths"),
        ({"probabilities": np.array([0.1, 1.2])}, "outside 0..1"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, message):
    good = {"ids": ("a", "b"), "labels": np.array([0, 1]), "scores": np.array([0.1, 0.9]), "threshold": 0.5}
    Predictions(**good)
    with pytest.raises(DataError, match=re.escape(message)):
        Predictions(**(good | change))


def test_a_loss_says_how_many_cases_would_show_that_it_is_none():
    """At so many cases, four comparisons of five succeed: simulated, with as much gained as lost."""
    rng = np.random.default_rng(0)
    needed = cases_needed_of_share(rng.choice([-1.0, 0.0, 1.0], p=[0.02, 0.96, 0.02], size=400), 0.02)
    count = needed.without_loss
    shown = [exact_bound(count, *rng.multinomial(count, [0.02, 0.02, 0.96])[:2].tolist()) >= -0.02 for _ in range(60)]
    assert 0.6 <= np.mean(shown) <= 0.95
    assert needed.as_seen is None or needed.as_seen >= count


def test_cases_needed_of_an_auc_give_the_power_that_they_promise():
    rng = np.random.default_rng(1)

    def difference(cases):
        labels = np.arange(cases) % 2
        shared, one, other = rng.normal(size=(3, cases))
        first, second = (shared + 0.4 * own + 1.5 * labels for own in (one, other))
        return roc_auc_difference(first, second, labels)

    count = int(np.mean([cases_needed(difference(400), 400, 0.02).without_loss for _ in range(30)]))
    shown = [difference(count).low >= -0.02 for _ in range(150)]
    assert 0.68 <= np.mean(shown) <= 0.92


def test_what_cannot_be_shown_on_so_few_cases_says_how_many_would():
    before, after = made.measured("a", made.predictions(0.0), ms=1, size=9), made.candidate(1, noise=0.3)
    check = by_name(judge(before, after, Limits(sensitivity_loss=0.005), seed=0))["sensitivity_loss"]
    assert check.status == "failed"
    assert check.cases_needed > 390
    assert f"about {check.cases_needed:,} positive cases would" in check.explanation
    assert by_name(judge(before, after, Limits(auc_loss=0.02), seed=0))["auc_loss"].cases_needed < 624


def test_none_lost_still_needs_as_many_cases_as_the_rule_of_three():
    """The exact bound asks for a case more than the rule does."""
    assert exact_bound(150, 0, 0) >= -0.02 > exact_bound(149, 0, 0)
    assert cases_needed_of_share(np.zeros(5), 0.02).without_loss >= 150
    assert cases_needed_of_share(np.zeros(5000), 0.02) == Needed(150, 150, 150)
    assert cases_needed_of_share(np.full(40, -1.0), 0.02).as_seen is None
    assert cases_needed(Difference(-0.03, -0.05), 100, 0.02).as_seen is None
    assert cases_needed(Difference(0.0, 0.0), 100, 0.02).without_loss is None


def test_no_number_of_cases_shows_that_nothing_at_all_is_lost():
    assert cases_needed_of_share(np.zeros(50), 0.0) == Needed(None, None, None)
    before = made.measured("a", made.predictions(0.0), ms=1, size=9)
    assert by_name(judge(before, before, Limits(sensitivity_loss=0.0, auc_loss=0.0), seed=0))["auc_loss"].found == 0


def test_the_rule_of_three_counts_patients_where_images_come_in_them():
    patients = np.repeat(np.arange(40), 10)
    assert cases_needed_of_share(np.zeros(400), 0.02, [patients]).without_loss >= 10 * 149
    assert cases_needed_of_share(np.zeros(400), 0.02, [np.arange(400)]) == cases_needed_of_share(np.zeros(400), 0.02)


def test_limits_that_would_not_notice_a_fault_are_named():
    before, after = made.baseline(1), made.candidate(1)

    def told(**limits):
        return " ".join(
            line for line in warnings(before, after, Limits(**limits), seed=0) if line.startswith("No limit is on")
        )

    assert "a threshold set wrong would not be noticed" in told(auc_loss=0.01)
    assert "a threshold set too low would not be noticed" in told(auc_loss=0.01, sensitivity_loss=0.02)
    assert "a threshold set too high would not be noticed" in told(auc_loss=0.01, specificity_loss=0.02)
    assert "wrong order" in told(flip_ratio_max=0.01)
    assert told(average_precision_loss=0.01, flip_ratio_max=0.01) == ""
    assert told(auc_loss=0.01, sensitivity_loss=0.02, specificity_loss=0.02) == ""
    assert warnings(before, after, seed=0) == ()


def test_card_precision_is_judged_where_there_are_cards_and_alerts():
    before, after = made.baseline(1), made.candidate(1)
    (check,) = judge(before, after, Limits(card_precision_loss=0.05), seed=0)
    assert check.status == "not measured"
    assert "no cards" in check.explanation
    cards, days = np.arange(624) // 4, np.arange(624) % 5
    alerts = Alerts(days, np.ones(624, bool), 20)

    def with_cards(measured):
        return replace(measured, predictions=replace(measured.predictions, clusters=cards, alerts=alerts))

    (check,) = judge(with_cards(before), with_cards(after), Limits(card_precision_loss=0.05), seed=0)
    assert check.status == "passed"
    assert "156 clusters" in check.explanation
    legitimate = replace(alerts, eligible=before.predictions.labels == 0)
    none = (replace(with_cards(one).predictions, alerts=legitimate) for one in (before, after))
    parts = (replace(one, predictions=found) for one, found in zip((before, after), none, strict=True))
    (check,) = judge(*parts, Limits(card_precision_loss=0.05), seed=0)
    assert check.status == "not measured"  # no card that could be found: 0 against 0 is no proof
    reversed_scores = replace(after.predictions, scores=-after.predictions.scores)
    worse = with_cards(replace(after, predictions=reversed_scores))
    assert judge(with_cards(before), worse, Limits(card_precision_loss=0.05), seed=0)[0].status == "failed"


def test_the_check_and_the_report_name_the_same_bounds_and_say_how_they_were_made():
    before, after = made.baseline(1), made.candidate(1)
    limits = Limits(auc_loss=0.1, average_precision_loss=0.1, sensitivity_loss=0.1, specificity_loss=0.1)
    found = compare(before.predictions, after.predictions, samples=100, seed=7)
    for check in judge(before, after, limits, seed=7):
        assert check.found == pytest.approx(-found.differences[check.metric.name].low)
    assert found.candidate.metrics.keys() <= found.methods.keys()
    assert "infinitesimal jackknife over cases" in found.methods["average_precision"]
    clustered = replace(before.predictions, clusters=np.arange(624) // 2)
    again = compare(clustered, replace(after.predictions, clusters=np.arange(624) // 2), samples=100, seed=0)
    assert "312 clusters" in again.methods["average_precision"]
    assert "Obuchowski" in again.methods["auc"]
    assert found.candidate.roc is not None
    assert found.candidate.reliability is not None


def test_every_bound_is_drawn_with_the_seed_that_the_report_states():
    before, after = (
        replace(one, predictions=replace(one.predictions, clusters=np.arange(624) // 4, alerts=ALERTS))
        for one in (made.baseline(1), made.candidate(1))
    )
    limits = Limits(average_precision_loss=0.1, card_precision_loss=0.5, latency_ratio_min=2)
    drawn = [[check.found for check in judge(before, after, limits, seed=seed)] for seed in (0, 7, 7)]
    assert drawn[1] == drawn[2]
    assert drawn[0][0] == drawn[1][0]  # nothing is drawn for it
    assert drawn[0][2] != drawn[1][2]
    checks = judge(before, after, limits, seed=7)
    part = Comparison("validation", before, after, checks)
    plain = Evidence("x", "2026-01-31T12:00:00Z", limits, part, None, (), seed=7)
    told = evidence_as_dict(plain)
    assert told["method"]["seed"] == 7
    found = told["validation"]["differences"]
    for check in checks[:2]:
        assert found[check.metric.name]["low"] == pytest.approx(-check.found, abs=1e-6)
    ratio = median_ratio(before.latency.samples_ms, after.latency.samples_ms, seed=7)
    assert checks[2].found == ratio.low
    assert f"[{ratio.low:.2f}, {ratio.high:.2f}]" in render_html(plain)


ALERTS = Alerts(np.arange(624) % 5, np.ones(624, bool), per_day=20)


def test_clusters_of_both_kinds_are_named_and_counted_wherever_a_bound_rests_on_them():
    kinds = {"clusters": np.arange(624) // 2, "cross_clusters": np.arange(624) % 40}
    nouns = {"cluster_noun": "cards", "cross_cluster_noun": "terminals"}
    before, after = (
        replace(one, predictions=replace(one.predictions, **kinds, **nouns))
        for one in (made.baseline(1), made.candidate(1))
    )
    limits = Limits(auc_loss=0.3, average_precision_loss=0.3, sensitivity_loss=0.3, specificity_loss=0.3)
    for check in judge(before, after, limits, seed=0):
        assert re.search(r"in \d+ cards and 40 terminals", check.explanation), check.explanation
    methods = compare(before.predictions, after.predictions, samples=20, seed=0).methods
    for name in ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "brier_score"):
        assert "312 cards and 40 terminals" in methods[name]
    inside = before.predictions.among(before.predictions.labels == 1)
    assert inside.counts_of_clusters(inside.labels == 1) == [(195, "cards"), (40, "terminals")]
    # What cannot be shown names the kind that has too few.
    few = replace(before.predictions, cross_clusters=np.arange(624) % 15)
    floor, loss = (judge(Measured("a", few), Measured("b", few), one, seed=0)[0] for one in (
        Limits(auc_min=0.5), Limits(auc_loss=0.5)
    ))  # fmt: skip
    assert "shown with 15 terminals with positive cases" in floor.explanation
    assert "15 independent cases of the rarer class (15 terminals)" in loss.explanation
    unnamed = replace(few, cluster_noun="clusters", cross_cluster_noun="cross clusters")
    (check,) = judge(Measured("a", unnamed), Measured("b", unnamed), Limits(sensitivity_loss=0.5), seed=0)
    assert "in 195 clusters and 15 cross clusters" in check.explanation
