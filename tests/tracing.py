"""What a command asks of the network and changes on the disk, as strace saw it in all its processes and threads."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

STRACE = shutil.which("strace")

_NETWORK = ("connect", "sendto", "sendmsg", "sendmmsg")
_OPENING = ("open", "openat", "openat2")
_CHANGING = (
    "creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "truncate", "chmod", "fchmodat", "chown", "fchownat", "utime", "utimensat", "unlink", "unlinkat",
    "rmdir",
)  # fmt: skip
_WRITING = ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)")
_PLACE = re.compile(r'(?:\w+<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
_RESOLVERS = ("htons(53)", "htons(5353)", "/systemd/resolve/")


@dataclass(frozen=True)
class Trace:
    """asked: each call to another machine or to a resolver of names, also one that failed; changed: every path that
    was made, opened for writing, renamed, given other rights or removed."""

    code: int
    said: str
    asked: tuple[str, ...]
    changed: frozenset[Path]


def traced(
    words: Sequence[str],
    *,
    home: Path,
    tmp: Path,
    cwd: Path,
    logs: Path,
    until: str = "",
    meanwhile: Callable[[str], None] = lambda line: None,
    timeout_s: float = 240,
) -> Trace:
    """Run a command in a bare environment, since in those of pytest and of CI some libraries are silent by themselves.

    until: what a command that would run for ever writes to standard error when it is ready; `meanwhile` is called with
    that line, and then the command is asked to end.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(tmp), "LANG": "C.UTF-8"}
    calls = ",".join((*_NETWORK, *_OPENING, *_CHANGING))
    assert STRACE is not None
    tracer = [
        STRACE,
        "-ff",
        "-qqq",
        "-y",
        "--seccomp-bpf",
        "-s",
        "300",
        "-o",
        str(logs / "log"),
        "-e",
        f"trace={calls}",
    ]
    said = ""
    with subprocess.Popen(
        [*tracer, *words],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        limit = threading.Timer(timeout_s, lambda: _signal(process, signal.SIGKILL))
        limit.start()
        try:
            for line in process.stdout:
                said += line
                if until and until in line:
                    meanwhile(line)
                    _signal(process, signal.SIGTERM)
            code = process.wait()
        finally:
            limit.cancel()
            _signal(process, signal.SIGKILL)
    return Trace(code, said, *_read(logs, cwd))


def _signal(tracer: subprocess.Popen[str], number: int) -> None:
    """To the command: strace itself would only let go of it."""
    if tracer.poll() is None:
        for child in psutil.Process(tracer.pid).children():
            child.send_signal(number)


def _read(logs: Path, cwd: Path) -> tuple[tuple[str, ...], frozenset[Path]]:
    asked, changed = list[str](), set[Path]()
    for log in logs.iterdir():
        for line in log.read_text(errors="replace").splitlines():
            if (call := _CALL.match(line)) is None:
                continue
            name, arguments, result = call.groups()
            if name in _NETWORK:
                asked += [f"{name}({arguments})"] if _leaves(arguments) else []
            elif not result.startswith("-") and (name in _CHANGING or any(flag in arguments for flag in _WRITING)):
                changed.update(_places(arguments, cwd))
    return tuple(asked), frozenset(changed)


def _leaves(arguments: str) -> bool:
    if any(resolver in arguments for resolver in _RESOLVERS):
        return True
    return any(not _LOOPBACK.match(four or six) for four, six in _ADDRESS.findall(arguments))


def _places(arguments: str, cwd: Path) -> Iterator[Path]:
    """Relative ones by the folder that the call names, else by the one in which the command began."""
    for folder, name in _PLACE.findall(arguments):
        yield Path(os.path.normpath(Path(folder or cwd) / name))
