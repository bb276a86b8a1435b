"""The two Protocols that every runtime fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from core.program import Precision, Program
from core.tensors import Tensors, TensorSpec


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here. `reason` says why not, or is empty."""

    available: bool
    reason: str = ""
    version: str = ""
    devices: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()


class Session(Protocol):
    """A program, ready to run. Safe to use beside other sessions; one session is used by one thread at a time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, tensors: Tensors) -> Tensors:
        """Raises TensorError for wrong input and BackendError after close() or when the runtime fails."""
        ...

    def close(self) -> None:
        """Free the program; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    name: str
    extra: str
    """The extra that installs the runtime; empty when the base install has it."""

    def probe(self) -> Availability:
        """Never raises and loads as little as it can."""
        ...

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        """Raises BackendUnavailableError when the runtime, device or precision is not here, BackendError for a program
        it cannot open."""
        ...
