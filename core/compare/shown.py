"""What `featherweight compare` prints."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from featherweight.core.compare.comparison import ComparisonOutcome
from featherweight.core.terminal import counted, open_console


def outcome_row(outcome: ComparisonOutcome) -> dict[str, Any]:
    """What `compare --json` prints."""
    return {
        "passed": outcome.passed,
        "title": outcome.title,
        "cases": outcome.cases,
        "checks": [
            {
                "name": check.name,
                "status": check.status,
                "found": check.found,
                "limit": check.limit,
                "explanation": check.explanation,
            }
            for check in outcome.checks
        ],
        "notes": list(outcome.notes),
        "page": str(outcome.page),
        "evidence": str(outcome.document),
        "record": str(outcome.record),
    }


def show_comparison(outcome: ComparisonOutcome) -> None:
    """The verdict first, then each limit and what a reader must be told, and last where the page is."""
    console, kept = open_console(), sum(check.status == "passed" for check in outcome.checks)
    verdict = Text("passed", "green") if outcome.passed else Text("not passed", "bold red")
    told = f": {outcome.title}; {kept} of {counted(len(outcome.checks), 'limits')} kept"
    console.print(Text.assemble(verdict, told), soft_wrap=True)
    for check in outcome.checks:
        style = "green" if check.status == "passed" else "bold red"
        console.print(Text.assemble("  ", (f"{check.status}  ", style), check.explanation), soft_wrap=True)
    for note in outcome.notes:
        console.print(Text.assemble(("  note  ", "yellow"), note), soft_wrap=True)
    console.print(Text(f"page: {outcome.page}; record of uses: {outcome.record}"), soft_wrap=True)
