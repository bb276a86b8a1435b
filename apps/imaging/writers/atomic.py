"""A file that is either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, its file takes the place of `path`.

    Raises OutputError for whatever the system refuses; `path` is then as it was and nothing else is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: could not be written ({error.strerror or error}); the results are safe in the journal: "
            "make room or mend the disk, and the same command writes it"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
