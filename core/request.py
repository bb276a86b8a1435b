"""What `featherweight optimize` is asked for, checked before anything heavy is imported: torch alone takes seconds and
half a gigabyte, too long a wait to read that a key is mistyped."""

from __future__ import annotations

import importlib
import os
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.core.artifact.write import check_out
from featherweight.core.errors import EXTRA_OF, MissingExtraError, UsageError
from featherweight.core.files import atomic_write
from featherweight.core.recipe import Recipe, Source, read_recipe
from featherweight.core.recipe.commented import RecipeExample, render_commented
from featherweight.core.record.cases import describe_held_out
from featherweight.core.record.plan import Plan, digest_plan, encode_plan
from featherweight.core.record.uses import FILE, Entered, Planned, append_use, check_record, now
from featherweight.core.search.runtimes import check_backends
from featherweight.core.task import check_packages

_PACKAGE = (Path(__file__).parent, Path(__file__).parents[1] / "apps")

if TYPE_CHECKING:
    from featherweight.core.outcome import Outcome
    from featherweight.core.progress import Progress
    from featherweight.core.task import Task, TaskFactory


def run_recipe(
    recipe_path: Path,
    out: Path,
    *,
    task: Task | None = None,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
    plan: Path | None = None,
    show_test: bool = False,
) -> Outcome:
    """Optimize by the recipe and seal the artifact as folder `out`.

    task: in place of the one that the recipe names in [source], whose keys then say nothing. threads overrides the
    recipe's. Without a budget all candidates of the recipe are tried. With one, the most promising first, and the
    numbers that it lists are the ends of ranges; no candidate is begun that would take longer than what is left. What
    is finished is kept in `runs/NAME/work` below the current folder, so that a killed run goes on and a second one
    makes nothing twice. Limits that no candidate can be shown to keep on so few cases are refused before the search
    begins, unless `anyway` or `force` is set. With `force` the best candidate is sealed though it misses limits, and
    the manifest says so. Raises RecipeError, UsageError and DataError for what was asked, LimitError for such limits
    and when no candidate keeps them (nothing is sealed; the message names the evidence and the page of cases),
    OutputError when `out` cannot be written, JournalError for a record of uses that is damaged.

    Every use of the test cases is written down (`find_record`); where limits are missed on them, what was found is not
    told, unless `show_test` asks for it. plan: of `featherweight evidence plan`; the evidence keeps its digest.
    """
    recipe = read_recipe(recipe_path, tasks=_registered() if task is None else None)
    check_out(out)
    check_backends(recipe.measure)
    if task is None:
        task = open_task(recipe.source)
    else:
        check_packages("optimizing")
    from featherweight.core.looking import LookRequest
    from featherweight.core.optimize import optimize
    from featherweight.core.progress import silent

    looking = LookRequest(find_record(recipe, recipe_path), plan, show_test)
    return optimize(
        recipe,
        task,
        out,
        force=force,
        anyway=anyway,
        threads=threads,
        budget_s=budget_s,
        progress=progress or silent,
        looking=looking,
    )


def write_plan(recipe_path: Path, out: Path, control_plan: Path | None = None, *, task: Task | None = None) -> Plan:
    """Write down what will be judged, by which margins and why, on which cases, before any test case is run; and, with
    control_plan, the same as a change control plan in Markdown. The record of uses gets the plan's digest.

    Raises RecipeError, UsageError (a margin without a reason among it) and DataError for what was asked, JournalError
    for a damaged record, OutputError.
    """
    recipe, task, record = _read_for_cases(recipe_path, task)
    from featherweight.core.looking import describe_plan, make_plan

    missing = [name for name in recipe.limits if name not in dict(recipe.reasons)]
    if missing or not recipe.limits:
        raise UsageError(
            f"{recipe_path}: a plan says why each margin is what it is; add to [reasons]: {', '.join(missing)}"
            if missing
            else f"{recipe_path}: the recipe sets no limit, so there is nothing to plan; add [limits]"
        )
    splits, history = describe_plan(recipe, task, record)
    plan = make_plan(recipe, splits, history)
    content = encode_plan(plan)
    sha256 = digest_plan(content)
    with atomic_write(out, "the plan cannot be written") as partial:
        partial.write_bytes(content)
    if control_plan is not None:
        from featherweight.core.evidence.reports.control_plan import render_control_plan

        with atomic_write(control_plan, "the change control plan cannot be written") as partial:
            partial.write_text(render_control_plan(plan, sha256), encoding="utf-8")
    append_use(record, Planned(at=now(), cases=splits.sets["test"], recipe=recipe.name, plan=sha256))
    return plan


def enter_use(recipe_path: Path, *, uses: int, when: str, words: str, task: Task | None = None) -> Path:
    """Enter by hand uses of a recipe's test cases that no program wrote down; returns the record. Raises as
    `write_plan` does."""
    _, task, record = _read_for_cases(recipe_path, task)
    from featherweight.core.task import check_held_out

    cases = task.test_cases()
    check_held_out(cases, task.baseline.inputs, "test")
    entered = Entered(at=now(), cases=describe_held_out(cases), uses=uses, when=when, words=words)
    append_use(record, entered)
    return record


def _read_for_cases(recipe_path: Path, task: Task | None) -> tuple[Recipe, Task, Path]:
    """Recipe, task and record, the last one whole and such that it can be added to."""
    recipe = read_recipe(recipe_path, tasks=_registered() if task is None else None)
    record = find_record(recipe, recipe_path)
    check_record(record)
    return recipe, open_task(recipe.source) if task is None else task, record


def find_record(recipe: Recipe, path: Path) -> Path:
    """The file in which the uses of a recipe's test cases are written down: the one that it names, relative to the
    recipe's own folder, so that the same recipe has the same record wherever it is run from; else `test-uses.jsonl`
    beside the recipe, one for all recipes of the folder; in `runs/NAME` below the current folder for a recipe that lies
    in the installed package, or where nothing may be written."""
    if recipe.cases.record:
        return path.parent / recipe.cases.record
    folder = Path(os.path.realpath(path)).parent
    packaged = any(folder.is_relative_to(Path(os.path.realpath(part))) for part in _PACKAGE)
    if packaged or not os.access(folder, os.W_OK | os.X_OK):
        return Path("runs") / recipe.name / FILE
    return path.parent / FILE


def record_of(recipe_path: Path) -> Path:
    """`find_record` of a recipe's file. Raises RecipeError, UsageError."""
    return find_record(read_recipe(recipe_path), recipe_path)


def new_recipe(task: str) -> str:
    """A commented recipe for the models of an installed app. Raises UsageError for a name that none has, and for an app
    that gives no example."""
    example = recipe_example(task)
    return render_commented(read_recipe(example.path), example.settings)


def registered_tasks() -> tuple[str, ...]:
    """The names that [source] of a recipe may give."""
    return tuple(sorted(_registered()))


def recipe_example(task: str) -> RecipeExample:
    """What an installed app gives for `recipe new`. Raises UsageError as `new_recipe` does."""
    registered = _registered()
    if task not in registered:
        raise UsageError(f"no app is called {task!r}; installed: {', '.join(sorted(registered))}")
    _load(registered[task])
    example = getattr(importlib.import_module(registered[task].module), "RECIPE", None)
    if not isinstance(example, RecipeExample):
        raise UsageError(f"the app {task!r} gives no example of a recipe; ask its author")
    return example


def open_task(source: Source) -> Task:
    """The task that an installed app registers under this name. Raises UsageError for a name that none has."""
    registered = _registered()
    if source.task not in registered:
        raise UsageError(f"source.task: no app is called {source.task!r}; installed: {', '.join(sorted(registered))}")
    check_packages(f"optimizing for {source.task}")
    try:
        factory = _load(registered[source.task])
        return factory({name: _plain(value) for name, value in source.settings})
    except ModuleNotFoundError as error:
        name = error.name or "a package"
        raise MissingExtraError(name, EXTRA_OF.get(name, "train"), f"optimizing for {source.task}") from error


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="featherweight.tasks")}


def _load(app: EntryPoint) -> TaskFactory:
    try:
        factory: TaskFactory = app.load()
    except ModuleNotFoundError:
        raise
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UsageError(f"source.task: the app {app.name!r} does not load: {error}; reinstall it") from error
    return factory


def _plain(value: object) -> object:
    """Settings as TOML gave them: a recipe keeps its lists as tuples, so that it can be compared and hashed."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
