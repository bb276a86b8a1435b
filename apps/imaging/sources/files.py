"""Where images come from: a folder, a list, one file. Nothing is opened here but the list itself.

A folder is walked recursively in sorted order. What is left out, and nothing else: names that begin with a dot (files
and folders) and DICOMDIR, which is an index of the files that are walked anyway. Every other file becomes an item, and
one that is not an image ends as a rejected row, never in silence. Links to files are followed, links to folders are not
(they may lead in a circle): they become items too, and rejected rows that say so.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import is_file, read_errors
from featherweight.core.terminal import UNSAFE

_LISTS = (".csv", ".parquet")
_BATCH_ROWS = 4096
MAX_ROWS = 10_000_000
"""Maximum rows of a list: their names alone take 2 GB."""
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""How an absolute path of Windows begins: with a drive (`C:\\`) or a share (`\\\\server`)."""


@dataclass(frozen=True)
class Item:
    """One file to read. source: its name in results (relative to the folder, '/' between parts, or as the list has it),
    always printable as UTF-8 and never the same for two names (`_name`); path: where it lies."""

    source: str
    path: Path


def find_items(source: Path) -> Iterator[Item]:
    """The items of a folder, of a list (`.csv` or `.parquet` with a column `path`, relative to the list's own folder),
    or of a single file. Raises UsageError when there is nothing of that name, DataError when a list cannot be used."""
    # A name that is too long, or in a folder that may not be looked into.
    remedy = "name a folder, a list or a file"
    with read_errors(source, "cannot be looked at", remedy, raises=UsageError, also=(ValueError,)):
        if source.is_dir():
            return _walk(source)
        there = source.exists()
    if not there:
        raise UsageError(
            f"{source}: no such file or folder; name a folder of images, a .csv or .parquet list, or one file"
        )
    if source.suffix.lower() in _LISTS:
        return _read_list(source)
    return iter([Item(_name(source.name), source)])


def _walk(root: Path) -> Iterator[Item]:
    # A list of what is still to visit and no recursion: paths may be thousands of folders deep.
    waiting = [(root, True)]
    while waiting:
        path, is_folder = waiting.pop()
        found = _list(path) if is_folder else None
        if found is None:
            # A folder that cannot be listed is not dropped: reading it as a file says why.
            yield Item(_name(path.relative_to(root).as_posix()), path)
        else:
            waiting += reversed(found)


def _list(folder: Path) -> list[tuple[Path, bool]] | None:
    """What of a folder is visited, in order, each with whether it is a folder; None when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return None
    return [
        (Path(entry.path), entry.is_dir(follow_symlinks=False))
        for entry in found
        if not (entry.name.startswith(".") or entry.name.upper() == "DICOMDIR")
    ]


def _name(name: str) -> str:
    """The name as it is, or, where it cannot be shown as it is, `./` and the name with backslashes doubled and those
    bytes as `\\xff`: the byte 0xff and the four letters are two files, and neither may be lost."""
    if printable(name) == name and not (name.startswith("./") and "\\" in name):
        return name
    return "./" + printable(name.replace("\\", "\\\\"))


def printable(name: str) -> str:
    """A file name may hold bytes that are not UTF-8, and characters that terminals and readers obey: results hold
    `\\xff` for each such byte."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return UNSAFE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), text)


def _read_list(path: Path) -> Iterator[Item]:
    if not is_file(path):
        # Opening a pipe would wait for a writer, and a device never ends.
        raise DataError(f"{path}: found a pipe, socket or device; expected a list that is a regular file")
    # All rows are checked before the first file is read. A few bytes of Parquet can stand for a billion equal rows, so
    # that they are looked at as they come: the second of them ends it.
    names: dict[str, str] = {}  # the file that is meant -> its name in the list
    for row, name in enumerate(_read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path), start=1):
        if row > MAX_ROWS:
            raise DataError(f"{path}: has more than {MAX_ROWS:,} rows; split the list")
        if not name or not name.strip() or "\0" in name:
            raise DataError(f"{path}: row {row}: the column `path` is empty or not a path; every row must name a file")
        try:
            meant = find_listed(path.parent, name)
        except DataError as error:
            raise DataError(f"{path}: row {row}: {error}") from error
        if meant in names:
            before = "" if names[meant] == name else f" (before as {names[meant]!r})"
            raise DataError(f"{path}: row {row}: {name} is listed twice{before}; every file must be listed once")
        names[meant] = name
    return (Item(_name(name), path.parent / meant) for meant, name in names.items())


def find_listed(folder: Path, name: str) -> str:
    """The file that a list in `folder` means by a name: that of the name as it stands or, where there is none, without
    the blanks around it and with `/` for `\\`, as programs on Windows write paths; the name itself where nothing is
    there. Raises DataError for a drive or share of Windows, which leads nowhere on this host."""
    plain = name.strip()
    if plain == name and "\\" not in name and not _WINDOWS.match(name):
        return name  # nearly all of them: no file is looked for here
    for meant in (name, plain, plain.replace("\\", "/")):
        if os.path.lexists(folder / meant):
            return meant
    if _WINDOWS.match(plain):
        raise DataError(
            f"{plain} is a path on a drive or share of Windows, which leads to no file here; write paths as this host "
            "has them, or relative to the list's folder"
        )
    return name


def _read_csv(path: Path) -> Iterator[str]:
    remedy = "expected a header with a column `path`"
    with (
        read_errors(path, "cannot be read as CSV in UTF-8", remedy, also=(UnicodeDecodeError, csv.Error)),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        rows = csv.DictReader(file, strict=True)
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        _check_columns(path, rows.fieldnames)
        for number, row in enumerate(rows, start=1):
            if any(cell.strip() for cell in row.get(None, ())):  # where csv puts cells without a column
                raise DataError(
                    f"{path}: row {number} has more cells than the header has columns; put a path that holds a "
                    "comma into quotation marks"
                )
            yield row["path"] or ""


def _read_parquet(path: Path) -> Iterator[str]:
    import pyarrow as pa  # half a second to import, and needed for this kind of list only
    import pyarrow.parquet as pq

    what, remedy = "cannot be read as Parquet", "is it damaged?"
    try:
        with read_errors(path, what, remedy, also=(UnicodeDecodeError,)), pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            kind = file.schema_arrow.field("path").type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
                raise DataError(f"{path}: the column `path` holds something else than text ({kind})")
            for batch in file.iter_batches(_BATCH_ROWS, columns=["path"]):
                for value in batch.column(0).to_pylist():
                    yield value or ""
    except pa.ArrowException as error:  # whose text may quote what the file holds
        raise DataError(f"{path}: {what} ({type(error).__name__}); {remedy}") from error


def _check_columns(path: Path, columns: object) -> None:
    names = [str(name) for name in columns] if isinstance(columns, (list, tuple)) else []
    if names.count("path") != 1:
        shown = ", ".join(ascii(name[:60]) for name in names[:20]) + (", ..." if len(names) > 20 else "")
        other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
        advice = f"; its columns are separated by {other!r}, not by commas" if other else ""
        raise DataError(f"{path}: found the columns [{shown}], expected one named `path`{advice}")
