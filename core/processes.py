"""Python processes that this one starts. They import what this one imports, and nothing from the current folder: it may
hold anybody's images, and a `struct.py` or `core/` among them would run in place of ours."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, BinaryIO

from featherweight.core.errors import FeatherweightError

_LOOK_S = 0.2
"""How often a process that runs is asked whether it is still wanted."""
_STDERR_BYTES = 1 << 16
"""How much of the end of a process's standard error is kept."""
_PR_SET_PDEATHSIG = 1
_NO_MEMORY = re.compile(rb"MemoryError|bad.?alloc|[Cc]annot allocate|[Ff]ailed to allocate|[Oo]ut of memory")


@dataclass(frozen=True)
class Limits:
    """What a process may take that tries something hostile; it leaves no core dump. memory_bytes: what it may write to,
    files that it only maps left out (RLIMIT_DATA; Linux alone keeps to it); stack_bytes: of its first thread; cpu_s: of
    all its threads together, so that it ends too when nobody is left who would end it."""

    memory_bytes: int
    stack_bytes: int
    cpu_s: int


@contextmanager
def safe_path() -> Iterator[None]:
    """Python processes that are started within the block leave the current folder out of their module search path."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def run_module(
    module: str,
    stdin: bytes,
    *,
    timeout_s: float,
    what: str,
    failure: type[FeatherweightError],
    late: type[FeatherweightError] | None = None,
    through: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
    limits: Limits | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> bytes:
    """Run `module` as the main program of a new Python process; returns its standard output. through: a command that
    runs the one behind it, such as an emulator; environment: variables added to this process' own; stopping: asked now
    and then, ends the process.

    Raises `failure`, which begins with `what` and says how the process ended, when it fails, is stopped or takes longer
    than `timeout_s`; for the last `late` instead, where one is given.
    """
    path = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*through, sys.executable, "-m", module]
    if limits is not None:
        numbers = (limits.memory_bytes, limits.stack_bytes, limits.cpu_s)
        command = [*through, sys.executable, "-m", "featherweight.core.processes", module, *map(str, numbers)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **path, **environment},
    ) as process:
        try:
            stdout, stderr = _answer(process, stdin, time.monotonic() + timeout_s, stopping)
        except subprocess.TimeoutExpired as error:
            if stopping():
                raise failure(f"{what} was stopped") from error
            raise (late or failure)(f"{what} took longer than {timeout_s:g} s") from error
        finally:
            process.kill()
    if process.returncode != 0:
        raise failure(f"{what} {_end_of(process.returncode, stderr, limits)}")
    return stdout


def _answer(
    process: subprocess.Popen[bytes], stdin: bytes, deadline: float, stopping: Callable[[], bool]
) -> tuple[bytes, bytes]:
    """Raises subprocess.TimeoutExpired when time is up, or somebody wants it to stop."""
    # Its own thread writes: `communicate` that has waited in vain does not write the rest when it is called again.
    writer = threading.Thread(target=_write, args=(process.stdin, stdin), daemon=True)
    end = bytearray()
    reader = threading.Thread(target=_read_end, args=(process.stderr, end), daemon=True)
    process.stdin = process.stderr = None
    writer.start()
    reader.start()
    while True:
        left = deadline - time.monotonic()
        try:
            stdout, _ = process.communicate(timeout=max(0.0, min(left, _LOOK_S)))
        except subprocess.TimeoutExpired:
            if left <= _LOOK_S or stopping():
                raise
        else:
            reader.join(_LOOK_S)  # not for ever: a process that it started may hold the stream
            return stdout, bytes(end)


def _read_end(stream: IO[bytes] | None, end: bytearray) -> None:
    """Keeps what was written last: a runtime that prints without end fills no memory here."""
    assert stream is not None  # noqa: S101  (it was asked for)
    with stream:
        while part := os.read(stream.fileno(), _STDERR_BYTES):
            end += part
            del end[:-_STDERR_BYTES]


def _write(stream: IO[bytes] | None, content: bytes) -> None:
    """Ends when all is written, or nobody is there who would read it."""
    assert stream is not None  # noqa: S101  (it was asked for)
    with contextlib.suppress(OSError), stream:
        stream.write(content)


@contextmanager
def answer_stream() -> Iterator[BinaryIO]:
    """The standard output of a process that `run_module` started. What anything else in it prints within the block, as
    runtimes do, goes to the standard error: it must not stand in the answer."""
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        yield stream


def _end_of(code: int, stderr: bytes, limits: Limits | None) -> str:
    """How a process ended, in words."""
    if limits is not None and _NO_MEMORY.search(stderr):
        return f"asked for more than the {limits.memory_bytes} bytes of memory that it may have"
    lines = stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by the signal {signal.Signals(-code).name}: {lines[-1]}"
    return f"ended with code {code}: {lines[-1]}"


def _limit_self(memory_bytes: int, stack_bytes: int, cpu_s: int) -> None:
    """Before anything else is imported. Where the system has no such limits, the one who started us has the time."""
    try:
        import resource
    except ImportError:
        return
    if sys.platform == "linux":
        # Who started us waits for us; when that thread is gone, nobody does.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Where memory runs out all the same, this process is to be ended, and not the one that serves.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_STACK, stack_bytes),
    ):
        with contextlib.suppress(OSError, ValueError):  # already held to less
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    _, module_name, *limit_texts = sys.argv
    _limit_self(*map(int, limit_texts))
    sys.argv = [module_name]
    runpy.run_module(module_name, run_name="__main__", alter_sys=True)
