"""A model and data, without a recipe or an app of one's own: the recipe is made from what is asked for.

The app behind it is the one that is registered as `custom` among the tasks; core knows its name alone."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from featherweight.core.doors.limits import ProposedLimit, propose_limits
from featherweight.core.errors import UsageError
from featherweight.core.files import atomic_write
from featherweight.core.passes.steps import (
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
)
from featherweight.core.program import Kind
from featherweight.core.recipe import Recipe, parse_recipe, render_value
from featherweight.core.recipe.commented import render_commented
from featherweight.core.request import recipe_example, run_recipe
from featherweight.core.task import check_packages

if TYPE_CHECKING:
    from featherweight.core.outcome import Outcome
    from featherweight.core.progress import Progress
    from featherweight.core.task import Task

CUSTOM: Final = "custom"
FOLDER: Final = Path("runs")
"""Where recipes that are made here lie, below the current folder; one record of uses for all of them."""
_BACKENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "trees": ("native", "onnxruntime"),
    "network": ("onnxruntime", "openvino"),
}
_VALUED: Final[Mapping[str, tuple[str, str]]] = {
    PruneChannelsStep.kind: (PruneChannelsStep.kind, "ratio"),
    PruneWeightsStep.kind: (PruneWeightsStep.kind, "sparsity"),
    PruneTreesStep.kind: (PruneTreesStep.kind, "ratio"),
    RecoverStep.kind: (RecoverStep.kind, "epochs"),
}
"""Step -> its kind and the key that its value is of."""
_PRECISIONS: Final = next(item.metadata["bound"].options for item in fields(QuantizeStep) if item.name == "precision")
_IN_MEMORY: Final = "in memory"


@dataclass(frozen=True)
class ModelRequest:
    """What is asked for. model, data: paths or module:name as texts, or objects; source: further keys of [source];
    steps: texts such as int8 or prune-trees=0.3/0.5, or tables as recipes have them; limits: by name, those that the
    data can show if there are none."""

    model: Any
    data: Any
    source: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[str | Mapping[str, Any]] = ("int8",)
    limits: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def run_model(
    request: ModelRequest,
    out: Path,
    *,
    force: bool = False,
    anyway: bool = False,
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
    plan: Path | None = None,
    show_test: bool = False,
) -> Outcome:
    """Optimize a model on data and seal the artifact as folder `out`. The recipe that says the same is written to
    `runs/NAME.toml` below the current folder, NAME being that of `out`. Raises as `run_recipe` does."""
    check_packages("optimizing")
    steps = [parse_step(step) for step in request.steps]
    name = _name(out)
    _recipe(name, request, steps, dict(request.limits), "trees")  # faults are told before anything is read
    task = open_custom(request)
    limits = dict(request.limits) or {one.name: one.margin for one in _proposed(task, request.seed)}
    if not limits:
        raise UsageError("the cases are too few to show any limit; bring more, or state limits that you accept")
    path = FOLDER / f"{name}.toml"
    text = _recipe(name, request, steps, limits, task.baseline.kind)
    with atomic_write(path, "the recipe cannot be written", make_folder=True) as partial:
        partial.write_text(text, encoding="utf-8")
    return run_recipe(
        path,
        out,
        task=task,
        force=force,
        anyway=anyway,
        threads=threads,
        budget_s=budget_s,
        progress=progress,
        plan=plan,
        show_test=show_test,
    )


def new_model_recipe(request: ModelRequest, name: str) -> str:
    """A commented recipe for a model and data, with limits that the data can show and why they are proposed."""
    check_packages("proposing limits")
    task = open_custom(request)
    steps = [parse_step(step) for step in request.steps]
    proposed = _proposed(task, request.seed)
    limits = dict(request.limits) or {one.name: one.margin for one in proposed}
    recipe = parse_recipe(_recipe(name, request, steps, limits, task.baseline.kind))
    text = render_commented(recipe, recipe_example(CUSTOM).settings)
    if request.limits or not proposed:
        return text
    lines = ["# Proposed from the numbers of cases alone, before any result; change them to what you would act on:"]
    lines += [f"#   {one.name} = {one.margin:g}: {one.reason}" for one in proposed]
    return text.replace("\n[limits]\n", "\n" + "\n".join(lines) + "\n[limits]\n", 1)


def open_custom(request: ModelRequest) -> Task:
    """The task of the app `custom`. Raises UsageError and DataError for what was asked."""
    app = importlib.import_module(_entry().module)
    settings = {**request.source, "model": _told(request.model), "data": _told(request.data)}
    if isinstance(request.model, str) and isinstance(request.data, str):
        task: Task = app.open_task(settings)
        return task
    source = app.read_settings(settings)
    data = app.open_data(source) if isinstance(request.data, str) else request.data
    made: Task = app.make_task(request.model, data, source)
    return made


def _entry() -> Any:
    found = {entry.name: entry for entry in entry_points(group="featherweight.tasks")}
    if CUSTOM not in found:
        raise UsageError(f"the app {CUSTOM!r} is not installed; reinstall featherweight")
    return found[CUSTOM]


def _proposed(task: Task, seed: int) -> tuple[ProposedLimit, ...]:
    return propose_limits({"validation": task.validation_cases(), "test": task.test_cases()}, seed)


def parse_step(step: str | Mapping[str, Any]) -> dict[str, Any]:
    """A table [[step]] of a precision (`int8`, `bf16`), or `KIND=VALUE` with one value or several
    (`prune-trees=0.3/0.5`); a table as it is. Raises UsageError for another text."""
    if not isinstance(step, str):
        return dict(step)
    kind, sign, text = (part.strip() for part in step.partition("="))
    if kind in _PRECISIONS and not sign:
        return {"kind": QuantizeStep.kind, "precision": kind}
    if kind not in _VALUED or not text:
        raise UsageError(
            f"step {step!r} is not known; expected one of {', '.join(_PRECISIONS)}, "
            f"{', '.join(f'{one}=VALUE' for one in _VALUED)} (several values: prune-trees=0.3/0.5)"
        )
    try:
        values = [int(one) if one.isdigit() else float(one) for one in text.split("/")]
    except ValueError as error:
        raise UsageError(f"step {step!r}: {text!r} is not a number, or several with / between") from error
    kind, key = _VALUED[kind]
    return {"kind": kind, key: values if len(values) > 1 else values[0]}


def _recipe(
    name: str, request: ModelRequest, steps: Sequence[Mapping[str, Any]], limits: Mapping[str, Any], kind: Kind
) -> str:
    """Its text, found right. Raises RecipeError for steps and limits that cannot be."""
    source = {"task": CUSTOM, "model": _told(request.model), "data": _told(request.data), **request.source}
    lines = ["version = 1", f"name = {render_value(name)}", f"seed = {request.seed}", "", "[source]"]
    lines += [f"{key} = {render_value(_plain(value))}" for key, value in source.items()]
    for step in steps:
        lines += ["", "[[step]]", *(f"{key} = {render_value(_plain(value))}" for key, value in step.items())]
    lines += ["", "[measure]", f"backends = {render_value(list(_BACKENDS[kind]))}", "", "[limits]"]
    lines += [f"{key} = {render_value(_plain(value))}" for key, value in limits.items()]
    text = "\n".join(lines) + "\n"
    checked: Recipe = parse_recipe(text, "what is asked for")
    return text if checked else ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _told(given: Any) -> str:
    """What stands in a recipe for a model or data; an object has no path."""
    return given if isinstance(given, str) else f"{type(given).__name__} {_IN_MEMORY}"


def _name(out: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", out.absolute().name).strip("-.")[:100] or "model"
