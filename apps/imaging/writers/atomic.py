"""A result file that is either whole or not there, and what to do when it cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featherweight.core import files
from featherweight.core.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, its file takes the place of `path`.

    Raises OutputError for whatever the system refuses; `path` is then as it was and nothing else is left behind.
    """
    with replacing_errors(path), files.atomic_write(path) as partial:
        yield partial


@contextmanager
def replacing_errors(path: Path) -> Iterator[None]:
    """Turn whatever the system refuses at `path` into an OutputError that says how to go on."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: could not be written ({error.strerror or error}); the results are safe in the journal: "
            "make room or mend the disk, and the same command writes it"
        ) from error
