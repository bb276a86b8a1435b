"""What fails in the middle of a search: it costs the candidate that it happened to, and nothing that is finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from featherweight.core.backends.base import Session
from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.errors import (
    BackendError,
    DataError,
    FeatherweightError,
    LimitError,
    MissingExtraError,
    OutputError,
    UsageError,
)
from featherweight.core.optimize import optimize
from featherweight.core.program import Program
from featherweight.core.recipe import Candidate, Recipe, Source, parse_recipe
from featherweight.core.request import open_task
from featherweight.core.search.candidates import BuildResult, CandidateBuilder, silent
from featherweight.core.search.explore import explore
from featherweight.core.search.measurements import Measurements
from featherweight.core.search.records import SearchResult, make_records
from featherweight.core.search.runtimes import find_runtimes
from featherweight.core.search.trial import Evaluator
from featherweight.core.task import CaseView, HeldOut
from featherweight.core.tensors import Tensors
from tests.core.recipes import recipe_head
from tests.fakes import TreesTask

HEAD = recipe_head("rows", "average_precision_loss = 0.5")
PRUNE = '[[step]]\nkind = "prune-trees"\nratio = [0.3, 0.6]\ncalibration_samples = 500\n'
BF16 = '[[step]]\nkind = "quantize"\nprecision = ["bf16", "int8"]\ncalibration_samples = 500\n'


class Small(TreesTask):
    def __init__(self) -> None:
        super().__init__(cases=300)


class OneThread(OnnxRuntime):
    """ONNX Runtime that refuses a second thread: to all programs, or to the first that asks for one."""

    refused: str = ""
    every = False

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        if threads > 1:
            OneThread.refused = OneThread.refused or program.sha256
            if self.every or program.sha256 == self.refused:
                raise BackendError("backend onnxruntime: one thread alone")
        return super().open(program, device=device, threads=threads)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> type[OneThread]:
    monkeypatch.setattr(OneThread, "refused", "")
    monkeypatch.setattr("featherweight.core.search.runtimes.find_backend", lambda name: OneThread())
    return OneThread


def test_a_parity_run_that_fails_is_a_missed_check_and_the_next_candidate_is_taken(
    one_thread: type[OneThread], tmp_path: Path
) -> None:
    outcome = optimize(parse_recipe(HEAD + PRUNE), Small(), tmp_path / "artifact", work=tmp_path / "work")
    assert one_thread.refused
    (chosen,) = [record for record in outcome.evidence.candidates if record.chosen]
    (failed,) = [record for record in outcome.evidence.candidates if not record.chosen]
    assert outcome.artifact.programs[0].sha256 != one_thread.refused
    assert failed.outcome.startswith("missed parity")
    assert "one thread alone" in failed.checks[-1].explanation
    assert all(check.status == "passed" for check in chosen.checks)
    assert not outcome.forced


@pytest.mark.parametrize("force", [False, True])
def test_where_no_program_can_be_run_again_nothing_is_sealed_by_force_either(
    one_thread: type[OneThread], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    monkeypatch.setattr(one_thread, "every", True)
    with pytest.raises(LimitError, match="one thread alone") as caught:
        optimize(parse_recipe(HEAD + PRUNE), Small(), tmp_path / "artifact", work=tmp_path / "work", force=force)
    assert ("--force" in str(caught.value)) is not force
    assert not (tmp_path / "artifact").exists()
    assert (tmp_path / "work" / "candidates.csv").is_file()


class NoNumbers(Small):
    """The test cases, and they alone, give scores that are no numbers."""

    def scores(self, outputs: Tensors) -> npt.NDArray[np.float64]:
        found = super().scores(outputs)
        return np.full_like(found, np.nan) if self.reported else found

    asked, reported = 0, False

    def test_cases(self) -> HeldOut:
        self.asked += 1
        self.reported = self.asked > 1  # first for their labels, before the search
        return super().test_cases()


def test_what_fails_on_the_test_cases_leaves_its_evidence(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=r"on the test cases: .*not a number, for case t0"):
        optimize(parse_recipe(HEAD), NoNumbers(), tmp_path / "artifact", work=tmp_path / "work")
    assert not (tmp_path / "artifact").exists()
    assert (tmp_path / "work" / "evidence.html").is_file()


class Counted(CandidateBuilder):
    """Remembers what was made."""

    def build(self, candidate: Candidate) -> BuildResult:
        built.append(candidate.name)
        return super().build(candidate)


built: list[str] = []


def search(task: TreesTask, written: Recipe, work: Path, budget_s: float | None = None) -> SearchResult:
    built.clear()
    runtimes, workshop = find_runtimes(written.measure, "trees"), Counted(task, written, work)
    measurements = Measurements(written, task, runtimes, workshop.ledger, silent)
    return explore(written, workshop, Evaluator(written, task, measurements, workshop.baseline()), budget_s, silent)


@pytest.mark.parametrize("budget_s", [None, 600])
def test_what_a_step_cannot_treat_is_not_tried_again(tmp_path: Path, budget_s: float | None) -> None:
    written = parse_recipe(HEAD + BF16)
    first = search(Small(), written, tmp_path, budget_s)
    assert sorted(name.split(" (")[0] for name in built) == ["bf16", "int8"]
    assert first.search.kept == 0
    again = search(Small(), written, tmp_path, budget_s)
    assert [name.split(" (")[0] for name in built] == ["int8"]
    assert again.search.kept == again.search.tried == 2
    told = [[record.outcome for record in make_records(written, one, None)] for one in (first, again)]
    assert told[0] == told[1]
    assert any("trees have no bf16" in outcome for outcome in told[0])


class Refused(Small):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        raise self.error


def out_of_memory() -> UsageError:
    error = UsageError("prune-trees: cannot be followed (RuntimeError: not enough memory)")
    error.__cause__ = RuntimeError("not enough memory")
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("the share is away"), "the share is away"),
        (MissingExtraError("torch", "train", "it"), "which is not installed"),
        (MemoryError("unable to allocate 9 GiB"), "needs more memory than this host has free: unable to allocate 9"),
        (out_of_memory(), "not enough memory"),
    ],
)
def test_what_the_moment_refused_is_tried_again(tmp_path: Path, error: Exception, told: str) -> None:
    written = parse_recipe(HEAD + PRUNE)
    with pytest.raises(FeatherweightError, match=told):
        search(Refused(error), written, tmp_path)
    again = search(Small(), written, tmp_path)
    assert len(built) == 2
    assert len(again.trials) == 2


class Broken(Small):
    """A few trees alone give scores that are no numbers; the baseline too, where `worst`."""

    worst = False

    asked = 0

    def scores(self, outputs: Tensors) -> npt.NDArray[np.float64]:
        self.asked += 1
        found = super().scores(outputs)
        return found if len(np.unique(found)) > 8 and not self.worst else np.full_like(found, np.nan)


def test_scores_that_are_no_numbers_are_kept_too(tmp_path: Path) -> None:
    written = parse_recipe(HEAD + PRUNE.replace("0.6", "0.99"))
    first, second = Broken(), Broken()
    search(first, written, tmp_path)
    again = search(second, written, tmp_path)
    assert first.asked > 0
    assert second.asked == 0, "a program was run again"
    assert "not a number, for case v" in make_records(written, again, None)[-1].outcome


def test_a_baseline_that_fails_is_told_before_anything_is_made(tmp_path: Path) -> None:
    task = Broken()
    task.worst = True
    with pytest.raises(BackendError, match="not a number"):
        search(task, parse_recipe(HEAD + PRUNE), tmp_path)
    assert built == []


class Blind(Small):
    def show(self, part: object, indices: object) -> list[CaseView]:
        raise DataError("the pictures are gone")


def test_without_its_page_of_cases_the_artifact_is_said_to_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"artifact is sealed and whole, .*: the pictures are gone"):
        optimize(
            parse_recipe(HEAD + PRUNE.replace("[0.3, 0.6]", "0.6")),
            Blind(),
            tmp_path / "artifact",
            work=tmp_path / "work",
        )
    assert (tmp_path / "artifact" / "manifest.json").is_file()


def test_a_card_with_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="card: "):
        optimize(parse_recipe('card = "a\\u0000b"\n' + HEAD), Small(), tmp_path / "artifact", work=tmp_path / "work")


def test_an_app_that_does_not_load_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "task_under_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: task-under-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featherweight.tasks]\nbroken = featherweight.core.task:missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="the app 'broken' does not load"):
        open_task(Source("broken"))


def test_what_an_app_lacks_is_told_with_the_extra_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not always `train`: the fraud app's task compiles its histories."""
    info = tmp_path / "lacking_under_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lacking-under-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featherweight.tasks]\nlacking = lacking_under_test:task\n")
    (tmp_path / "lacking_under_test.py").write_text("raise ModuleNotFoundError('No module', name='numba')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingExtraError, match=r"needs numba.*its extra 'fraud', from its source \(pip install '\.\[fraud\]'"
    ):
        open_task(Source("lacking"))
