"""`featherweight predict`. What is slow to import is imported when it runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featherweight.core.errors import LimitError
from featherweight.core.options import AsJson, Backend, MaxRejectedShare
from featherweight.core.signals import telling_how_to_go_on
from featherweight.core.terminal import counted, say

if TYPE_CHECKING:
    from featherweight.apps.custom.predict import PredictSummary

SOME_REJECTED = 3

app = typer.Typer()


@app.command(
    epilog="Example: featherweight predict models/mine --data rows.parquet --keep id,site --out scores.parquet   "
    "Exit codes: 0 done; 2 the table does not fit, or there is no such model; 3 done, but some rows could not be "
    "scored (the column reason says why); 4 done, but more than --max-rejected-share of them; 5 the model cannot be "
    "trusted; 6 the output could not be written; 130 interrupted: the same command goes on where it was."
)
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of an artifact that was made of a model of your own.")],
    data: Annotated[Path, typer.Option(help="The table (CSV or Parquet) with the model's columns, in any order.")],
    out: Annotated[Path, typer.Option(help="The table of scores: a file named .parquet or .csv, replaced if there.")],
    keep: Annotated[
        str | None,
        typer.Option(help="Columns that are carried over, separated by commas; `id` if there is one, if not given."),
    ] = None,
    backend: Backend = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that score. All usable cores if not given.")
    ] = None,
    max_rejected_share: MaxRejectedShare = 1.0,
    as_json: AsJson = False,
) -> None:
    """Score every row of a table with a model of your own.

    The output has the rows in their order, each with score, probability and decision, or the reason why it has none.
    Memory is bounded whatever the table's size, and what is done is kept if it is interrupted.
    """
    from featherweight.apps.custom.predict import PredictJob, carried_columns, run_predict
    from featherweight.core.hardware import count_usable_cores
    from featherweight.core.progress import progress_bar

    names = tuple(filter(None, (name.strip() for name in (keep or "").split(","))))
    job = PredictJob(model, data, out, carried_columns(data, names), backend, threads or count_usable_cores())
    with (
        telling_how_to_go_on("interrupted; what is finished is kept, and the same command goes on"),
        progress_bar("rows", lines_every_s=30) as bar,
    ):
        summary = run_predict(job, bar)
    _report(summary, as_json=as_json)
    if summary.rejected > max_rejected_share * summary.rows:
        raise LimitError(
            f"{summary.rejected:,} of {counted(summary.rows, 'rows')} could not be scored, more than "
            f"--max-rejected-share {max_rejected_share:g}; {out} says why, all results are written"
        )
    if summary.rejected:
        raise typer.Exit(SOME_REJECTED)


def _report(summary: PredictSummary, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps({**asdict(summary), "out": str(summary.out), "rejected": summary.rejected}, indent=2))
        return
    decided = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.decisions.items()))
    say(f"{summary.out}: {counted(summary.rows, 'rows')} on {summary.backend}: {decided or 'none scored'}")
    for reason, count in sorted(summary.reasons.items(), key=lambda one: -one[1])[:10]:
        say(f"  {counted(count, 'rows')} not scored: {reason}")
