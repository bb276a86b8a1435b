"""Python processes that this one starts. They import what this one imports, and nothing from the current folder: it may
hold anybody's images, and a `struct.py` or `core/` among them would run in place of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from core.errors import FeatherweightError


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
    through: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Run `module` as the main program of a new Python process; returns its standard output. through: a command that
    runs the one behind it, such as an emulator; environment: variables added to this process' own.

    Raises `failure`, which begins with `what` and ends with the process' last line, when it fails or takes longer than
    `timeout_s`.
    """
    path = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*through, sys.executable, "-m", module]
    try:
        process = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env={**os.environ, **path, **environment},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise failure(f"{what} took longer than {timeout_s:g} s") from error
    if process.returncode != 0:
        reason = process.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise failure(f"{what} ended with code {process.returncode}: {reason[-1]}")
    return process.stdout
