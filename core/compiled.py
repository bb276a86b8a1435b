"""Functions compiled by numba, kept in our cache folder where that can be written (ADR 007)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import event

from featherweight.core.files import cache_directory
from featherweight.core.terminal import say

Function = TypeVar("Function", bound=Callable[..., Any])
_CONFIG: Final[Any] = numba.config  # its attributes are made when it is imported
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}


def compiled(signature: Any = None, *, constants: Sequence[object] = ()) -> Callable[[Function], Function]:
    """A decorator. With a signature the function is compiled, or its compiled code read, when it is defined; without,
    at its first call. A division by zero gives what IEEE 754 says. constants: what the function, or one that it calls,
    reads from other modules; code that was compiled with other values is not used. numba itself would use it, because
    it looks only at the function's own file."""

    def compile_function(function: Function) -> Function:
        wanted = Path(_CONFIG.CACHE_DIR or cache_directory() / "numba").absolute()
        try:
            kept = _compile_and_keep(function, signature, _name_folder(wanted, constants))
            found = find_kept(kept)
            if constants and found and wanted not in Path(found).parents:  # numba's own folder, whatever the constants
                kept = _compile_and_keep(function, signature, _name_folder(Path(found), constants))
        except RuntimeError:  # no folder for the cache can be written: compiled anew in every process, seconds
            kept = numba.njit(signature, **_OPTIONS)(function)
        return cast(Function, kept)

    return compile_function


def _name_folder(base: Path, constants: Sequence[object]) -> Path:
    """One for each value of the constants."""
    return base / hashlib.sha256(repr(tuple(constants)).encode()).hexdigest()[:16] if constants else base


class Compilations(event.Listener):
    """What is compiled in this process because no earlier one has kept it."""

    def __init__(self) -> None:
        self.count = 0

    def on_start(self, event: Any) -> None:
        """Report the first one: a user who waits for a minute should know why."""
        function = event.data["dispatcher"]
        if not function.py_func.__module__.startswith("featherweight."):
            return
        self.count += 1
        if self.count == 1:
            folder = find_kept(function)
            kept = f"and is kept in {folder}" if folder else "at each start: no folder can be written to keep it"
            say(f"compiling for this processor, which takes up to a minute {kept}", err=True)

    def on_end(self, event: Any) -> None:
        """Nothing is noted of it; numba asks for the method."""


def find_kept(function: Any) -> str | None:
    """The folder where the code of a compiled function is kept, if it is."""
    stats = getattr(function, "stats", None)  # without where NUMBA_DISABLE_JIT leaves it Python
    folder: str | None = stats.cache_path if stats else None
    return folder


compilations = Compilations()
event.register("numba:compile", compilations)  # type: ignore[no-untyped-call]


def _compile_and_keep(function: Function, signature: Any, folder: Path) -> Any:
    """Kept in the folder: ours, unless NUMBA_CACHE_DIR names another. By itself numba takes the folder of the source
    file, or one of its own below the user's, which it still does where ours cannot be written. Other functions of this
    process, which may be somebody else's, stay where they were."""
    before = _CONFIG.CACHE_DIR
    _CONFIG.CACHE_DIR = str(folder)
    try:
        return numba.njit(signature, cache=True, **_OPTIONS)(function)
    finally:
        _CONFIG.CACHE_DIR = before
