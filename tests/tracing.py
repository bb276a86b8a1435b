"""What a command asks of the network and changes on the disk, as strace saw it, in all its processes and threads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STRACE = shutil.which("strace")

_NETWORK = "connect,sendto,sendmsg,sendmmsg"
_FILES = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
_CHANGES = "truncate,chmod,fchmodat,chown,fchownat,utime,utimensat,unlink,unlinkat,rmdir"
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)")
_PLACE = re.compile(r'(?:\w+<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.|::ffff:0:127\.")
_RESOLVERS = ("htons(53)", "htons(5353)", "/systemd/resolve/", "sun_path=@dns")
_WRITING = ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC")


@dataclass(frozen=True)
class Trace:
    """asked: each call to another machine or to a resolver of names, also one that failed; changed: every file and
    folder that was made, opened for writing, renamed or removed, in no order."""

    code: int
    stdout: str
    stderr: str
    asked: tuple[str, ...]
    changed: frozenset[Path]


def traced(words: Sequence[str | Path], *, home: Path, tmp: Path, cwd: Path, logs: Path, timeout_s: float) -> Trace:
    """Run a command that sees a bare environment: one of a test or of CI tells some libraries to be silent."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(tmp), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [*tracer(logs), *map(str, words)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return read_trace(logs, cwd, done.returncode, done.stdout, done.stderr)


def tracer(logs: Path) -> list[str]:
    """The command in front of the one that is traced; each process and thread has a log of its own in `logs`."""
    assert STRACE is not None
    calls = f"trace={_NETWORK},{_FILES},{_CHANGES}"
    return [STRACE, "-ff", "-qqq", "-y", "--seccomp-bpf", "-s", "300", "-o", str(logs / "log"), "-e", calls]


def read_trace(logs: Path, cwd: Path, code: int, stdout: str, stderr: str) -> Trace:
    asked, changed = list[str](), set[Path]()
    for log in logs.iterdir():
        for line in log.read_text(errors="replace").splitlines():
            if (call := _CALL.match(line)) is None:
                continue
            name, arguments, result = call.groups()
            if name in _NETWORK.split(","):
                asked += [f"{name}({arguments})"] if _leaves(arguments) else []
            elif not result.startswith("-") and _changes(name, arguments):
                changed.update(_places(arguments, cwd))
    return Trace(code, stdout, stderr, tuple(asked), frozenset(changed))


def _leaves(arguments: str) -> bool:
    if any(resolver in arguments for resolver in _RESOLVERS):
        return True
    return any(not _LOOPBACK.match(four or six) for four, six in _ADDRESS.findall(arguments))


def _changes(name: str, arguments: str) -> bool:
    return not name.startswith("open") or any(flag in arguments for flag in _WRITING)


def _places(arguments: str, cwd: Path) -> Iterator[Path]:
    for folder, name in _PLACE.findall(arguments):
        yield Path(os.path.normpath(os.path.join(folder or cwd, name)))  # noqa: PTH118  (of another process)
