"""Every look at the test cases is written down before anybody is told what was found, and told to all later readers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import featherweight
import featherweight.core.evidence.reports as reports
from featherweight.core.artifact.store import read_artifact
from featherweight.core.errors import DataError, JournalError, LimitError, UsageError
from featherweight.core.evidence.reports.case_history import describe_verdict, plan_notes, use_notes
from featherweight.core.looking import LookRequest, prepare_looks
from featherweight.core.optimize import Outcome, optimize
from featherweight.core.recipe import parse_recipe, read_recipe
from featherweight.core.record.cases import describe_held_out
from featherweight.core.record.chain import read_chain
from featherweight.core.record.uses import Begun, CaseUses, Ended, begin_use, now, read_uses
from featherweight.core.request import enter_use, find_record, record_of, write_plan
from featherweight.core.task import HeldOut
from tests.core.recipes import recipe_head
from tests.fakes import TreesTask

SCHEMA = Draft202012Validator(json.loads((Path(reports.__file__).parent / "evidence.schema.json").read_text()))
EASY = 'average_precision_loss = 0.9\nunseen_case = "lost"'


class FewTestCases(TreesTask):
    """So few test cases that they cannot show what the validation cases showed."""

    def __init__(self) -> None:
        super().__init__(800)

    def test_cases(self) -> HeldOut:
        cases = super().test_cases()
        tensors = {"features": cases.tensors["features"][:40]}
        return HeldOut(cases.ids[:40], tensors, cases.labels[:40], {}, np.arange(40))


def run(
    folder: Path, limits: str, *, task: TreesTask | None = None, force: bool = False, show: bool = False,
    plan: Path | None = None, extra: str = "", out: str = "artifact",
) -> Outcome:  # fmt: skip
    recipe = parse_recipe(recipe_head("rows", limits) + extra)
    looking = LookRequest(folder / "uses.jsonl", plan, show)
    task = task or FewTestCases()
    return optimize(recipe, task, folder / out, work=folder / "work", force=force, anyway=True, looking=looking)


def notes(outcome: Outcome) -> str:
    """What stands at the top of the page, after it was seen that page, JSON, record and console all have it."""
    document = json.loads(outcome.artifact.evidence["evidence.json"])
    SCHEMA.validate(document)
    for line in document["warnings"]:
        assert line in outcome.warnings
    return "\n".join(document["warnings"])


def next_use(folder: Path) -> CaseUses:
    """What a further use of these test cases would be told, without running it."""
    path = folder / "uses.jsonl"
    line = Begun(
        at=now(), use="next", cases=describe_held_out(FewTestCases().test_cases()), recipe="rows",
        recipe_sha256="0" * 64, limits={}, candidate="c1", artifact="a",
    )  # fmt: skip
    return begin_use(path, line)


STRICT = "sensitivity_loss = 0.05"
WIDE = "sensitivity_loss = 0.5"


def test_the_same_recipe_has_the_same_record_wherever_it_is_run_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipes" / "recipe.toml"
    recipe.parent.mkdir()
    recipe.write_text(recipe_head("rows", EASY) + '[cases]\nrecord = "uses.jsonl"\n')
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        record = enter_use(recipe, uses=1, when="2026", words="a look", task=FewTestCases())
        assert record == record_of(recipe) == recipe.parent / "uses.jsonl"
    assert len(read_uses(recipe.parent / "uses.jsonl").lines) == 2


def test_a_refusal_tells_no_bound_and_the_next_use_tells_of_the_refusal(tmp_path: Path) -> None:
    with pytest.raises(LimitError) as caught:
        run(tmp_path, STRICT)
    said = str(caught.value)
    assert "kept the limits on the validation cases but not on the test cases" in said
    assert re.search(r"missed there: c1 .*: sensitivity_loss \(limit 0.05\)", said)
    assert "this was use 1" in said
    assert "--show-test" in said
    assert "95% confidence" not in said
    assert "so few cases" not in said
    document = json.loads((tmp_path / "work" / "evidence.json").read_bytes())
    assert document["test"] is None
    assert document["withheld"] == ["sensitivity_loss"]
    SCHEMA.validate(document)
    assert document["passed"] is False
    page = (tmp_path / "work" / "evidence.html").read_text()
    assert "Not passed" in page
    assert "Limits not kept on the test cases" in page
    assert "40 test cases" not in page.replace("40 test cases; none", "")
    assert re_cases((tmp_path / "work" / "refused-cases.html").read_text()) <= {"v"}
    [use] = read_uses(tmp_path / "uses.jsonl").lines[1:]
    assert "bound" not in json.dumps(use.missed)

    outcome = run(tmp_path, WIDE)
    told = notes(outcome)
    assert "Second use of these test cases on record" in told
    assert "refused at sensitivity_loss at 0.05" in told
    assert "The limit sensitivity_loss was changed since: 0.05 then, 0.5 now." in told
    record = outcome.artifact.documents["CHANGE_RECORD.md"].decode()
    assert "Use 2 of these test cases on record" in record
    assert "Second use of these test cases" in outcome.artifact.evidence["evidence.html"].decode()
    known = json.loads(outcome.artifact.evidence["evidence.json"])["test_uses"]
    history = read_uses(tmp_path / "uses.jsonl")
    assert (known["number"], known["head"], known["lines"]) == (2, history.head, 4)
    assert known["earlier"][0]["missed"] == ["sensitivity_loss"]


def re_cases(page: str) -> set[str]:
    """The first letters of the names of the cases on a page: v of the validation cases, t of the test cases."""
    return set(re.findall(r">([vt])\d+<", page))


def test_what_was_found_is_told_when_it_is_asked_for_and_the_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="95% confidence"):
        run(tmp_path, STRICT, show=True)
    document = json.loads((tmp_path / "work" / "evidence.json").read_bytes())
    assert document["test"]["cases"] == 40
    assert "withheld" not in document
    [told] = use_notes(next_use(tmp_path))
    assert "refused at sensitivity_loss at 0.05, and its figures were shown" in told


def test_a_use_by_force_is_on_record_as_that(tmp_path: Path) -> None:
    outcome = run(tmp_path, STRICT, force=True)
    assert outcome.evidence.test is not None
    [told] = use_notes(next_use(tmp_path))
    assert "sealed by force though it missed sensitivity_loss at 0.05" in told


class FewValidationCases(TreesTask):
    """So few validation cases that they cannot show what the test cases show."""

    def __init__(self) -> None:
        super().__init__(800)

    def validation_cases(self) -> HeldOut:
        cases = super().validation_cases()
        tensors = {"features": cases.tensors["features"][:40]}
        return HeldOut(cases.ids[:40], tensors, cases.labels[:40], {}, np.arange(40))


def test_an_artifact_that_missed_limits_before_the_test_cases_is_on_record_as_forced(tmp_path: Path) -> None:
    outcome = run(tmp_path, STRICT, task=FewValidationCases(), force=True)
    assert outcome.forced
    assert outcome.evidence.test is not None
    assert all(check.status == "passed" for check in outcome.evidence.test.checks)
    [_, ended] = read_uses(tmp_path / "uses.jsonl").lines
    assert isinstance(ended, Ended)
    assert (ended.verdict, ended.forced) == ("forced", True)
    assert (ended.missed, ended.missed_before) == ((), ("sensitivity_loss",))
    SCHEMA.validate(json.loads(outcome.artifact.evidence["evidence.json"]))
    assert outcome.evidence.uses is not None
    told = describe_verdict(outcome.evidence.uses.this)
    assert told == "sealed by force though it missed sensitivity_loss at 0.05 on the validation cases"


KILLED = """
import sys, time
from pathlib import Path
from tests.core.test_looking import FewTestCases, run

class Waiting(FewTestCases):
    asked = 0
    def test_cases(self):
        self.asked += 1
        if self.asked > 1:  # the first time they are only compared with the other splits
            print("running the test cases", flush=True)
            time.sleep(600)
        return super().test_cases()

run(Path(sys.argv[1]), "average_precision_loss = 0.9", task=Waiting())
"""


def test_a_use_that_was_killed_between_begin_and_end_is_on_record(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running the test cases\n"
    process.kill()
    process.communicate()
    [line] = read_uses(tmp_path / "uses.jsonl").lines
    assert line.limits == {"average_precision_loss": 0.9}  # type: ignore[union-attr]
    [told] = use_notes(next_use(tmp_path))
    assert "Second use" in told
    assert "begun and not finished" in told


def test_the_first_use_has_nothing_to_tell_but_the_page_has_the_digests(tmp_path: Path) -> None:
    outcome = run(tmp_path, EASY)
    assert "use of these test cases" not in notes(outcome)
    begins = f"no record of uses of the test cases was found at {tmp_path / 'uses.jsonl'}; a new one begins"
    assert begins in outcome.warnings
    assert begins not in outcome.artifact.manifest.notes
    page = outcome.artifact.evidence["evidence.html"].decode()
    assert "Use 1 of these test cases" in page
    assert "The record begins with this use" in page
    assert "Compared byte for byte" in page
    document = json.loads(outcome.artifact.evidence["evidence.json"])
    assert document["splits"]["cases"] == {"training": 3000, "validation": 800, "test": 40}
    assert document["test_uses"]["begins"] is True
    assert document["test_uses"]["cases"]["sha256"] == document["splits"]["sha256"]["test"]


def test_a_damaged_record_stops_the_run_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "uses.jsonl").write_text("{}\n")
    with pytest.raises(JournalError, match="line 1 of the record of uses cannot be trusted"):
        run(tmp_path, EASY)
    assert not (tmp_path / "work" / "candidates.csv").exists()


REASONS = '\n[reasons]\naverage_precision_loss = "two readers differ by as much"\n'


def written(folder: Path, limits: str = EASY, extra: str = REASONS) -> Path:
    path = folder / "recipe.toml"
    path.write_text(recipe_head("rows", limits) + extra + f"\n[cases]\nrecord = '{folder / 'uses.jsonl'}'\n")
    return path


def test_a_plan_that_was_followed_and_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan, control = tmp_path / "plan.json", tmp_path / "PLAN.md"
    found = write_plan(written(tmp_path), plan, control, task=FewTestCases())
    assert found.limits["average_precision_loss"].reason == "two readers differ by as much"
    text = control.read_text()
    for part in ("## 1. Description of modifications", "## 2. Modification protocol", "## 3. Impact assessment"):
        assert part in text
    assert "two readers differ by as much" in text
    outcome = featherweight.optimize("recipe.toml", "first", task=FewTestCases(), plan="plan.json")
    document = json.loads(outcome.artifact.evidence["evidence.json"])
    assert document["plan"]["in_time"] is True
    assert document["plan"]["differences"] == []
    assert "plan" not in notes(outcome)
    assert "two readers differ by as much" in outcome.artifact.documents["CHANGE_RECORD.md"].decode()

    assert "The plan differs from what was run: average_precision_loss: planned 0.9, run with 0.8" in planned(
        tmp_path, EASY.replace("0.9", "0.8")
    )
    write_plan(written(tmp_path), plan, task=FewTestCases())
    assert "The plan is younger than the results" in planned(tmp_path)
    (tmp_path / "uses.jsonl").unlink()
    assert "The record of uses does not have the plan" in planned(tmp_path)


def planned(folder: Path, limits: str = EASY, task: TreesTask | None = None) -> str:
    """What a run by the recipe would say of `plan.json`, without running it."""
    recipe, task = read_recipe(written(folder, limits)), task or FewTestCases()
    request = LookRequest(folder / "uses.jsonl", folder / "plan.json")
    looks = prepare_looks(recipe, task, task.validation_cases(), request, "a", folder / "work")
    assert looks.plan is not None
    return "\n".join(plan_notes(looks.plan))


def test_a_plan_of_other_cases_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(written(tmp_path), tmp_path / "plan.json", task=TreesTask(90))
    told = planned(tmp_path, task=TreesTask(800))
    assert "the test cases or their labels: planned 90" in told


def test_what_a_plan_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"add to \[reasons\]: average_precision_loss"):
        write_plan(written(tmp_path, extra=""), tmp_path / "plan.json", task=FewTestCases())
    with pytest.raises(UsageError, match="sets no limit"):
        write_plan(written(tmp_path, "", extra=""), tmp_path / "plan.json", task=FewTestCases())
    assert not (tmp_path / "plan.json").exists()
    (tmp_path / "plan.json").write_text('{"schema": "other"}')
    with pytest.raises(DataError, match="not a plan"):
        run(tmp_path, EASY, plan=tmp_path / "plan.json")


def test_uses_that_are_entered_by_hand_count(tmp_path: Path) -> None:
    record = enter_use(written(tmp_path), uses=9, when="until 2026-11", words="tuning", task=FewTestCases())
    assert record == tmp_path / "uses.jsonl"
    [told] = use_notes(next_use(tmp_path))
    assert "Tenth use of these test cases on record" in told
    assert "until 2026-11: 9 uses entered by hand (tuning)" in told


class Repeating(FewTestCases):
    """The last ten test cases are copies of the first ones."""

    def test_cases(self) -> HeldOut:
        cases = super().test_cases()
        places = np.r_[5:40, 5:15]
        tensors = {"features": cases.tensors["features"][places]}
        return replace(
            cases,
            ids=tuple(f"t{n}" for n in range(45)),
            tensors=tensors,
            labels=cases.labels[places],
            clusters=places,  # rows of a table are copies within one patient
        )


def test_copies_among_the_test_cases_are_left_out_and_said(tmp_path: Path) -> None:
    outcome = run(tmp_path, EASY, task=Repeating())
    assert outcome.evidence.test is not None
    assert len(outcome.evidence.test.baseline.predictions.ids) == 35
    assert "10 test cases left out: copies of other test cases" in notes(outcome)


class Changing(FewTestCases):
    """Whose file of test cases is another one when they are run."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def test_cases(self) -> HeldOut:
        self.read += 1
        cases = super().test_cases()
        return cases if self.read == 1 else replace(cases, labels=1 - cases.labels)


def test_test_cases_that_changed_since_they_were_put_on_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the test cases are not those that were read before the search"):
        run(tmp_path, EASY, task=Changing())
    begun, ended = read_uses(tmp_path / "uses.jsonl").lines
    assert isinstance(begun, Begun)
    assert ended.verdict == "could not be run"
    assert not (tmp_path / "artifact").exists()


class Leaking(FewTestCases):
    """Two of the test cases are validation cases."""

    def test_cases(self) -> HeldOut:
        cases, validation = super().test_cases(), self.validation_cases()
        features = cases.tensors["features"].copy()
        features[:2] = validation.tensors["features"][:2]
        return replace(cases, tensors={"features": features})


def test_a_case_in_two_splits_stops_the_run_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 inputs are in two splits .*known_copies = 2") as caught:
        run(tmp_path, EASY, task=Leaking())
    page = tmp_path / "work" / "copies.html"
    assert str(page) in str(caught.value)
    assert page.stat().st_mode & 0o077 == 0
    assert "validation: v0" in page.read_text()
    assert "test: t0" in page.read_text()
    assert "v0" not in str(caught.value)
    assert not (tmp_path / "uses.jsonl").exists()
    told = notes(run(tmp_path, EASY, task=Leaking(), extra="[cases]\nknown_copies = 2\n"))
    assert "Inputs that are in two splits (2 in validation and test)" in told


class Keeping(TreesTask):
    """Still has the scores of the first model, which is its baseline."""

    def __init__(self, first: Outcome, record: Path, kept: int = 800) -> None:
        super().__init__(800)
        assert first.evidence.test is not None
        self.first, self.record, self.kept = first.evidence.test.baseline.predictions, record, kept

    def first_scores(self) -> tuple[np.ndarray, float]:
        assert isinstance(read_uses(self.record).lines[-1], Begun)  # before anything of the test cases is asked for
        return self.first.scores[: self.kept], self.first.threshold


def test_a_change_after_a_change_is_told_what_all_have_lost(tmp_path: Path) -> None:
    limits, prune = "average_precision_loss = 0.05", '[[step]]\nkind = "prune-trees"\nratio = 0.5\n'
    task = TreesTask(800)
    first = run(tmp_path, limits, task=task, extra=prune, out="first")
    [check] = [one for one in first.evidence.deciding.checks if one.name == "average_precision_loss"]
    recipe = parse_recipe(f"previous = '{tmp_path / 'first'}'\n" + recipe_head("rows", limits) + prune)
    second = optimize(
        recipe, task, tmp_path / "second", work=tmp_path / "work", looking=LookRequest(tmp_path / "uses.jsonl")
    )
    chain = json.loads(second.artifact.evidence["evidence.json"])["chain"]
    assert [link["artifact"] for link in chain["links"]] == ["rows"]
    assert chain["links"][0]["sha256"] == read_artifact(tmp_path / "first").sha256
    assert check.found is not None
    assert chain["method"] == "sum of bounds"
    assert chain["losses"]["average_precision_loss"] == pytest.approx(2 * check.found, rel=0.2)
    worst = chain["losses"]["average_precision_loss"]
    # Both were made from the same baseline, so that the second does not follow the first.
    document = json.loads(second.artifact.evidence["evidence.json"])
    SCHEMA.validate(document)
    assert document["chain"]["baseline_is_previous"] is False
    assert any("another change of the same model and not a change after that one" in line for line in second.warnings)
    told = any("this is the second change of the model" in line for line in second.warnings)
    assert told == (worst > 0.05)
    record = tmp_path / "uses.jsonl"
    with pytest.raises(DataError, match="the first model's scores are 799 for 800 test cases"):
        optimize(
            recipe, Keeping(first, record, 799), tmp_path / "again", work=tmp_path / "work", looking=LookRequest(record)
        )
    ended = read_uses(record).lines[-1]
    assert isinstance(ended, Ended)
    assert ended.verdict == "could not be run"
    again = optimize(
        recipe, Keeping(first, record), tmp_path / "again", work=tmp_path / "work", looking=LookRequest(record)
    )
    assert any("could not be run" in line for line in again.warnings)
    direct = json.loads(again.artifact.evidence["evidence.json"])["chain"]
    assert direct["method"] == "same cases"
    # The first model is the baseline here, so that what one change lost is all that was lost.
    assert direct["losses"]["average_precision_loss"] == pytest.approx(check.found, rel=1e-6)
    both = read_chain(tmp_path / "second", ("average_precision_loss",))
    assert len(both.links) == 2
    assert both.summed({"average_precision_loss": 0.01})["average_precision_loss"] == pytest.approx(
        worst + 0.01, abs=1e-6
    )
    assert both.summed({"auc_loss": 0.01}) == {"auc_loss": None}


def test_where_the_record_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(recipe_head("rows", EASY))
    assert find_record(recipe, tmp_path / "recipe.toml") == tmp_path / "test-uses.jsonl"
    named = parse_recipe(recipe_head("rows", EASY) + '[cases]\nrecord = "named.jsonl"\n')
    assert find_record(named, tmp_path / "recipe.toml") == tmp_path / "named.jsonl"
    beside = parse_recipe(recipe_head("rows", EASY) + '[cases]\nrecord = "../other/named.jsonl"\n')
    assert find_record(beside, Path("recipes/recipe.toml")) == Path("recipes/../other/named.jsonl")
    absolute = parse_recipe(recipe_head("rows", EASY) + f"[cases]\nrecord = '{tmp_path}/named.jsonl'\n")
    assert find_record(absolute, Path("elsewhere/recipe.toml")) == tmp_path / "named.jsonl"
    bundled = Path(featherweight.__file__).parents[2] / "apps" / "imaging" / "recipes" / "demo.toml"
    assert bundled.is_file()
    assert find_record(recipe, bundled) == Path("runs/rows/test-uses.jsonl")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert find_record(recipe, tmp_path / "recipe.toml") == Path("runs/rows/test-uses.jsonl")
