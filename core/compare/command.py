"""`featherweight compare`. What is slow to import is imported when it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from featherweight.core.errors import UsageError
from featherweight.core.options import AsJson, ShowTest

EPILOG = """Examples:

featherweight compare old.csv new.csv --data cases.csv --label y --threshold 0.5 --limit auc_loss=0.01 --out verdict

featherweight compare old.onnx new.onnx --data cases.parquet --label y --features age,dose --threshold 0 \
--limits limits.toml --cluster patient --groups site,sex --out verdict

featherweight compare models/v1 models/v2 --data cases.parquet --label fraud --limits limits.toml --out verdict

featherweight compare old.csv new.csv --data cases.csv --label fraud --threshold review=0.5 --threshold decline=0.9 \
--limits limits.toml --cluster card --cluster terminal --out verdict

featherweight compare old.csv new.csv --data cases.csv --label cancer --threshold-in-force 40 --prevalence 0.006 \
--cost-missed 100 --cost-alarm 1 --limit sensitivity_loss=0.05 --out verdict

**Exit codes**: 0 all limits are kept; 4 a limit is missed (the page says which and why); 2 wrong usage, or tables \
that do not fit together; 5 an artifact cannot be trusted; 6 the output cannot be written; 7 the record of uses is \
damaged."""

_Threshold = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="NUMBER|NAME=NUMBER",
        help="A case is positive from this score on, for both models. Where the app acts on several thresholds, each "
        "by the name of what begins there (review=0.5); may be repeated, and all of them are judged.",
    ),
]


def compare(
    model_a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="The model in use: a table of predictions (CSV or Parquet with the columns id, score and perhaps "
            "probability), an ONNX file, or the folder of an artifact.",
        ),
    ],
    model_b: Annotated[Path, typer.Argument(metavar="B", help="The model that is to take its place, in any of these.")],
    data: Annotated[Path, typer.Option(help="Table of the labelled cases (CSV or Parquet), one row a case.")],
    label: Annotated[str, typer.Option(help="Column of the truth: 0 and 1, or names with --positive.")],
    out: Annotated[Path, typer.Option(help="Folder for evidence.html and evidence.json.")],
    limits: Annotated[
        Path | None, typer.Option(help="TOML file with a table [limits], as recipes have it; a whole recipe will do.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="One more limit, such as auc_loss=0.005; may be repeated."),
    ] = None,
    threshold: _Threshold = None,
    threshold_a: Annotated[
        list[str] | None, typer.Option(metavar="NUMBER|NAME=NUMBER", help="The same for A alone.")
    ] = None,
    threshold_b: Annotated[
        list[str] | None, typer.Option(metavar="NUMBER|NAME=NUMBER", help="The same for B alone.")
    ] = None,
    threshold_in_force: Annotated[
        float | None,
        typer.Option(help="Threshold that a site keeps; says what changes there, and which threshold of B would not."),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share of positive cases at the site, for alarms and costs. That of the cases if not given."),
    ] = None,
    cost_missed: Annotated[float | None, typer.Option(help="Cost of a missed positive case, in any unit.")] = None,
    cost_alarm: Annotated[float | None, typer.Option(help="Cost of a false alarm, in the same unit.")] = None,
    positive: Annotated[str | None, typer.Option(help="Label of the positive class; all others are negative.")] = None,
    id_column: Annotated[str, typer.Option("--id", help="Column of the cases' ids, in all tables.")] = "id",
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of whom a case belongs to (patient, card); such cases depend on another. Given twice, the "
            "second one cuts across the first (terminal)."
        ),
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Columns of groups to be looked at one by one, separated by commas.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Table or .npz archive of the models' inputs, with the ids. The data are used if not given."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Columns that make up the one input of an ONNX file, in its order, separated by commas."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the resamples.")] = 0,
    record: Annotated[
        Path | None,
        typer.Option(
            help="File in which every use of the cases is written down. Without it test-uses.jsonl beside the file of "
            "limits, or beside --out where there is none."
        ),
    ] = None,
    show_test: ShowTest = False,
    as_json: AsJson = False,
) -> None:
    """Judge whether a model may take another's place, on labelled cases: a gate for continuous integration.

    B must keep every limit against A with 95% confidence, so that too few cases count against it. Nothing is
    optimized, and no torch is needed. Each use of the cases is written down; where limits are missed, by how much is
    told with --show-test alone.
    """
    from featherweight.core.compare.cases import Columns
    from featherweight.core.compare.comparison import compare_models
    from featherweight.core.compare.request import ComparisonRequest, parse_limits, parse_thresholds
    from featherweight.core.compare.request import threshold_in_force as asked_in_force
    from featherweight.core.compare.shown import outcome_row, show_comparison
    from featherweight.core.recipe import read_limits
    from featherweight.core.terminal import say

    if threshold and (threshold_a or threshold_b):
        raise UsageError("--threshold is for both models; leave it out, or --threshold-a and --threshold-b")
    both = parse_thresholds("--threshold", threshold or [])
    first, second = (
        parse_thresholds(f"--threshold-{letter}", given or []) if both is None else both
        for letter, given in (("a", threshold_a), ("b", threshold_b))
    )
    request = ComparisonRequest(
        model_a,
        model_b,
        data,
        Columns(label, id_column, tuple(cluster or ()), _names(groups), positive),
        read_limits(limits, parse_limits(limit or [])),
        (first, second),
        asked_in_force(threshold_in_force, prevalence, cost_missed, cost_alarm),
        inputs,
        _names(features),
        seed,
        record,
        show_test,
        limits,
    )
    outcome = compare_models(request, out)
    if as_json:
        say(json.dumps(outcome_row(outcome), indent=2, ensure_ascii=False))
    else:
        show_comparison(outcome)
    if not outcome.passed:
        raise typer.Exit(4)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))
