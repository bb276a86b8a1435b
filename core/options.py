"""Options that mean the same in several commands, declared once (one whose default differs, as that of `--threads`, is
declared by its command), and the old names of options that were renamed."""

from __future__ import annotations

import re
from copy import copy
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Folder of the artifact. The reference model that comes with Featherweight is used if none is given.",
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend", help="Runtime of the model. The artifact's fastest on this host is used if none is given."
    ),
]
VerifyDecisions = Annotated[
    bool,
    typer.Option("--verify-decisions", help="Start only if this host reproduces the artifact's reference decisions."),
]
MaxRejectedShare = Annotated[
    float,
    typer.Option(
        "--max-rejected-share",
        min=0,
        max=1,
        help="End with code 4 if a larger share of the files, transactions or labels is rejected; 1 allows all.",
    ),
]
AllowEmpty = Annotated[
    bool,
    typer.Option("--allow-empty", help="Accept an input that holds nothing: exit code 0 and results without rows."),
]
Data = Annotated[str, typer.Option("--data", help="Path of a data set, or the catalogue's name of a fetched data set.")]
ReportTest = Annotated[
    bool,
    typer.Option("--report-test", help="Measure on the test data too. Use it once, for the last figure."),
]


def _parse_budget(text: str) -> float:
    """Seconds of "90s", "30m" or "2h"."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh])", text.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"found {text!r}, expected a time such as 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        parser=_parse_budget,
        metavar="TIME",
        help="Time to search for (90s, 30m, 2h). The most promising candidates come first, with new values between "
        "those that the recipe lists. Without it every value that the recipe lists is tried.",
    ),
]

PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", help="A plan that `featherweight evidence plan` wrote; the evidence says whether it was followed."
    ),
]
ShowTest = Annotated[
    bool,
    typer.Option(
        "--show-test",
        help="Tell what was found where limits are missed on the test cases; the record of their uses says so.",
    ),
]

OLD_NAMES = {
    "--alerts-a-day": "--alerts-per-day",
    "--batch": "--batch-size",
    "--bootstrap": "--bootstrap-servers",
    "--connections": "--max-connections",
    "--instance-id": "--group-instance-id",
    "--no-run": "--digests-only",
    "--reader": "--format",
    "--security": "--client-config",
    "--side": "--image-size",
    "--start": "--init-from",
    "--state": "--state-dir",
    "--topics-prefix": "--topic-prefix",
    "--verify-parity": "--verify-decisions",
}
"""Old name -> name. A command that has the option takes both; the old ones go with the next version."""


class Command(TyperCommand):
    """A command that takes its options by their old names too, which no help shows."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        for option in self.get_params(ctx):
            old_names = [old for old, name in OLD_NAMES.items() if name in option.opts]
            if old_names:
                alias = copy(option)
                alias.opts, alias.secondary_opts = old_names, []
                alias.add_to_parser(parser, ctx)
        return parser
