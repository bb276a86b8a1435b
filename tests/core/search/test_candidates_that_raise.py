"""A candidate that cannot be made is refused with its cause, and the next is tried; a network that no step can treat is
refused before any work."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.core.console import outcome_row, show_outcome
from featherweight.core.errors import FeatherweightError, UsageError
from featherweight.core.model import Model
from featherweight.core.optimize import optimize
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.steps import PruneChannelsStep
from featherweight.core.recipe import parse_recipe
from featherweight.core.task import HeldOut
from featherweight.core.tensors import Tensors, TensorSpec
from tests.core.networks import Branches, ByValue, Named, Shuffled, Transformer, TwoHeads, TwoInputs
from tests.core.recipes import recipe_head
from tests.fakes import INPUTS, OUTPUTS, SIDE, SquaresTask, small_network

HEAD = recipe_head("squares", "flip_ratio_max = 1.0")
PRUNE = '[[step]]\nkind = "prune-channels"\nratio = 0.5\nscope = "{}"\n'
INT8 = '[[step]]\nkind = "quantize"\ncalibration_samples = 16\n'
WEIGHTS = '[[step]]\nkind = "prune-weights"\nsparsity = 0.5\n'


class Given(SquaresTask):
    """A network of another kind; untrained, so that its limits allow anything."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__(cases=60)
        torch.manual_seed(0)
        self.baseline = Model(make().eval(), INPUTS, OUTPUTS)


class WithRow(Given):
    """Two inputs."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__(make)
        self.baseline = replace(self.baseline, inputs=(*INPUTS, TensorSpec("row", "float32", (None, 4))))

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        return (self._with_row(batch) for batch in super().calibration_batches(samples, seed))

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        return self._with_row(super().reference_inputs(count, seed))

    def _with_row(self, tensors: Tensors) -> Tensors:
        return {**tensors, "row": np.tile(np.float32([0.5, 1, -1, 2]), (len(tensors["image"]), 1))}

    def _held_out(self, prefix: str, seed: int) -> HeldOut:
        cases = super()._held_out(prefix, seed)
        return replace(cases, tensors=self._with_row(cases.tensors))


class WithScores(Given):
    """Two outputs."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__(make)
        self.baseline = replace(self.baseline, outputs=(*OUTPUTS, TensorSpec("vector", "float32", (None, 16))))


REFUSED = {
    ("Transformer", "sensitivity"): "remove the step from the recipe",
    ("Shuffled", ""): "cannot be followed .ZeroDivision",
}
KINDS: list[tuple[type[Given], Callable[[], nn.Module]]] = [
    (Given, Transformer), (Given, Shuffled), (Given, Branches), (WithRow, TwoInputs), (WithScores, TwoHeads),
]  # fmt: skip


@pytest.mark.parametrize("scope", ["layer", "network", "sensitivity"])
@pytest.mark.parametrize(("task", "make"), KINDS, ids=[make.__name__ for _, make in KINDS])
def test_channels_of_any_network_are_pruned_or_refused_with_the_cause(
    task: type[Given], make: Callable[[], nn.Module], scope: str
) -> None:
    given = task(make)
    batches = given.calibration_batches(8, 0)
    step = PruneChannelsStep(0.5, 8, scope)  # type: ignore[arg-type]
    refused = REFUSED.get((make.__name__, scope), REFUSED.get((make.__name__, "")))
    if refused:
        with pytest.raises(UsageError, match=f"^prune-channels: .*{refused}"):
            prune_channels(given.baseline, step, batches)
        return
    _, record = prune_channels(given.baseline, step, batches)
    assert record.facts["parameters_after"] < record.facts["parameters_before"]  # type: ignore[operator]


THROUGH = [one for one in KINDS if one[1] in (Transformer, TwoInputs, TwoHeads)]


@pytest.mark.parametrize(("task", "make"), THROUGH, ids=[make.__name__ for _, make in THROUGH])
def test_any_of_them_goes_through_the_steps_that_can_treat_it(
    task: type[Given], make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    outcome = optimize(parse_recipe(HEAD + INT8), task(make), tmp_path / "a", work=tmp_path / "work")
    assert outcome.artifact.manifest.programs


class Fickle(SquaresTask):
    """Its own code fails for one of the candidates."""

    def __init__(self, error: Exception | type[BaseException]) -> None:
        super().__init__(cases=60)
        self.error = error

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        if samples == 7:
            raise self.error
        return super().calibration_batches(samples, seed)


SOME = HEAD + INT8.replace("16", "[7, 16]")


@pytest.mark.parametrize("error", [KeyError("of the task"), OSError("of the task")])
def test_an_unforeseen_error_costs_one_candidate_and_is_reported(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = optimize(parse_recipe(SOME), Fickle(error), tmp_path / "a", work=tmp_path / "work")
    refused, *others = outcome.evidence.candidates
    cause = f"{type(error).__name__}: {error}"
    assert cause in refused.outcome
    assert any(one.chosen for one in others)
    assert cause in (tmp_path / "work" / "candidates.csv").read_text()
    assert cause in outcome.artifact.evidence["evidence.html"].decode().replace("&#39;", "'")
    assert "raise self.error" in (tmp_path / "work" / "unforeseen.log").read_text()
    assert outcome_row(outcome)["refused"] == [
        {"candidate": refused.name, "description": refused.description, "reason": refused.reason}
    ]
    show_outcome(outcome)
    assert "refused c1 (int8 (calibration_samples 7)): an unforeseen error" in capsys.readouterr().out


def test_what_stops_the_process_stops_the_search(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        optimize(parse_recipe(SOME), Fickle(KeyboardInterrupt), tmp_path / "a", work=tmp_path / "work")


def test_where_all_fail_each_is_named_and_the_table_is_there(tmp_path: Path) -> None:
    class Failing(SquaresTask):
        def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
            if samples > 100:  # the search looks for copies of test cases among the training inputs before
                return super().calibration_batches(samples, seed)
            raise KeyError(samples)

    with pytest.raises(FeatherweightError) as caught:
        optimize(parse_recipe(SOME), Failing(60), tmp_path / "a", work=tmp_path / "work")
    assert "KeyError: 7" in str(caught.value)
    assert "KeyError: 16" in str(caught.value)
    with (tmp_path / "work" / "candidates.csv").open(newline="", encoding="utf-8") as file:
        assert ["KeyError" in row["outcome"] for row in csv.DictReader(file)] == [True, True]


GROUPED = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.Conv2d(32, 32, 3, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 1)
)


@pytest.mark.parametrize(
    ("make", "steps", "told"),
    [
        (lambda: GROUPED, PRUNE.format("layer") + INT8, "are tied together in groups"),
        (small_network, PRUNE.format("layer").replace("0.5", "[0.05, 0.1]") + INT8, "removes nothing at ratio 0.05"),
        (Named, INT8, "returns a dict, expected a tensor"),
        (lambda: torch.jit.script(small_network().eval()), INT8, "scripted"),
        (lambda: nn.Sequential(nn.Flatten(), torch.jit.script(nn.Linear(SIDE * SIDE, 1))), INT8, "1 is a scripted"),
        (TwoHeads, INT8, "gives 2 outputs, its specs name 1"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 9)), INT8, r"float32 \[2, 9\], its specs say"),
        (lambda: nn.Linear(7, 1), INT8, "does not run on its inputs"),
        (ByValue, INT8, "ByValue cannot become an ONNX program"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_what_no_step_can_treat_is_refused_before_any_work(
    make: Callable[[], nn.Module], steps: str, told: str, tmp_path: Path
) -> None:
    stages: list[str] = []
    with pytest.raises(UsageError, match=told) as caught:
        optimize(
            parse_recipe(HEAD + steps),
            Given(make),
            tmp_path / "a",
            work=tmp_path / "work",
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert stages == [], "the baseline was timed or scored first"
    assert "\x1b" not in str(caught.value)
    assert "Next steps" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_wrong_lesson_is_refused_before_the_baseline_is_timed(tmp_path: Path) -> None:
    class Findings(SquaresTask):
        def training_batches(self, epoch: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
            return [(inputs, targets * 37.5) for inputs, targets in super().training_batches(epoch, seed)]

    stages: list[str] = []
    recipe = parse_recipe(HEAD + PRUNE.format("layer") + '[[step]]\nkind = "recover"\nepochs = 1\n')
    with pytest.raises(UsageError, match="training with a wrong loss would not be noticed"):
        optimize(
            recipe,
            Findings(60),
            tmp_path / "a",
            work=tmp_path / "work",
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert stages == []


@pytest.mark.parametrize(
    "steps", [PRUNE.format("layer").replace("0.5", "[0.05, 0.5]"), WEIGHTS.replace("0.5", "[0.01, 0.5]")]
)
def test_a_pass_that_removes_nothing_makes_no_candidate(steps: str, tmp_path: Path) -> None:
    class Sparse(SquaresTask):
        """So many weights are zero already that a hundredth more are not new ones."""

        def __init__(self) -> None:
            super().__init__(60)
            with torch.no_grad():
                self.baseline.network[4].weight[:8] = 0  # type: ignore[index, union-attr]

    outcome = optimize(parse_recipe(HEAD + steps), Sparse(), tmp_path / "a", work=tmp_path / "work")
    nothing, pruned = outcome.evidence.candidates
    assert "removes nothing" in nothing.outcome
    assert pruned.chosen
