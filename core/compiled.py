"""Functions compiled by numba, kept on disk where a folder for that can be written (ADR 007)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: Any = None) -> Callable[[Function], Function]:
    """A decorator. With a signature the function is compiled, or its compiled code read, when it is defined; without,
    at its first call. A division by zero gives what IEEE 754 says."""

    def compile_function(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(signature, cache=True, nogil=True, error_model="numpy")(function))
        except RuntimeError:  # no folder for the cache can be written: compiled anew in every process, seconds
            return cast(Function, numba.njit(signature, nogil=True, error_model="numpy")(function))

    return compile_function
