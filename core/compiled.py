"""Functions compiled by numba, kept in our cache folder where that can be written (ADR 007)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from core.files import cache_directory
from core.terminal import say

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: Any = None) -> Callable[[Function], Function]:
    """A decorator. With a signature the function is compiled, or its compiled code read, when it is defined; without,
    at its first call. A division by zero gives what IEEE 754 says."""

    def compile_function(function: Function) -> Function:
        try:
            with _keeping():
                return cast(Function, numba.njit(signature, cache=True, nogil=True, error_model="numpy")(function))
        except RuntimeError:  # no folder for the cache can be written: compiled anew in every process, seconds
            compilations.kept = False
            return cast(Function, numba.njit(signature, nogil=True, error_model="numpy")(function))

    return compile_function


class Compilations(event.Listener):  # type: ignore[misc]
    """What is compiled in this process and was not kept by an earlier one. kept: whether the next one will find it."""

    def __init__(self) -> None:
        self.count = 0
        self.kept = True

    def on_start(self, event: Any) -> None:
        """The first one is told: who waits for a minute should know why."""
        if not event.data["dispatcher"].py_func.__module__.startswith(("core.", "apps.")):
            return
        self.count += 1
        if self.count == 1:
            where = f"and is kept in {cache_directory() / 'numba'}" if self.kept else "at each start: nothing can be kept"
            say(f"compiling for this processor, which takes up to a minute {where}", err=True)

    def on_end(self, event: Any) -> None:
        pass


compilations = Compilations()
event.register("numba:compile", compilations)


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
