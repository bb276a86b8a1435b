"""Which of a recipe's backends can run here, and under which conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from featherweight.core.backends.base import Backend, Session
from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.hardware import read_hardware
from featherweight.core.measure.performance import Conditions
from featherweight.core.program import Kind, Precision, Program
from featherweight.core.recipe import Measure


@dataclass(frozen=True)
class Run:
    """A program on a backend with so many threads."""

    program: Program
    backend: str
    threads: int


@dataclass(frozen=True)
class Runtimes:
    """The backends that a recipe names, that this host has and that run the model's kind; the numbers of threads to
    try, and what is missing."""

    backends: Mapping[str, Backend]
    missing: Mapping[str, str]
    """name -> reason"""
    threads: tuple[int, ...]
    host: Mapping[str, str]
    _opening: dict[tuple[str, str], bool] = field(default_factory=dict)

    def conditions(self, run: Run) -> Conditions:
        """Under which a run is measured."""
        return Conditions(run.backend, run.program.precision, run.threads, host=self.host)

    def identify(self, run: Run) -> dict[str, str | int]:
        """What determines what this run gives, and but for the host how long it takes."""
        version = self.backends[run.backend].probe().version
        return {
            "program": run.program.sha256,
            "kind": run.program.kind,
            "precision": run.program.precision,
            "backend": run.backend,
            "version": version,
            "threads": run.threads,
        }

    def run_precision(self, kind: Kind, precision: Precision) -> bool:
        """Whether any of them may run such programs: asked before one is made, which may take hours."""
        return any(backend.probe().runs(kind, precision) for backend in self.backends.values())

    def supporting(self, program: Program) -> tuple[str, ...]:
        """Those that open it: a backend may say of a program that it is not for it (too large a network, say)."""
        return tuple(name for name in self.backends if self._opens(name, program))

    def _opens(self, name: str, program: Program) -> bool:
        if not self.backends[name].probe().runs(program.kind, program.precision):
            return False
        key = (name, f"{program.precision} {program.sha256}")
        if key not in self._opening:
            try:
                self.open(Run(program, name, self.threads[0])).close()
            except BackendUnavailableError:
                self._opening[key] = False
            else:
                self._opening[key] = True
        return self._opening[key]

    def open(self, run: Run) -> Session:
        """A session of the run's program on its backend, with its threads."""
        return self.backends[run.backend].open(run.program, threads=run.threads)


def find_runtimes(measure: Measure, kind: Kind, threads: int | None = None) -> Runtimes:
    """`threads` replaces the recipe's. Raises UsageError for an unknown backend,
    BackendUnavailableError when none of them runs models of this kind here."""
    found = {name: find_backend(name) for name in measure.backends}
    answers = {name: backend.probe() for name, backend in found.items()}
    missing = {name: answer.reason for name, answer in answers.items() if not answer.available}
    missing |= {
        name: f"it runs no {kind}" for name, answer in answers.items() if answer.available and kind not in answer.kinds
    }
    backends = {name: backend for name, backend in found.items() if name not in missing}
    if not any(answers[name].runs(kind, "fp32") for name in backends):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items()) or "none of them runs fp32"
        raise BackendUnavailableError(f"no backend of the recipe can run the baseline here ({reasons})")
    hardware = read_hardware()
    host = {
        "cpu": hardware.cpu,
        "architecture": hardware.architecture,
        "usable cores": str(hardware.cores_usable),
        "memory": f"{hardware.memory_bytes / 2**30:.1f} GiB",
        "instruction sets": " ".join(hardware.instruction_sets),
    }
    return Runtimes(backends, missing, (threads,) if threads else measure.threads, host)


def check_backends(measure: Measure) -> None:
    """What `find_runtimes` would raise for any kind of model: before it is known which, and so before it is read."""
    refused: list[BackendUnavailableError] = []
    for kind in get_args(Kind):
        try:
            find_runtimes(measure, kind)
        except BackendUnavailableError as error:
            refused.append(error)
    if len(refused) == len(get_args(Kind)):
        raise refused[0]
