"""Runs baseline and candidates: scores on held-out cases, latency with all of them interleaved in one run, checks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from core.backends.base import Backend, Session
from core.backends.registry import find_backend
from core.candidates import Built, Progress, silent
from core.errors import BackendError, BackendUnavailableError, UsageError
from core.evidence.judge import Check, all_passed, judge
from core.evidence.measured import Measured, Predictions
from core.evidence.report import Comparison
from core.hardware import read_hardware
from core.measure import (
    Conditions,
    Latency,
    measure_interleaved,
    measure_peak_memory,
    measure_size,
    measure_throughput,
)
from core.program import Kind, Precision, Program
from core.recipe import Candidate, Measure, Recipe
from core.task import HeldOut, Probability, Sealed, Task
from core.tensors import Tensors

Scores = npt.NDArray[np.float64]
BASELINE = "fp32 baseline"
BATCH = 16
_TIMED_INPUTS = 8


@dataclass(frozen=True)
class Runtimes:
    """The backends that a recipe names, that this host has and that run the model's kind; the conditions of every
    measurement, and what is missing."""

    backends: Mapping[str, Backend]
    missing: Mapping[str, str]
    """name -> reason"""
    threads: int
    host: Mapping[str, str]

    def conditions(self, backend: str, precision: Precision) -> Conditions:
        return Conditions(backend, precision, self.threads, host=self.host)

    def supporting(self, program: Program) -> tuple[str, ...]:
        """Those that open it: a backend may say of a program that it is not for it (too large a network, say)."""
        return tuple(name for name in self.backends if self._opens(name, program))

    def _opens(self, name: str, program: Program) -> bool:
        if not self.backends[name].probe().runs(program.kind, program.precision):
            return False
        try:
            self.open(name, program).close()
        except BackendUnavailableError:
            return False
        return True

    def open(self, backend: str, program: Program) -> Session:
        return self.backends[backend].open(program, threads=self.threads)


def find_runtimes(measure: Measure, kind: Kind, threads: int | None = None) -> Runtimes:
    """Raises UsageError for a backend that nobody knows, BackendUnavailableError when none of them runs models of this
    kind here."""
    found = {name: find_backend(name) for name in measure.backends}
    answers = {name: backend.probe() for name, backend in found.items()}
    missing = {name: answer.reason for name, answer in answers.items() if not answer.available}
    missing |= {
        name: f"it runs no {kind}" for name, answer in answers.items() if answer.available and kind not in answer.kinds
    }
    backends = {name: backend for name, backend in found.items() if name not in missing}
    if not any(answers[name].runs(kind, "fp32") for name in backends):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items()) or "none of them runs fp32"
        raise BackendUnavailableError(f"no backend of the recipe can run the baseline here ({reasons})")
    hardware = read_hardware()
    host = {
        "cpu": hardware.cpu,
        "architecture": hardware.architecture,
        "usable cores": str(hardware.cores_usable),
        "memory": f"{hardware.memory_bytes / 2**30:.1f} GiB",
        "instruction sets": " ".join(hardware.instruction_sets),
    }
    return Runtimes(backends, missing, threads or measure.threads[0], host)


def run_scores(session: Session, held_out: HeldOut, task: Task) -> Scores:
    """Raw scores [N] of every held-out case. Raises BackendError when one is not a finite number."""
    parts = [task.scores(session.run(batch)) for batch in held_out.batches(BATCH)]
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all():
        bad = held_out.ids[int(np.flatnonzero(~np.isfinite(scores))[0])]
        raise BackendError(f"the program gives a score that is not a number, for case {bad} and perhaps more")
    return scores


@dataclass(frozen=True)
class Made:
    """A candidate with its program, or with the reason why it has none."""

    candidate: Candidate
    built: Built | None
    reason: str = ""


@dataclass(frozen=True)
class Trial:
    """A candidate on one backend, on the validation cases. sealed: what the app calibrated on its scores."""

    made: Made
    backend: str
    program: Program
    measured: Measured
    checks: tuple[Check, ...]
    sealed: Sealed

    @property
    def p50_ms(self) -> float:
        return p50_ms(self.measured)


def p50_ms(measured: Measured) -> float:
    return float("inf") if measured.latency is None else float(np.median(measured.latency.samples_ms))


@dataclass(frozen=True)
class Bench:
    """What all trials of one recipe share. held_out are the validation cases, calibrating what `seal` is fitted on."""

    recipe: Recipe
    task: Task
    held_out: HeldOut
    calibrating: HeldOut
    baseline_program: Program
    runtimes: Runtimes
    progress: Progress = silent

    def try_all(self, made: Sequence[Made]) -> tuple[Measured, list[Trial]]:
        """The baseline, timed on its fastest backend, and every candidate on every backend that runs its precision.

        Raises UsageError when no backend runs any of them.
        """
        pairs = self._pairs(made)
        plain = self.runtimes.supporting(self.baseline_program)
        if not plain:
            raise UsageError(f"measure.backends: none of {', '.join(self.runtimes.backends)} opens the baseline")
        programs = {(BASELINE, backend): self.baseline_program for backend in plain}
        programs |= {(one.candidate.name, backend): program for one, program, backend in pairs}
        scores = self._score_all(programs, plain[0])
        latencies = self._measure_all(programs)
        fastest = min((latencies[BASELINE, backend] for backend in plain), key=lambda one: np.median(one.samples_ms))
        before = self._predictions(
            scores[BASELINE, plain[0]], self.task.positive_threshold, self.task.baseline_probability
        )
        baseline = Measured(BASELINE, before, fastest, size=measure_size(self.baseline_program))
        trials = []
        for one, program, backend in pairs:
            found = scores[one.candidate.name, backend]
            sealed, threshold = self._seal(backend, program)
            measured = Measured(
                f"{one.candidate.name} on {backend}",
                self._predictions(found, threshold, sealed.probability),
                latencies[one.candidate.name, backend],
                size=measure_size(program),
            )
            checks = judge(baseline, measured, self.recipe.limits)
            trials.append(Trial(one, backend, program, measured, checks, sealed))
        return baseline, trials

    def report(self, baseline: Measured, trial: Trial) -> tuple[Measured, Trial, Comparison]:
        """Both programs on the test cases, which run here and nowhere else; and their throughput and memory."""
        inputs = timed_inputs(self.held_out, self.recipe.measure.batch)
        if baseline.latency is None:
            at = self.runtimes.supporting(self.baseline_program)[
                0
            ]  # opens the program on each backend: not for nothing
        else:
            at = baseline.latency.conditions.backend
        self.progress("running the test cases", 0, 2)
        baseline = add_costs(baseline, self.baseline_program, at, self.runtimes, inputs)
        trial = replace(trial, measured=add_costs(trial.measured, trial.program, trial.backend, self.runtimes, inputs))
        cases = self.task.reporting()
        before = self._on(cases, baseline, self.baseline_program, at, self.task.baseline_probability)
        self.progress("running the test cases", 1, 2)
        after = self._on(cases, trial.measured, trial.program, trial.backend, trial.sealed.probability)
        self.progress("running the test cases", 2, 2)
        return baseline, trial, Comparison("test", before, after, judge(before, after, self.recipe.limits))

    def keeps_limits(self, baseline: Measured, other: Trial, threshold: float) -> bool:
        """Whether a trial keeps the limits with another's threshold: an artifact has one, whatever runs it."""
        predictions = replace(other.measured.predictions, threshold=threshold)
        return all_passed(judge(baseline, replace(other.measured, predictions=predictions), self.recipe.limits))

    def _pairs(self, made: Sequence[Made]) -> list[tuple[Made, Program, str]]:
        built = [(one, one.built.program) for one in made if one.built is not None]
        pairs = [(one, program, backend) for one, program in built for backend in self.runtimes.supporting(program)]
        if not pairs:
            wanted = ", ".join(sorted({program.precision for _, program in built}))
            raise UsageError(
                f"measure.backends: none of {', '.join(self.runtimes.backends)} runs {wanted} programs here; name "
                "another backend or precision (`featherweight hardware` tells what this host runs)"
            )
        return pairs

    def _score_all(self, programs: Mapping[tuple[str, str], Program], reference: str) -> dict[tuple[str, str], Scores]:
        """The baseline's scores come from one backend, `reference`, for all comparisons."""
        scores = {}
        for index, ((name, backend), program) in enumerate(programs.items()):
            self.progress("scoring the validation cases", index, len(programs))
            if name != BASELINE or backend == reference:
                with self.runtimes.open(backend, program) as session:
                    scores[name, backend] = run_scores(session, self.held_out, self.task)
        self.progress("scoring the validation cases", len(programs), len(programs))
        return scores

    def _seal(self, backend: str, program: Program) -> tuple[Sealed, float]:
        self.progress(f"calibrating on {backend}", 0, 1)
        with self.runtimes.open(backend, program) as session:
            scores = run_scores(session, self.calibrating, self.task)
        self.progress(f"calibrating on {backend}", 1, 1)
        return self.task.seal(scores, self.calibrating.labels)

    def _measure_all(self, programs: Mapping[tuple[str, str], Program]) -> dict[tuple[str, str], Latency]:
        with contextlib.ExitStack() as stack:
            sessions, conditions = {}, {}
            for (name, backend), program in programs.items():
                key = f"{backend}: {name}"
                sessions[key] = stack.enter_context(self.runtimes.open(backend, program))
                conditions[key] = self.runtimes.conditions(backend, program.precision)
            found = measure_interleaved(
                sessions,
                timed_inputs(self.held_out, self.recipe.measure.batch),
                conditions=conditions,
                repetitions=self.recipe.measure.repetitions,
                seed=self.recipe.seed,
                on_step=lambda done, total: self.progress("measuring latency", done, total),
            )
        return {(name, backend): found[f"{backend}: {name}"] for name, backend in programs}

    def _predictions(self, scores: Scores, threshold: float, probability: Probability | None) -> Predictions:
        return _predictions(self.held_out, scores, threshold, probability)

    def _on(
        self, cases: HeldOut, measured: Measured, program: Program, backend: str, probability: Probability | None
    ) -> Measured:
        with self.runtimes.open(backend, program) as session:
            scores = run_scores(session, cases, self.task)
        return replace(measured, predictions=_predictions(cases, scores, measured.predictions.threshold, probability))


def _predictions(cases: HeldOut, scores: Scores, threshold: float, probability: Probability | None) -> Predictions:
    probabilities = None if probability is None else probability(scores)
    return Predictions(
        cases.ids, cases.labels, scores, threshold, probabilities, cases.groups, cases.clusters, cases.alerts
    )


def add_costs(
    measured: Measured, program: Program, backend: str, runtimes: Runtimes, inputs: Sequence[Tensors]
) -> Measured:
    """Throughput and peak memory, which are worth their time for the baseline and the chosen candidate only."""
    conditions = runtimes.conditions(backend, program.precision)
    with runtimes.open(backend, program) as session:
        throughput = measure_throughput(session, inputs, conditions=conditions, seconds=1.0)
    memory = measure_peak_memory(program, runtimes.backends[backend], conditions=conditions)
    return replace(measured, throughput=throughput, memory=memory)


def timed_inputs(held_out: HeldOut, batch: int) -> list[Tensors]:
    """A few batches of real cases; cases repeat when there are fewer than a batch needs."""
    count = len(held_out.labels)
    picks = [np.arange(index * batch, (index + 1) * batch) % count for index in range(_TIMED_INPUTS)]
    return [{name: np.ascontiguousarray(array[pick]) for name, array in held_out.tensors.items()} for pick in picks]
