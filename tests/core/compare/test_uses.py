"""Comparing uses cases up: each use is on record, a refusal tells nothing to tune on, copies are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import featherweight
from featherweight.core.compare.cases import Columns, read_cases
from featherweight.core.compare.copies import copies_notes
from featherweight.core.compare.predicted import read_predictions
from featherweight.core.compare.seen import see
from featherweight.core.compare.tables import table_of
from featherweight.core.compare.uses import describe_known
from featherweight.core.errors import DataError, JournalError
from featherweight.core.record.cases import CaseSet
from featherweight.core.record.uses import SAME, Begun, Ended, read_uses
from tests.core.compare.tabled import drawn, write

SCHEMA = json.loads(files("featherweight.core.evidence.reports").joinpath("evidence.schema.json").read_text("utf-8"))


def compared(folder: Path, *words: str, code: int = 0) -> str:
    program = "from featherweight.core.cli import main; main()"
    usual = ["compare", "old.csv", "new.csv", "--data", "cases.csv", "--label", "y", "--out", "out/verdict"]
    done = subprocess.run(
        [sys.executable, "-c", program, *usual, *words], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cases, old, new = drawn()
    for name, columns in (("cases", cases), ("old", old), ("new", {**new, "score": new["score"] - 0.5 * cases["y"]})):
        write(tmp_path / f"{name}.csv", columns)
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "limits.toml").write_text("[limits]\nsensitivity_loss = 0.02\nauc_loss = 0.5\n")
    return tmp_path


def test_a_refusal_is_on_record_and_tells_no_figure(folder: Path) -> None:
    asked = ("--limits", "gate/limits.toml", "--threshold", "1")
    said = compared(folder, *asked, code=4)
    assert "sensitivity: not kept; the limit is 0.0200" in said
    assert "with 95% confidence" not in said
    document = json.loads((folder / "out" / "verdict" / "evidence.json").read_text())
    Draft202012Validator(SCHEMA).validate(document)
    assert (document["passed"], document["withheld"], "given" in document) == (False, ["sensitivity_loss"], False)
    assert document["test_uses"]["number"] == 1
    page = (folder / "out" / "verdict" / "evidence.html").read_text("utf-8")
    assert "By how much is not told" in page
    for word in ("95% confidence", "[0.", "<svg", "case-1"):
        assert word not in page, word
    begun, ended = read_uses(folder / "gate" / "test-uses.jsonl").lines
    assert isinstance(begun, Begun)
    assert isinstance(ended, Ended)
    assert (begun.candidate, begun.shown, begun.cases.cases) == ("new against old", False, 400)
    assert (ended.verdict, ended.missed) == ("missed", ("sensitivity_loss",))
    again = compared(folder, *asked, "--show-test", code=4)
    assert "Second use of these cases on record" in again
    assert "to compare new against old: refused at sensitivity_loss at 0.02" in again
    assert "with 95% confidence the loss is at most" in again
    document = json.loads((folder / "out" / "verdict" / "evidence.json").read_text())
    Draft202012Validator(SCHEMA).validate(document)
    assert document["given"]["checks"][1]["found"] > 0.02
    facts = document["facts"]
    for name in ("A, the baseline", "B, the candidate", "cases", "limits"):
        assert "sha256" in facts[name], name


def test_where_the_record_is(folder: Path) -> None:
    limit = ("--threshold", "1", "--limit", "auc_loss=.5")
    said = compared(folder, *limit)
    assert "record of uses: out/test-uses.jsonl" in said
    compared(folder, *limit, "--record", "elsewhere/uses.jsonl")
    assert len(read_uses(folder / "elsewhere" / "uses.jsonl").lines) == 2
    (folder / "out" / "test-uses.jsonl").write_text("{}\n")
    compared(folder, *limit, code=7)
    if os.geteuid():
        (folder / "gate").chmod(0o500)
        assert "--record" in compared(folder, "--threshold", "1", "--limits", "gate/limits.toml", code=6)


def test_mistakes_use_nothing_up(folder: Path) -> None:
    (folder / "new.csv").write_text("id,score\ncase-1,2\n")
    compared(folder, "--threshold", "1", "--limit", "auc_loss=.5", code=2)
    compared(folder, "--limit", "auc_loss=.5", code=2)
    assert not (folder / "out").exists()


def test_a_run_that_fails_is_on_record(tmp_path: Path) -> None:
    from tests.core.compare.test_programs import one_input

    cases, old, _ = drawn(60)
    data = {**cases, "a": np.full(60, np.nan), "b": np.zeros(60), "c": np.zeros(60)}
    model, record = one_input(tmp_path / "m.onnx"), tmp_path / "uses.jsonl"
    with pytest.raises(DataError, match="no finite number for 60 of 60 cases"):
        featherweight.compare(
            old, model, data=data, label="y", limits={"auc_loss": 0.5}, threshold=1, features=("a", "b", "c"),
            out=tmp_path / "v", record=record,
        )  # fmt: skip
    assert read_uses(record).lines[1].verdict == "could not be run"
    record.write_bytes(record.read_bytes()[:-1])
    with pytest.raises(JournalError, match="cut short"):
        featherweight.compare(
            old, old, data=cases, label="y", limits={"auc_loss": 0.5}, threshold=1, out=tmp_path / "v", record=record
        )


def test_cases_are_known_again_by_their_ids_and_others_are_not() -> None:
    def described(ids: object, labels: object) -> CaseSet:
        return describe_known(read_cases(table_of("data", {"id": ids, "y": labels}), Columns("y")))

    names, labels = [f"case {k * 7}" for k in range(400)], [0, 1] * 200
    whole = described(names, labels)
    turned = described(names[::-1], labels[::-1])
    assert turned == whole
    assert whole.overlap(described(names[:300], labels[:300])) == 1
    assert whole.overlap(described(names, labels[::-1])) == 1  # labelled anew
    assert whole.overlap(described([f"another {k * 7}" for k in range(400)], labels)) == 0
    numbered = described(range(400), labels)
    assert numbered == described(range(399, -1, -1), labels[::-1])
    assert numbered.overlap(described(range(400), [1, *labels[1:]])) == 0  # other cases that are counted alike


def test_copies_under_other_ids_are_counted(tmp_path: Path) -> None:
    labels = np.array([0, 1] * 100)
    scores = np.random.default_rng(0).normal(size=200) + 2 * labels
    rows = np.tile(np.arange(200), 50)
    ids = np.arange(len(rows))
    cases, table = {"id": ids, "y": labels[rows]}, {"id": ids, "score": scores[rows]}
    other = {"id": ids, "score": scores[rows] + 0.001}
    asked = {"data": cases, "label": "y", "limits": {"auc_loss": 0.5}, "threshold": 0.5, "out": tmp_path / "v"}
    notes = " ".join(featherweight.compare(table, other, **asked).notes)
    assert "9,800 cases of 10,000 are equal to another one in label and both scores" in notes
    assert "there are 200 different cases" in notes
    assert "equal to another" in json.dumps(json.loads((tmp_path / "v" / "evidence.json").read_text())["warnings"])
    few = {"id": range(200), "y": labels}
    plain = featherweight.compare(
        {"id": range(200), "score": scores}, {"id": range(200), "score": scores + 0.001}, **{**asked, "data": few}
    )
    assert not [note for note in plain.notes if "equal to another" in note]


def test_scores_of_few_digits_are_equal_by_chance(tmp_path: Path) -> None:
    labels = np.array([0, 1] * 500)
    scores = np.round(np.random.default_rng(0).random(1000), 2)
    table = {"id": range(1000), "score": scores}
    found = featherweight.compare(
        table, {"id": range(1000), "score": scores + 1}, data={"id": range(1000), "y": labels}, label="y",
        limits={"auc_loss": 0.5}, threshold=0.5, out=tmp_path / "v",
    )  # fmt: skip
    assert any("that may be chance" in note for note in found.notes)


def test_the_same_file_twice_is_pointed_out(folder: Path) -> None:
    (folder / "new.csv").write_bytes((folder / "old.csv").read_bytes())
    said = compared(folder, "--threshold", "1", "--limit", "auc_loss=.5")
    assert "A and B are the same to the last byte" in said


def test_two_kinds_of_clusters_widen_the_bounds(tmp_path: Path) -> None:
    cases, old, new = drawn(800, noise=0.6)
    cases = {**cases, "terminal": [f"t{place % 80}" for place in range(800)]}
    asked = {"data": cases, "label": "y", "limits": {"auc_loss": 0.5}, "threshold": 1, "out": tmp_path / "v"}
    one = featherweight.compare(old, new, cluster="patient", **asked)
    both = featherweight.compare(old, new, cluster=("patient", "terminal"), **asked)
    assert both.evidence is not None
    kinds = both.evidence.validation.baseline.predictions.cluster_kinds
    assert [len(np.unique(kind)) for kind in kinds] == [400, 80]
    assert both.checks[0].found != one.checks[0].found
    assert "column 'patient' and across them column 'terminal'" in both.evidence.facts["cases of one cluster"]


def test_a_handful_of_the_rarer_class_shows_nothing(tmp_path: Path) -> None:
    for positives, status in ((1, "not measured"), (5, "not measured"), (28, "not measured"), (29, "passed")):
        labels = np.array([1] * positives + [0] * 400)
        table = {"id": range(len(labels)), "score": labels + np.linspace(0, 0.5, len(labels))}
        asked = {"data": {"id": range(len(labels)), "y": labels}, "label": "y", "threshold": 0.9, "out": tmp_path / "v"}
        limits = {"auc_loss": 0.01, "average_precision_loss": 0.1}
        found = featherweight.compare(table, table, limits=limits, **asked)
        assert [check.status for check in found.checks] == [status] * 2, positives
        assert found.passed is (status == "passed")
    wide = featherweight.compare(table, table, limits={"auc_loss": 0.5, "unseen_case": "lost"}, **asked)
    assert wide.passed  # that bound takes a case that is lost altogether into account, and needs no least number


def test_no_copies_of_nothing() -> None:
    found = read_cases(table_of("data", {"id": [1, 2], "y": [0, 1]}), Columns("y"))
    one = read_predictions(table_of("a", {"id": [1, 2], "score": [-0.0, 0.0]}), "a", found, "id")
    assert copies_notes(found, one, one) == []


def few_scores(count: int) -> np.ndarray:
    """As of a few trees."""
    return np.random.default_rng(count).integers(0, 40, count) / 7


def test_a_part_of_counted_cases_is_known_by_the_scores_in_use(tmp_path: Path) -> None:
    _, old, new = drawn(400)
    labels = np.array([0, 1] * 200)
    turned = np.where(np.arange(400) < 5, 1 - labels, labels)

    def judged(rows: slice, truth: np.ndarray, ids: object, scores: np.ndarray | None = None) -> str:
        count = len(truth[rows])
        names = list(ids)[:count] if isinstance(ids, range) else [f"c{place}" for place in range(count)]
        tables = [{"id": names, "score": one["score"][rows]} for one in (old, new)]
        if scores is not None:
            tables[0] = {"id": names, "score": scores[:count]}
        found = featherweight.compare(
            *tables, data={"id": names, "y": truth[rows]}, label="y", limits={"auc_loss": 0.5}, threshold=1,
            out=tmp_path / "v", record=tmp_path / "uses.jsonl",
        )  # fmt: skip
        return " ".join(found.notes)

    first = judged(slice(None), labels, range(400))
    assert "on record" not in first
    assert "only count" not in first
    assert "Second use of these cases" in judged(slice(1, None), labels, range(1, 400))
    again = judged(slice(None), turned, "c")
    assert "Third use" in again
    assert "about 100% of the cases by the scores that A gives them; other ids or labels" in again
    told = judged(slice(None), labels, "c", few_scores(400))
    assert "The ids of these cases only count them" in told


def test_a_part_of_counted_cases_is_known_by_what_models_are_run_on(tmp_path: Path) -> None:
    from tests.core.compare.test_programs import one_input

    model, values = one_input(tmp_path / "m.onnx"), np.random.default_rng(0).normal(size=(400, 3))
    labels = (values @ (0.5, -2.0, 1.0) > 0).astype(int)

    def judged(rows: slice, baseline: object = model) -> str:
        count = len(labels[rows])
        data = {"id": range(count), "y": labels[rows], **{name: values[rows, k] for k, name in enumerate("abc")}}
        table = {"id": range(count), "score": np.tanh(values[rows, 0])}
        found = featherweight.compare(
            table if baseline is None else baseline, model, data=data, label="y", limits={"auc_loss": 1.0},
            threshold=0, features=("a", "b", "c"), out=tmp_path / "v", record=tmp_path / "uses.jsonl",
        )  # fmt: skip
        return " ".join(found.notes)

    assert "on record" not in judged(slice(None, 200))
    assert "on record" not in judged(slice(200, None))  # others that are counted alike
    assert "Second use of these cases" in judged(slice(1, 200))
    known = judged(slice(3, 200), None)  # though A is a table now
    assert "Third use" in known
    assert "about 100% of the cases, or with other labels" in known
    assert "only count" not in known


def test_other_cases_are_not_known_by_scores_that_repeat_by_chance() -> None:
    def known(scores: np.ndarray) -> CaseSet:
        labels = [0, 1] * (len(scores) // 2)
        cases = read_cases(table_of("data", {"id": range(len(scores)), "y": labels}), Columns("y"))
        return describe_known(cases, scores=scores)

    generator = np.random.default_rng(0)
    for draw in (
        lambda count: generator.normal(size=count),
        lambda count: generator.integers(0, 50, count) / 7,
        lambda count: np.round(generator.random(count), 3),
        lambda count: np.maximum(0, generator.normal(size=count)),  # half of all are 0
        lambda count: generator.integers(0, 40 * count, count) / 7,
    ):
        assert known(draw(1000)).overlap(known(draw(1200))) <= SAME
    halved = np.maximum(0, generator.normal(size=1000))
    assert known(halved).overlap(known(halved[3:-1])) == 1
    single = halved.astype(np.float32)
    written = np.array([float(str(score)) for score in single])  # as a CSV of float32 has it
    assert known(single).overlap(known(written[:-2])) > 0.9


def test_lines_of_earlier_versions_are_known_again(tmp_path: Path) -> None:
    """They have digests of ids and labels in place of those of inputs, and nothing of scores."""
    ids, values = [*range(60)], np.random.default_rng(0).normal(size=60)
    for names in (ids, [f"case {7 * one}" for one in ids]):
        cases = read_cases(table_of("data", {"id": names, "y": [0, 1] * 30}), Columns("y"))
        before, seen = describe_known(cases), see({"x": values[:, None]})
        assert seen is not None
        assert (before.scores, before.looks) == ("", "")
        now = describe_known(cases, [seen])
        assert now.inputs != before.inputs
        assert (now.sha256, now.overlap(before)) == (before.sha256, 1)
        assert describe_known(cases, scores=values).overlap(before) == 1
    assert see({}) is None


def test_words_fit_a_comparison(folder: Path) -> None:
    """No recipe is there, patients are called patients, and what is to be named is an option of the command."""
    said = compared(folder, "--limit", "auc_loss=.5", "--threshold", "1", "--cluster", "patient")
    assert "in 200 patients)" in said
    assert "No limit is on changed decisions, nor on the loss of sensitivity or specificity" in said
    assert "specificity fell" in said
    page = (folder / "out" / "verdict" / "evidence.html").read_text("utf-8")
    assert "200 patients" in page
    for text in (said, page, (folder / "out" / "verdict" / "evidence.json").read_text("utf-8")):
        assert "he recipe" not in text.replace("in the recipe", "")
        assert "clusters)" not in text
    (folder / "gate" / "limits.toml").write_text("[limits]\nauc_loss = -1\n")
    told = compared(folder, "--limits", "gate/limits.toml", "--threshold", "1", code=2)
    assert "1 fault in the limits" in told
    (folder / "gate" / "limits.toml").write_text("limits = [")
    told = compared(folder, "--limits", "gate/limits.toml", "--threshold", "1", code=2)
    assert "in the file of limits" in told
    assert "the recipe" not in told


def test_copies_of_inputs_count_once(tmp_path: Path) -> None:
    from tests.core.compare.test_programs import one_input

    model, generator = one_input(tmp_path / "m.onnx"), np.random.default_rng(0)
    continuous = generator.normal(size=(200, 3))
    discrete = generator.integers(0, 2, (1000, 3)) / 7  # rows that are equal by chance

    def judged(values: np.ndarray, rows: np.ndarray, **more: object) -> featherweight.ComparisonOutcome:
        labels = (values @ (0.5, -2.0, 1.0) + np.sin(np.arange(len(values))) > 0).astype(int)
        data = {"id": range(len(rows)), "y": labels[rows], "patient": rows // 2}
        data |= {name: values[rows, k] for k, name in enumerate("abc")}
        return featherweight.compare(
            model, model, data=data, label="y", limits={"auc_loss": 1.0}, threshold=0, features=("a", "b", "c"),
            out=tmp_path / "v", record=tmp_path / f"{len(rows)}.jsonl", **more,
        )  # fmt: skip

    copied = np.tile(np.arange(200), 5)
    for found in (judged(continuous, copied), judged(continuous, copied, cluster="patient")):
        assert found.cases == 200
        assert "800 cases left out: input and label are those of another case" in " ".join(found.notes)
        assert not [note for note in found.notes if "equal to another" in note]
        assert found.evidence is not None
        assert len(found.evidence.validation.baseline.predictions.scores) == 200
    assert read_uses(tmp_path / "1000.jsonl").lines[0].cases.cases == 1000
    apart = judged(discrete, np.arange(1000))
    assert apart.cases == 1000
    assert [note for note in apart.notes if "equal to another" in note]
    same_patient = judged(discrete, np.arange(1000), cluster="patient")
    assert 800 < same_patient.cases < 1000


def test_pictures_and_values_that_tell_cases_apart() -> None:
    generator = np.random.default_rng(0)
    pictures = see({"cases": generator.integers(0, 256, (5, 30, 30), np.uint8)})
    assert pictures is not None
    assert pictures.pictures
    assert len(pictures.looks) == 20
    for values, apart in (
        (generator.normal(size=(50, 2)), True),
        (generator.normal(size=(50, 1)), False),  # of one column different rows always differ there
        (np.stack([generator.normal(size=50), np.ones(50)], axis=1), False),
        (np.stack([generator.normal(size=50), np.full(50, np.nan)], axis=1), False),
        (np.round(generator.normal(size=(50, 2)), 3), False),
        (generator.integers(0, 9, (50, 2)) / 7, False),
    ):
        seen = see({"x": np.concatenate([values, values])})
        assert seen is not None
        assert (seen.apart, seen.pictures) == (apart, False)


def test_copies_with_another_score_of_b_are_told(tmp_path: Path) -> None:
    cases, old, _ = drawn(200)
    rows = np.tile(np.arange(200), 4)
    scores, ids = old["score"][rows], [f"q{(7 * place) % 1601}" for place in range(800)]
    jittered = scores + 1e-3 * np.random.default_rng(0).normal(size=800)
    found = featherweight.compare(
        {"id": ids, "score": scores}, {"id": ids, "score": jittered}, data={"id": ids, "y": cases["y"][rows]},
        label="y", limits={"auc_loss": 1.0}, threshold=1, out=tmp_path / "v",
    )  # fmt: skip
    assert "600 cases of 800 have label and score of a in common with another one" in " ".join(found.notes)
