"""Several classes: figures, limits in each class and on all, groups, and what a reader is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from featherweight.core.errors import DataError, LimitError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.class_predictions import ClassPredictions, log_odds_against_rest, predictions_on
from featherweight.core.evidence.enough import check_cases_suffice
from featherweight.core.evidence.figures import compare
from featherweight.core.evidence.judge import Check, judge, warnings
from featherweight.core.evidence.metric import Pair
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.outcomes import compare_outcomes
from featherweight.core.evidence.planted_trial import try_gate
from featherweight.core.evidence.report import Comparison, Evidence, flipped_cases
from featherweight.core.evidence.reports import json as document
from featherweight.core.evidence.reports.change_record import render_change_record
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.evidence.subgroups import compare_subgroups
from featherweight.core.softmax import softmax
from featherweight.core.target import Classes
from featherweight.core.task import HeldOut, check_held_out
from featherweight.core.tensors import TensorSpec
from tests.core import class_cases as made

SCHEMA = json.loads((Path(document.__file__).parent / "evidence.schema.json").read_text())
WHOLE = {
    "macro_auc_loss": 0.02,
    "macro_average_precision_loss": 0.03,
    "accuracy_loss": 0.03,
    "balanced_accuracy_loss": 0.03,
    "kappa_loss": 0.04,
    "top_k_accuracy_loss": 0.02,
    "class_brier_loss": 0.02,
    "flip_ratio_max": 0.1,
}
EACH = {"auc_loss": 0.03, "average_precision_loss": 0.05, "sensitivity_loss": 0.1, "specificity_loss": 0.05}


def _judged(before: ClassPredictions, after: ClassPredictions, **limits: float) -> dict[str, Check]:
    found = judge(made.measured(before), made.measured(after), Limits(**limits), seed=0)
    return {check.name: check for check in found}


# ------------------------------------------------------------------------------------------ figures


def test_figures_are_those_of_scikit_learn() -> None:
    of = made.predictions(weights=(5, 3, 1, 1))
    found = compare(of, made.noised(of, 0.3), samples=100, seed=0).baseline.metrics
    truth = np.eye(4)[of.labels]
    for name, expected in {
        "macro_auc": roc_auc_score(of.labels, softmax(of.scores), multi_class="ovr"),
        "macro_average_precision": average_precision_score(truth, softmax(of.scores)),
        "top_1_accuracy": (of.scores.argmax(axis=1) == of.labels).mean(),
        "top_k_accuracy": top_k_accuracy_score(of.labels, of.scores, k=2),
        "class_brier_score": ((softmax(of.scores) - truth) ** 2).sum(axis=1).mean() / 2,
    }.items():
        figure = found[name]
        assert figure is not None
        assert figure.estimate == pytest.approx(expected, abs=1e-9)
        assert figure.low < figure.estimate < figure.high


def test_estimates_are_the_middle_of_their_intervals_and_of_their_differences() -> None:
    before = made.predictions(clusters=np.arange(800) // 2)
    both, seen = Pair(before, made.noised(before, 0.5), 100, 0), 0
    for metric in metrics.figures("multi-class"):
        assert metric.interval is not None
        estimates = [metric.interval(both, side) for side in ("baseline", "candidate")]
        for side, found in zip(("baseline", "candidate"), estimates, strict=True):
            assert found is not None
            assert found.low <= found.estimate <= found.high
            if metric.estimate is not None:
                assert metric.estimate(both.side(side)) == pytest.approx(found.estimate, abs=1e-12)  # type: ignore[arg-type]
                seen += 1
        if metric.is_compared:
            gain = both.difference(metric, "as-seen")
            assert gain is not None
            change = estimates[1].estimate - estimates[0].estimate  # type: ignore[union-attr]
            assert gain.estimate == pytest.approx(change if metric.direction == "higher" else -change, abs=1e-9)
            assert gain.low <= gain.estimate
    assert seen == 14


def test_a_class_that_is_nearly_certain_is_still_ranked() -> None:
    odds = log_odds_against_rest(softmax(np.array([[60.0, 0, 0], [80.0, 0, 0], [0, 0, 500.0]])))
    assert odds[1, 0] > odds[0, 0] > 50
    assert np.isfinite(odds).all()


# ------------------------------------------------------------------------------------------ limits


def test_every_limit_is_kept_by_a_copy_and_missed_by_what_harms_it() -> None:
    before = made.predictions(2000)
    copy = _judged(before, replace(before), **WHOLE, **EACH, brier_loss=0.02)
    assert {check.status for check in copy.values()} == {"passed"}
    worse = _judged(before, made.noised(before, 2.0), **WHOLE, **EACH, brier_loss=0.02)
    assert {check.status for check in worse.values()} == {"failed"}
    for name, check in worse.items():
        assert check.seen is not None
        assert check.found is not None
        assert check.found >= check.seen > 0, name


def test_a_class_that_is_lost_hides_in_the_whole_and_is_found_in_its_own() -> None:
    before = made.predictions(2000, weights=(10, 10, 10, 1))
    scores = before.scores.copy()
    scores[before.labels == 3, 3] -= 6
    after = made.rescored(before, scores)
    found = _judged(before, after, accuracy_loss=0.05, sensitivity_loss=0.1)
    assert found["accuracy_loss"].status == "passed"
    assert found["sensitivity_loss"].status == "failed"
    assert found["sensitivity_loss"].explanation.startswith("In the class owl against the rest, the worst of 4:")
    lines = warnings(made.measured(before), made.measured(after), Limits(accuracy_loss=0.05), seed=0)
    assert any("one class that is lost among many would hardly be noticed" in line for line in lines)


def test_a_limit_that_is_not_for_classes_is_refused_before_the_search() -> None:
    of = made.predictions()
    check = _judged(of, of, auc_min=0.5)["auc_min"]
    assert (check.status, check.explanation) == ("not measured", "AUC of the candidate is not for multi-class labels.")
    cases = _held_out(of)
    with pytest.raises(LimitError, match=r"accuracy_loss = 0\.0010 cannot be shown with 800 cases"):
        check_cases_suffice({"test": cases}, Limits(accuracy_loss=0.001), seed=0)
    with pytest.raises(LimitError, match="AUC of the candidate is not for multi-class labels"):
        check_cases_suffice({"test": cases}, Limits(auc_min=0.5), seed=0)
    check_cases_suffice({"test": cases}, Limits(accuracy_loss=0.01, sensitivity_loss=0.03), seed=0)


def test_of_a_class_of_few_cases_nothing_is_believed() -> None:
    before = made.predictions(600, weights=(9, 9, 9, 1))
    found = _judged(before, before, balanced_accuracy_loss=0.5, auc_loss=0.5, accuracy_loss=0.5)
    assert found["accuracy_loss"].status == "passed"
    for name in ("balanced_accuracy_loss", "auc_loss"):
        assert found[name].status == "not measured"
        assert "There are 21 independent cases of the rarer class" in found[name].explanation


def test_changed_decisions_tell_between_which_classes() -> None:
    before = made.predictions()
    after = made.noised(before, 0.5)
    check = _judged(before, after, flip_ratio_max=0.5)["flip_ratio_max"]
    changed = int((before.scores.argmax(axis=1) != after.scores.argmax(axis=1)).sum())
    assert check.explanation.startswith(f"{changed} of 800 decisions changed")
    assert " to " in check.explanation.split("most often ")[1]
    found = compare_outcomes(before, after, seed=0)
    assert found.names == made.NAMES
    assert found.changed == changed
    assert [one.cases for one in found.classes] == [200] * 4
    flips = flipped_cases(before, after)
    assert len(flips) == changed
    assert sum(case.became_wrong for case in flips) == int((before.right & ~after.right).sum())
    assert all(case.became_wrong for case in flips[: sum(case.became_wrong for case in flips)])


# ------------------------------------------------------------------------------------------ groups


def test_accuracy_is_judged_in_every_group() -> None:
    site = np.where(np.arange(2000) % 4 == 0, "north", "south")
    before = made.predictions(2000, groups={"site": site})
    scores = before.scores.copy()
    scores[site == "north"] = np.roll(scores[site == "north"], 1, axis=1)
    after = made.rescored(before, scores)
    limits = Limits(**{"groups.accuracy_loss": 0.05})
    table = compare_subgroups(before, after, limits, seed=0)
    accuracy = {
        row.value: figure.status for row in table.rows for figure in row.figures if figure.name == "top_1_accuracy"
    }
    assert accuracy == {"north": "shown worse", "south": "not worse"}
    (check,) = judge(made.measured(before), made.measured(after), limits, seed=0)
    assert check.status == "failed"
    assert "worst is site north (500 cases)" in check.explanation
    (same,) = judge(made.measured(before), made.measured(before), limits, seed=0)
    assert same.status == "passed"


def test_what_all_classes_have_in_common_is_compared_in_groups_that_lack_some() -> None:
    before = made.predictions(groups={"kind": np.array(["a", "b"] * 400)})
    labels = np.where(before.groups["kind"] == "a", before.labels % 2, before.labels)
    before = replace(before, labels=labels)
    table = compare_subgroups(before, made.noised(before, 0.2), Limits(macro_auc_loss=0.2, kappa_loss=0.3), seed=0)
    names = {figure.name for row in table.rows for figure in row.figures}
    assert names == {"top_1_accuracy", "macro_auc", "cohen_kappa", "class_brier_score"}


def test_probabilities_that_are_ruined_in_a_group_are_told() -> None:
    """Though nothing is decided otherwise, and no limit is on them."""
    site = np.where(np.arange(2000) % 4 == 0, "north", "south")
    before = made.predictions(2000, groups={"site": site})
    assert before.probabilities is not None
    flat = np.where((site == "north")[:, None], 0.5 / 4 + 0.5 * before.probabilities, before.probabilities)
    table = compare_subgroups(before, replace(before, probabilities=flat), Limits(), seed=0)
    told = {(row.value, figure.name): figure.status for row in table.rows for figure in row.figures}
    assert told["north", "class_brier_score"] == "shown worse"
    assert told["south", "class_brier_score"] == told["north", "top_1_accuracy"] == "no sign of harm"


def test_classes_that_vanish_from_a_group_are_told() -> None:
    site = np.where(np.arange(800) % 4 == 0, "north", "south")
    before = made.predictions(800, groups={"site": site})
    scores = before.scores.copy()
    scores[site == "north", 3] = -9.0
    table = compare_subgroups(before, made.rescored(before, scores), Limits(), seed=0)
    lost = int((before.outcome_places[site == "north"] == 3).sum())
    assert {row.value: dict(row.vanished) for row in table.rows} == {"north": {"owl": lost}, "south": {}}


# ------------------------------------------------------------------------------------------ reports


def test_the_reports_tell_of_every_class() -> None:
    site = np.where(np.arange(1200) % 3 == 0, "north", "south")
    before = made.predictions(1200, weights=(4, 4, 3, 1), groups={"site": site}, clusters=np.arange(1200) // 2)
    after = made.noised(before, 0.4)
    limits = Limits(**WHOLE, **EACH)
    one, other = made.measured(before, "baseline"), made.measured(after, "c1")
    part = Comparison("validation", one, other, judge(one, other, limits, seed=0))
    gate = try_gate(before, limits, seed=0)
    evidence = Evidence(
        "pets", "2026-01-31T12:00:00Z", limits, part, None, (), labels=made.NAMES, bootstrap_samples=100, gate=gate
    )
    told = json.loads(encode_evidence(evidence))
    assert [fault.message for fault in Draft202012Validator(SCHEMA).iter_errors(told)] == []
    assert told["validation"]["classes"] == {"cat": 400, "dog": 400, "horse": 300, "owl": 100}
    assert "positives" not in told["validation"]
    assert told["population"]["splits"]["validation"]["classes"]["owl"] == 100
    assert set(told["limits"]) == set(metrics.limits("multi-class"))
    page = render_html(evidence)
    for text in ("Between which classes", "Class by class", "Reliability of the decided class", "Loss of Cohen&#39;s"):
        assert text in page
    for absent in ("ROC curve</h3>", "Threshold on the raw score", "False positive"):
        assert absent not in page
    assert "4 classes; the rarest is owl with 100" in page
    card, record = render_figures(evidence), render_change_record(evidence)
    assert "On 1200 validation cases (4 classes; the rarest is owl with 100)" in card
    assert "| class against the rest | figure |" in record
    assert "The largest of its scores decides, as before" in record


# ------------------------------------------------------------------------------------------ cases


def _held_out(of: ClassPredictions, **more: object) -> HeldOut:
    tensors = {"x": np.zeros((len(of.ids), 2), np.float32)}
    return HeldOut(of.ids, tensors, of.labels, target=Classes(of.names), **more)  # type: ignore[arg-type]


def test_cases_that_cannot_be_judged_are_refused() -> None:
    of, specs = made.predictions(), [TensorSpec("x", "float32", (None, 2))]
    check_held_out(_held_out(of), specs, "test")
    for labels, says in (
        (np.where(of.labels == 3, 0, of.labels), "hold none of 1 class: owl"),
        (of.labels + 1, "labels from 1 to 4, expected places among the 4 classes: 0 to 3"),
        (of.labels.astype(float), "expected one whole number for each case, the place of its class"),
    ):
        with pytest.raises(DataError, match=says):
            check_held_out(replace(_held_out(of), labels=labels), specs, "test")
    with pytest.raises(DataError, match="expected 3 to 200 with different names"):
        Classes(("a", "b"))
    with pytest.raises(DataError, match=r"found scores \[800, 3\], expected \[800, 4\]"):
        replace(of, scores=of.scores[:, :3])
    made_of = predictions_on(_held_out(of), of.scores, 0.0, softmax, None)
    assert isinstance(made_of, ClassPredictions)
    assert made_of.label_kind == "multi-class"
