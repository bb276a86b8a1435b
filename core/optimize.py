"""The one place where passes are chained and candidates compared: recipe and task in, artifact out.

Every candidate is built, scored on the validation cases, timed interleaved with the unpruned fp32 baseline and judged.
Those that pass and are nearly the fastest are timed once more, together; the fastest of them is chosen. Only then are
the test cases run, once, for the chosen one alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from featherweight.core.artifact.write import check_out
from featherweight.core.errors import BackendError, FeatherweightError, LimitError, OutputError, TensorError
from featherweight.core.evidence.judge import Check, all_passed
from featherweight.core.evidence.metrics import PARITY
from featherweight.core.evidence.report import CandidateRecord, Evidence
from featherweight.core.evidence.reports.changed_cases import write_cases
from featherweight.core.files import writing_alone
from featherweight.core.looking import Look, LookRequest, Looks, prepare_looks, withheld_limits
from featherweight.core.networks import check_trainable
from featherweight.core.outcome import Outcome
from featherweight.core.parity.measured import MeasuredParity
from featherweight.core.passes.quantize import check_not_quantized
from featherweight.core.passes.steps import (
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
)
from featherweight.core.progress import Progress, silent
from featherweight.core.recipe import FASTEST, Objective, Recipe, read_card
from featherweight.core.record.uses import FILE, begins_here
from featherweight.core.sealing import make_contents, make_evidence, missed_limits, seal, write_evidence
from featherweight.core.search.candidates import CandidateBuilder
from featherweight.core.search.explore import explore
from featherweight.core.search.measurements import Measurements
from featherweight.core.search.records import SearchResult, write_candidates
from featherweight.core.search.runtimes import Runtimes, find_runtimes
from featherweight.core.search.trial import Evaluator, Trial
from featherweight.core.task import Task

__all__ = ["Outcome", "optimize"]


_FAILURES = (BackendError, TensorError, MemoryError)
"""Failures of one program's run: others may succeed. Faults of the data or the disk concern all."""
_WORTH_A_THREAD = 1.1
"""So much faster is what more threads must make a program; a tree on two threads is as fast as on one."""


def optimize(
    recipe: Recipe,
    task: Task,
    out: Path,
    *,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress = silent,
    work: Path | None = None,
    looking: LookRequest | None = None,
) -> Outcome:
    """`core.request.run_recipe` for a recipe and a task at hand; work: where finished work is kept. looking: at the
    test cases; without it their uses are written down beside `work`."""
    check_out(out)
    card = read_card(recipe.card)
    _check_steps(recipe, task)
    runtimes = find_runtimes(recipe.measure, task.baseline.kind, threads)
    work = work or Path("runs") / recipe.name / "work"
    with writing_alone(out), writing_alone(work, "another name for the recipe, or run it from another folder"):
        asked = looking or LookRequest(Path(recipe.cases.record) if recipe.cases.record else work.parent / FILE)
        asked = replace(asked, anyway=anyway or force)
        return _optimize(recipe, task, out, card, runtimes, force, budget_s, progress, work, asked)


def _optimize(
    recipe: Recipe,
    task: Task,
    out: Path,
    card: str,
    runtimes: Runtimes,
    force: bool,
    budget_s: float | None,
    progress: Progress,
    work: Path,
    looking: LookRequest,
) -> Outcome:
    workshop = CandidateBuilder(task, recipe, work, progress)
    measurements = Measurements(recipe, task, runtimes, workshop.ledger, progress)
    looks = prepare_looks(recipe, task, measurements.validation_cases, looking, out.name, work)
    bench = Evaluator(recipe, task, measurements, workshop.baseline(), progress)
    tried = explore(recipe, workshop, bench, budget_s, progress)
    tried, told = _time_finalists(bench, tried)
    tried, best, parity = _choose(bench, tried, force)
    look = None
    if parity is not None:
        tried, best, look = _report(bench, tried, best, looks, force)
    test = None if look is None else look.test
    missed = missed_limits(best, test)
    sealing = parity is not None and test is not None and (force or not missed)
    evidence = make_evidence(bench, tried, best, test, parity, forced=bool(missed) and sealing)
    evidence = looks.add_to(evidence, look, sealing=sealing)
    table = write_candidates(work, evidence.candidates)
    if parity is None or not sealing:
        pages = write_evidence(work, evidence), write_cases(work / "refused", evidence, task)
        raise LimitError(_refusal(evidence, *pages, looking.record, forced=force))
    contents = make_contents(bench, evidence, tried.trials, best, parity, missed, card)
    contents = replace(contents, notes=[*contents.notes, *told])
    artifact = seal(out, contents, best.run.backend)
    page = _write_cases_beside(out, evidence, task)
    # Said here alone: the path is this machine's, and what is sealed travels.
    begun = [begins_here(looking.record)] if look is not None and look.uses.begins else []
    return Outcome(artifact, evidence, best.run.backend, (*contents.notes, *begun), table, page)


def _check_steps(recipe: Recipe, task: Task) -> None:
    """Raise UsageError now for a step that this kind of model does not have, not when a candidate comes to it."""
    for choices in recipe.steps:
        match choices.step:
            case PruneTreesStep():
                task.baseline.ensemble(choices.step.kind)
            case PruneChannelsStep() | PruneWeightsStep() | RecoverStep():
                check_trainable(task.baseline.module(choices.step.kind), choices.step.kind)
            case QuantizeStep():
                check_not_quantized(task.baseline)
            case _:
                assert_never(choices.step)


def _time_finalists(bench: Evaluator, tried: SearchResult) -> tuple[SearchResult, list[str]]:
    """Where they cannot be run once more together (all of them in memory at once, say), the times of their own trials
    decide, and a note says so. Each has run before; the one that is chosen is run again in any case."""
    try:
        return replace(tried, trials=bench.finals(tried.trials)), []
    except _FAILURES as error:
        why = str(error) or type(error).__name__
        return tried, [f"the fastest candidates were not timed again together, so times of several runs decide: {why}"]


def _choose(bench: Evaluator, tried: SearchResult, force: bool) -> tuple[SearchResult, Trial, MeasuredParity | None]:
    """The best of those that miss the fewest limits: of those that miss none, when there are such. One that decides
    otherwise when it is run with other batches or threads, or fails then, has missed a limit too, and the next is
    looked at. The parity is None when all missed some limit and nothing is forced, or when not one could be run, so
    that nothing is chosen."""
    trials, measured = list(tried.trials), dict[int, MeasuredParity | None]()
    while True:
        place = _best(trials, bench.recipe.seed, bench.recipe.objective)
        if not (force or all_passed(trials[place].checks)):
            return replace(tried, trials=trials), trials[place], None
        if place in measured:
            return replace(tried, trials=trials), trials[place], measured[place]
        try:
            measured[place] = parity = bench.measure_parity(trials[place])
            check = parity.check
        except _FAILURES as error:
            measured[place], check = None, _not_run("again with other batches and threads", error)
        if check.status != "passed":
            trials[place] = _with(trials[place], check)


def _report(
    bench: Evaluator, tried: SearchResult, best: Trial, looks: Looks, force: bool
) -> tuple[SearchResult, Trial, Look | None]:
    """The chosen one on the test cases; without a comparison, but with a missed check, when it does not run there."""
    try:
        look = looks.look(bench, best, forced=force)
        return tried, look.trial, look
    except _FAILURES as error:
        failed = _with(best, _not_run("on the test cases", error))
        return replace(tried, trials=[failed if one is best else one for one in tried.trials]), failed, None


def _with(trial: Trial, check: Check) -> Trial:
    return replace(trial, checks=(*trial.checks, check))


def _not_run(how: str, error: Exception) -> Check:
    """Under the name that the published schema has for what a program does when it is run again."""
    text = f"The program cannot be run {how}: {str(error) or type(error).__name__}"
    return Check(PARITY, "not measured", None, 0.0, text)


def _write_cases_beside(out: Path, evidence: Evidence, task: Task) -> Path | None:
    """The page of cases. Raises OutputError, which says that the artifact is sealed all the same."""
    try:
        return write_cases(out, evidence, task)
    except FeatherweightError as error:
        raise OutputError(f"{out} is sealed and whole, but without its page of cases: {error}") from error


def _best(trials: Sequence[Trial], seed: int, objective: Objective = FASTEST) -> int:
    """Where it stands. Those that were timed together come first: times of two runs do not compare, because the host
    may have been slower in one of them. Of the same program on the same backend, more threads must be worth it: where
    they are not, the best with no more threads than that one needs. Of those that are not shown to be worse than it by
    the objective, the smallest: inside the noise a smaller file is worth more than a shorter time."""

    def rank(trial: Trial) -> tuple[bool, int, bool]:
        return *_missed(trial), not trial.final

    def cost(trial: Trial) -> tuple[float, float]:
        return trial.cost(objective), trial.p50_ms

    first = min(trials, key=lambda trial: (*rank(trial), *cost(trial)))
    equal = [place for place, trial in enumerate(trials) if rank(trial) == rank(first)]
    threads = min(
        trial.run.threads
        for trial in (trials[place] for place in equal)
        if trial.made is first.made
        and (trial.run.program, trial.run.backend) == (first.run.program, first.run.backend)
        and trial.p50_ms <= _WORTH_A_THREAD * first.p50_ms
    )
    fit = [place for place in equal if trials[place].run.threads <= threads]
    best = min(fit, key=lambda place: cost(trials[place]))
    smaller = [place for place in fit if trials[place].size_bytes < trials[best].size_bytes]
    alike = [place for place in smaller if not trials[place].shown_worse_than(trials[best], objective, seed)]
    if not alike:
        return best
    return min(alike, key=lambda place: (trials[place].size_bytes, trials[place].run.threads, trials[place].p50_ms))


def _missed(of: Trial | CandidateRecord) -> tuple[bool, int]:
    """(it cannot be run and so not be sealed, limits that it misses): the lower, the nearer to being sealed."""
    missed = _missed_checks(of.checks)
    return any(check.metric is PARITY and check.status == "not measured" for check in missed), len(missed)


def _distance(record: CandidateRecord) -> tuple[bool, int, float]:
    """How far from being sealed: after what it misses, by how much of each limit, in all."""
    apart = 0.0
    for check in _missed_checks(record.checks):
        beyond = math.inf if check.found is None else abs(check.found - check.limit)
        apart += beyond / max(check.limit, 1e-9)
    return (*_missed(record), apart)


def _missed_checks(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.status != "passed"]


def _refusal(evidence: Evidence, page: Path, cases: Path | None, looked: Path, *, forced: bool) -> str:
    """Five lines: the verdict, what came nearest and which limit stopped it, what would let it pass, where the rest is
    told, and what to do. The page tells of all others. looked: the record of uses of the test cases."""
    name = evidence.validation.candidate.name
    shown = next(one for one in evidence.candidates if one.name == name)
    nearest = min((one for one in evidence.candidates if one.checks), key=_distance, default=shown)
    came, verdict = f"nearest of {len(evidence.candidates):,}", "no candidate kept the recipe's limits"
    if any(one.checks and all_passed(one.checks) for one in evidence.candidates):
        nearest = shown
        verdict, came = f"{name} kept the limits on the validation cases but cannot be run again", "stopped"
    missed = _missed_checks(nearest.checks)
    withheld = evidence.uses if evidence.withheld else None
    if withheld is not None:
        verdict = f"{name} kept the limits on the validation cases but not on the test cases"
    if evidence.test is not None:
        came, missed = "missed", _missed_checks(evidence.test.checks)
        verdict = f"{nearest.name} kept the limits on the validation cases but not on the test cases"
    more = f" (and {', '.join(check.name for check in missed[1:])})" if len(missed) > 1 else ""
    stopped = f"{missed[0].explanation}{more}" if missed else nearest.outcome
    way_out = _way_out(nearest, missed)
    if withheld is not None:
        came, stopped = "missed there", withheld_limits(withheld)
        way_out = f"not told; --show-test tells, and {looked} will say so (this was use {withheld.number}"
        way_out += ", with which a new record begins)" if withheld.begins else ")"
    spent = evidence.search is not None and bool(evidence.search.stopped)
    changed = (
        "" if cases is None else f"; the cases that {name} changed: {cases} (holds patients' or cardholders' data)"
    )
    actions = ["give it more time (the same command goes on)"] * spent + ["change the recipe"]
    actions += [] if forced else ["seal it all the same with --force"]
    return "\n".join(
        (
            f"{verdict}, so nothing was sealed",
            f"  {came}: {nearest.name} ({nearest.description or nearest.name}): {stopped}",
            f"  what would let it pass: {way_out}",
            f"  all candidates and figures: {page}{changed}",
            f"  what to do: {', or '.join(actions)}",
        )
    )


def _way_out(nearest: CandidateRecord, missed: Sequence[Check]) -> str:
    if nearest.advice:
        return nearest.advice
    needed = next((check.cases_needed_as_seen for check in missed if check.cases_needed_as_seen is not None), None)
    if needed is not None:
        return f"about {needed:,} {missed[0].metric.cases}, if its loss is as it was seen"
    return "see the page" if missed else "a candidate that can be made and run"
