"""The evidence as JSON, as a page, as a model card and as a change record."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import PARITY, Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.report import CandidateRecord, flipped_cases
from featherweight.core.evidence.reports import json as document
from featherweight.core.evidence.reports.change_record import render_change_record
from featherweight.core.evidence.reports.costs import TIMES
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence, evidence_as_dict
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.evidence.reports.templates_env import markdown_text
from featherweight.core.evidence.reports.words import choice_sentence, parity_sentence
from featherweight.core.evidence.runtime_figures import RuntimeFigures
from featherweight.core.population import DataStatement
from featherweight.core.task import Outcomes
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
        "schema", "title", "created", "passed", "forced", "decided_on", "recipe_sha256", "labels", "limits",
        "unseen_case", "prevalence", "group_columns", "warnings", "validation", "test", "parity", "gate", "runtimes",
        "search", "candidates", "steps", "host", "versions", "facts", "purpose", "objective", "population", "programs",
        "recipe", "method",
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
    assert page.references == ["#limits"], "within the page alone"
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


SCHEMA = json.loads((Path(document.__file__).parent / "evidence.schema.json").read_text())


def bare(part):
    return Measured(part.name, replace(part.predictions, probabilities=None))


def bare_evidence():
    """Nothing timed, no probabilities, no candidates, nothing sealed."""
    full = made.evidence(with_test=False)
    part = replace(full.validation, baseline=bare(full.validation.baseline), candidate=bare(full.validation.candidate))
    return replace(full, validation=part, candidates=(), recipe_sha256="")


def one_class():
    few = made.predictions(0.0, positives=12, negatives=0)
    part = replace(made.evidence().validation, baseline=Measured("a", few), candidate=Measured("b", few), checks=())
    return replace(made.evidence(), validation=part, test=None)


@pytest.mark.parametrize("make", [made.evidence, made.full_evidence, bare_evidence, one_class])
def test_evidence_fits_its_published_schema(make):
    Draft202012Validator.check_schema(SCHEMA)
    found = json.loads(encode_evidence(make()))
    faults = [f"{fault.json_path}: {fault.message}" for fault in Draft202012Validator(SCHEMA).iter_errors(found)]
    assert faults == []


def cut(value):
    """Lists of two at most: what validates takes long."""
    if isinstance(value, dict):
        return {key: cut(part) for key, part in value.items()}
    return [cut(part) for part in value[:2]] if isinstance(value, list) else value


def parts_of(schema, path="$"):
    """(path, part) of every key and every definition of a schema."""
    if isinstance(schema, list):
        for place, inner in enumerate(schema):
            yield from parts_of(inner, f"{path}[{place}]")
    if isinstance(schema, dict):
        for keyword, inner in schema.items():
            if keyword in ("properties", "patternProperties", "$defs"):
                yield from ((f"{path}.{name}", one) for name, one in inner.items() if keyword != "patternProperties")
                for name, one in inner.items():
                    yield from parts_of(one, f"{path}.{name}")
            elif keyword not in ("examples", "enum", "const"):
                yield from parts_of(inner, path)


def test_the_schema_says_what_every_key_means():
    parts = dict(parts_of(SCHEMA))
    assert len(parts) > 150
    assert [path for path, part in parts.items() if not part.get("description", "").strip()] == []


def test_the_schema_knows_every_key():
    """Each object of the document, with a key that nobody described, is refused; only settings and facts are free."""
    validator = Draft202012Validator(SCHEMA)
    found = cut(json.loads(encode_evidence(made.full_evidence())))
    places = []

    def plant(value, path):
        if isinstance(value, dict):
            value["unheard of"] = []
            places.append(path)
            assert not validator.is_valid(found), path
            del value["unheard of"]
            for key, part in value.items():
                if key not in ("settings", "facts"):
                    plant(part, (*path, key))
        elif isinstance(value, list) and value and path[-1] != "steps":
            plant(value[-1], path)

    plant(found, ())
    assert ("test", "candidate", "latency", "conditions") in places
    assert ("test", "subgroups") in places


def test_page_and_json_stay_small():
    evidence = made.full_evidence()
    assert len(render_html(evidence).encode()) + len(encode_evidence(evidence)) < 150_000


def test_page_and_json_of_tens_of_thousands_of_cases_stay_small():
    """Frauds: 20,000 cases, 2% positive, 400 changed decisions on either split, 50 candidates."""
    before, after = (
        made.measured(name, made.predictions(noise, positives=400, negatives=19_600), ms=ms, size=20_000)
        for name, noise, ms in (("all trees", 0.0, 0.005), ("fewer trees", 0.35, 0.003))
    )
    limits = Limits(average_precision_loss=0.5, flip_ratio_max=0.05)
    part = made.Comparison("validation", before, after, judge(before, after, limits, seed=0))
    records = tuple(replace(one, name=f"{one.name} {i}") for i in range(5) for one in made.full_evidence().candidates)
    evidence = replace(
        made.full_evidence(), limits=limits, validation=part, test=replace(part, split="test"), candidates=records,
        bootstrap_samples=20,
    )  # fmt: skip
    page, content = render_html(evidence).encode(), encode_evidence(evidence)
    assert json.loads(content)["test"]["flips"]["to_positive"] > 200
    assert len(page) + len(content) < 270_000


def test_figures_of_energy_from_different_sources_make_no_ratio():
    evidence = made.full_evidence()
    part = evidence.test
    assert f"22.78{TIMES}" in render_html(evidence)
    counted = replace(part, candidate=made.costly(part.candidate, 0.018, "rapl"))
    page = render_html(replace(evidence, test=counted))
    assert f'22.78{TIMES}</td></tr>\n<tr><th scope="row">A million' not in page
    assert "not comparable" in page
    assert "counted by the processor, RAPL" in page
    assert "estimated from processor time" in page


def test_parity_is_told_run_by_run():
    page = render_html(made.full_evidence())
    assert "1 of 3 other ways of running the program changed decisions" in page
    assert "not run: openvino is not installed" in page
    same = replace(made.PARITY, runs=made.PARITY.runs[:2])
    assert parity_sentence(same).startswith("All 2 other ways of running the program gave the same decisions")
    none = replace(made.PARITY, runs=made.PARITY.runs[3:])
    assert "No other way" in parity_sentence(none)
    partly = replace(made.PARITY.runs[2], flips=0, reason="the first 40 cases")
    said = parity_sentence(replace(made.PARITY, runs=(*made.PARITY.runs[:2], partly)))
    assert "gave the same decisions on up to" in said
    assert "With a reservation: onnxruntime restricted to AVX2 (the first 40 cases)." in said
    record = render_change_record(replace(made.full_evidence(), parity=replace(made.PARITY, runs=(partly,))))
    assert "was not shown to decide the same in every way" in record


def test_the_parity_is_not_said_to_be_judged_on_all_validation_cases():
    found = Check(PARITY, "failed", 2.0, 0.0, "2 decisions are others.")
    evidence = made.full_evidence()
    part = replace(evidence.validation, checks=(*evidence.validation.checks, found))
    page = render_html(replace(evidence, validation=part))
    (row,) = re.findall(r"<tr[^>]*>\s*<th[^>]*>Decisions that change with batch or threads.*?</tr>", page, re.S)
    assert f"{len(part.baseline.predictions.ids):,}" not in row


def test_the_candidates_are_numbered_in_picture_and_table_and_folded_when_many():
    evidence = made.full_evidence()
    page = render_html(evidence)
    assert "The other" not in page
    assert page.count("About 1,900 positive cases") == 3
    assert "3 operators of kind Conv take 1.4 times as long in int8." in page
    many = replace(evidence, candidates=evidence.candidates * 2)
    assert "The other" in render_html(many)


def test_a_layers_sensitivity_is_drawn():
    page = render_html(made.full_evidence())
    assert "prune: sensitivity</title>" in page
    assert "layer4.conv2" in page
    assert "<title>0.012</title>" in page  # of layer1.conv1, half of whose 64 channels lie between 40 and 24
    assert "quantize: operator errors</title>" in page
    assert "prune: sensitivity</title>" not in render_html(made.evidence())


def test_nobody_is_told_that_a_candidate_was_chosen_where_none_was():
    evidence = made.full_evidence()
    none = tuple(replace(one, chosen=False) for one in evidence.candidates)
    assert "None was sealed." in render_html(replace(evidence, candidates=none))
    missed = tuple(replace(one, chosen=index == 7) for index, one in enumerate(evidence.candidates))
    assert "by force" in choice_sentence(replace(evidence, candidates=missed))


def test_the_chosen_one_is_not_called_the_fastest_where_more_threads_were():
    evidence = made.full_evidence()
    assert "The fastest that kept all limits was chosen." in choice_sentence(evidence)
    chosen = evidence.chosen
    quicker = replace(
        chosen, chosen=False, threads=2, latency=replace(chosen.latency, p50_ms=0.95 * chosen.latency.p50_ms)
    )
    said = choice_sentence(replace(evidence, candidates=(*evidence.candidates, quicker)))
    assert "The fastest that kept all limits was chosen, but for more threads, which were hardly faster." in said


def test_the_change_record_has_the_three_parts_and_the_figures_of_the_json():
    evidence = made.full_evidence()
    record = render_change_record(evidence)
    parts = re.findall(r"^## (.*)$", record, re.M)
    assert [part[0] for part in parts] == ["1", "2", "3"]
    test = json.loads(encode_evidence(evidence))["test"]
    for check in test["checks"]:
        if check["name"].endswith("_loss"):
            assert f"| {check['limit']:.4f} | {check['found']:.4f} | {check['status']} |" in record
    auc = test["candidate"]["metrics"]["auc"]
    assert f"{auc['estimate']:.4f} ({auc['low']:.4f} to {auc['high']:.4f})" in record
    wrong = test["flips"]["became_wrong"]
    assert f"{sum(test['flips'].values()) - wrong} changed" in record
    assert "410 mJ (estimated from processor time) before, 18 mJ (estimated from processor time) after" in record


def test_the_change_record_tells_what_was_not_kept_and_not_checked():
    forced = render_change_record(made.evidence(0.9, forced=True))
    assert "sealed by force" in forced
    assert "Not kept on the test cases" in forced
    assert "other runtimes, batch sizes and processors decide the same was not checked" in forced
    assert "No test cases were run" in render_change_record(made.evidence(0.9, with_test=False))


def test_texts_from_outside_stay_text_in_markdown():
    attack = "<script>x</script> | a\n# b [c](javascript:d) `e` *f*"
    evidence = made.full_evidence()
    step = {"name": attack, "settings": {attack: attack}}
    record = CandidateRecord(attack, {}, (step,), chosen=True)
    parity = replace(made.PARITY, runs=(replace(made.PARITY.runs[3], reason=attack),))
    text = render_change_record(
        replace(
            evidence, title=attack, candidates=(record,), host={attack: attack}, labels=(attack, attack), parity=parity
        )
    )
    assert "<script" not in text
    assert r"\[c\](javascript" in text
    assert "\n# b" not in text
    assert len(re.findall(r"^# ", text, re.M)) == 1


ATTACKS = ("<b>x</b> | a\n# b", "[c](javascript:d)", "*e* _f_ ~~g~~", "&lt;h&gt;", "\x1b[2J\u202e")


@pytest.mark.parametrize("attack", ATTACKS)
def test_texts_from_outside_stay_text_in_the_model_card(attack: str):
    """Rendered, the card has none of what the texts ask for."""
    evidence = made.full_evidence()
    part = evidence.test
    assert part is not None

    def hostile(one):
        groups = {attack: np.asarray([attack, f"{attack} other"])[np.arange(624) % 2]}
        latency = replace(one.latency, conditions=replace(one.latency.conditions, backend=attack))
        return replace(one, name=attack, predictions=replace(one.predictions, groups=groups), latency=latency)

    test = replace(part, baseline=hostile(part.baseline), candidate=hostile(part.candidate))
    runs = tuple(replace(one, backend=attack, reason=attack) for one in made.PARITY.runs)
    statement = DataStatement(purpose=attack, reference_standard=attack, reference_source=attack)
    parity = replace(made.PARITY, runs=runs)
    card = render_figures(
        replace(evidence, title=attack, labels=(attack, attack), test=test, parity=parity, statement=statement)
    )
    plain = render_figures(replace(evidence, statement=statement))
    assert card.count(markdown_text(attack)) > plain.count(markdown_text(attack)) > 0
    bare = card.replace(markdown_text(attack), "")
    for part_of in ("<b>", "# b", "[c]", "*e*", "_f_", "~~", "&lt;h", "\x1b", "\u202e"):
        assert part_of not in bare
    assert "\x1b" not in card
    assert len(re.findall(r"^#", card, re.M)) == 1
    width = {line.count("|") - line.count("\\|") for line in card.splitlines() if line.startswith("| ")}
    assert width <= {3, 4, 5, 6}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("12. item", r"12\. item"),
        ("> quote", r"\> quote"),
        ("AT&T &amp; x", r"AT&T \&amp; x"),
        ("auc_loss 0.5 -0.1", "auc_loss 0.5 -0.1"),
        ("-0.1", "-0.1"),
        ("0.5 of AUC", "0.5 of AUC"),
    ],
)
def test_what_begins_a_block_or_names_a_character_in_markdown_is_escaped(text: str, shown: str):
    assert markdown_text(text) == shown


def test_the_change_record_has_the_outcomes_and_the_runtimes_of_the_json():
    evidence = made.full_evidence()
    part = evidence.test
    assert part is not None

    def acting(one, low, high):
        outcomes = Outcomes(("approve", "review", "decline"), (low, high))
        return replace(one, predictions=replace(one.predictions, threshold=low, outcomes=outcomes))

    test = replace(part, baseline=acting(part.baseline, 0.1, 2.0), candidate=acting(part.candidate, 0.2, 2.1))
    runtimes = (
        RuntimeFigures("onnxruntime", "int8", True, True, 0.9871, 0.9911, 0.0, 0),
        RuntimeFigures("openvino|x", "int8", False, False, 0.9, 0.95, 0.25, 1234, ("auc_loss",)),
        RuntimeFigures("torch", "int8", False, False, reason="does not open it"),
    )
    evidence = replace(evidence, test=test, runtimes=runtimes)
    record, found = render_change_record(evidence), json.loads(encode_evidence(evidence))
    assert "| before | approve | review | decline |" in record
    outcomes = found["test"]["outcomes"]
    for name, row in zip(outcomes["names"], outcomes["moves"], strict=True):
        assert f"| {name} | {' | '.join(str(count) for count in row)} |" in record
    for one in outcomes["thresholds"]:
        for figure in one["figures"].values():
            before, after, gain = (figure[name] for name in ("baseline", "candidate", "difference"))
            cells = [f"{part['estimate']:.4f} ({part['low']:.4f} to {part['high']:.4f})" for part in (before, after)]
            assert f"| {cells[0]} | {cells[1]} | {gain['estimate']:+.4f} | {gain['low']:+.4f} |" in record
    assert "| onnxruntime (judged) | int8 | 0.9871 | 0.9911 | 0 | 0 | yes: kept the limits |" in record
    assert r"| openvino\|x | int8 | 0.9000 | 0.9500 | 0.25 | 1,234 | no: missed auc" in record
    assert "| torch | int8 | - | - | - | - | no: no figures on the test cases: does not open it |" in record
    assert "| before | negative | positive |" in render_change_record(made.full_evidence())


def test_the_json_has_what_the_limits_rest_on():
    limits = Limits(ppv_loss=0.1, prevalence=0.02, group_columns=("site",), **{"groups.auc_loss": 0.05})
    found = json.loads(encode_evidence(replace(made.evidence(), limits=limits)))
    assert (found["prevalence"], found["group_columns"]) == (0.02, ["site"])
    found = json.loads(encode_evidence(made.evidence()))
    assert (found["prevalence"], found["group_columns"]) == (None, [])


def test_more_texts_from_outside_are_escaped_on_the_page():
    attack = "<script>alert(1)</script>\"'&"
    evidence = made.full_evidence()
    records = tuple(
        replace(one, name=attack + one.name, advice=attack, slower_int8=attack) for one in evidence.candidates
    )
    runs = tuple(replace(one, backend=attack, reason=attack) for one in made.PARITY.runs)
    search = replace(made.SEARCH, skipped=((attack, attack),), stopped=attack)
    part = evidence.test

    def grouped(one):
        groups = {attack: np.asarray([attack, "other"])[np.arange(624) % 2]}
        energy = replace(one.energy, method=attack)
        return replace(one, predictions=replace(one.predictions, groups=groups), energy=energy)

    test = replace(part, baseline=grouped(part.baseline), candidate=grouped(part.candidate))
    parity = replace(made.PARITY, runs=runs)
    page = render_html(replace(evidence, candidates=records, parity=parity, search=search, test=test))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20


def test_a_gain_has_the_same_sign_for_figures_of_which_less_is_better():
    page = render_html(made.evidence(0.9, forced=True))
    cells = re.search(r"Brier score \(smaller is better\)</th>(.*?)</tr>", page).group(1)
    before, after = (float(found) for found in re.findall(r">(0\.\d+) <span", cells))
    gain, low = (
        float(found.replace("\N{MINUS SIGN}", "-")) for found in re.findall(r'<td class="n">([^<]+)</td>', cells)
    )
    assert after > before
    assert low < gain < 0


def test_what_differs_on_another_processor_is_said_before_anything_else():
    evidence = made.full_evidence()
    found = json.loads(encode_evidence(evidence))
    assert any("onnxruntime restricted to AVX2" in note for note in found["warnings"])
    page = render_html(evidence)
    assert page.index("onnxruntime restricted to AVX2") < page.index("Does it decide the same?")
    agreeing = replace(evidence, parity=replace(made.PARITY, runs=made.PARITY.runs[:2]))
    assert not any("AVX2" in note for note in json.loads(encode_evidence(agreeing))["warnings"])


def test_only_figures_that_there_are_have_a_method():
    found = json.loads(encode_evidence(made.full_evidence()))
    assert "auc" in found["method"]["figures"]
    assert "card_precision" not in found["method"]["figures"]
