"""Runs a search: one candidate after another is built and tried, while candidates and the budget last."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from featherweight.core.causes import describe_cause
from featherweight.core.errors import BackendError, FeatherweightError, MissingExtraError, OutputError, UsageError
from featherweight.core.evidence.report import Search
from featherweight.core.files import write_errors
from featherweight.core.passes.steps import QuantizeStep, RecoverStep
from featherweight.core.program import Precision
from featherweight.core.progress import Progress
from featherweight.core.recipe import Candidate, Recipe, candidates
from featherweight.core.search.candidates import BuildResult, CandidateBuilder
from featherweight.core.search.ledger import Entry
from featherweight.core.search.records import SearchResult, make_records, write_candidates
from featherweight.core.search.strategy import Cost, next_listed, next_promising
from featherweight.core.search.trial import BuiltCandidate, Evaluator, Trial

_NO_COST = Cost(float("inf"), float("inf"))
"""Cost of a candidate that cannot be built: it comes last, and then says why."""
UNFORESEEN = "unforeseen.log"
"""Beside the table of candidates: the tracebacks of unforeseen errors."""
_TOLD = 10
"""Candidates that a refusal names."""


def explore(
    recipe: Recipe, workshop: CandidateBuilder, bench: Evaluator, budget_s: float | None, progress: Progress
) -> SearchResult:
    """budget_s: of this run; what earlier runs finished costs nothing. At least one candidate is tried.

    Raises UsageError or DataError for a model or training batches that the recipe's steps cannot treat, and for the
    baseline what `Bench.check_baseline` raises, before any candidate is made; the candidates' errors when not one could
    be made and run, UsageError when no backend runs any of them.
    """
    found = _Exploration(recipe, workshop, bench, budget_s, progress)
    found.check_beginnings()
    bench.check_baseline()
    found.run()
    search = Search(
        budget_s=budget_s,
        elapsed_s=found.elapsed_s,
        tried=len(found.made),
        kept=found.kept,
        skipped=tuple((one.name, "the budget was spent before it") for one in found.listed if one not in found.tried),
        stopped=found.stopped,
    )
    tried = SearchResult(found.made, found.trials, search)
    if not found.trials:
        write_candidates(workshop.work, make_records(recipe, tried, None))
        raise _all_failed(found.failures) if found.failures else _nothing_runs(recipe, bench)
    return tried


@dataclass
class _Exploration:
    recipe: Recipe
    workshop: CandidateBuilder
    bench: Evaluator
    budget_s: float | None
    progress: Progress
    made: list[BuiltCandidate] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    tried: dict[Candidate, bool | None] = field(default_factory=dict)
    failures: dict[str, FeatherweightError] = field(default_factory=dict)
    """By the candidate's name."""
    kept: int = 0
    stopped: str = ""

    def __post_init__(self) -> None:
        self.listed = candidates(self.recipe)
        self._start, self._longest_s = time.monotonic(), 0.0
        self._costs: dict[Candidate, Cost] = {}
        self._named = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def run(self) -> None:
        while (candidate := self._next()) is not None:
            began, written = self.elapsed_s, self.workshop.ledger.written
            if self.tried and self.budget_s is not None and began + self._longest_s > self.budget_s:
                self.stopped = _spent(began, self._longest_s, self.budget_s)
                return
            self._tell(candidate.name)
            trials = self._try(candidate)
            if self.workshop.ledger.written > written:
                self._longest_s = max(self._longest_s, self.elapsed_s - began)
            elif trials:
                self.kept += 1
        self._tell("nothing is left to try")

    def check_beginnings(self) -> None:
        """Raise now what all candidates would raise: before the baseline is timed, and anything is trained."""
        if any(isinstance(choices.step, RecoverStep) for choices in self.recipe.steps):
            self.workshop.check_lessons()
        refused: dict[str, FeatherweightError] = {}
        for candidate in self.listed:
            try:
                self.workshop.begin(candidate)
            except UsageError as error:
                refused[candidate.name] = error
            except Exception:  # noqa: BLE001  (reported when the candidate's turn has come)
                return
            else:
                return
        raise _all_failed(refused)

    def _next(self) -> Candidate | None:
        if self.budget_s is None:
            return next_listed(self.listed, self.tried)
        return next_promising(self.recipe, self.listed, self.tried, self._cost)

    def _cost(self, candidate: Candidate) -> Cost:
        if candidate not in self._costs:
            try:
                known = self._failure(candidate)
                self._costs[candidate] = _NO_COST if known else self.workshop.cost(candidate)
            except OutputError:
                raise
            except Exception:  # noqa: BLE001  (reported when the candidate's turn has come)
                self._costs[candidate] = _NO_COST
        return self._costs[candidate]

    def _try(self, candidate: Candidate) -> list[Trial]:
        """One that cannot be made, or whose program fails, is in `made` with the reason, and the search goes on:
        whatever a library or the task's code raises. What stops the process (an interruption) stops the search, and so
        does what could not be kept."""
        try:
            one = self._make(candidate)
            trials = self.bench.try_one(one)
        except OutputError:
            raise
        except Exception as error:  # noqa: BLE001
            self.failures[candidate.name] = told = self._told(candidate, error)
            one, trials = BuiltCandidate(candidate, None, str(told)), []
        known = {trial.run for trial in self.trials}  # candidates that differ in the quantization share their fp32
        trials = [trial for trial in trials if not (trial.in_its_place and trial.run in known)]
        named = [f"c{self._named + number}" for number in range(1, max(1, len(trials)) + 1)]
        self._named += len(named)
        trials = [trial.named(name) for trial, name in zip(trials, named, strict=False)]
        self.made.append(one if trials else replace(one, name=named[0]))
        self.trials += trials
        self.tried[candidate] = any(trial.good_enough for trial in trials) if trials else None
        return trials

    def _told(self, candidate: Candidate, error: Exception) -> FeatherweightError:
        match error:
            case FeatherweightError():
                return error
            case MemoryError():
                return BackendError(f"{candidate.name} needs more memory than this host has free: {error}")
        path = self.workshop.work / UNFORESEEN
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{candidate.name}\n{''.join(traceback.format_exception(error))}\n")
        return FeatherweightError(f"an unforeseen error: {describe_cause(error)}; its traceback is in {path.name}")

    def _make(self, candidate: Candidate) -> BuiltCandidate:
        runtimes, precision = self.bench.measurements.runtimes, _precision(candidate)
        trains = any(isinstance(one, RecoverStep) for one in candidate.steps)
        if trains and not runtimes.run_precision(self.workshop.kind, precision):
            return BuiltCandidate(candidate, None, f"no backend of the recipe runs {precision} here")
        return BuiltCandidate(candidate, self._build(candidate))

    def _build(self, candidate: Candidate) -> BuildResult:
        """A step that cannot treat the model never will: that is kept too, and told again without another attempt.
        What the data, the disk or the memory refused, they may grant the next time."""
        known = self._failure(candidate)
        if known:
            self.kept += 1
            raise UsageError(known)
        try:
            return self.workshop.build(candidate)
        except MissingExtraError:
            raise
        except UsageError as error:
            if not _wants_memory(error):
                self.workshop.ledger.keep("failed", self._key(candidate), Entry({"reason": str(error)}))
            raise

    def _failure(self, candidate: Candidate) -> str:
        """Why it could not be made in an earlier run, or ''."""
        kept = self.workshop.ledger.find("failed", self._key(candidate))
        return "" if kept is None else str(kept.facts["reason"])

    def _key(self, candidate: Candidate) -> Mapping[str, object]:
        return self.workshop.ledger_key(candidate.steps)

    def _tell(self, doing: str) -> None:
        if self.budget_s is None:
            self.progress(f"search: {doing}", len(self.tried), len(self.listed))
            return
        spent = min(self.elapsed_s, self.budget_s)
        left = f"{describe_time(self.budget_s - spent)} of the budget left"
        self.progress(f"search: {len(self.tried)} tried, {left}: {doing}", int(spent), max(int(self.budget_s), 1))


def _wants_memory(error: UsageError) -> bool:
    """torch says in words alone that there is no more memory, and the passes pass its words on."""
    return isinstance(error.__cause__, RuntimeError) and "memory" in str(error).lower()


def _precision(candidate: Candidate) -> Precision:
    return next((step.program_precision for step in candidate.steps if isinstance(step, QuantizeStep)), "fp32")


def _all_failed(failures: Mapping[str, FeatherweightError]) -> FeatherweightError:
    """The one error of all, or one that names them."""
    different = {str(error): error for error in failures.values()}
    if len(different) == 1:
        return next(iter(different.values()))
    lines = [f"  {name}: {error}" for name, error in list(failures.items())[:_TOLD]]
    lines += [f"  and {len(failures) - _TOLD} more"] if len(failures) > _TOLD else []
    text = "\n".join(["none of the recipe's candidates can be made and run", *lines])
    asked_wrongly = all(error.exit_code == UsageError.exit_code for error in failures.values())
    return UsageError(text) if asked_wrongly else BackendError(text)


def _nothing_runs(recipe: Recipe, bench: Evaluator) -> UsageError:
    wanted = ", ".join(sorted({_precision(candidate) for candidate in candidates(recipe)}))
    return UsageError(
        f"measure.backends: none of {', '.join(bench.measurements.runtimes.backends)} runs {wanted} programs here; "
        "name another backend or precision (`featherweight hardware` shows what this host runs)"
    )


def _spent(elapsed_s: float, longest_s: float, budget_s: float) -> str:
    if elapsed_s >= budget_s:
        return f"the budget of {describe_time(budget_s)} was spent"
    left = f"{describe_time(budget_s - elapsed_s)} of the budget of {describe_time(budget_s)} were left"
    return f"{left}, and a candidate took up to {describe_time(longest_s)}"


def describe_time(seconds: float) -> str:
    """90.4 -> '1m 30s', 3700 -> '1h 1m'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number]
    return " ".join(parts[:2]) or "0s"
