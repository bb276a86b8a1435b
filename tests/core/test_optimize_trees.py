"""From recipe to sealed artifact with trees instead of a network."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from featherweight.core.artifact.store import read_artifact, verify_artifact
from featherweight.core.backends.base import Availability
from featherweight.core.backends.fastest import choose_program
from featherweight.core.errors import BackendUnavailableError, UsageError
from featherweight.core.optimize import Outcome, optimize
from featherweight.core.parity.reproduction import check_fresh
from featherweight.core.recipe import parse_recipe
from tests.core.recipes import recipe_head
from tests.fakes import TreesTask

LIMITS = "average_precision_loss = 0.02\nflip_ratio_max = 0.05"
HEAD = recipe_head("rows", LIMITS, repetitions=5, backends='["onnxruntime", "openvino"]')
PRUNE = '[[step]]\nkind = "prune-trees"\nratio = [0.3, 0.6]\ncalibration_samples = 2000\n'
INT8 = '[[step]]\nkind = "quantize"\ncalibration_samples = 2000\n'


@dataclass(frozen=True)
class Run:
    task: TreesTask
    outcome: Outcome
    folder: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, task = tmp_path_factory.mktemp("rows"), TreesTask()
    outcome = optimize(parse_recipe(HEAD + PRUNE + INT8), task, folder / "artifact", work=folder / "work")
    return Run(task, outcome, folder)


def test_trees_are_sealed_as_what_they_are(run: Run) -> None:
    artifact = read_artifact(run.folder / "artifact")
    assert [(entry.kind, entry.precision) for entry in artifact.manifest.programs] == [("trees", "int8")]
    assert artifact.program("int8").kind == "trees"
    assert all(check.passed for check in verify_artifact(run.folder / "artifact"))
    assert [one.backend for one in artifact.manifest.preferences] == ["onnxruntime"]
    records = run.outcome.evidence.candidates
    assert [record.settings["step[0].ratio"] for record in records] == [0.3, 0.6]
    for record in records:
        assert [step["name"] for step in record.steps] == ["prune-trees", "export", "quantize"]


def test_a_backend_that_runs_no_trees_is_not_asked(run: Run) -> None:
    assert run.outcome.evidence.facts["not tried: openvino"] == "it runs no trees"
    assert any("openvino was not tried" in note for note in run.outcome.warnings)
    artifact = run.outcome.artifact
    networks = Availability(True, devices=("cpu",), precisions=("fp32", "bf16", "int8"))
    both = replace(networks, kinds=("network", "trees"))
    assert choose_program(artifact, {"openvino": networks, "onnxruntime": both})[0] == "onnxruntime"
    with pytest.raises(BackendUnavailableError):
        choose_program(artifact, {"openvino": networks})
    only = HEAD.replace('"onnxruntime", ', "")
    with pytest.raises(BackendUnavailableError, match="openvino: it runs no trees"):
        optimize(parse_recipe(only + INT8), run.task, run.folder / "none", work=run.folder / "work")


def test_the_evidence_has_the_average_precision(run: Run) -> None:
    evidence = json.loads(run.outcome.artifact.evidence["evidence.json"])
    assert evidence["passed"]
    difference = evidence["test"]["differences"]["average_precision"]
    assert -0.02 <= difference["low"] <= difference["estimate"]
    assert [check["name"] for check in evidence["test"]["checks"]] == ["average_precision_loss", "flip_ratio_max"]
    assert all(candidate["average_precision"] > 0.8 for candidate in evidence["candidates"])
    page = run.outcome.artifact.evidence["evidence.html"].decode()
    assert "Average precision" in page


def test_a_fresh_process_gives_the_same_scores(run: Run) -> None:
    assert check_fresh(run.folder / "artifact", "onnxruntime") <= 1e-6


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ('[[step]]\nkind = "prune-channels"\nratio = 0.5\n', "prune-channels is for networks"),
        ('[[step]]\nkind = "prune-weights"\nsparsity = 0.5\n[[step]]\nkind = "recover"\nepochs = 1\n', "for networks"),
        ('[[step]]\nkind = "quantize"\nprecision = "bf16"\n', "trees have no bf16"),
        (
            '[[step]]\nkind = "prune-trees"\nratio = [0.5, 0.7]\n[[step]]\nkind = "quantize"\nprecision = "bf16"\n',
            "trees have no bf16",
        ),
    ],
)
def test_steps_that_trees_do_not_have_are_refused(steps: str, part: str, tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(UsageError, match=part):
        optimize(
            parse_recipe(HEAD + steps),
            TreesTask(),
            tmp_path / "artifact",
            work=tmp_path / "work",
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert stages == [], "something was made or timed first"
