"""`featherweight optimize` and `featherweight recipe new`. What is slow to import is imported when they run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from featherweight.core.doors.kinds import is_model_source
from featherweight.core.errors import OutputError, UsageError
from featherweight.core.files import write_errors
from featherweight.core.options import AsJson, Budget, PlanFile, ShowTest

EPILOG = """Examples:

featherweight optimize recipe.toml --out models/chest --budget 30m

featherweight optimize model.onnx --data cases.parquet --label y --split split --cluster patient --steps int8 \
--limit auc_loss=0.005 --out models/x

featherweight optimize mymodule:network --data mymodule:cases --out models/x

**Exit codes**: 0 sealed; 2 the recipe has faults (all are listed), or input is missing or does not fit; 4 a limit was \
missed; 7 the record of uses is damaged; 130 interrupted: the same command goes on where it was."""

NEW_RECIPE_EPILOG = """Examples:

featherweight recipe new imaging recipe.toml

featherweight recipe new --model model.txt --data cases.parquet --label y > recipe.toml

**Exit codes**: 0 written; 2 no such app, the file is there already, or model and data do not fit; 6 the file cannot \
be written."""

_Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Labelled cases of a model of your own: a CSV or Parquet file, a folder of pictures with a labels.csv, or "
        "module:name of a featherweight.Data.",
    ),
]
_Label = Annotated[str | None, typer.Option("--label", help="Column of the truth: 0 and 1, or names.")]
_Positive = Annotated[str | None, typer.Option("--positive", help="The label of the positive class.")]
_Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Labels of more than two classes in the order of the model's outputs, separated by commas; not needed "
        "where the model names them or they are 0, 1, 2 ...",
    ),
]
_Split = Annotated[
    str | None, typer.Option("--split", help="Column that says train, validation or test. Drawn if not given.")
]
_Cluster = Annotated[str | None, typer.Option("--cluster", help="Column of whom a case belongs to (patient, card).")]
_Groups = Annotated[
    str | None, typer.Option("--groups", help="Columns of groups to be looked at one by one, separated by commas.")
]
_Id = Annotated[str | None, typer.Option("--id", help="Column of what a case is called in the evidence.")]
_Features = Annotated[
    str | None,
    typer.Option("--features", help="The model's columns in its order, separated by commas, if it names none."),
]
_Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="The model's own probability from which on a case is positive; 0.5 if not given."),
]
_Steps = Annotated[
    str | None,
    typer.Option(
        "--steps",
        help="What is tried, separated by commas: int8, int8-dynamic, int8-weights, fp16-weights, bf16, "
        "prune-trees=0.5, prune-channels=0.3/0.5 (each value is tried), prune-weights=0.8, recover=6. int8 if none "
        "is given.",
    ),
]
_Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="A limit, such as auc_loss=0.005; may be repeated. Those that the cases can show if none is given.",
    ),
]


def optimize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A recipe (a TOML file with source, steps, backends and limits); or, with --data, a model of your "
            "own: a file (.onnx, LightGBM's .txt, XGBoost's .json or .ubj), or an object as module:name.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder that becomes the artifact; an older artifact is replaced.")],
    data: _Data = None,
    label: _Label = None,
    positive: _Positive = None,
    classes: _Classes = None,
    split: _Split = None,
    cluster: _Cluster = None,
    groups: _Groups = None,
    id_column: _Id = None,
    features: _Features = None,
    threshold: _Threshold = None,
    steps: _Steps = None,
    limit: _Limit = None,
    budget: Budget = None,
    force: Annotated[bool, typer.Option("--force", help="Seal the best candidate even if it misses limits.")] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Search even if the cases are too few to show that the limits are kept."),
    ] = False,
    plan: PlanFile = None,
    show_test: ShowTest = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Threads that run a candidate; the recipe's are used if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try the candidates that a recipe describes and seal the fastest one that keeps all its limits.

    With --data, a model of your own is optimized, and the recipe is made from the options.
    """
    columns = _source(label, positive, classes, split, cluster, groups, id_column, features, threshold)
    _check_source(source, data, {**columns, "steps": steps, "limit": limit})
    from featherweight.core.console import outcome_row, print_json, show_outcome
    from featherweight.core.doors.request import run_model
    from featherweight.core.progress import progress_bar
    from featherweight.core.request import run_recipe
    from featherweight.core.signals import telling_how_to_go_on

    with (
        telling_how_to_go_on("interrupted; what is finished is kept, and the same command goes on"),
        progress_bar(transient=False) as report,
    ):
        common: dict[str, Any] = {
            "force": force,
            "anyway": anyway,
            "threads": threads,
            "budget_s": budget,
            "progress": report,
            "plan": plan,
            "show_test": show_test,
        }
        if data is None:
            outcome = run_recipe(Path(source), out, **common)
        else:
            outcome = run_model(_request(source, data, columns, steps, limit), out, **common)
    if as_json:
        print_json(outcome_row(outcome))
    else:
        show_outcome(outcome)


def new(
    task: Annotated[str | None, typer.Argument(help="The app whose model it is for: imaging, fraud or custom.")] = None,
    out: Annotated[Path | None, typer.Argument(help="The file to write, or - for standard output.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A model of your own, as `optimize` takes it, in place of an app.")
    ] = None,
    data: _Data = None,
    label: _Label = None,
    positive: _Positive = None,
    classes: _Classes = None,
    split: _Split = None,
    cluster: _Cluster = None,
    groups: _Groups = None,
    id_column: _Id = None,
    features: _Features = None,
    threshold: _Threshold = None,
    steps: _Steps = None,
) -> None:
    """Write a recipe with every key that it may have, each with its meaning, to be edited and given to `optimize`.

    With --model and --data it names these, and proposes limits that the data can show, each with its reason.
    """
    from featherweight.core.request import new_recipe
    from featherweight.core.terminal import say

    columns = _source(label, positive, classes, split, cluster, groups, id_column, features, threshold)
    if model is None and data is None:
        if task is None:
            raise UsageError("name an app, such as imaging, or give --model and --data")
        text, target = new_recipe(task), out or Path("recipe.toml")
    elif model is None or data is None:
        raise UsageError("--model and --data belong together; give both")
    else:
        from featherweight.core.doors.request import new_model_recipe

        if task not in (None, "custom"):
            raise UsageError(f"--model is for the app custom; leave {task!r} out")
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).stem).strip("-.") or "model"
        text, target = new_model_recipe(_request(model, data, columns, steps, None), name), out or Path("-")
    if str(target) == "-":
        say(text.rstrip("\n"))
        return
    _write_new(target, text.encode())
    say(
        f"{target}: name your model and data in [source], then: featherweight optimize {target} --out models/NAME",
        err=True,
    )


def _check_source(source: str, data: str | None, options: dict[str, Any]) -> None:
    """Raise UsageError where it is not clear whether a recipe or a model is meant."""
    if data is None:
        given = next((name for name, value in options.items() if value), None)
        if is_model_source(source):
            raise UsageError(f"{source}: is a model, not a recipe; name its labelled cases too, by --data")
        if given is not None:
            raise UsageError(f"--{given} is for a model of your own; give --data too, or write it into the recipe")
        if not os.path.isfile(source):  # noqa: PTH113  (Path.is_file raises for a name that is too long)
            raise UsageError(f"{source}: no such recipe file")
    elif Path(source).suffix.lower() == ".toml":
        raise UsageError(f"{source}: is a recipe, which names its data itself; leave --data out")


def _source(
    label: str | None,
    positive: str | None,
    classes: str | None,
    split: str | None,
    cluster: str | None,
    groups: str | None,
    id_column: str | None,
    features: str | None,
    threshold: float | None,
) -> dict[str, Any]:
    """The keys of [source] that options state."""
    given: dict[str, Any] = {
        "label": label,
        "positive": positive,
        "classes": _names(classes),
        "split": split,
        "cluster": cluster,
        "groups": _names(groups),
        "id": id_column,
        "features": _names(features),
        "threshold": threshold,
    }
    return {name: value for name, value in given.items() if value}


def _request(model: str, data: str, columns: dict[str, Any], steps: str | None, limit: list[str] | None) -> Any:
    from featherweight.core.compare.request import parse_limits
    from featherweight.core.doors.request import ModelRequest

    return ModelRequest(model, data, columns, _names(steps) or ("int8",), parse_limits(limit or []))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def _write_new(path: Path, content: bytes) -> None:
    """Raises UsageError where there is something already: it may be somebody's work. OutputError."""
    try:
        with write_errors(path), path.open("xb") as file:
            file.write(content)
    except OutputError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise UsageError(f"{path}: is there already; name another file, or remove it") from error
        raise
