"""Who the cases are: the table of the page, the document and the model card, in the words of the task."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from itertools import pairwise

import numpy as np

from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.evidence.reports.change_record import render_change_record
from featherweight.core.evidence.reports.costs import TIMES
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.evidence.reports.population import population_table
from featherweight.core.population import MAX_VALUES, DataStatement, describe_split
from tests.core import evidence_cases as made

INPUTS = np.ones((624, 3), np.float32)
PATIENTS = np.arange(624) // 2


def stated() -> Evidence:
    evidence = made.full_evidence()

    def of_patients(part: Comparison) -> Comparison:
        before, after = (
            replace(
                one,
                predictions=replace(one.predictions, clusters=PATIENTS, cluster_noun="patients"),
                program_sha256=sha,
            )
            for one, sha in ((part.baseline, "cd" * 32), (part.candidate, "ef" * 32))
        )
        found = before.predictions
        population = describe_split(found.labels, PATIENTS, found.groups, {"image": INPUTS})
        checks = judge(before, after, made.LIMITS, seed=0)
        return replace(part, baseline=before, candidate=after, checks=checks, population=population)

    assert evidence.test is not None
    labels, missing = np.repeat([1, 0], [30, 70]), INPUTS[:100].copy()
    missing[:7, 1] = np.nan
    training = describe_split(labels, PATIENTS[:100], {}, {"image": missing})
    return replace(
        evidence,
        title="chest-xray",
        test=of_patients(evidence.test),
        validation=of_patients(evidence.validation),
        statement=DataStatement("tells sick from well", "graded by two physicians", "Cell 172 (2018)", training),
        recipe_text='version = 1\nname = "</pre><script>alert(1)</script>"\n',
    )


def test_the_table_has_every_split() -> None:
    table = population_table(stated())
    assert table.splits == ["training", "validation", "test"]
    assert dict(table.rows) == {
        "Cases": ["100", "624", "624"],
        "Patients": ["50", "312", "312"],
        "Pneumonia": ["30 (30.0%)", "390 (62.5%)", "390 (62.5%)"],
        "Normal": ["70 (70.0%)", "234 (37.5%)", "234 (37.5%)"],
        "With a missing input value": ["7 (7.0%)", "0 (0.0%)", "0 (0.0%)"],
    }
    groups = dict(table.groups)
    assert groups["site: a small one"][0] == "—", "the training cases are not told apart"
    assert sum(int(amounts[2].split()[0]) for name, amounts in groups.items() if name.startswith("site")) == 624


def test_values_beyond_the_most_frequent_are_counted() -> None:
    values = np.array([str(place) for place in range(MAX_VALUES + 5)])
    found = describe_split(np.zeros(len(values), np.int64), None, {"device": values})
    assert (len(found.groups["device"]), found.others) == (MAX_VALUES, {"device": 5})
    assert (found.clusters, found.incomplete, found.inputs_sha256) == (None, None, "")


def test_the_page_leads_with_name_purpose_verdict_limits_and_notes() -> None:
    page = render_html(stated())
    assert re.search(r'<h1>chest-xray<span class="purpose">Tells sick from well</span></h1>', page)
    places = [
        page.index(text) for text in ("<h1>", 'class="verdict', ">Limits<", ">Notes<", ">At a glance<", "<h2>Cases<")
    ]
    assert places == sorted(places)
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert "graded by two physicians" in page
    assert "Cell 172 (2018)" in page


def test_what_the_task_does_not_state_is_said_to_be_not_stated() -> None:
    page = render_html(made.full_evidence())
    assert "not stated by the task" in page
    assert "Decides between normal and pneumonia" in page


def test_patients_are_called_patients_everywhere() -> None:
    evidence = stated()
    texts = [render_html(evidence), render_figures(evidence), render_change_record(evidence)]
    for text in texts:
        assert "312 patients" in text
        assert not re.search(r"\bclusters\b", text)
    assert json.loads(encode_evidence(evidence))["population"]["cluster_noun"] == "patients"


def test_digests_recipe_and_page_numbers_are_on_the_page() -> None:
    evidence, document = stated(), encode_evidence(stated())
    page, found = render_html(evidence), json.loads(document)
    digest = hashlib.sha256(document).hexdigest()
    assert page == render_html(evidence, document)
    rows = dict(re.findall(r'<tr><th scope="row">([^<]*)</th><td class="id">([0-9a-f]{64})</td></tr>', page))
    test = found["population"]["splits"]["test"]
    assert rows == {
        "Inputs of the training cases": found["population"]["splits"]["training"]["inputs_sha256"],
        "Labels of the training cases": found["population"]["splits"]["training"]["labels_sha256"],
        "Inputs of the validation cases": test["inputs_sha256"],
        "Labels of the validation cases": test["labels_sha256"],
        "Inputs of the test cases": test["inputs_sha256"],
        "Labels of the test cases": test["labels_sha256"],
        "Baseline program (ResNet-18 fp32)": "cd" * 32,
        "Candidate program (pruned 0.6, int8)": "ef" * 32,
        "Recipe": evidence.recipe_sha256,
        "evidence.json": digest,
    }
    assert evidence.recipe_text in unescape(page)
    assert "<script" not in page
    assert "counter(page)" in page
    assert f'content: "evidence.json, SHA-256 {digest[:32]} {digest[32:]}"' in page


def test_no_gain_stands_without_its_interval() -> None:
    evidence = stated()
    for text in (render_html(evidence), render_figures(evidence), render_change_record(evidence)):
        for match in re.finditer(rf"\d{TIMES}|times as fast", text):
            around = re.sub(r"<[^>]*>", " ", text[match.start() - 220 : match.end() + 220])
            assert re.search(r"\[[\d.]+, [\d.]+\]|interval|≥|reach", around), around
        assert "times smaller" not in re.sub(r"\d+\.\d\d times smaller as shipped \([\d,]+ bytes to [\d,]+\)", "", text)


def test_the_model_card_leads_with_name_purpose_verdict_limits_and_notes() -> None:
    card = render_figures(stated())
    assert card.startswith("## Measured\n\nchest-xray. Tells sick from well.\n\n**Passed.** ")
    wanted = ("**Passed.**", "| what must not get worse |", "**Note.**", "| Patients | 50 | 312 | 312 |", "| auc |")
    places = [card.index(text) for text in wanted]
    assert places == sorted(places)
    assert "Reference standard: graded by two physicians (Cell 172 (2018))." in card
