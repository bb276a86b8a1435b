"""Runs programs on a task's cases: scores and latency, each kept in the ledger, so that nothing is run twice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from featherweight.core.arrays import Scores
from featherweight.core.backends.base import Session
from featherweight.core.errors import BackendError, TensorError
from featherweight.core.measure.operators import explain_slower_int8
from featherweight.core.measure.performance import Latency, measure_interleaved
from featherweight.core.progress import Progress
from featherweight.core.recipe import Recipe
from featherweight.core.search.ledger import Entry, Ledger
from featherweight.core.search.runtimes import Run, Runtimes
from featherweight.core.task import HeldOut, Task, check_held_out
from featherweight.core.tensors import Tensors, digest_tensors
from featherweight.core.terminal import counted

BATCH = 16
_TIMED_INPUTS = 8


class Measurements:
    """What all trials of one recipe share: the validation cases, and the calibration cases that `seal` is fitted on."""

    def __init__(self, recipe: Recipe, task: Task, runtimes: Runtimes, ledger: Ledger, progress: Progress) -> None:
        self._recipe, self._task, self._ledger, self._progress = recipe, task, ledger, progress
        self.runtimes = runtimes
        self.validation_cases, self.calibration_cases = task.validation_cases(), task.calibration_cases()
        for part, cases in (("validation", self.validation_cases), ("calibration", self.calibration_cases)):
            check_held_out(cases, task.baseline.inputs, part)

    @cached_property
    def inputs(self) -> list[Tensors]:
        """What latency is measured on."""
        return timed_inputs(self.validation_cases, self._recipe.measure.batch)

    def validation_scores(self, run: Run) -> Scores:
        """Scores do not depend on the number of threads, so that one run does for all."""
        return self._scored(run, self.validation_cases, self._validation_digest, "scoring the validation cases")

    def calibration_scores(self, run: Run) -> Scores:
        """float64 [N] of the calibration cases, kept from an earlier run where there is one."""
        return self._scored(run, self.calibration_cases, self._calibration_digest, f"calibrating on {run.backend}")

    def latencies(self, runs: Sequence[Run]) -> list[Latency]:
        """Latencies of all of them, interleaved in one run."""
        measure = self._recipe.measure
        key = {
            "runs": [self.runtimes.identify(run) for run in runs],
            "host": dict(self.runtimes.host),
            "cases": self._validation_digest,
            "batch": measure.batch,
            "repetitions": measure.repetitions,
            "seed": self._recipe.seed,
        }
        kept = self._ledger.find("timed", key)
        if kept is None:
            found = self._measure(runs)
            arrays = {str(place): latency.samples_ms for place, latency in enumerate(found)}
            kept = Entry({"notes": [latency.notes for latency in found]}, arrays)
            self._ledger.keep("timed", key, kept)
        notes = [tuple(lines) for lines in kept.facts["notes"]]
        return [
            Latency(kept.arrays[str(place)], measure.batch, self.runtimes.conditions(run), notes[place])
            for place, run in enumerate(runs)
        ]

    def why_slower(self, plain: Run, int8: Run) -> str:
        """Which operators make int8 slower than fp32 here; empty where they are not what does. Where that cannot be
        seen it says so: the trial that it is about is finished, and stands."""
        key = {"runs": [self.runtimes.identify(run) for run in (plain, int8)], "host": dict(self.runtimes.host)}
        kept = self._ledger.find("slower", key)
        if kept is None:
            try:
                why = explain_slower_int8(plain.program, int8.program, self.inputs, threads=int8.threads)
            except (BackendError, OSError) as error:
                return f"Which operators are slower cannot be seen: {error}"
            kept = Entry({"why": why})
            self._ledger.keep("slower", key, kept)
        return str(kept.facts["why"])

    @cached_property
    def _validation_digest(self) -> str:
        return digest_tensors(self.validation_cases.tensors)

    @cached_property
    def _calibration_digest(self) -> str:
        return digest_tensors(self.calibration_cases.tensors)

    def _scored(self, run: Run, cases: HeldOut, digest: str, stage: str) -> Scores:
        identity = {name: value for name, value in self.runtimes.identify(run).items() if name != "threads"}
        key = {**identity, "host": dict(self.runtimes.host), "cases": digest, "task": self._recipe.source.task}
        kept = self._ledger.find("scored", key)
        if kept is None:
            self._progress(stage, 0, 1)
            with self.runtimes.open(run) as session:
                kept = Entry(arrays={"scores": _run_cases(session, cases, self._task)})
            self._ledger.keep("scored", key, kept)
            self._progress(stage, 1, 1)
        return _finite(kept.arrays["scores"], cases)  # what are no numbers are kept too, and refused again

    def _measure(self, runs: Sequence[Run]) -> list[Latency]:
        names = [f"{place}: {run.backend}" for place, run in enumerate(runs)]
        with contextlib.ExitStack() as stack:
            found = measure_interleaved(
                {name: stack.enter_context(self.runtimes.open(run)) for name, run in zip(names, runs, strict=True)},
                self.inputs,
                conditions={name: self.runtimes.conditions(run) for name, run in zip(names, runs, strict=True)},
                repetitions=self._recipe.measure.repetitions,
                seed=self._recipe.seed,
                on_step=lambda done, total: self._progress("measuring latency", done, total),
            )
        return [found[name] for name in names]


def run_scores(session: Session, held_out: HeldOut, task: Task) -> Scores:
    """Raw scores [N] of every held-out case. Raises BackendError when one is not a finite number."""
    return _finite(_run_cases(session, held_out, task), held_out)


def _run_cases(session: Session, held_out: HeldOut, task: Task) -> Scores:
    scores = np.concatenate([task.scores(session.run(batch)) for batch in held_out.batches(BATCH)])
    wanted = held_out.target.shape(len(held_out.labels))
    if scores.shape != wanted:
        number = "one number" if len(wanted) == 1 else f"{wanted[1]} numbers, one for each class,"
        raise TensorError(
            f"the task's scores are {list(scores.shape)} for "
            f"{counted(len(held_out.labels), 'cases')}, expected {number} a case"
        )
    return np.asarray(scores, np.float64)


def _finite(scores: Scores, held_out: HeldOut) -> Scores:
    if not np.isfinite(scores).all():
        bad = held_out.ids[int(np.argwhere(~np.isfinite(scores))[0][0])]
        raise BackendError(f"the program gives a score that is not a number, for case {bad} and perhaps more")
    return scores


def timed_inputs(held_out: HeldOut, batch: int) -> list[Tensors]:
    """A few batches of real cases; cases repeat when there are fewer than a batch needs."""
    count = len(held_out.labels)
    picks = [np.arange(index * batch, (index + 1) * batch) % count for index in range(_TIMED_INPUTS)]
    return [{name: np.ascontiguousarray(array[pick]) for name, array in held_out.tensors.items()} for pick in picks]
