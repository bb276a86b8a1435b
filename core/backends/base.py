"""The two Protocols that every runtime fulfils."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from featherweight.core.arrays import Array, FeatureRow
from featherweight.core.program import Kind, Precision, Program
from featherweight.core.tensors import Tensors, TensorSpec


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here. `reason` says why not, or is empty."""

    available: bool
    reason: str = ""
    version: str = ""
    devices: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    kinds: tuple[Kind, ...] = ("network",)
    unpaired: tuple[tuple[Kind, Precision], ...] = ()
    """Kinds that do not run in one of the precisions."""

    def runs(self, kind: Kind, precision: Precision) -> bool:
        """Whether programs of this kind and precision run here. Opening one may still raise BackendUnavailableError:
        a backend may run small networks only."""
        paired = kind in self.kinds and precision in self.precisions and (kind, precision) not in self.unpaired
        return self.available and paired


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
    """A runtime for programs. One that is not installed can be asked, and says why it is not there."""

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


@runtime_checkable
class RowSession(Session, Protocol):
    """A session with a fast path for single rows: one float32 input [N, F], one float32 output [N, 1]."""

    def run_row(self, row: FeatureRow) -> float:
        """The output of one contiguous row [F], without the checks of `run`: microseconds count here."""
        ...


def row_function(session: Session) -> Callable[[Array], float]:
    """row float32 [F] -> output, for a session with one input [N, F] and one output [N, 1]: its fast path for
    single rows where it has one, else `run`."""
    if isinstance(session, RowSession):
        return session.run_row
    (given,), (wanted,) = session.inputs, session.outputs

    def run_row(row: Array) -> float:
        return float(session.run({given.name: row[None]})[wanted.name][0, 0])

    return run_row
