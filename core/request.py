"""What `featherweight optimize` is asked for, checked before anything heavy is imported: torch alone takes seconds and
half a gigabyte, too long a wait to read that a key is mistyped."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.core.artifact.write import check_out
from featherweight.core.errors import EXTRA_OF, MissingExtraError, UsageError
from featherweight.core.recipe import Source, read_recipe
from featherweight.core.recipe.commented import RecipeExample, render_commented
from featherweight.core.search.runtimes import check_backends
from featherweight.core.task import check_packages

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
    OutputError when `out` cannot be written.
    """
    recipe = read_recipe(recipe_path, tasks=_registered() if task is None else None)
    check_out(out)
    check_backends(recipe.measure)
    if task is None:
        task = open_task(recipe.source)
    else:
        check_packages("optimizing")
    from featherweight.core.optimize import optimize
    from featherweight.core.progress import silent

    return optimize(
        recipe,
        task,
        out,
        force=force,
        anyway=anyway,
        threads=threads,
        budget_s=budget_s,
        progress=progress or silent,
    )


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
