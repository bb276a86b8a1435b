"""Judging, the evidence as JSON and as a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from core.errors import DataError
from core.evidence.card import render_figures
from core.evidence.judge import Check, Limits, all_passed, judge, warnings
from core.evidence.measured import Measured, Predictions
from core.evidence.render import render_html
from core.evidence.report import CandidateRecord, encode_evidence, evidence_as_dict, flipped_cases
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
    evidence = made.evidence()
    records = tuple(replace(record, average_precision=0.98765) for record in evidence.candidates)
    page = render_html(replace(evidence, limits=limits, candidates=records))
    assert page.count("0.9877") == len(records)
    assert "0.9877" not in render_html(replace(evidence, candidates=records))
    assert evidence_as_dict(evidence)["test"]["differences"]["average_precision"]["low"] < 0


def test_the_model_card_tells_microseconds_too():
    evidence = made.evidence()
    part = evidence.deciding
    latency = part.candidate.latency
    quick = replace(part.candidate, latency=replace(latency, samples_ms=latency.samples_ms * 0 + 0.00064))
    assert "This model: 0.00064 ms for a batch of" in render_figures(
        replace(evidence, validation=replace(part, candidate=quick), test=None)
    )


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


def test_flipped_cases_are_those_that_changed_wrong_ones_first():
    before, after = made.baseline(3).predictions, made.candidate(3, 0.9).predictions
    cases = flipped_cases(before, after)
    assert {case.id for case in cases} == {
        name for name, a, b in zip(before.ids, before.decisions, after.decisions, strict=True) if a != b
    }
    assert [case.now_right for case in cases] == sorted(case.now_right for case in cases)


def test_json_is_stable_complete_and_says_the_schema():
    made_once = made.evidence()
    content = encode_evidence(made_once)
    assert content == encode_evidence(made.evidence())
    found = json.loads(content)
    assert found["schema"] == "featherweight-evidence/1"
    assert list(found) == [
        "schema", "title", "created", "passed", "forced", "decided_on", "recipe_sha256", "labels", "limits", "warnings",
        "validation", "test", "candidates", "host", "versions", "facts", "method",
    ]  # fmt: skip
    assert found["decided_on"] == "test"
    assert found["passed"] is True
    assert found["test"]["candidate"]["metrics"]["auc"].keys() == {"estimate", "low", "high"}
    assert len(found["test"]["candidate"]["latency"]["samples_ms"]) == 300
    assert found["candidates"][0]["steps"][0]["facts"]["parameters"]["before"] == 11_170_753


def test_numbers_of_numpy_in_a_steps_facts_become_plain():
    step = {
        "name": "prune",
        "settings": {},
        "facts": {"kept": np.int64(3), "norms": (np.float32(0.5),), "seen": {"b", "a"}},
    }
    record = CandidateRecord("x", {}, (step,))
    found = json.loads(encode_evidence(replace(made.evidence(), candidates=(record,))))
    assert found["candidates"][0]["steps"][0]["facts"] == {"kept": 3, "norms": [0.5], "seen": ["a", "b"]}


def test_a_miss_on_either_split_is_a_miss():
    good = made.evidence()
    bad = made.comparison("validation", 3, noise=0.9)
    assert good.passed
    assert not replace(good, validation=bad).passed
    assert not evidence_as_dict(replace(good, validation=bad))["passed"]


def test_outcomes_say_why_a_candidate_lost():
    outcomes = [candidate.outcome for candidate in made.evidence().candidates]
    assert outcomes[:2] == ["slower", "chosen"]
    assert outcomes[2].startswith("missed auc_loss")
    assert outcomes[3] == "could not be exported: no channels left"


class Page(HTMLParser):
    """Collects tags, and the outside references that a self-contained page must not have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for key, value in attrs if key in ("src", "href", "data", "action")]


def test_the_page_is_self_contained_and_has_every_part():
    text = render_html(made.evidence())
    page = Page(text)
    assert page.references == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "url(http" not in text
    assert page.tags.count("svg") == 4
    for part in ("Passed", "What was compared", "Changed decisions on the test cases", "Candidates tried", "Method"):
        assert part in text
    assert "nan" not in re.sub(r"<[^>]*>", "", text).split()


def test_texts_from_outside_are_escaped():
    attack = "<script>alert(1)</script>\"'&"
    before, after = (
        replace(part, name=attack, predictions=replace(part.predictions, ids=tuple(f"{attack}{i}" for i in range(624))))
        for part in (made.baseline(1), made.candidate(1, 0.9))
    )
    test = replace(made.comparison("test", 1), baseline=before, candidate=after)
    step = {"name": attack, "settings": {attack: attack}, "facts": {attack: [attack]}}
    record = CandidateRecord(attack, {attack: attack}, (step,), chosen=True, reason=attack)
    changed = replace(made.evidence(), title=attack, test=test, candidates=(record,), labels=(attack, attack))
    text = render_html(replace(changed, host={attack: attack}, facts={attack: attack}, versions={attack: attack}))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_forced_failure_is_said_in_the_headline():
    text = render_html(made.evidence(0.9, forced=True))
    assert "Not passed" in text
    assert "sealed all the same" in text
    assert "now wrong" in text


def test_the_page_without_test_cases_latency_and_probabilities():
    full = made.evidence(with_test=False)

    def bare(part):
        return Measured(part.name, replace(part.predictions, probabilities=None))

    validation = replace(
        full.validation, baseline=bare(full.validation.baseline), candidate=bare(full.validation.candidate)
    )
    text = render_html(replace(full, validation=validation, candidates=()))
    assert Page(text).tags.count("svg") == 2
    assert "not measured" in text
    assert "score, candidate" in text
