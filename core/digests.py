"""Files that belong together, in a folder that one command writes and another reads.

They are made in a folder beside it and get its name when all are whole. Where the folder is there already they take the
places of earlier ones, one after the other, so that a process killed between them would leave the weights of one
training beside the threshold of another, each of them sound. The digests of all come first: files that do not agree
with them are not read. A changed bit is found in the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from featherweight.core.errors import DataError
from featherweight.core.files import atomic_write, is_file, is_there, read_errors, write_errors

DIGESTS = "digests.sha256"
_MAX_BYTES = 64 * 1024
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)", re.ASCII)


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, in hex. Raises DataError when it cannot be read."""
    if not is_file(path):  # a pipe would be waited for, a device read without end
        raise DataError(f"{path}: found no regular file of that name")
    with read_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_folder(out: Path, keep: str = "") -> Iterator[Path]:
    """Give a hidden folder to make the files in; when the block ends well they are in `out`, and what an earlier run
    wrote with its own digests is gone. `out` may hold other files, which stay.

    keep: a file that is worth going on from; the folder stays, for the next time, where a block that fails has written
    it. Raises OutputError.
    """
    absolute = Path(os.path.abspath(out))  # noqa: PTH100  (resolve() would follow a link that stands there)
    partial = absolute.parent / f".{absolute.name}.partial"
    if absolute.is_dir() and not (keep and is_file(partial / keep)):
        # In it: it may be a mounted disk, or the only place where one may write.
        partial = absolute / ".new.partial"
    with write_errors(out):
        if partial.is_symlink() or not partial.is_dir():
            partial.unlink(missing_ok=True)  # it would be written through
        elif not (keep and is_file(partial / keep)):
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with write_errors(out):
            _put(partial, absolute)
    finally:
        if not (keep and is_file(partial / keep)):
            shutil.rmtree(partial, ignore_errors=True)


def _put(partial: Path, out: Path) -> None:
    if not out.is_dir():
        partial.rename(out)
        return
    names = {path.name for path in partial.iterdir()}
    try:
        before = set(_read_digests(out) or ())
    except DataError:  # they would only have said what else may go, and new ones take their place
        before = set()
    # The digests come first: from then on the new files are read, and only when all are there.
    for name in sorted(names, key=lambda name: name != DIGESTS):
        (partial / name).replace(out / name)
    for gone in before - names:
        if is_file(out / gone):  # a name that somebody wrote may be `..`
            (out / gone).unlink()
    partial.rmdir()


def write_digests(directory: Path, names: Iterable[str]) -> None:
    """In the form of `sha256sum`. Raises OutputError, or DataError for a file that cannot be read."""
    lines = [f"{file_digest(directory / name)}  {name}\n" for name in names]
    with atomic_write(directory / DIGESTS) as partial:
        partial.write_text("".join(lines))


def check_digests(directory: Path, names: Iterable[str]) -> None:
    """Raise DataError unless each of the files is the one whose digest was written last. A folder without digests, as
    versions before wrote it, is only asked for its files."""
    recorded = _read_digests(directory)
    for name in names:
        digest = file_digest(directory / name)
        if recorded is not None and digest != recorded.get(name):
            raise DataError(f"{name} is not the file that was written with the others: it was changed, or not finished")


def _read_digests(directory: Path) -> dict[str, str] | None:
    """File -> digest; None without any. Raises DataError."""
    path = directory / DIGESTS
    with read_errors(path):
        content = path.read_bytes() if is_file(path) and path.stat().st_size <= _MAX_BYTES else None
    if content is None and is_there(path):
        raise DataError(f"{path}: holds no digests")
    if content is None:
        return None
    return {name: digest for digest, name in _LINE.findall(content.decode("ascii", "replace"))}
