"""`featherweight warm-up`: what is compiled at its first use is compiled now.

The module of an app's commands (entry point group `featherweight.commands`) may have a function `warm_up`, which is
called without arguments and has everything compiled that the app's commands use."""

from __future__ import annotations

import os
import time
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from featherweight.core.errors import OutputError
from featherweight.core.files import cache_directory, check_folder
from featherweight.core.terminal import counted, say


def warm_up_all() -> None:
    """Say what was compiled, and where it is. Raises OutputError where it cannot be kept."""
    if find_spec("numba") is None:
        say("nothing is compiled here: the extra `fraud`, which brings numba, is not installed")
        return
    if not os.environ.get("NUMBA_CACHE_DIR"):
        check_folder(cache_directory() / "numba")
    started = time.monotonic()
    # Compiled when they are imported.
    from featherweight.core.backends import native_kernels, native_tree_kernels  # noqa: F401
    from featherweight.core.compiled import compilations, find_kept

    for entry in sorted(entry_points(group="featherweight.commands"), key=lambda entry: entry.name):
        warm_up = getattr(import_module(entry.module), "warm_up", None)
        if warm_up is not None:
            warm_up()
    folder = find_kept(native_kernels.walk_row)
    if folder is None:
        raise OutputError(
            f"{cache_directory()}: what was compiled cannot be kept; let XDG_CACHE_HOME name a folder that this user "
            "can write"
        )
    count = compilations.count
    what = (
        f"{counted(count, 'functions')} compiled in {time.monotonic() - started:.0f} s"
        if count
        else "all was compiled already"
    )
    say(f"{what}: {folder}")
