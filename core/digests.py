"""Files that belong together, in a folder that one command writes and another reads.

They are written one after the other, so that a process killed between them would leave the weights of one training
beside the threshold of another, each of them sound. The digests of all are written last: files that do not agree with
them are not read. A changed bit is found in the same way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from core.errors import DataError
from core.files import is_file, is_there, replacing

DIGESTS = "digests.sha256"
_MOST_BYTES = 64 * 1024
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)", re.ASCII)


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, in hex. Raises DataError when it cannot be read."""
    try:
        if not is_file(path):  # a pipe would be waited for, a device read without end
            raise DataError(f"{path}: found no regular file of that name")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_digests(directory: Path, names: Iterable[str]) -> None:
    """In the form of `sha256sum`. Raises OSError, or DataError for a file that cannot be read."""
    lines = [f"{file_digest(directory / name)}  {name}\n" for name in names]
    with replacing(directory / DIGESTS) as partial:
        partial.write_text("".join(lines))


def check_digests(directory: Path, names: Iterable[str]) -> None:
    """Raise DataError unless each of the files is the one whose digest was written last. A folder without digests, as
    versions before wrote it, is only asked for its files."""
    path = directory / DIGESTS
    try:
        content = path.read_bytes() if is_file(path) and path.stat().st_size <= _MOST_BYTES else None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if content is None and is_there(path):
        raise DataError(f"{path}: holds no digests")
    recorded = {name: digest for digest, name in _LINE.findall((content or b"").decode("ascii", "replace"))}
    for name in names:
        digest = file_digest(directory / name)
        if content is not None and digest != recorded.get(name):
            raise DataError(f"{name} is not the file that was written with the others: it was changed, or not finished")
