"""`featherweight evidence`: plan a comparison before it is run, and see and complete the record of test cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featherweight.core.files import is_there
from featherweight.core.options import AsJson
from featherweight.core.terminal import counted, open_console, printable, say

if TYPE_CHECKING:
    from featherweight.core.record.uses import History, Line

app = typer.Typer(
    no_args_is_help=True, help="Plan a comparison before it is run; show and complete the record of test cases."
)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe: a TOML file with source, steps, backends and limits.")]


@app.command(
    epilog="Example: featherweight evidence plan recipe.toml --out plan.json --control-plan PLAN.md   "
    "Exit codes: 0 written; 2 the recipe has faults, gives no reason for a margin, or cases are in two splits; 6 a "
    "file cannot be written; 7 the record of uses is damaged."
)
def plan(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="The plan, a file that `optimize --plan` takes; an older one is replaced.")],
    control_plan: Annotated[
        Path | None,
        typer.Option(help="Write the plan as a change control plan in Markdown too, for a regulator or a bank's file."),
    ] = None,
) -> None:
    """Write down what will be judged before any test case is run.

    The plan has the limits with their reasons (from the recipe's table `reasons`), the steps, the seed and the digests
    of the training, validation and test cases. Its own digest goes into the record of uses of the test cases, so that
    evidence can show that the plan is older than its results.
    """
    from featherweight.core.request import record_of, write_plan

    record = record_of(recipe)
    is_new = not is_there(record)
    found = write_plan(recipe, out, control_plan)
    _tell_new(record, is_new=is_new)
    test = found.splits["test"]
    say(f"{out}: {counted(len(found.limits), 'limits')} on {counted(test.cases, 'test cases')} ({test.sha256[:12]})")
    say(f"{counted(found.earlier_uses, 'earlier uses')} of these test cases on record")
    if control_plan is not None:
        say(str(control_plan))


@app.command(
    epilog="Example: featherweight evidence uses test-uses.jsonl --artifact models/chest   "
    "Exit codes: 0 the record is whole; 2 there is no such file; 5 the artifact cannot be trusted; 7 the record is "
    "damaged, or lines that the artifact's evidence names are gone."
)
def uses(
    record: Annotated[Path, typer.Argument(help="The record: a file of JSON lines.")],
    artifact: Annotated[
        Path | None,
        typer.Option(help="An artifact whose evidence must be in the record; shows whether lines were cut."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every use of test cases that is on record, after every line was checked against the one before it."""
    from featherweight.core.console import print_json
    from featherweight.core.errors import DataError
    from featherweight.core.record.uses import read_uses

    if not is_there(record):
        raise DataError(f"{record}: there is no such record of uses; look for a slip in the path")
    history = read_uses(record)
    if artifact is not None:
        _check_artifact(history, record, artifact)
    if as_json:
        print_json({"lines": _rows(history), "head": history.head})
    else:
        _show(history)


@app.command(
    "enter-use",
    epilog='Example: featherweight evidence enter-use recipe.toml --uses 9 --when "until 2026-11" --words "tuning"   '
    "Exit codes: 0 entered; 2 the recipe has faults or its data are missing; 6 the record cannot be written; 7 it is "
    "damaged.",
)
def enter_use_command(
    recipe: RecipeFile,
    when: Annotated[str, typer.Option(help="The date, or from when to when.")],
    words: Annotated[str, typer.Option(help="Who looked, at what, and what was changed afterwards.")],
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="How many uses it stands for.")] = 1,
) -> None:
    """Enter uses of a recipe's test cases that no program wrote down.

    The entry says that it was made by hand, and counts in all later evidence on these cases. It cannot be taken back.
    """
    from featherweight.core.request import enter_use, record_of

    is_new = not is_there(record_of(recipe))
    record = enter_use(recipe, uses=uses, when=when, words=words)
    _tell_new(record, is_new=is_new)
    say(f"{record}: {counted(uses, 'uses')} entered by hand")


def _tell_new(record: Path, *, is_new: bool) -> None:
    from featherweight.core.record.uses import begins_here

    if is_new:
        say(begins_here(record))


def _check_artifact(history: History, record: Path, folder: Path) -> None:
    """Raise JournalError where the record lacks the line that the artifact's evidence was written after."""
    from featherweight.core.api.evidence import read_evidence
    from featherweight.core.errors import JournalError, UsageError

    known = read_evidence(folder).document.get("test_uses")
    if not isinstance(known, dict):
        raise UsageError(f"{folder}: its evidence names no record of uses; it was made before there was one")
    place = history.find_line(str(known.get("head")))
    if place is None:
        raise JournalError(
            f"{record}: line {known.get('lines')}, which the evidence of {folder} was written after, is not in it: "
            "lines were cut off or it is another record; bring back the whole file"
        )
    say(f"{folder}: its use is in line {place} of {record}")


def _rows(history: History) -> list[dict[str, Any]]:
    import msgspec

    return [
        {**msgspec.to_builtins(line), "sha256": digest}
        for line, digest in zip(history.lines, history.digests, strict=True)
    ]


def _show(history: History) -> None:
    from rich.table import Table
    from rich.text import Text

    from featherweight.core.record.uses import Ended

    ended = {line.use for line in history.lines if isinstance(line, Ended)}
    table = Table("line", "when", "cases", "what", box=None, padding=(0, 2, 0, 0))
    for number, line in enumerate(history.lines, 1):
        cases = "" if isinstance(line, Ended) else line.cases.sha256[:12]
        table.add_row(*(Text(printable(cell)) for cell in (str(number), line.at, cases, _describe(line, ended))))
    console = open_console()
    console.print(table)
    console.print(Text(f"{counted(len(history.lines), 'lines')}, each as it was written; head {history.head}"))


def _describe(line: Line, ended: set[str]) -> str:
    """ended: ids of the uses that have ended."""
    from featherweight.core.record.uses import Begun, Ended, Entered, Planned

    match line:
        case Ended():
            missed = f": {', '.join(line.missed)}" if line.missed else ""
            return f"ended: {line.verdict}{missed}{', sealed by force' if line.forced else ''}"
        case Planned():
            return f"planned: {line.recipe}, plan {line.plan[:12]}"
        case Begun():
            limits = ", ".join(f"{name} {limit}" for name, limit in line.limits.items())
            shown = ", figures to be shown" if line.shown else ""
            unfinished = "" if line.use in ended else "; not ended: it was stopped, or is running"
            return f"begun: {line.recipe} ({limits}) {line.candidate}{shown}{unfinished}"
        case Entered():
            return f"{line.when}: {counted(line.uses, 'uses')} entered by hand ({line.words})"
