"""Which candidate is chosen where times are noisy, and what a result is called."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featherweight.core.console import outcome_row, show_outcome
from featherweight.core.evidence.judge import Check
from featherweight.core.measure.performance import Latency, Size
from featherweight.core.optimize import Outcome, _best, optimize
from featherweight.core.recipe import SMALLEST, Objective, candidates, parse_recipe
from featherweight.core.search.records import SearchResult, make_records
from featherweight.core.search.trial import FINALISTS, BuiltCandidate, Evaluator, Trial
from tests.core.search.test_optimize_search import HEAD, QUANTIZED, Planted, planted
from tests.fakes import SquaresTask


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    written = parse_recipe(HEAD.format(0.5).replace("[1, 2]", "1"))
    bench, workshop = planted(SquaresTask(), written, tmp_path_factory.mktemp("work"), {"fp32": [4.0]})
    (candidate,) = candidates(written)
    return bench.try_one(BuiltCandidate(candidate, workshop.build(candidate)))[0]


def timed(one: Trial, name: str, ms: float, size: int, *, noise: float = 0.05, seed: int = 0) -> Trial:
    """The median is what was asked for, whatever the noise."""
    samples = ms * np.random.default_rng(seed).permutation(np.linspace(1 - noise, 1 + noise, 101))
    latency = Latency(samples, 1, one.measured.latency.conditions)  # type: ignore[union-attr]
    measured = replace(one.measured, name=name, latency=latency, size=Size(size, size))
    return replace(one, measured=measured, checks=())


def test_inside_the_noise_the_smaller_is_taken_and_beyond_it_the_faster(one: Trial) -> None:
    quick = timed(one, "quick", 1.0, 9000)
    small, smaller = timed(one, "small", 1.004, 3000, seed=1), timed(one, "smaller", 1.004, 2000, seed=2)
    slow = timed(one, "slow", 1.2, 1000, seed=3)
    assert _best([quick, small], seed=0) == 1
    assert _best([smaller, quick, small], seed=0) == 0
    assert _best([quick, slow], seed=0) == 0
    assert _best([quick, slow, small, smaller], seed=0) == 3
    # A larger one is never taken for its noise, and of one size the faster is.
    assert _best([small, timed(one, "larger", 1.006, 9000, seed=4)], seed=0) == 0
    assert _best([timed(one, "same size", 1.2, 3000, seed=5), small], seed=0) == 1


def test_the_objective_decides_and_differences_inside_the_noise_go_to_the_smaller(one: Trial) -> None:
    quick, small, tiny = timed(one, "quick", 1.0, 9000), timed(one, "small", 1.2, 3000), timed(one, "tiny", 9.0, 1000)
    trials = [quick, tiny, small]
    assert _best(trials, seed=0) == 0
    assert _best(trials, seed=0, objective=SMALLEST) == 1
    # On balance: 1.2 times the time for a third of the size is worth it, 9 times for a ninth is not.
    assert _best(trials, seed=0, objective=Objective(0.7, 0.3)) == 2
    assert _best(trials, seed=0, objective=Objective(0.95, 0.05)) == 0
    # Of one size the faster; of nearly one mean, which the noise does not tell apart, the smaller.
    assert _best([timed(one, "slower", 1.3, 3000), small], seed=0, objective=SMALLEST) == 1
    near = timed(one, "near", 1.002 * 2**0.5, 4500, seed=3)
    assert _best([quick, near], seed=0, objective=Objective(2 / 3, 1 / 3)) == 1
    assert _best([quick, timed(one, "worse", 1.6, 4500, seed=3)], seed=0, objective=Objective(2 / 3, 1 / 3)) == 0


def test_the_finalists_are_nearly_the_best_by_the_objective(tmp_path: Path, one: Trial) -> None:
    text = HEAD.format(0.5).replace("[1, 2]", "1")
    bench, _ = planted(SquaresTask(), parse_recipe('objective = "smallest"\n' + text), tmp_path, {"fp32": [7.0]})
    trials = [timed(one, "quick", 1.0, 9000), timed(one, "tiny", 9.0, 1000), timed(one, "small", 8.0, 1400)]
    assert [trial.final for trial in bench.finals(trials)] == [False, True, True]


def test_less_noise_shows_a_smaller_difference(one: Trial) -> None:
    quick, small = (
        timed(one, name, ms, size, noise=0.001, seed=size) for name, ms, size in (("q", 1, 9), ("s", 1.004, 3))
    )
    assert _best([quick, small], seed=0) == 0


def test_of_many_finalists_the_small_ones_are_timed_again(tmp_path: Path, one: Trial) -> None:
    written = parse_recipe(HEAD.format(0.5).replace("[1, 2]", "1"))
    bench, _ = planted(SquaresTask(), written, tmp_path, {"fp32": [7.0]})
    many = [timed(one, f"{place}", 1 + place / 100, 9000 + place) for place in range(FINALISTS + 3)]
    many.append(timed(one, "small", 1.3, 100))
    again = [trial for trial in bench.finals(many) if trial.p50_ms > 6]
    assert len(again) == FINALISTS
    assert {"0", "small"} <= {trial.measured.name for trial in again}


def test_the_time_of_another_run_is_not_compared(one: Trial) -> None:
    """The host was slower when the finalists were timed: one that was not among them seems faster now."""
    slow, other = (
        replace(timed(one, name, ms, 5000), final=True) for name, ms in (("finalist", 1.3), ("slower finalist", 1.6))
    )
    apart = timed(one, "timed before", 1.0, 5000)
    assert _best([apart, other, slow], seed=0) == 2
    missed = Check("average_precision_loss", "failed", 0.1, 0.0, "it lost too much")
    assert _best([apart, replace(other, checks=(missed,)), replace(slow, checks=(missed,))], seed=0) == 0
    recipe = parse_recipe(HEAD.format(0.5).replace("[1, 2]", "1"))
    (record, _, _) = make_records(recipe, SearchResult([one.made], [apart, other, slow], None), slow)
    assert record.outcome.startswith("not among the nearly best and smallest, which were timed once more")


def test_finals_that_cannot_be_run_leave_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where all finalists together need more memory than there is."""

    def refuse(*_: object) -> None:
        raise MemoryError("eight programs at once")

    monkeypatch.setattr(Evaluator, "finals", refuse)
    monkeypatch.setattr(
        "featherweight.core.optimize.Measurements", functools.partial(Planted, times={"fp32": [1.0], "int8": [0.5]})
    )
    found = optimize(parse_recipe(QUANTIZED), SquaresTask(), tmp_path / "artifact", work=tmp_path / "work")
    assert found.artifact.programs[0].precision == "int8"
    (told,) = [warning for warning in found.warnings if "timed again" in warning]
    assert "eight programs at once" in told
    assert told in found.artifact.manifest.notes


def test_int8_that_turns_out_as_fast_in_the_finals_is_not_given_up(tmp_path: Path) -> None:
    written = parse_recipe(QUANTIZED)
    times = {"fp32": [1.0], "int8": [1.4, 1.4, 1.001]}
    bench, workshop = planted(SquaresTask(), written, tmp_path, times)
    (candidate,) = candidates(written)
    _ = bench.baselines
    trials = bench.try_one(BuiltCandidate(candidate, workshop.build(candidate)))
    assert [trial.run.program.precision for trial in trials] == ["fp32", "int8"]
    again = bench.finals(trials)
    assert again[_best(again, seed=0)].run.program.precision == "int8"


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """int8 is five times slower in two variants, so that fp32 is sealed, which is the baseline."""
    folder = tmp_path_factory.mktemp("unchanged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "featherweight.core.optimize.Measurements", functools.partial(Planted, times={"fp32": [1.0], "int8": [5.0]})
        )
        recipe = parse_recipe(QUANTIZED.replace("samples = 32", 'samples = 32\nmethod = ["minmax", "percentile"]'))
        return optimize(recipe, SquaresTask(), folder / "artifact", work=folder / "work")


def test_a_result_that_is_the_baseline_is_not_called_optimized(
    unchanged: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence, artifact = unchanged.evidence, unchanged.artifact
    assert unchanged.unchanged
    assert (evidence.title, evidence.validation.candidate.description) == ("rows", "as it is on onnxruntime")
    assert artifact.manifest.notes[0].startswith("The model was not optimized: the sealed program is the baseline")
    page = artifact.evidence["evidence.html"].decode()
    assert "Unchanged" in page
    assert "no step of the recipe is in it" in page
    record = artifact.documents["CHANGE_RECORD.md"].decode()
    assert "which is the same model, not optimized:" in record
    assert outcome_row(unchanged)["unchanged"] is True
    show_outcome(unchanged)
    assert "not optimized: this is the baseline itself" in capsys.readouterr().out


def test_no_title_and_no_record_names_a_step_that_was_given_up(unchanged: Outcome) -> None:
    records = unchanged.evidence.candidates
    plain = [one for one in records if one.settings["precision"] == "fp32"]
    assert [one.description for one in plain] == ["as it is on onnxruntime"], "the fp32 of both variants is one program"
    assert [one.chosen for one in plain] == [True]
    assert [step["name"] for step in plain[0].steps] == ["export"]
    assert "step[0].method" not in plain[0].settings
    assert [one.settings["step[0].method"] for one in records if one not in plain] == ["minmax", "percentile"]
    deciding = json.loads(unchanged.artifact.evidence["evidence.json"])
    named = [deciding["title"], *(deciding[split]["candidate"]["description"] for split in ("validation", "test"))]
    assert not any("int8" in name for name in named)
    section = unchanged.artifact.documents["CHANGE_RECORD.md"].decode().split("## 2.")[0]
    assert "int8" not in section
    assert "quantize" not in section


def test_what_was_pruned_is_called_so(tmp_path: Path) -> None:
    steps = '[[step]]\nkind = "prune-channels"\nratio = 0.5\n' + QUANTIZED[QUANTIZED.index("[[step]]") :]
    written = parse_recipe(QUANTIZED[: QUANTIZED.index("[[step]]")] + steps)
    bench, workshop = planted(SquaresTask(), written, tmp_path, {"fp32": [1.0], "int8": [5.0]})
    (candidate,) = candidates(written)
    plain, int8 = bench.try_one(BuiltCandidate(candidate, workshop.build(candidate)))
    assert plain.measured.name == "prune channels 0.5 on onnxruntime"
    assert not plain.unchanged
    assert int8.measured.name == "prune channels 0.5 > int8 (calibration_samples 32) on onnxruntime"
