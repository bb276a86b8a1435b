"""Tries candidates: scores on held-out cases, latency interleaved with the baseline, and the judge's checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from featherweight.core.arrays import Scores
from featherweight.core.errors import DataError, UsageError
from featherweight.core.evidence.class_predictions import predictions_on
from featherweight.core.evidence.judge import Check, all_passed, judge
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import Comparison
from featherweight.core.evidence.runtime_figures import RuntimeFigures
from featherweight.core.hardware import count_usable_cores
from featherweight.core.measure.energy import cost_per_million, measure_energy
from featherweight.core.measure.performance import Latency, measure_peak_memory, measure_size, measure_throughput
from featherweight.core.model import StepRecord
from featherweight.core.parity.measured import MeasuredParity, measure_parity
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.population import DataStatement, describe_split
from featherweight.core.program import Program
from featherweight.core.progress import Progress, silent
from featherweight.core.recipe import Candidate, Objective, Recipe
from featherweight.core.record.cases import CaseSet, describe_held_out
from featherweight.core.record.splits import without_copies
from featherweight.core.search.candidates import BuildResult
from featherweight.core.search.measurements import Measurements, run_scores
from featherweight.core.search.runtime_table import measure_runtimes
from featherweight.core.search.runtimes import Run
from featherweight.core.statistics.resampling import median_ratio
from featherweight.core.task import (
    HeldOut,
    Probability,
    SealedFiles,
    StatesData,
    StatesOutcomes,
    Task,
    check_held_out,
)
from featherweight.core.thresholds import Outcomes

BASELINE = "fp32 baseline"
FINALISTS = 8
_NEARLY = 1.5
"""A candidate that passed and took up to so many times as long as the fastest (or is worse by this factor, by another
objective) is timed again beside it."""
_SLOWER = 0.95
"""fp32 takes the place of int8 where it needs less than this part of the time."""
_ENERGY_S = 2.0


@dataclass(frozen=True)
class BuiltCandidate:
    """A candidate with its program, or with the reason why it has none."""

    candidate: Candidate
    built: BuildResult | None
    reason: str = ""
    name: str = ""
    """Its short name among those that were tried, where it has no trial that could bear it."""


@dataclass(frozen=True)
class Trial:
    """A candidate on one backend with so many threads, on the validation cases. baseline: timed in the same run, with
    as many threads, on the backend where it is fastest; sealed: what the app calibrated on the candidate's scores;
    slower_int8: why fp32 is faster here, for the int8 program that is."""

    made: BuiltCandidate
    run: Run
    baseline: Measured
    measured: Measured
    checks: tuple[Check, ...]
    sealed: SealedFiles
    slower_int8: str = ""
    final: bool = False
    """Timed once more, together with others: its time compares with theirs, and not with one of another run."""

    def named(self, name: str) -> Trial:
        """The same under its short name; the description stays."""
        return replace(self, measured=replace(self.measured, name=name))

    @property
    def p50_ms(self) -> float:
        """The median latency."""
        return _p50_ms(self.measured.latency)

    @property
    def in_its_place(self) -> bool:
        """The fp32 program of an int8 candidate."""
        return self.made.built is not None and self.run.program is self.made.built.plain

    @property
    def records(self) -> tuple[StepRecord, ...]:
        """What was done to make its program, and nothing that was given up."""
        made = () if self.made.built is None else self.made.built.records
        return tuple(one for one in made if not (self.in_its_place and one.name == QuantizeStep.kind))

    @property
    def unchanged(self) -> bool:
        """Its program is the baseline itself."""
        return all(one.name == "export" for one in self.records)

    @property
    def size_bytes(self) -> float:
        """As shipped."""
        return float("inf") if self.measured.size is None else self.measured.size.compressed_bytes

    def cost(self, objective: Objective) -> float:
        """The less, the better by the recipe's objective."""
        return objective.cost(self.p50_ms, self.size_bytes)

    def shown_worse_than(self, other: Trial, objective: Objective, seed: int) -> bool:
        """By the objective, and by more than the noise of both times: with the end of the 95% interval of the ratio of
        their medians that is best for this one."""
        mine, theirs = self.measured.latency, other.measured.latency
        if not objective.speed:
            return self.cost(objective) > other.cost(objective)
        if mine is None or theirs is None:
            return mine is None and theirs is not None
        at_best = median_ratio(theirs.samples_ms, mine.samples_ms, seed=seed).high
        return objective.cost(1.0, self.size_bytes) > objective.cost(at_best, other.size_bytes)

    @property
    def good_enough(self) -> bool:
        """It kept all limits but those on speed and size."""
        return all_passed([check for check in self.checks if check.metric.reads != "running"])


def _is_slower(int8: Latency, plain: Latency, seed: int) -> bool:
    """Shown, and by more than a smaller file is worth."""
    return median_ratio(plain.samples_ms, int8.samples_ms, seed=seed).high < _SLOWER


def _p50_ms(latency: Latency | None) -> float:
    return float("inf") if latency is None else float(np.median(latency.samples_ms))


@dataclass(frozen=True)
class _Sealed:
    """What turns scores into probabilities and outcomes."""

    probability: Probability | None
    outcomes: Outcomes | None

    @classmethod
    def of(cls, files: SealedFiles) -> _Sealed:
        return cls(files.probability, files.outcomes)


@dataclass(frozen=True)
class Evaluator:
    """Where all trials of one recipe are made."""

    recipe: Recipe
    task: Task
    measurements: Measurements
    baseline_program: Program
    progress: Progress = silent

    @cached_property
    def baselines(self) -> dict[int, Run]:
        """Number of threads -> the baseline on its fastest backend. Raises UsageError when no backend opens it."""
        runs = [Run(self.baseline_program, one, count) for count in self._threads for one in self._plain_backends]
        medians = {run: _p50_ms(latency) for run, latency in zip(runs, self.measurements.latencies(runs), strict=True)}
        return {
            count: min((run for run in runs if run.threads == count), key=medians.__getitem__)
            for count in self._threads
        }

    @cached_property
    def statement(self) -> DataStatement:
        """What the task says of its model and its data. Raises UsageError where that is something else."""
        if not isinstance(self.task, StatesData):
            return DataStatement()
        found: object = self.task.data_statement()
        if not isinstance(found, DataStatement):
            raise UsageError(
                f"the task's data_statement() returns {found!r}, expected a DataStatement of "
                "featherweight.core.population"
            )
        return found

    def check_baseline(self) -> None:
        """Time and score it now: without it nothing can be judged, and making a candidate may take hours.

        Raises UsageError when no backend opens it or what the task states is not a DataStatement, BackendError when one
        fails or a score is not a number.
        """
        _ = self.baselines, self._before, self.statement

    def try_one(self, made: BuiltCandidate) -> list[Trial]:
        """A trial on every backend that opens the program, with every number of threads; none where no backend does.

        Where int8 is shown to be slower than the same in fp32, that one has a trial of its own beside it.
        """
        if made.built is None:
            return []
        program, plain, supporting = made.built.program, made.built.plain, self.measurements.runtimes.supporting
        runs = [Run(program, backend, count) for count in self._threads for backend in supporting(program)]
        beside: dict[Run, Run] = {}
        if plain is not None and runs:
            beside = {run: replace(run, program=plain) for run in runs if run.backend in supporting(plain)}
        timed = self._time([*runs, *beside.values()])
        trials: list[Trial] = []
        for run in runs:
            trial = self._trial(made, run, timed)
            sibling = beside.get(run)
            if sibling is not None and _is_slower(timed[run], timed[sibling], self.recipe.seed):
                trial = replace(trial, slower_int8=self._why_slower(run, sibling, timed))
                trials.append(self._trial(made, sibling, timed))
            trials.append(trial)
        return trials

    def finals(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that passed and were nearly the best by the objective are timed again, now in one run: that decides
        among them. Where they are many, those come first that no other beats in both that and size."""
        goal = self.recipe.objective
        passed = sorted((one for one in trials if all_passed(one.checks)), key=lambda one: (one.cost(goal), one.p50_ms))
        nearly = [trial for trial in passed if trial.cost(goal) <= math.log(_NEARLY) + passed[0].cost(goal)]
        least = [min((one.size_bytes for one in nearly[:place]), default=float("inf")) for place in range(len(nearly))]
        order = sorted(range(len(nearly)), key=lambda place: (nearly[place].size_bytes >= least[place], place))
        finalists = [nearly[place] for place in sorted(order[:FINALISTS])]
        if len(finalists) < 2:
            return list(trials)
        timed = self._time([trial.run for trial in finalists])
        again = {trial.measured.name: replace(self._judged(trial, timed), final=True) for trial in finalists}
        return [again.get(trial.measured.name, trial) for trial in trials]

    def measure_parity(self, trial: Trial) -> MeasuredParity:
        """Whether its program decides the same however it is run."""
        runtimes, predictions = self.measurements.runtimes, trial.measured.predictions
        return measure_parity(
            self.task,
            self.measurements.validation_cases,
            trial.run.program,
            trial.run.backend,
            scores=predictions.scores,
            threshold=predictions.threshold,
            further_thresholds=predictions.all_outcomes.thresholds,
            backends={name: runtimes.backends[name] for name in runtimes.supporting(trial.run.program)},
            seed=self.recipe.seed,
            progress=self.progress,
        )

    def report(
        self, trial: Trial, on_record: CaseSet | None = None
    ) -> tuple[Trial, Comparison, tuple[RuntimeFigures, ...]]:
        """Both programs on the test cases, which run here and nowhere else; what running them takes; and the chosen one
        by every runtime of this host. on_record: what the record of uses says that these cases are; raises DataError
        for others."""
        self.progress("running the test cases", 0, 2)
        run = self.baselines[trial.run.threads]
        trial = replace(
            trial,
            baseline=self._add_costs(trial.baseline, run),
            measured=self._add_costs(trial.measured, trial.run),
        )
        whole = self.task.test_cases()
        check_held_out(whole, self.task.baseline.inputs, "test")
        if on_record is not None and describe_held_out(whole).sha256 != on_record.sha256:
            raise DataError(
                "the test cases are not those that were read before the search and are on record: the data was changed "
                "in between, or the task does not give the same cases twice; start again"
            )
        cases, places = without_copies(whole, self.task)
        before = self._on(cases, trial.baseline, run, self._baseline_files)
        self.progress("running the test cases", 1, 2)
        after = self._on(cases, trial.measured, trial.run, _Sealed.of(trial.sealed))
        self.progress("running the test cases", 2, 2)
        kept = None if cases is whole else tuple(places.tolist())
        population = describe_split(cases.labels, cases.clusters, cases.groups, cases.tensors, cases.target.names)
        test = Comparison("test", before, after, self._checks(before, after), population=population, places=kept)
        program, on, probability = trial.run.program, trial.run.backend, trial.sealed.probability
        limits, seed = self.recipe.limits, self.recipe.seed
        return trial, test, measure_runtimes(self.task, cases, test, program, on, probability, limits, seed=seed)

    def keeps_limits(self, trial: Trial, sealed: Predictions) -> bool:
        """Whether a trial keeps the limits with another's thresholds: an artifact has one set, whatever runs it."""
        predictions = trial.measured.predictions.sealed_with(sealed)
        return all_passed(self._checks(trial.baseline, replace(trial.measured, predictions=predictions)))

    def _checks(self, before: Measured, after: Measured) -> tuple[Check, ...]:
        return judge(before, after, self.recipe.limits, seed=self.recipe.seed)

    @property
    def _threads(self) -> tuple[int, ...]:
        return self.measurements.runtimes.threads

    @cached_property
    def _plain_backends(self) -> tuple[str, ...]:
        runtimes = self.measurements.runtimes
        found = runtimes.supporting(self.baseline_program)
        if not found:
            raise UsageError(f"measure.backends: none of {', '.join(runtimes.backends)} opens the baseline")
        return found

    @property
    def _baseline_files(self) -> _Sealed:
        task = self.task
        return _Sealed(task.baseline_probability, task.baseline_outcomes if isinstance(task, StatesOutcomes) else None)

    @cached_property
    def _before(self) -> Measured:
        """The baseline, not timed. Its scores come from one backend for all comparisons."""
        scores = self.measurements.validation_scores(Run(self.baseline_program, self._plain_backends[0], 1))
        cases = self.measurements.validation_cases
        predictions = _predictions(cases, scores, self.task.positive_threshold, self._baseline_files)
        size, digest = measure_size(self.baseline_program), self.baseline_program.sha256
        return Measured(BASELINE, predictions, size=size, program_sha256=digest)

    def _time(self, runs: Sequence[Run]) -> dict[Run, Latency]:
        """Interleaved with the baselines of all numbers of threads."""
        every = [*self.baselines.values(), *runs]
        return dict(zip(every, self.measurements.latencies(every), strict=True))

    def _trial(self, made: BuiltCandidate, run: Run, timed: Mapping[Run, Latency]) -> Trial:
        scores = self.measurements.validation_scores(run)
        sealed, threshold = self._seal(run)
        predictions = _predictions(self.measurements.validation_cases, scores, threshold, _Sealed.of(sealed))
        name, size = self._describe(made, run), measure_size(run.program)
        measured = Measured(name, predictions, size=size, description=name, program_sha256=run.program.sha256)
        return self._judged(Trial(made, run, self._before, measured, (), sealed), timed)

    def _judged(self, trial: Trial, timed: Mapping[Run, Latency]) -> Trial:
        baseline = replace(trial.baseline, latency=timed[self.baselines[trial.run.threads]])
        measured = replace(trial.measured, latency=timed[trial.run])
        return replace(trial, baseline=baseline, measured=measured, checks=self._checks(baseline, measured))

    def _describe(self, made: BuiltCandidate, run: Run) -> str:
        others = [f"{run.threads} thread{'s' * (run.threads > 1)}"] if len(self._threads) > 1 else []
        candidate = made.candidate
        if made.built is not None and run.program is made.built.plain:  # what was given up is in no name
            candidate = Candidate(tuple(step for step in candidate.steps if not isinstance(step, QuantizeStep)))
        return f"{candidate.name} on {run.backend}" + (f" ({', '.join(others)})" if others else "")

    def _seal(self, run: Run) -> tuple[SealedFiles, float]:
        if not self.recipe.decision.recalibrate:
            return self.task.seal_unchanged(), self.task.positive_threshold
        scores = self.measurements.calibration_scores(run)
        return self.task.seal(scores, self.measurements.calibration_cases.labels)

    def _why_slower(self, run: Run, sibling: Run, timed: Mapping[Run, Latency]) -> str:
        said = f"int8 takes {_p50_ms(timed[run]):.3g} ms on {run.backend}, fp32 {_p50_ms(timed[sibling]):.3g} ms"
        return f"{said}. {self.measurements.why_slower(sibling, run)}".rstrip()

    def _add_costs(self, measured: Measured, run: Run) -> Measured:
        """Throughput, memory, energy and price: worth their time for the baseline and the chosen candidate only."""
        runtimes, inputs, measure = self.measurements.runtimes, self.measurements.inputs, self.recipe.measure
        conditions = runtimes.conditions(run)
        with runtimes.open(run) as session:
            throughput = measure_throughput(session, inputs, conditions=conditions, seconds=1.0)
            energy = measure_energy(
                session,
                inputs,
                conditions=conditions,
                watts_per_core=measure.watts_per_core,
                watts_range=measure.watts_per_core_range,
                seconds=_ENERGY_S,
            )
        memory = measure_peak_memory(run.program, runtimes.backends[run.backend], conditions=conditions)
        price = measure.price_per_hour
        cost = None if price is None else cost_per_million(throughput, price, cores=count_usable_cores())
        return replace(measured, throughput=throughput, memory=memory, energy=energy, cost_per_million=cost)

    def _on(self, cases: HeldOut, measured: Measured, run: Run, sealed: _Sealed) -> Measured:
        with self.measurements.runtimes.open(run) as session:
            scores = run_scores(session, cases, self.task)
        return replace(measured, predictions=_predictions(cases, scores, measured.predictions.threshold, sealed))


def _predictions(cases: HeldOut, scores: Scores, threshold: float, sealed: _Sealed) -> Predictions:
    return predictions_on(cases, scores, threshold, sealed.probability, sealed.outcomes)
