"""A program that is new here is opened and run in a process of its own before a process that serves touches it.

Runtimes are large programs in C++: what they are given may end the process or never end. The check of a program's bytes
(core.inspection) knows what programs hold; this knows what this runtime makes of one. That it went well is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from featherweight.core.artifact import Artifact
from featherweight.core.backends.base import RowSession, Session
from featherweight.core.backends.registry import find_backend
from featherweight.core.bundled import data_directory
from featherweight.core.errors import (
    ArtifactError,
    BackendError,
    BackendUnavailableError,
    FeatherweightError,
    OutputError,
)
from featherweight.core.files import atomic_write, cache_directory
from featherweight.core.processes import Limits, answer_stream, run_module
from featherweight.core.program import Program, described_program
from featherweight.core.tensors import Tensors, TensorSpec

TIME_S = 60.0
MEMORY_BYTES = 2 << 30
"""And so many times the program and the inputs, of which a runtime makes copies. The bundled models need less than
192 MiB in all. It is half of what the documented unit may have, so that the limit is met here and not there."""
COPIES = 32
STACK_BYTES = 4 << 20
"""Half of what threads usually have: what goes well here has as much again where it serves."""
INPUT_BYTES = 256 << 20
"""Maximum size of the largest batch that is tried."""
ONE_CORE: Mapping[str, str] = MappingProxyType({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})


def limits_for(program_bytes: int, input_bytes: int, time_s: float) -> Limits:
    """What the process that tries a program of that size may use, of memory, stack and time."""
    memory_bytes = MEMORY_BYTES + COPIES * (program_bytes + input_bytes)
    return Limits(memory_bytes, STACK_BYTES, cpu_s=math.ceil(2 * time_s) + 5)


def check_tried(
    artifact: Artifact,
    backend: str,
    program: Program,
    *,
    batches: Sequence[int],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """See the program of this artifact opened on the backend, and run with these batches, by a process that may die.

    What comes with Featherweight itself is not tried: who could change it could change this line.
    Raises ArtifactError when that process dies, takes too long or too much, or the program does not run;
    BackendUnavailableError when the backend says that it is not for this program.
    """
    if artifact.directory.resolve().is_relative_to((data_directory() / "models").resolve()):
        return
    check_program_tried(artifact.directory, backend, program, batches=batches, stopping=stopping)


def _compile_kernels(program: Program) -> None:
    """Here, told and kept, not within the time of the process that tries."""
    from featherweight.core.backends import native_kernels  # noqa: F401

    wide = any(spec.dtype == "float64" for spec in program.inputs)
    several = any(spec.shape[1:] != (1,) for spec in program.outputs)
    if program.kind == "trees" and (wide or several or b"membership_values" in program.content):
        from featherweight.core.backends import native_tree_kernels  # noqa: F401


def check_program_tried(
    where: Path,
    backend: str,
    program: Program,
    *,
    batches: Sequence[int],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """The same for a program on its own. where: it comes from, for messages."""
    batches = _bounded(where, program, batches)
    verdict = _Verdict(backend, program, batches)
    if verdict.is_known():
        return
    if backend == "native":
        _compile_kernels(program)
    order = {"backend": backend, **program.describe(), "batches": batches}
    what = f"{where}: the process that tried its {program.precision} program on {backend}"
    limits = limits_for(len(program.content), batches[-1] * case_bytes(program.inputs), TIME_S)
    stdout = run_module(
        "featherweight.core.backends.tried",
        json.dumps(order).encode() + b"\n" + program.content,
        timeout_s=TIME_S,
        what=what,
        failure=ArtifactError,
        environment=ONE_CORE,
        limits=limits,
        stopping=stopping,
    )
    answer = _parsed(stdout, what)
    if answer.get("unavailable"):
        raise BackendUnavailableError(answer["unavailable"])
    if answer.get("fault"):
        raise ArtifactError(f"{where}: {answer['fault']}; do not use this artifact")
    verdict.keep()


def _parsed(stdout: bytes, what: str) -> dict[str, str]:
    try:
        answer = json.loads(stdout)
        return {str(name): str(text) for name, text in answer.items()}
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{what} gave no answer ({error}); do not use this artifact") from error


def case_bytes(specs: Sequence[TensorSpec]) -> int:
    """Python's integers: a product of hostile sizes does not overflow."""
    return sum(math.prod(size or 1 for size in spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs)


def _bounded(where: Path, program: Program, batches: Sequence[int]) -> list[int]:
    """The batches that are tried, the largest last."""
    most = INPUT_BYTES // max(1, case_bytes(program.inputs))
    if most < 1:
        raise ArtifactError(
            f"{where}: one input takes {case_bytes(program.inputs)} bytes; at most {INPUT_BYTES} are run"
        )
    return sorted({min(batch, most) for batch in batches})


class _Verdict:
    """A file in the user's cache that says that this program ran here. One that cannot be written is not: then the
    program is tried at each start."""

    def __init__(self, backend: str, program: Program, batches: Sequence[int]) -> None:
        facts: dict[str, Any] = {
            "program": program.sha256,
            **program.describe(),
            "backend": backend,
            "runtime": find_backend(backend).probe().version,
            "batches": list(batches),
            "featherweight": version("featherweight"),
            "machine": platform.machine(),
        }
        self._content = json.dumps(facts, sort_keys=True).encode()
        name = f"{hashlib.sha256(self._content).hexdigest()}.json"
        self._path = cache_directory() / "tried" / name

    def is_known(self) -> bool:
        try:
            return self._path.read_bytes() == self._content
        except OSError:
            return False

    def keep(self) -> None:
        # Where nothing can be kept it is tried again the next time.
        with contextlib.suppress(OutputError), atomic_write(self._path, make_folder=True) as partial:
            partial.write_bytes(self._content)


def _try(stdin: BinaryIO) -> None:
    """What the process does. Raises BackendError and TensorError."""
    order = json.loads(stdin.readline())
    program = described_program(order, stdin.read())
    with find_backend(order["backend"]).open(program) as session:
        for batch in order["batches"]:
            inputs = {spec.name: _made_up(spec, batch) for spec in session.inputs}
            check_outputs(session, session.run(inputs), batch)
            if batch == 1 and isinstance(session, RowSession):
                (row,) = inputs.values()
                session.run_row(np.ascontiguousarray(row[0]))


def _made_up(spec: TensorSpec, batch: int) -> Any:
    """Values do not matter: how long a program takes, and what it makes, depends on shapes alone (core.inspection)."""
    shape = [batch if size is None else size for size in spec.shape]
    if np.issubdtype(spec.dtype, np.floating):
        return np.random.default_rng(0).random(shape, np.float32).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)


def check_outputs(session: Session, outputs: Tensors, batch: int) -> None:
    """Raise BackendError unless the outputs are those declared, finite numbers, for every case of the batch."""
    for spec in session.outputs:
        if not np.isfinite(outputs[spec.name]).all():
            raise BackendError(f"the program gives what is not a finite number as {spec.name!r}")
        shape = tuple(batch if size is None else size for size in spec.shape)
        if outputs[spec.name].shape != shape or outputs[spec.name].dtype != spec.dtype:
            found = f"{outputs[spec.name].dtype} {list(outputs[spec.name].shape)}"
            raise BackendError(f"the program gives {found} as {spec.name!r} for a batch of {batch}, not {spec}")


if __name__ == "__main__":
    with answer_stream() as stream:
        told: dict[str, str] = {}
        try:
            _try(sys.stdin.buffer)
        except BackendUnavailableError as error:
            told = {"unavailable": str(error)}
        except FeatherweightError as error:
            told = {"fault": str(error)}
        stream.write(json.dumps(told).encode())
