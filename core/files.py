"""A file that is either whole or not there; the one folder outside its outputs that Featherweight writes to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_directory() -> Path:
    """Where what can be made or fetched again is kept for this user, and nothing else: delete it at any time."""
    import platformdirs

    return platformdirs.user_cache_path("featherweight", appauthor=False)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, its file takes the place of `path`.

    Raises OSError for whatever the system refuses; `path` is then as it was and nothing else is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what failed before matters more
            partial.unlink(missing_ok=True)
