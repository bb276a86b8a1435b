"""The evidence as JSON, as a page, as a model card and as a change record."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from core.evidence.card import render_figures
from core.evidence.document import encode_evidence, evidence_as_dict
from core.evidence.judge import Limits
from core.evidence.measured import Measured
from core.evidence.render import render_html
from core.evidence.report import CandidateRecord, flipped_cases
from tests.core import evidence_cases as made


def test_a_limit_on_average_precision_is_shown():
    evidence = made.evidence()
    records = tuple(replace(record, average_precision=0.98765) for record in evidence.candidates)
    page = render_html(replace(evidence, limits=Limits(average_precision_loss=0.01), candidates=records))
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


def test_flipped_cases_are_those_that_changed_wrong_ones_first():
    before, after = made.baseline(3).predictions, made.candidate(3, 0.9).predictions
    cases = flipped_cases(before, after)
    assert {case.id for case in cases} == {
        name for name, a, b in zip(before.ids, before.decisions, after.decisions, strict=True) if a != b
    }
    assert [case.now_right for case in cases] == sorted(case.now_right for case in cases)


def test_json_is_stable_complete_and_says_the_schema():
    content = encode_evidence(made.evidence())
    assert content == encode_evidence(made.evidence.__wrapped__())
    found = json.loads(content)
    assert found["schema"] == "featherweight-evidence/2"
    assert list(found) == [
        "schema", "title", "created", "passed", "forced", "decided_on", "recipe_sha256", "labels", "limits", "warnings",
        "validation", "test", "parity", "search", "candidates", "steps", "host", "versions", "facts", "method",
    ]  # fmt: skip
    assert found["decided_on"] == "test"
    assert found["passed"] is True
    assert found["test"]["candidate"]["metrics"]["auc"].keys() == {"estimate", "low", "high"}
    assert found["test"]["candidate"]["latency"]["runs"] == 300
    assert len(found["test"]["candidate"]["latency"]["samples_ms"]) == 100
    chosen = next(candidate for candidate in found["candidates"] if candidate["chosen"])
    assert found["steps"][chosen["steps"][0]]["facts"]["parameters"]["before"] == 11_170_753


def test_numbers_of_numpy_in_a_steps_facts_become_plain():
    step = {
        "name": "prune",
        "settings": {},
        "facts": {"kept": np.int64(3), "norms": (np.float32(0.5),), "seen": {"b", "a"}},
    }
    record = CandidateRecord("x", {}, (step,), chosen=True)
    found = json.loads(encode_evidence(replace(made.evidence(), candidates=(record,))))
    assert found["steps"][0]["facts"] == {"kept": 3, "norms": [0.5], "seen": ["a", "b"]}


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
    for part in ("Passed", "What was compared", "Changed decisions", "became wrong", "Candidates tried", "Method"):
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
    assert "not measured" in text
    assert "score, candidate" in text
