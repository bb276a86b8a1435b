"""A file that is whole or not there, a folder that can be written, and the one that Featherweight keeps for itself."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from core.errors import DataError, OutputError, UsageError

# Not every system has these.
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_READ_FLAGS: Final[int] = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def cache_directory() -> Path:
    """Where what can be made or fetched again is kept for this user, and nothing else: delete it at any time."""
    import platformdirs

    return platformdirs.user_cache_path("featherweight", appauthor=False)


def is_file(path: Path) -> bool:
    """Whether a regular file is there. Never raises: at a name that no file system takes there is none."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises for a name that is too long)


def is_there(path: Path) -> bool:
    """Whether anything is there. Never raises."""
    return os.path.exists(path)  # noqa: PTH110  (as above)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, its file takes the place of `path`.

    Raises OSError for whatever the system refuses; `path` is then as it was and nothing else is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    # Of a killed process, or a link or pipe that somebody put there: it would be written through.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what failed before matters more
            partial.unlink(missing_ok=True)


def check_folder(out: Path, another: str = "another folder") -> None:
    """Raise OutputError now for a folder that could not be made or written to hours later; makes nothing. another: what
    the message advises to choose."""
    try:
        there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    except OSError as error:  # no name that a folder can have
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}; choose {another}") from error
    if not there.is_dir():
        raise OutputError(f"{out}: cannot be written: {there} is no folder; choose {another}")
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise OutputError(f"{out}: cannot be written: {os.strerror(errno.EROFS)}; choose {another}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: cannot be written: no permission to write into {there}; choose {another}")


def open_to_lock(path: Path, mode: int) -> int:
    """A descriptor of a file that is there to be locked, made with this mode where there is none. Neither through a
    link nor into a pipe, which would wait for a reader. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _READ_FLAGS, mode)


@contextlib.contextmanager
def writing_alone(out: Path) -> Iterator[None]:
    """While the block runs, no other process that asks the same makes the folder `out`: two that write one checkpoint,
    or one file each, leave what neither has made.

    By a record lock on a hidden file beside the folder, which ends with the process however that ends; in the folder,
    where nothing may be written beside it. Raises UsageError when another process has it, OutputError.
    """
    if sys.platform == "win32":
        yield
        return
    target = Path(os.path.realpath(out))
    handle, path = -1, target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not os.access(target.parent, os.W_OK | os.X_OK):
            path = target / ".lock"
        handle = _lock(path)
    except BlockingIOError as error:
        raise UsageError(
            f"{out}: another process writes there at this moment; wait until it has ended, or choose another --out"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be made and locked ({error.strerror or error}); choose a folder on a local disk that may "
            "be written to"
        ) from error
    try:
        yield
    finally:
        # While it is still locked: nobody else's lock is taken away.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _lock(path: Path) -> int:
    """Raises BlockingIOError when another process has the lock, OSError."""
    import fcntl  # not on every system

    while True:
        handle = open_to_lock(path, 0o600)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(path) and os.path.samestat(path.lstat(), os.fstat(handle)):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # of one that ended just now: it took the file with it


def check_readable(path: Path, option: str) -> None:
    """Raise DataError now for a file that could not be read later: none, a folder, or one that may not be read. Pipes
    and devices are let through. option: where the path was given."""
    try:
        found = path.stat()
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise DataError(f"{option} {path}: cannot be read ({why}); look for a slip in the path") from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{option}: not a path ({error})") from error
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{option} {path}: cannot be read (it is a folder); name a file in it")
    if not os.access(path, os.R_OK):
        raise DataError(f"{option} {path}: cannot be read (no permission)")


def check_creatable(path: Path) -> None:
    """Raise OutputError now for a file that could not be written later, because of the folder where it is to be."""
    if not os.path.isdir(path.parent):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        raise OutputError(f"{path}: cannot be written: there is no folder {path.parent}; make it, or correct the path")
    check_folder(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """To read. Raises OSError, also for a link, a device, a pipe or a folder: reading those may never end, or read what
    nobody meant."""
    if not _NOFOLLOW and path.is_symlink():
        raise OSError(f"{path} is a link")
    handle = os.open(path, os.O_RDONLY | _NOFOLLOW | _READ_FLAGS)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(handle, "rb")
