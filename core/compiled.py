"""Functions compiled by numba, kept in our cache folder where that can be written (ADR 007)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from featherweight.core.files import cache_directory
from featherweight.core.terminal import say

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: Any = None) -> Callable[[Function], Function]:
    """A decorator. With a signature the function is compiled, or its compiled code read, when it is defined; without,
    at its first call. A division by zero gives what IEEE 754 says."""

    def compile_function(function: Function) -> Function:
        try:
            with _keeping():
                return cast(Function, numba.njit(signature, cache=True, nogil=True, error_model="numpy")(function))
        except RuntimeError:  # no folder for the cache can be written: compiled anew in every process, seconds
            return cast(Function, numba.njit(signature, nogil=True, error_model="numpy")(function))

    return compile_function


class Compilations(event.Listener):
    """What is compiled in this process because no earlier one has kept it."""

    def __init__(self) -> None:
        self.count = 0

    def on_start(self, event: Any) -> None:
        """The first one is told: who waits for a minute should know why."""
        function = event.data["dispatcher"]
        if not function.py_func.__module__.startswith("featherweight."):
            return
        self.count += 1
        if self.count == 1:
            folder = find_kept(function)
            kept = f"and is kept in {folder}" if folder else "at each start: no folder can be written to keep it"
            say(f"compiling for this processor, which takes up to a minute {kept}", err=True)

    def on_end(self, event: Any) -> None:
        pass


def find_kept(function: Any) -> str | None:
    """The folder where the code of a compiled function is kept, if it is."""
    folder: str | None = function.stats.cache_path
    return folder


compilations = Compilations()
event.register("numba:compile", compilations)  # type: ignore[no-untyped-call]


@contextmanager
def _keeping() -> Iterator[None]:
    """What is decorated within the block is kept in our folder, unless NUMBA_CACHE_DIR names another. By itself numba
    takes the folder of the source file, or one of its own below the user's, which it still does where ours cannot be
    written. Other functions of this process, which may be somebody else's, stay where they were."""
    config: Any = numba.config  # its attributes are made when it is imported
    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(cache_directory() / "numba")
    try:
        yield
    finally:
        config.CACHE_DIR = before
