"""Files: whole or not there, written alone, and one place where what the system refuses becomes an error with a remedy.

`write_errors` and `read_errors` are the only code that turns an OSError into a FeatherweightError
(tests/core/test_files.py looks). Their messages have one form: WHERE: WHAT (WHY); REMEDY. Blocks may be nested: the
innermost is nearest to the file and has the word.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from featherweight.core.errors import DataError, FeatherweightError, OutputError, UsageError

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


_OTHER_PLACE: Final = "free space or choose another place"


def write_errors(
    where: object, what: str = "cannot be written", remedy: str = _OTHER_PLACE
) -> contextlib.AbstractContextManager[None]:
    """Turn whatever the system refuses in the block into an OutputError: "WHERE: WHAT (WHY); REMEDY"."""
    return _ConvertedErrors(OutputError, where, what, remedy, ())


def read_errors(
    where: object,
    what: str = "cannot be read",
    remedy: str = "",
    *,
    raises: type[FeatherweightError] = DataError,
    also: tuple[type[Exception], ...] = (),
) -> contextlib.AbstractContextManager[None]:
    """Turn whatever the system refuses in the block into a DataError: "WHERE: WHAT (WHY); REMEDY".

    raises: another error, for what is not a data set, such as the file of an option.
    also: what else means that the file cannot be used, such as the errors of the library that parses it.
    """
    return _ConvertedErrors(raises, where, what, remedy, also)


class _ConvertedErrors(contextlib.AbstractContextManager[None]):
    """No generator, since the journal of the fraud app enters one for every transaction."""

    __slots__ = ("_also", "_raises", "_remedy", "_what", "_where")

    def __init__(
        self,
        raises: type[FeatherweightError],
        where: object,
        what: str,
        remedy: str,
        also: tuple[type[Exception], ...],
    ) -> None:
        self._raises, self._where, self._what, self._remedy, self._also = raises, where, what, remedy, also

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # That the reader of our output has left is no error of anybody's; the command line ends quietly.
        if error is not None and isinstance(error, (OSError, *self._also)) and not isinstance(error, BrokenPipeError):
            advice = f"; {self._remedy}" if self._remedy else ""
            raise self._raises(f"{self._where}: {self._what} ({describe_error(error)}){advice}") from error


def describe_error(error: BaseException) -> str:
    """The reason in words, without the number and the path that the system puts into an OSError's own, and without the
    byte of the file that Python quotes where a text cannot be decoded."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()}"
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


@contextlib.contextmanager
def atomic_write(
    path: Path, what: str = "cannot be written", remedy: str = _OTHER_PLACE, *, make_folder: bool = False
) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, its file takes the place of `path`.

    what, remedy: as for `write_errors`. make_folder: make the folder of `path` where it is not there.
    Raises OutputError for whatever the system refuses; `path` is then as it was and nothing else is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    with write_errors(path, what, remedy):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        # The rest of a killed process, or a link or pipe that somebody put there, would be written through.
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
    with write_errors(out, remedy=f"choose {another}"):  # of a name that no folder can have
        there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise OutputError(f"{out}: cannot be written: {there} is not a folder; choose {another}")
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise OutputError(f"{out}: cannot be written: {os.strerror(errno.EROFS)}; choose {another}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: cannot be written: no permission to write into {there}; choose {another}")


def open_to_lock(path: Path, mode: int) -> int:
    """A descriptor of a file that is there to be locked, made with this mode where there is none. Neither through a
    link nor into a pipe, which would wait for a reader. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _READ_FLAGS, mode)


@contextlib.contextmanager
def lock_errors(
    path: Path,
    busy: str,
    what: str = "cannot be locked",
    remedy: str = "choose a folder on a local disk that may be written to",
) -> Iterator[None]:
    """Turn that another process has the lock into a UsageError that says `busy`, and all else that the system refuses
    into an OutputError, worded as by `write_errors`."""
    with write_errors(path, what, remedy):
        try:
            yield
        except BlockingIOError as error:
            raise UsageError(busy) from error


@contextlib.contextmanager
def writing_alone(out: Path, another: str = "another --out") -> Iterator[None]:
    """While the block runs, no other process that asks the same makes the folder or file `out`: two that write one
    checkpoint, or one file each, leave what neither has made. another: what the message advises to choose.

    By a record lock on a hidden file beside `out`, which ends with the process however that ends; in the folder, where
    nothing may be written beside it. Where the file system has no locks, nothing is locked. It says nothing to the
    process that has it: do not nest two for one `out`. Folders above `out` are made, and taken away again where
    nothing came into them.
    Raises UsageError when another process has it, OutputError.
    """
    if sys.platform == "win32":
        yield
        return
    # A file takes the place of a link, a folder is written through one. os.path's function answers for a name that is
    # too long, where that of Path raises.
    is_folder = os.path.isdir(out)  # noqa: PTH112
    target = Path(os.path.realpath(out)) if is_folder else Path(os.path.realpath(out.parent)) / out.name
    path = target.with_name(f".{target.name}.lock") if target.name else target / ".lock"
    busy = f"{out}: another process writes there at this moment; wait until it has ended, or choose {another}"
    made = [folder for folder in target.parents if not os.path.lexists(folder)]
    try:
        with lock_errors(out, busy, "cannot be written", f"choose {another}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not os.access(target.parent, os.W_OK | os.X_OK):
                path = target / ".lock"
            handle = _lock(path)
        try:
            yield
        finally:
            if handle is not None:
                # While it is still locked: nobody else's lock is taken away.
                with contextlib.suppress(OSError):
                    path.unlink()
                os.close(handle)
    finally:
        with contextlib.suppress(OSError):  # of the first that is not empty
            for folder in made:
                folder.rmdir()


def take_record_lock(handle: int) -> None:
    """Raises BlockingIOError when another process has the lock, OSError."""
    import fcntl  # not on every system

    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # POSIX lets a system say this too
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error


_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def _lock(path: Path) -> int | None:
    """The descriptor that has the lock; None where the file system has no locks. Raises BlockingIOError when another
    process has it, OSError."""
    while True:
        handle = open_to_lock(path, 0o666)  # whom the folder's owner lets write there may find it after a kill
        try:
            take_record_lock(handle)
            if os.path.lexists(path) and os.path.samestat(path.lstat(), os.fstat(handle)):
                return handle
        except BaseException as error:
            os.close(handle)
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                path.unlink()
                return None
            raise
        os.close(handle)  # of one that ended just now: it took the file with it


def check_readable(path: Path, option: str) -> None:
    """Raise DataError now for a file that could not be read later: none, a folder, or one that may not be read. Pipes
    and devices are let through. option: where the path was given."""
    try:
        with read_errors(f"{option} {path}", remedy="look for a slip in the path"):
            found = path.stat()
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


def describe_kind(mode: int) -> str:
    """What stands at a path, of the mode that `stat` gives: "a regular file", "a folder", "a pipe" ..."""
    return _KINDS.get(stat.S_IFMT(mode), "a device")


_KINDS: Final = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BinaryIO:
    """To read. Raises OSError, also for a link, a device, a pipe or a folder: reading those may never end, or read what
    nobody meant."""
    if not _NOFOLLOW and path.is_symlink():
        raise OSError("found a link, expected a regular file")
    handle = os.open(path, os.O_RDONLY | _NOFOLLOW | _READ_FLAGS)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(f"found {describe_kind(mode)}, expected a regular file")
    return os.fdopen(handle, "rb")
