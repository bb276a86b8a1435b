"""What every backend does before its runtime is asked: checks of the request, the specs and the session's life."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from featherweight.core.backends.base import Availability
from featherweight.core.closing import Closing
from featherweight.core.errors import BackendError, BackendUnavailableError, UsageError, how_to_install
from featherweight.core.inspection import check_content
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec, check_tensors


def check_request(name: str, available: Availability, program: Program, device: str, threads: int) -> frozenset[str]:
    """The names of the program's operators.

    Raises UsageError for threads below 1, BackendUnavailableError for what this host cannot do, and BackendError for
    a program that no runtime should see: one that names other files, for example, which OpenVINO would read.
    """
    if threads < 1:
        raise UsageError(f"threads = {threads}; expected at least 1")
    if not available.available:
        raise BackendUnavailableError(f"backend {name}: {available.reason}")
    if device not in available.devices:
        raise BackendUnavailableError(
            f"backend {name}: no device {device!r} here; it can use {', '.join(available.devices)}"
        )
    if program.precision not in available.precisions:
        raise BackendUnavailableError(
            f"backend {name}: cannot run {program.precision} programs here; it runs {', '.join(available.precisions)}"
        )
    if not available.runs(program.kind, program.precision):
        what = {"network": "networks", "trees": "trees"}[program.kind]
        raise BackendUnavailableError(
            f"backend {name}: cannot run {what} in {program.precision}; use the backend onnxruntime"
        )
    return check_content(program.content)


def missing(package: str, extra: str) -> Availability | None:
    """None when the package is installed, else the answer that names the extra; imports nothing."""
    if importlib.util.find_spec(package) is not None:
        return None
    return Availability(False, f"{package} is not installed; {how_to_install(extra)}")


def installed_version(package: str) -> str:
    """The version of a distribution, or '' where it has no metadata; imports nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python, and of those that are installed."""
    found = {package: installed_version(package) for package in packages}
    return {"python": platform.python_version(), **{package: version for package, version in found.items() if version}}


def check_specs(
    kind: str, declared: Sequence[TensorSpec], found: Iterable[tuple[str, str, Sequence[int | None]]]
) -> None:
    """Raise BackendError unless an ONNX file's tensors (name, dtype, shape with None for any size) are the declared."""
    in_file = {name: (dtype, tuple(shape)) for name, dtype, shape in found}
    if in_file.keys() != {spec.name for spec in declared}:
        raise BackendError(
            f"the program's {kind}s do not fit its specs: the file has {sorted(in_file)}, "
            f"the specs say {sorted(spec.name for spec in declared)}"
        )
    for spec in declared:
        if in_file[spec.name] != (spec.dtype, spec.shape):
            dtype, shape = in_file[spec.name]
            text = ", ".join("N" if size is None else str(size) for size in shape)
            raise BackendError(
                f"the program's {kind} does not fit its spec: the file has {dtype} [{text}], the spec says {spec}"
            )


class OpenSession(Closing):
    """What the sessions of all runtimes share; a runtime adds `_run` and `_free`."""

    def __init__(self, program: Program) -> None:
        self.inputs = program.inputs
        self.outputs = program.outputs
        self._open = True
        # It finds the range of a whole batch: with others, a case would have another answer than alone.
        self._singly = b"DynamicQuantizeLinear" in program.content

    def run(self, tensors: Tensors) -> Tensors:
        """Raises TensorError for wrong input, BackendError after close() or when the runtime fails."""
        if not self._open:
            raise BackendError("the session is closed; open the program again")
        batch = check_tensors(tensors, self.inputs)
        if not self._singly or batch < 2:
            return self._run(tensors, batch)
        each = [self._run({name: one[at : at + 1] for name, one in tensors.items()}, 1) for at in range(batch)]
        return {name: np.concatenate([one[name] for one in each]) for name in each[0]}

    def close(self) -> None:
        """Give the runtime's memory back; a second call does nothing."""
        if self._open:
            self._open = False
            self._free()

    @abstractmethod
    def _run(self, tensors: Tensors, batch: int) -> Tensors: ...

    @abstractmethod
    def _free(self) -> None: ...
