"""`featherweight optimize`, for programs."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.core.request import run_recipe

if TYPE_CHECKING:
    from featherweight.core.outcome import Outcome
    from featherweight.core.progress import Progress
    from featherweight.core.task import Task


def optimize(
    recipe: str | PathLike[str],
    out: str | PathLike[str],
    *,
    task: Task | None = None,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
    plan: str | PathLike[str] | None = None,
    show_test: bool = False,
) -> Outcome:
    """Try what a recipe says, and seal the fastest candidate that keeps all its limits as the artifact `out`.

    recipe: a TOML file; out: the folder that becomes the artifact, an older one is replaced. task: the model and the
    cases that it is judged on, in place of the task that the recipe names in [source]; where its training data may
    change, it has a method `training_digest`, so that nothing is taken from a run with others. force: seal the best
    candidate though it misses limits. anyway: search though the cases are too few to show that the limits are kept,
    which is refused before the search else. threads: of a session, the recipe's unless given. budget_s: seconds to
    search; without it all that the recipe lists are tried. progress: called with (stage, done, total). What is finished
    is kept in `runs/NAME/work` below the current folder, so that a second call goes on where the first one stopped.
    plan: a file that `featherweight evidence plan` wrote before. show_test: tell the figures of test cases on which
    limits were missed; every use of the test cases is written down, in `test-uses.jsonl` beside the recipe or where it
    says.

    Needs the extra `train`. Raises RecipeError with every fault of the recipe; UsageError and DataError for what was
    asked; MissingExtraError; LimitError when no candidate keeps the limits (nothing is sealed, the message says which
    limit stopped which candidate); OutputError when `out` cannot be written.

    >>> import featherweight
    >>> outcome = featherweight.optimize("recipe.toml", "models/mine", task=my_task)
    >>> outcome.backend, outcome.forced
    ('onnxruntime', False)
    >>> featherweight.read_evidence("models/mine").passed
    True
    """
    return run_recipe(
        Path(recipe),
        Path(out),
        task=task,
        force=force,
        anyway=anyway,
        threads=threads,
        budget_s=budget_s,
        progress=progress,
        plan=None if plan is None else Path(plan),
        show_test=show_test,
    )
