"""Judging a candidate against its baseline."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from core.errors import DataError
from core.evidence.judge import Check, Limits, all_passed, judge, warnings
from core.evidence.measured import Measured, Predictions
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
    assert all_passed(judge(before, after, made.LIMITS))
    assert [check.name for check in judge(before, after, Limits(auc_loss=0.01))] == ["auc_loss"]
    assert judge(before, after, Limits()) == ()


def test_a_limit_on_average_precision_is_judged_and_shown():
    limits = Limits(average_precision_loss=0.01)
    before, after = made.baseline(1), made.candidate(1)
    (check,) = judge(before, after, limits)
    assert check.status == "passed"
    assert check.explanation.startswith("Average precision ")
    noisy = replace(after.predictions, scores=after.predictions.scores + made.predictions(2.0, seed=1).scores * 2)
    assert judge(before, replace(after, predictions=noisy), limits)[0].status == "failed"


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
    checks = by_name(judge(before, replace(after, predictions=fault(after.predictions)), made.LIMITS))
    assert checks[missed].status == "failed"
    assert checks[missed].found > checks[missed].limit


def test_equal_sensitivity_on_too_few_cases_is_not_proof():
    few = made.predictions(0.0, positives=40, negatives=400)
    same = Measured("same", few)
    check = by_name(judge(same, same, Limits(sensitivity_loss=0.02, specificity_loss=0.02)))
    assert check["sensitivity_loss"].status == "failed"
    assert "so few cases" in check["sensitivity_loss"].explanation
    assert "40 positive cases" in check["sensitivity_loss"].explanation
    assert check["specificity_loss"].status == "passed"


def test_what_was_not_measured_does_not_pass():
    bare = Measured("bare", made.predictions(0.0))
    checks = judge(bare, bare, Limits(latency_ratio_min=1, size_ratio_min=1))
    assert [check.status for check in checks] == ["not measured"] * 2
    assert not all_passed(checks)
    positives = Measured("ones", Predictions(("a", "b"), np.array([1, 1]), np.array([0.2, 0.4]), 0.3))
    assert judge(positives, positives, Limits(auc_loss=0.1, specificity_loss=0.1))[0].status == "not measured"


def test_latency_at_other_batch_sizes_is_not_compared():
    before, after = made.baseline(1), made.candidate(1)
    other = replace(after, latency=replace(after.latency, batch=8))
    assert by_name(judge(before, other, made.LIMITS))["latency_ratio_min"].status == "not measured"


def test_a_candidate_that_is_not_faster_or_smaller_is_told_so():
    before = made.baseline(1)
    slow = made.measured("magnitude pruned", made.predictions(0.1), ms=41.3, size=44_712_003)
    lines = warnings(before, slow)
    assert "not shown to be faster than ResNet-18 fp32 on this host" in lines[0]
    assert "gzipped" in lines[1]
    assert warnings(before, made.candidate(1)) == ()


def test_other_cases_are_not_compared():
    with pytest.raises(DataError, match="same cases"):
        judge(made.baseline(1), made.baseline(2), Limits(auc_loss=0.1))


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
