"""`featherweight data`: list and fetch the public data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from featherweight.core.options import AsJson
from featherweight.core.terminal import open_console, say

app = typer.Typer(no_args_is_help=True, help="List and fetch the public data sets that Featherweight knows.")


def _rows() -> list[dict[str, Any]]:
    from featherweight.core.datasets.catalogue import cache_directory, read_catalogue
    from featherweight.core.files import is_file

    directory = cache_directory()
    rows = []
    for name, entry in read_catalogue().items():
        path = directory / entry.file
        rows.append(
            {
                "name": name,
                "title": entry.title,
                "bytes": entry.bytes,
                "licence": entry.licence,
                "citation": entry.citation,
                "purpose": entry.purpose,
                "page": entry.page,
                "url": entry.url or None,
                "sha256": entry.sha256,
                "notes": entry.notes,
                "path": str(path) if is_file(path) else None,
            }
        )
    return rows


@app.command("list")
def list_command(
    as_json: AsJson = False,
) -> None:
    """List the data sets: size, licence, where they come from, and whether a copy is here.

    Example: featherweight data list --json
    """
    rows = _rows()
    if as_json:
        say(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "MB", "licence", "from", "here"):
        table.add_column(column, justify="right" if column == "MB" else "left", no_wrap=column == "name")
    for row in rows:
        origin = "its publisher" if row["url"] else "a local copy (--from)"
        table.add_row(row["name"], f"{row['bytes'] / 1e6:.1f}", row["licence"], origin, "yes" if row["path"] else "no")
    open_console().print(table)


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="A name that `featherweight data list` shows.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with local copies, or the file itself. Nothing is downloaded."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the file; the cache folder if not given.")] = None,
) -> None:
    """Fetch a data set from its publisher, or from a folder of local copies, and check its digest.

    An interrupted download goes on when the same command runs again.

    Example: featherweight data fetch pneumoniamnist

    Example: featherweight data fetch chest_xray_224 --from /mnt/datasets
    """
    from featherweight.core.datasets.catalogue import cache_directory, dataset, fetch
    from featherweight.core.progress import progress_bar
    from featherweight.core.signals import telling_how_to_go_on

    entry = dataset(name)
    goes_on = "interrupted; the same command goes on where it was"
    with telling_how_to_go_on(goes_on), progress_bar("bytes", transient=False) as bar:
        fetched = fetch(entry, cache_directory() if to is None else to, source=source, progress=bar)
        bar(entry.file, entry.bytes, entry.bytes)
    words = {"here": "was already here", "local": "copied", "publisher": "downloaded"}[fetched.source]
    say(f"{fetched.path}  {words}, sha256 checked; licence {entry.licence}", err=True)
    typer.echo(fetched.path)
