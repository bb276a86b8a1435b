"""`featherweight optimize`, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from featherweight.core.errors import UsageError
from featherweight.core.request import run_recipe

if TYPE_CHECKING:
    from featherweight.core.doors.data import Data
    from featherweight.core.outcome import Outcome
    from featherweight.core.progress import Progress
    from featherweight.core.task import Task

Place = str | PathLike[str]


@overload
def optimize(
    recipe: Place,
    /,
    out: Place,
    *,
    task: Task | None = None,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
    plan: Place | None = None,
    show_test: bool = False,
) -> Outcome: ...


@overload
def optimize(
    model: Any,
    data: Data | Place,
    /,
    *,
    out: Place,
    steps: Sequence[str | Mapping[str, Any]] = ...,
    limits: Mapping[str, float | str] | None = None,
    source: Mapping[str, Any] | None = None,
    seed: int = 0,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
    plan: Place | None = None,
    show_test: bool = False,
) -> Outcome: ...


def optimize(  # type: ignore[misc]  # the second place is `out` of a recipe, `data` of a model
    recipe: Any,
    data: Any = None,
    /,
    out: Place | None = None,
    *,
    task: Task | None = None,
    steps: Sequence[str | Mapping[str, Any]] = ("int8",),
    limits: Mapping[str, float | str] | None = None,
    source: Mapping[str, Any] | None = None,
    seed: int = 0,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
    plan: Place | None = None,
    show_test: bool = False,
) -> Outcome:
    """Try candidates, and seal the fastest one that keeps all limits as the artifact `out`.

    Either `optimize(recipe, out)`, a TOML file and the folder that becomes the artifact (an older one is replaced); or
    `optimize(model, data, out=out)`, a model of your own, which is all that `featherweight.load` takes, and a
    `featherweight.Data` or the path of a table.

    For a recipe: task: the model and the cases that it is judged on, in place of the task that the recipe names in
    [source]; where its training data may change, it has a method `training_digest`, so that nothing is taken from a run
    with others. For a model: steps: what is tried, `int8`, `prune-trees=0.3/0.5`, or tables as recipes have them;
    limits: by name, those that the data can show unless given; source: further keys of [source] (`threshold`, and for
    tables `label`, `split`, `cluster`, `groups`); seed: of the whole run. The recipe that says the same is written to
    `runs/NAME.toml`.

    force: seal the best candidate though it misses limits. anyway: search though the cases are too few to show that the
    limits are kept, which is refused before the search else. threads: of a session, the recipe's unless given.
    budget_s: seconds to search; without it all that the recipe lists are tried. progress: called with (stage, done,
    total). What is finished is kept in `runs/NAME/work` below the current folder, so that a second call goes on where
    the first one stopped. plan: a file that `featherweight evidence plan` wrote before. show_test: tell the figures of
    test cases on which limits were missed; every use of the test cases is written down, in `test-uses.jsonl` beside the
    recipe or where it says.

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
    common: dict[str, Any] = {
        "force": force,
        "anyway": anyway,
        "threads": threads,
        "budget_s": budget_s,
        "progress": progress,
        "plan": None if plan is None else Path(plan),
        "show_test": show_test,
    }
    if data is None or out is None:
        folder = out if data is None else data
        if folder is None or not isinstance(recipe, str | PathLike):
            raise UsageError("optimize: expected (recipe, out), or (model, data, out=...)")
        return run_recipe(Path(recipe), Path(folder), task=task, **common)
    if task is not None:
        raise UsageError("optimize: a task has its own model and data; give it with a recipe")
    from featherweight.core.doors.request import ModelRequest, run_model

    model, cases = (str(one) if isinstance(one, PathLike) else one for one in (recipe, data))
    request = ModelRequest(model, cases, source or {}, tuple(steps), limits or {}, seed)
    return run_model(request, Path(out), **common)
