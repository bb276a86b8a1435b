"""What every export target fulfils."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from featherweight.core.errors import MissingExtraError, UsageError
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec

Run = Callable[[Tensors], Tensors]
"""One case's inputs [1, ...] -> its outputs [1, ...]."""


class Target(Protocol):
    """A format that artifacts are exported to, and the runtime that tries the file here."""

    name: str
    file: str
    """What the exported file is called."""
    packages: tuple[str, ...]
    """Whose versions are written down."""
    notes: tuple[str, ...]
    """What a program that runs the file has to know."""

    def check(self, program: Program) -> None:
        """Raises UsageError for a kind of program that this target does not have, MissingExtraError without its
        packages; loads nothing."""
        ...

    def encode(self, program: Program) -> bytes:
        """The file. Raises UsageError for an operator that this target does not have."""
        ...

    def open(self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Run:
        """The file in its own runtime, on one thread; the specs are the program's, in its order. Raises BackendError
        when the runtime does not take it."""
        ...


def check_network(target: str, program: Program) -> None:
    """Raise UsageError unless the program is a network."""
    if program.kind != "network":
        raise UsageError(f"{target}: the program is trees, and {target} has no operator for them; use ort-mobile")


def check_installed(target: str, packages: Sequence[str], extra: str) -> None:
    """Raise MissingExtraError for the first package that is not installed; imports nothing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra, f"exporting to {target}")
