"""The commands `featherweight fraud ...`: parse, call, print, exit code."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Score card transactions for fraud.")


@app.callback()
def fraud() -> None:
    """Train, score files, score a Kafka stream, serve over REST."""
