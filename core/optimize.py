"""The one place where passes are chained and candidates compared: recipe in, artifact out.

Every candidate is built, scored on the validation cases, timed interleaved with the unpruned fp32 baseline and judged.
Those that pass and are nearly the fastest are timed once more, together; the fastest of them is chosen. Only then are
the test cases run, once, for the chosen one alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

from core.artifact.store import Artifact
from core.cases import write_cases
from core.errors import LimitError, MissingExtraError, UsageError
from core.evidence.judge import all_passed
from core.evidence.report import Evidence
from core.parity.measured import MeasuredParity
from core.recipe import Recipe, Source, read_recipe
from core.sealing import check_out, make_contents, make_evidence, missed_limits, seal, write_evidence
from core.search.candidates import Progress, Workshop, silent
from core.search.explore import explore
from core.search.measurements import Measurements
from core.search.records import Tried, write_candidates
from core.search.runtimes import find_runtimes
from core.search.trial import Bench, Trial
from core.task import Task, TaskFactory

__all__ = ["Outcome", "Progress", "open_task", "optimize", "run_recipe", "silent"]


_WORTH_A_THREAD = 1.1
"""So much faster is what more threads must make a program; a tree on two threads is as fast as on one."""
_TOLD = 10
"""Candidates that a refusal names."""


@dataclass(frozen=True)
class Outcome:
    """A sealed artifact, what was compared, on which backend the chosen program was fastest, and what to know.

    candidates: the table of all that was tried; cases: the page of those that compression changed, None where it
    changed none. Both lie outside the artifact.
    """

    artifact: Artifact
    evidence: Evidence
    backend: str
    warnings: tuple[str, ...]
    candidates: Path
    cases: Path | None

    @property
    def forced(self) -> bool:
        """Sealed though limits were missed; the manifest lists them."""
        return self.artifact.manifest.forced


def run_recipe(
    recipe_path: Path,
    out: Path,
    *,
    force: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Optimize by the recipe and seal the artifact as folder `out`.

    threads overrides the recipe's. Without a budget all candidates of the recipe are tried. With one, the most
    promising first, and the numbers that it lists are the ends of ranges; no candidate is begun that would take longer
    than what is left. What is finished is kept in `runs/NAME/work` below the current folder, so that a killed run goes
    on and a second one makes nothing twice. With `force` the best candidate is sealed though it misses limits, and the
    manifest says so. Raises RecipeError, UsageError and DataError for what was asked, LimitError when no candidate
    keeps the limits (nothing is sealed), OutputError when `out` cannot be written.
    """
    recipe = read_recipe(recipe_path)
    check_out(out)
    task = open_task(recipe.source)
    return optimize(recipe, task, out, force=force, threads=threads, budget_s=budget_s, progress=progress)


def open_task(source: Source) -> Task:
    """The task that an installed app registers under this name. Raises UsageError for a name that none has."""
    registered = {entry.name: entry for entry in entry_points(group="featherweight.tasks")}
    if source.task not in registered:
        raise UsageError(f"source.task: no app is called {source.task!r}; installed: {', '.join(sorted(registered))}")
    try:
        factory: TaskFactory = registered[source.task].load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train", f"optimizing for {source.task}") from error
    return factory({name: _plain(value) for name, value in source.settings})


def optimize(
    recipe: Recipe,
    task: Task,
    out: Path,
    *,
    force: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress = silent,
    work: Path | None = None,
) -> Outcome:
    """`run_recipe` for a recipe and a task at hand; work: where finished work is kept."""
    check_out(out)
    card = _read_card(recipe.card)
    runtimes = find_runtimes(recipe.measure, task.baseline.kind, threads)
    work = work or Path("runs") / recipe.name / "work"
    workshop = Workshop(task, recipe, work, progress)
    measurements = Measurements(recipe, task, runtimes, workshop.ledger, progress)
    bench = Bench(recipe, task, measurements, workshop.baseline(), progress)
    tried = explore(recipe, workshop, bench, budget_s, progress)
    tried, best, parity = _choose(bench, replace(tried, trials=bench.finals(tried.trials)), force)
    test = None
    if parity is not None:
        best, test = bench.report(best)
    missed = missed_limits(best, test)
    evidence = make_evidence(bench, tried, best, test, parity, forced=bool(missed) and force)
    table = write_candidates(work, evidence.candidates)
    if parity is None or (missed and not force):
        raise LimitError(_refusal(evidence, write_evidence(work, evidence)))
    contents = make_contents(bench, evidence, tried.trials, best, parity, missed, card)
    artifact = seal(out, contents, best.run.backend)
    page = write_cases(out, evidence, task)
    return Outcome(artifact, evidence, best.run.backend, tuple(contents.notes), table, page)


def _read_card(path: str) -> str:
    """Read before the work begins: a name mistyped should not be found hours later."""
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"card: {path} cannot be read: {error}") from error


def _choose(bench: Bench, tried: Tried, force: bool) -> tuple[Tried, Trial, MeasuredParity | None]:
    """The best of those that miss the fewest limits: of those that miss none, when there are such. One that decides
    otherwise when it is run with other batches or threads has missed a limit too, and the next is looked at. The parity
    is None when all missed some limit and nothing is forced, so that nothing is chosen."""
    trials = list(tried.trials)
    while True:
        place = _best(trials)
        if not (force or all_passed(trials[place].checks)):
            return replace(tried, trials=trials), trials[place], None
        parity = bench.measure_parity(trials[place])
        if parity.check.status != "passed":
            trials[place] = replace(trials[place], checks=(*trials[place].checks, parity.check))
        if force or parity.check.status == "passed":
            return replace(tried, trials=trials), trials[place], parity


def _best(trials: Sequence[Trial]) -> int:
    """Where it stands. Of the same program on the same backend, more threads must be worth it: where they are not, the
    fastest with no more threads than that one needs."""
    fastest = min(trials, key=lambda trial: (_missed(trial), trial.p50_ms))
    equal = [place for place, trial in enumerate(trials) if _missed(trial) == _missed(fastest)]
    threads = min(
        trial.run.threads
        for trial in (trials[place] for place in equal)
        if trial.made is fastest.made
        and (trial.run.program, trial.run.backend) == (fastest.run.program, fastest.run.backend)
        and trial.p50_ms <= _WORTH_A_THREAD * fastest.p50_ms
    )
    fit = [place for place in equal if trials[place].run.threads <= threads]
    return min(fit, key=lambda place: trials[place].p50_ms)


def _missed(trial: Trial) -> int:
    return sum(check.status != "passed" for check in trial.checks)


def _refusal(evidence: Evidence, page: Path) -> str:
    """Which limit stopped which candidate, and what would let it pass; of many, those that came nearest."""
    remedy = f"see {page}; change the recipe, or seal it all the same with --force"
    if evidence.test is not None:
        said = [check.explanation for check in evidence.test.checks if check.status != "passed"]
        name = evidence.validation.candidate.name
        first = f"{name} kept the limits on the validation cases but not on the test cases; nothing sealed"
        return "\n  ".join([first, *said]) + f"\n{remedy}"
    lines = ["no candidate kept the recipe's limits, so nothing was sealed"]
    nearest = sorted(evidence.candidates, key=lambda one: sum(check.status != "passed" for check in one.checks) or 99)
    for record in nearest[:_TOLD]:
        lines.append(f"  {record.name}: {record.outcome}")
        lines += [f"    {check.explanation}" for check in record.checks if check.status != "passed"]
        lines += [f"    {record.advice}"] if record.advice else []
    lines += [f"  and {len(nearest) - _TOLD} more"] if len(nearest) > _TOLD else []
    return "\n".join([*lines, remedy])


def _plain(value: object) -> object:
    """Settings as TOML gave them: a recipe keeps its lists as tuples, so that it can be compared and hashed."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
