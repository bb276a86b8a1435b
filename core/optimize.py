"""The one place where passes are chained and candidates compared: recipe in, artifact out.

Every candidate is built, scored on the validation cases, timed interleaved with the unpruned fp32 baseline and judged;
the fastest that keeps all limits is chosen. Only then are the test cases run, once, for the chosen one alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from core.artifact.store import Artifact
from core.candidates import Progress, Workshop, silent
from core.errors import FeatherweightError, LimitError, MissingExtraError, OutputError, UsageError
from core.evidence.judge import all_passed
from core.evidence.report import Evidence
from core.recipe import Recipe, Source, candidates, read_recipe
from core.sealing import check_out, make_contents, make_evidence, missed_limits, seal, write_evidence
from core.task import Task, TaskFactory
from core.trial import Bench, Made, Trial, find_runtimes

__all__ = ["Outcome", "Progress", "open_task", "optimize", "run_recipe", "silent"]


@dataclass(frozen=True)
class Outcome:
    """A sealed artifact, what was compared, on which backend the chosen program was fastest, and what to know."""

    artifact: Artifact
    evidence: Evidence
    backend: str
    warnings: tuple[str, ...]

    @property
    def forced(self) -> bool:
        """Sealed though limits were missed; the manifest lists them."""
        return self.artifact.manifest.forced


def run_recipe(
    recipe_path: Path, out: Path, *, force: bool = False, threads: int | None = None, progress: Progress = silent
) -> Outcome:
    """Optimize by the recipe and seal the artifact as folder `out`.

    threads overrides the recipe's. Recovered networks are kept in `runs/NAME/work` below the current folder, so that a
    second run trains nothing twice. With `force` the best candidate is sealed though it misses limits, and the
    manifest says so. Raises RecipeError, UsageError and DataError for what was asked, LimitError when no candidate
    keeps the limits (nothing is sealed), OutputError when `out` cannot be written.
    """
    recipe = read_recipe(recipe_path)
    check_out(out)
    return optimize(recipe, open_task(recipe.source), out, force=force, threads=threads, progress=progress)


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
    progress: Progress = silent,
    work: Path | None = None,
) -> Outcome:
    """`run_recipe` for a recipe and a task at hand; work: where recovered networks are kept."""
    check_out(out)
    card = _read_card(recipe.card)
    runtimes = find_runtimes(recipe.measure, task.baseline.kind, threads)
    work = work or Path("runs") / recipe.name / "work"
    workshop = Workshop(task, recipe, work, progress)
    made = _make_all(recipe, workshop)
    bench = Bench(recipe, task, task.choosing(), task.calibrating(), workshop.baseline(), runtimes, progress)
    baseline, trials = bench.try_all(made)
    best, test = _choose(trials), None
    if all_passed(best.checks) or force:
        baseline, best, test = bench.report(baseline, best)
    missed = missed_limits(best, test)
    evidence = make_evidence(bench, made, trials, baseline, best, test, forced=bool(missed) and force)
    if missed and not force:
        raise LimitError(_refusal(evidence, write_evidence(work, evidence)))
    contents = make_contents(bench, evidence, baseline, trials, best, missed, card)
    artifact = seal(out, contents, best, bench)
    return Outcome(artifact, evidence, best.backend, tuple(contents.notes))


def _read_card(path: str) -> str:
    """Read before the work begins: a name mistyped should not be found hours later."""
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"card: {path} cannot be read: {error}") from error


def _make_all(recipe: Recipe, workshop: Workshop) -> list[Made]:
    """Raises the first candidate's error when not one could be made."""
    made: list[Made] = []
    failures: list[FeatherweightError] = []
    for candidate in candidates(recipe):
        try:
            made.append(Made(candidate, workshop.build(candidate)))
        except OutputError:
            raise
        except FeatherweightError as error:
            failures.append(error)
            made.append(Made(candidate, None, str(error)))
    if len(failures) == len(made):
        raise failures[0]
    return made


def _choose(trials: Sequence[Trial]) -> Trial:
    """The fastest of those that miss the fewest limits: of those that miss none, when there are such."""
    return min(trials, key=lambda trial: (sum(check.status != "passed" for check in trial.checks), trial.p50_ms))


def _refusal(evidence: Evidence, page: Path) -> str:
    lines = ["no candidate kept the recipe's limits, so nothing was sealed"]
    if evidence.test is not None:
        lines = [
            "the chosen candidate kept the limits on the validation cases but not on the test cases; nothing sealed"
        ]
        lines += [f"  {check.explanation}" for check in evidence.test.checks if check.status != "passed"]
    for record in evidence.candidates:
        lines.append(f"  {record.name}: {record.outcome}")
        if evidence.test is None:
            lines += [f"    {check.explanation}" for check in record.checks if check.status != "passed"]
    lines.append(
        f"see {page}; prune less, recover longer, allow more in [limits], or seal it all the same with --force"
    )
    return "\n".join(lines)


def _plain(value: object) -> object:
    """Settings as TOML gave them: a recipe keeps its lists as tuples, so that it can be compared and hashed."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
