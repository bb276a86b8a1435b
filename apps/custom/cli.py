"""`featherweight predict`. What is slow to import is imported when it runs."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command(epilog="Example: featherweight predict models/mine --data rows.parquet --out scores.parquet")
def predict() -> None:
    """Score a table with a model of your own."""
