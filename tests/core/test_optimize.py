"""From recipe to sealed artifact on a real small network: what is chosen, what is refused, what is written."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from featherweight.core.artifact.store import read_artifact
from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import DataError, LimitError, OutputError, RecipeError, UsageError
from featherweight.core.evidence.report import CandidateRecord
from featherweight.core.optimize import Outcome, optimize
from featherweight.core.parity.reproduction import check_fresh
from featherweight.core.recipe import Recipe, Source, parse_recipe, render_recipe
from featherweight.core.record.uses import read_uses
from featherweight.core.request import open_task, run_recipe
from featherweight.core.task import HeldOut
from featherweight.core.tensors import Tensors
from tests.core.recipes import recipe_head
from tests.fakes import SquaresTask

HEAD = recipe_head("squares", "auc_loss = 0.03", repetitions=5)
CHAIN = """
[[step]]
kind = "prune-channels"
ratio = [0.3, 0.5]
[[step]]
kind = "recover"
epochs = 1
[[step]]
kind = "quantize"
calibration_samples = 32
"""
WEIGHTS = '[[step]]\nkind = "prune-weights"\nsparsity = {}\n'


def recipe(steps: str, head: str = HEAD) -> Recipe:
    return parse_recipe(head + steps)


@dataclass(frozen=True)
class Run:
    task: SquaresTask
    outcome: Outcome
    folder: Path
    stages: list[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One whole run of two candidates."""
    folder, task, stages = tmp_path_factory.mktemp("squares"), SquaresTask(), list[str]()
    outcome = optimize(
        recipe(CHAIN),
        task,
        folder / "artifact",
        work=folder / "work",
        progress=lambda stage, done, total: stages.append(f"{stage} {done <= total}"),
    )
    return Run(task, outcome, folder, stages)


@pytest.fixture
def work(run: Run, tmp_path: Path) -> Path:
    """A working folder in which the baseline was exported and measured already, which takes most of the time."""
    return Path(shutil.copytree(run.folder / "work", tmp_path / "work"))


def chosen(run: Run) -> CandidateRecord:
    """Its precision is this host's affair: where int8 is slower, as where its instructions are missing, fp32 wins."""
    (found,) = [record for record in run.outcome.evidence.candidates if record.chosen]
    return found


def test_the_chosen_program_is_sealed_with_its_threshold_and_evidence(run: Run) -> None:
    artifact = read_artifact(run.folder / "artifact")
    manifest = artifact.manifest
    assert manifest == run.outcome.artifact.manifest
    assert [entry.precision for entry in manifest.programs] == [chosen(run).settings["precision"]]
    assert (manifest.app, manifest.labels, manifest.forced, manifest.missed_limits) == (
        "squares",
        ("empty", "square"),
        False,
        (),
    )
    assert [(one.backend, one.precision) for one in manifest.preferences] == [
        ("onnxruntime", chosen(run).settings["precision"])
    ]
    assert artifact.documents["recipe.toml"].decode() == render_recipe(recipe(CHAIN))
    assert manifest.recipe_sha256 == recipe(CHAIN).sha256
    evidence = json.loads(artifact.evidence["evidence.json"])
    assert evidence["passed"]
    assert evidence["test"]["candidate"]["threshold"] == float(artifact.sealed["decision.json"])
    assert evidence["test"]["candidate"]["memory"]["peak_bytes"] > 0
    assert artifact.evidence["evidence.html"].startswith(b"<!doctype html>")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "artifact",
        "artifact-cases.html",
        "test-uses.jsonl",
        "work",
    ]
    assert run.outcome.cases == run.folder / "artifact-cases.html"


def test_the_fastest_candidate_that_passed_is_chosen_and_all_are_recorded(run: Run) -> None:
    records = run.outcome.evidence.candidates
    int8 = [record for record in records if record.settings["precision"] == "int8"]
    assert [record.settings["step[0].ratio"] for record in int8] == [0.3, 0.5]
    fastest = min(records, key=lambda record: record.latency.p50_ms if record.latency else math.inf)
    taken = chosen(run)
    # Inside the noise of a busy host the smaller one is taken.
    assert taken == fastest or (taken.size_bytes or 0) < (fastest.size_bytes or 0)
    for record in records:
        assert record.chosen or f"than {taken.name}" in record.outcome
        assert [step["name"] for step in record.steps][:3] == ["prune-channels", "recover", "export"]
    assert all(record.steps[3]["name"] == "quantize" for record in int8)


def test_test_cases_are_asked_for_once_and_last(run: Run) -> None:
    """Before the search they are only compared with the other splits: nothing is run on them."""
    assert run.task.asked.count("test_cases") == 2
    first, last = (place for place, one in enumerate(run.task.asked) if one == "test_cases")
    assert set(run.task.asked[:first]) == {"validation_cases", "calibration_cases"}
    assert set(run.task.asked[last + 1 :]) == {"shown test"}
    assert len(read_uses(run.folder / "test-uses.jsonl").lines) == 2


def test_sealed_predictions_are_those_that_were_judged(run: Run) -> None:
    held_out = run.task.validation_cases()
    with find_backend().open(run.outcome.artifact.programs[0]) as session:
        scores = run.task.scores(session.run(held_out.tensors))
    judged = run.outcome.evidence.validation.candidate.predictions
    np.testing.assert_allclose(scores, judged.scores, atol=1e-4)
    assert judged.threshold == float(run.outcome.artifact.sealed["decision.json"])


def test_progress_is_told(run: Run) -> None:
    found = {stage.rsplit(" ", 1)[0] for stage in run.stages}
    assert {"measuring latency", "scoring the validation cases", "running the test cases"} <= found
    assert any("recover 1 epoch" in stage for stage in found)
    assert all(stage.endswith("True") for stage in run.stages)


def test_a_second_run_trains_nothing_and_seals_the_same(run: Run, tmp_path: Path) -> None:
    task = SquaresTask()
    again = optimize(recipe(CHAIN), task, tmp_path / "artifact", work=run.folder / "work")
    assert "training" not in task.asked
    before = {record.name: record.steps for record in run.outcome.evidence.candidates}
    after = {record.name: record.steps for record in again.evidence.candidates}
    assert json.dumps(before, sort_keys=True, default=str) == json.dumps(after, sort_keys=True, default=str)


def test_a_damaged_kept_network_is_trained_again_and_force_leaves_no_trace_when_nothing_is_missed(
    run: Run, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for path in (run.folder / "work").glob("*.safetensors"):
        (work / path.name).write_bytes(path.read_bytes()[:-100])
    task = SquaresTask()
    steps = recipe(CHAIN.replace("[0.3, 0.5]", "0.5"))
    outcome = optimize(steps, task, tmp_path / "artifact", work=work, force=True)
    assert "training" in task.asked
    assert not outcome.forced
    assert not outcome.evidence.forced


def test_a_bad_candidate_is_found_by_the_limits(tmp_path: Path, work: Path) -> None:
    """Without 99% of its weights a network decides nothing; the other candidate is sealed."""
    task = SquaresTask()
    outcome = optimize(recipe(WEIGHTS.format("[0.99, 0.1]")), task, tmp_path / "artifact", work=work)
    bad, good = outcome.evidence.candidates
    assert good.chosen
    assert "missed auc_loss" in bad.outcome
    assert "nothing runs faster" in str(good.steps[0])


def test_when_no_candidate_keeps_the_limits_nothing_is_sealed_and_the_limit_is_named(
    tmp_path: Path, work: Path
) -> None:
    task = SquaresTask()
    with pytest.raises(LimitError) as caught:
        optimize(recipe(WEIGHTS.format("0.99")), task, tmp_path / "artifact", work=work)
    verdict, nearest, way_out, rest, action = str(caught.value).splitlines()
    assert verdict == "no candidate kept the recipe's limits, so nothing was sealed"
    assert nearest.startswith("  nearest of 1: c1 (prune weights 0.99 on onnxruntime): AUC fell by ")
    assert way_out.startswith("  what would let it pass: ")
    assert "prune less than 0.99" in way_out
    assert rest.startswith(f"  all candidates and figures: {tmp_path / 'work' / 'evidence.html'}; ")
    assert action == "  what to do: change the recipe, or seal it all the same with --force"
    assert "the limit is 0.0300" in str(caught.value)
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    # No record: no program was run on the test cases.
    assert task.asked.count("test_cases") == 1
    evidence = json.loads((tmp_path / "work" / "evidence.json").read_bytes())
    assert evidence["test"] is None
    assert not evidence["passed"]
    assert [(one["name"], one["description"]) for one in evidence["candidates"]] == [
        ("c1", "prune weights 0.99 on onnxruntime")
    ]
    shown = (tmp_path / "work" / "evidence.html").read_text()
    assert all(check["explanation"].split(";")[0] in shown for check in evidence["validation"]["checks"])
    page = tmp_path / "work" / "refused-cases.html"
    assert str(page) in str(caught.value)
    assert re.search(r">v\d+<", page.read_text())
    assert "shown validation" in task.asked


def test_forced_it_is_sealed_and_says_so(tmp_path: Path, work: Path) -> None:
    outcome = optimize(recipe(WEIGHTS.format("0.99")), SquaresTask(), tmp_path / "artifact", work=work, force=True)
    manifest = read_artifact(tmp_path / "artifact").manifest
    assert outcome.forced
    assert manifest.forced
    assert any(text.startswith("auc_loss on the validation cases: AUC fell") for text in manifest.missed_limits)
    assert json.loads(outcome.artifact.evidence["evidence.json"])["forced"] is True


def test_a_trial_of_the_gate_that_fails_costs_no_run_and_is_told(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("patient 4711")

    monkeypatch.setattr("featherweight.core.sealing.try_gate", broken)
    outcome = optimize(recipe(WEIGHTS.format("0.1")), SquaresTask(), tmp_path / "artifact", work=work)
    told = json.loads(outcome.artifact.evidence["evidence.json"])["gate"]["no_trial"]
    page = outcome.artifact.evidence["evidence.html"].decode()
    assert "ZeroDivisionError" in told
    assert f"No fault was planted to see: {told}." in page
    assert "4711" not in told + page


class FewTestCases(SquaresTask):
    """So few test cases that they cannot show what the validation cases showed."""

    def test_cases(self) -> HeldOut:
        cases = super().test_cases()
        return HeldOut(cases.ids[:12], {"image": cases.tensors["image"][:12]}, cases.labels[:12])


def test_limits_missed_on_the_test_cases_stop_the_sealing(tmp_path: Path, work: Path) -> None:
    steps = recipe(WEIGHTS.format("0.1"), HEAD + "sensitivity_loss = 0.1\n")
    with pytest.raises(LimitError, match="not on the test cases") as caught:
        optimize(steps, FewTestCases(), tmp_path / "artifact", work=work, anyway=True)
    assert "missed there: " in str(caught.value)
    assert "sensitivity_loss (limit 0.1)" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 5
    page = tmp_path / "work" / "refused-cases.html"
    assert str(page) in str(caught.value)
    assert re.search(r">v\d+<", page.read_text())
    assert not re.search(r">t\d+<", page.read_text())
    assert not (tmp_path / "artifact").exists()


def test_a_program_that_is_not_faster_is_told_so(tmp_path: Path, work: Path) -> None:
    outcome = optimize(recipe(""), SquaresTask(), tmp_path / "artifact", work=work)
    assert outcome.artifact.manifest.programs[0].precision == "fp32"
    assert any("is not smaller than" in line for line in outcome.warnings)
    *sealed, record = outcome.warnings
    assert outcome.artifact.manifest.notes == tuple(sealed)
    assert record.endswith("a new one begins")  # where the record lies is the host's business, so it is not sealed


def test_the_artifact_holds_reference_inputs_that_a_fresh_process_repeats(run: Run) -> None:
    assert check_fresh(run.folder / "artifact", "onnxruntime") <= 1e-4
    parity = run.outcome.evidence.parity
    assert parity is not None
    assert (parity.probes, parity.cases) == (32, 232)


def test_what_is_asked_wrongly_is_refused_before_any_work(tmp_path: Path) -> None:
    task = SquaresTask()
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an artifact that could be replaced"):
        optimize(recipe(CHAIN), task, tmp_path / "occupied", work=tmp_path / "work")
    with pytest.raises(UsageError, match="no backend is called 'abacus'"):
        optimize(recipe(CHAIN, HEAD.replace("onnxruntime", "abacus")), task, tmp_path / "a", work=tmp_path / "work")
    with pytest.raises(UsageError, match=r"none of onnxruntime runs bf16"):
        optimize(
            recipe('[[step]]\nkind = "quantize"\nprecision = "bf16"\n'), task, tmp_path / "a", work=tmp_path / "work"
        )
    assert "training" not in task.asked
    with pytest.raises(UsageError, match=r"no app is called 'squares'; installed: .*imaging"):
        open_task(Source("squares"))
    (tmp_path / "bad.toml").write_text("version = 7")
    with pytest.raises(RecipeError, match=r"bad\.toml: 3 faults"):
        run_recipe(tmp_path / "bad.toml", tmp_path / "a")


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        optimize(recipe(""), SquaresTask(), tmp_path / "file" / "a", work=tmp_path / "work")


class Broken(SquaresTask):
    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        return iter(())


def test_a_candidate_that_cannot_be_made_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    if not find_backend("openvino").probe().runs("network", "bf16"):
        pytest.skip("needs a processor with bf16")
    steps = '[[step]]\nkind = "quantize"\nprecision = ["int8", "bf16"]\n'
    head = HEAD.replace('["onnxruntime"]', '["onnxruntime", "openvino"]')
    outcome = optimize(recipe(steps, head), Broken(), tmp_path / "artifact", work=tmp_path / "work", force=True)
    assert "no calibration inputs" in outcome.evidence.candidates[0].outcome
    assert outcome.artifact.manifest.programs[0].precision == "bf16"
    with pytest.raises(DataError, match="no calibration inputs"):
        optimize(
            recipe(CHAIN.split("[[step]]")[-1].join(["[[step]]", ""])), Broken(), tmp_path / "b", work=tmp_path / "work"
        )


def test_the_model_card_has_the_apps_words_and_the_measured_figures(tmp_path: Path, work: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Squares\n\nNot for circles.\n")
    steps = '[[step]]\nkind = "quantize"\ncalibration_samples = 32\n'
    written = recipe(steps, f"card = {json.dumps(str(card))}\n{HEAD}")
    folder = tmp_path / "artifact"
    optimize(written, SquaresTask(), folder, work=work)
    text = read_artifact(folder).documents["MODEL_CARD.md"].decode()
    assert text.startswith("# Squares\n\nNot for circles.\n\n## Measured\n")
    assert "test cases, run once in this run" in text
    assert "| auc |" in text


def test_a_card_that_is_not_there_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    task = SquaresTask()
    with pytest.raises(UsageError, match=r"card: .*none\.md"):
        optimize(recipe(CHAIN, f'card = "none.md"\n{HEAD}'), task, tmp_path / "artifact")
    assert task.asked == []


def test_a_step_for_another_kind_of_model_is_told_before_any_work(tmp_path: Path) -> None:
    task = SquaresTask()
    with pytest.raises(UsageError, match="prune-trees is for trees"):
        optimize(recipe('[[step]]\nkind = "prune-trees"\nratio = 0.5\n'), task, tmp_path / "a", work=tmp_path / "work")
    assert task.asked == []
    assert not (tmp_path / "work").exists()


def test_limits_that_so_few_cases_cannot_show_are_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No candidate is made, and --anyway searches all the same."""
    monkeypatch.chdir(tmp_path)
    told = recipe(WEIGHTS.format(0.1), recipe_head("squares", "sensitivity_loss = 0.001", repetitions=5))
    stages: list[str] = []
    with pytest.raises(LimitError, match=r"cannot be shown with \d+ positive cases: [\d,]+ are needed"):
        optimize(told, SquaresTask(), tmp_path / "out", progress=lambda stage, done, total: stages.append(stage))
    assert stages == []
    with contextlib.suppress(LimitError):  # a candidate that is better than the baseline may pass all the same
        optimize(told, SquaresTask(), tmp_path / "out", anyway=True, progress=lambda stage, *_: stages.append(stage))
    assert stages
