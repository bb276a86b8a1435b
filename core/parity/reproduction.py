"""Whether this host reproduces the artifact's reference decisions with its runtimes, in several batch sizes, on its
processor. It needs the artifact's folder alone, and nothing of the network or the optimizer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.artifact import Artifact, ReferenceCases, read_artifact
from featherweight.core.artifact.reference_cases import MAX_REFERENCE_BYTES
from featherweight.core.backends.base import Availability, RowSession, Session
from featherweight.core.backends.fastest import choose_program
from featherweight.core.backends.registry import find_backend, probe_all
from featherweight.core.backends.tried import ONE_CORE, limits_for
from featherweight.core.errors import (
    ArtifactError,
    BackendError,
    BackendUnavailableError,
    FeatherweightError,
    TensorError,
)
from featherweight.core.processes import Limits, answer_stream, run_module
from featherweight.core.program import Precision
from featherweight.core.tensors import Tensors
from featherweight.core.terminal import counted

BATCHES = (1, 8, 64)
THREADS = (1, 2)
REFERENCE_BATCH = 8
"""Batch size of the run that gave the reference outputs, on one thread."""
FRESH_TOLERANCE = 1e-4
"""Allowed difference relative to the largest output, or to 1 where that is less: one runtime rounds the same file on
the same host in the same batch alike."""
_FRESH_TIMEOUT_S = 300
VERIFY_S = 25.0
"""Time limit for the reference inputs on all backends. With reading the artifact, `artifact verify` ends within half a
minute."""


class _LateError(ArtifactError):
    """The fresh process did not end in time."""


@dataclass(frozen=True)
class HostRun:
    """The reference inputs on one backend here.

    judged: whether the artifact is run on this backend here, so that a fault counts; difference: the largest of an
    output; flips: decisions that changed, None too where no decision is sealed that could be compared; both are None
    where it was not run, and reason says why; fault: why the run is not the same, or ''.
    """

    backend: str
    threads: int
    batch: int
    judged: bool
    difference: float | None = None
    flips: int | None = None
    reason: str = ""
    fault: str = ""


def sealed_reference_cases(artifact: Artifact) -> ReferenceCases:
    """Raises ArtifactError where none are sealed, or not those that the manifest describes."""
    reference = artifact.reference_cases()
    if reference is None:
        raise _no_reference_cases(artifact)
    return reference


def _no_reference_cases(artifact: Artifact) -> ArtifactError:
    return ArtifactError(
        f"{artifact.directory}: no reference inputs sealed: the artifact was made before they were; make it again"
    )


def check_parity(artifact: Artifact, *, time_limit_s: float = VERIFY_S) -> tuple[HostRun, ...]:
    """Run the reference inputs on every backend of this host, at all of BATCHES and THREADS. Each backend has a process
    of its own, so that a runtime that crashes or hangs is reported as a fault. time_limit_s: for all of them together.

    Judged are the backends that the artifact prefers and that run here; without one, the backend that would be used.
    Raises ArtifactError where no reference inputs are sealed, BackendUnavailableError when no backend here runs the
    program.
    """
    entry = artifact.manifest.parity
    if entry is None:
        raise _no_reference_cases(artifact)
    deadline = time.monotonic() + time_limit_s
    available = probe_all()
    judged = _judged(artifact, entry.precision, available)
    runs: dict[str, list[HostRun]] = {}
    for name in sorted(available, key=lambda name: name not in judged):
        runs[name] = _run_apart(artifact, name, available[name], name in judged, deadline)
    found = [run for name in available for run in runs[name]]
    if not any(run.judged and (run.difference is not None or run.fault) for run in found):
        reasons = "; ".join(sorted({f"{run.backend}: {run.reason}" for run in found}))
        raise BackendUnavailableError(
            f"{artifact.directory}: nothing here runs its {entry.precision} program: {reasons}"
        )
    return tuple(found)


def check_session(artifact: Artifact, session: Session) -> None:
    """Run the reference inputs on a session that is to serve, at all of BATCHES.

    Raises ArtifactError when it does not reproduce the reference decisions or outputs, or when none were sealed.
    """
    reference = sealed_reference_cases(artifact)
    for batch in BATCHES:
        difference, flips = compare(reference, run_batches(session, reference.inputs, batch))
        fault = _fault(reference, difference, flips)
        if fault:
            raise ArtifactError(
                f"{artifact.directory}: this host does not reproduce the artifact's reference decisions: at "
                f"batch {batch} {fault}; see `featherweight artifact verify`, name another backend, or seal it for "
                "this processor"
            )


def check_fresh(directory: Path, backend: str) -> float:
    """Run the reference inputs in a new Python process, which knows the folder alone, on one backend, as a server
    would; returns the largest difference, relative to the largest output.

    Raises ArtifactError when the process fails or its outputs are not those sealed.
    """
    order = {"directory": str(directory.absolute()), "backend": backend}
    what = f"{directory}: the fresh process that runs the artifact"
    difference = float(_ask(order, _FRESH_TIMEOUT_S, what, None)["difference"])
    if not difference <= FRESH_TOLERANCE:
        raise ArtifactError(
            f"{directory}: opened in a fresh process, the artifact's outputs differ by {difference:.2g} of the largest "
            f"output from those that were judged, more than {FRESH_TOLERANCE:g}; do not use this artifact"
        )
    return difference


def run_batches(session: Session, inputs: Tensors, batch: int) -> Tensors:
    """The outputs of all cases [n], run in full batches: the last one begins again with the first cases. Single cases
    take the fast path for single rows, where the session has one."""
    count = len(next(iter(inputs.values())))
    if batch == 1 and isinstance(session, RowSession):
        (rows,), output = inputs.values(), session.outputs[0]
        scores = [session.run_row(row) for row in np.ascontiguousarray(rows)]
        return {output.name: np.array(scores, np.dtype(output.dtype))[:, None]}
    places = np.arange(-(-count // batch) * batch) % count
    parts = [
        session.run({name: array[places[start : start + batch]] for name, array in inputs.items()})
        for start in range(0, len(places), batch)
    ]
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def compare(reference: ReferenceCases, found: Tensors) -> tuple[Mapping[str, float], int | None]:
    """(largest difference of each output, infinity where one is not a number; number of changed decisions, None where
    it is not known, because no single output is the score and the app alone decides)."""
    differences = {name: widest(found[name], array) for name, array in reference.outputs.items()}
    if reference.decision is None:
        return differences, None
    decision = reference.decision
    before, after = (decision.decide(outputs[decision.output]) for outputs in (reference.outputs, found))
    return differences, int((before != after).sum())


def widest(found: Array, expected: Array) -> float:
    """The largest difference of two arrays of one shape; infinity where one has what is not a number."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _fault(reference: ReferenceCases, differences: Mapping[str, float], flips: int | None) -> str:
    if flips:
        return f"{flips} of {counted(reference.count, 'decisions')} on the reference inputs changed"
    beyond = {name: found for name, found in differences.items() if not found <= reference.tolerances[name]}
    return "; ".join(f"{n!r} differs by {d:.3g}, more than {reference.tolerances[n]:.3g}" for n, d in beyond.items())


def _judged(artifact: Artifact, precision: Precision, available: Mapping[str, Availability]) -> set[str]:
    kind = artifact.program(precision).kind
    preferred = {one.backend for one in artifact.manifest.preferences if one.precision == precision}
    here = {name for name in preferred if name in available and available[name].runs(kind, precision)}
    return here or {choose_program(artifact, available)[0]}


def _run_apart(artifact: Artifact, name: str, found: Availability, judged: bool, deadline: float) -> list[HostRun]:
    entry = artifact.manifest.parity
    assert entry is not None  # noqa: S101  (its caller has seen it)
    program = artifact.program(entry.precision)
    places = [(threads, batch) for threads in THREADS for batch in BATCHES]
    if not found.runs(program.kind, entry.precision):
        reason = found.reason or f"it runs no {program.kind} in {entry.precision}"
        return [HostRun(name, threads, batch, judged, reason=reason) for threads, batch in places]
    order = {"directory": str(artifact.directory.absolute()), "backend": name, "sha256": artifact.sha256}
    left_s = max(1.0, deadline - time.monotonic())
    try:
        told = _ask(order, left_s, f"{name}: the process that runs the reference inputs", limits_of(artifact, left_s))
        runs = [HostRun(name, judged=judged, **run) for run in told["runs"]]
    except ArtifactError as error:
        # A backend that is not preferred may be too slow to finish in time; a crash is no matter of rounding.
        fault = "" if isinstance(error, _LateError) and not judged else str(error)
        return [HostRun(name, threads, batch, judged, reason=str(error), fault=fault) for threads, batch in places]
    return runs


def limits_of(artifact: Artifact, time_s: float) -> Limits:
    """Limits of a process that runs the reference inputs."""
    program_bytes = max(len(program.content) for program in artifact.programs)
    return limits_for(program_bytes, MAX_REFERENCE_BYTES, time_s)


def _ask(order: Mapping[str, object], timeout_s: float, what: str, limits: Limits | None) -> dict[str, Any]:
    """What the fresh process answers. Raises ArtifactError when it fails, with its own words where it has some."""
    stdout = run_module(
        "featherweight.core.parity.reproduction",
        json.dumps(order).encode(),
        timeout_s=timeout_s,
        what=what,
        failure=ArtifactError,
        late=_LateError,
        environment=ONE_CORE,
        limits=limits,
    )
    try:
        answer = json.loads(stdout)
        fault = answer.get("fault")
    except (ValueError, LookupError, AttributeError) as error:
        raise ArtifactError(f"{what} gave no answer ({error}); do not use this artifact") from error
    if fault:
        raise ArtifactError(str(fault))
    return dict(answer)


def _run_backend(artifact: Artifact, reference: ReferenceCases, name: str, threads: int) -> list[dict[str, Any]]:
    """HostRuns as JSON, without the fields that the asking process knows."""
    runs: list[dict[str, Any]] = []

    def add(batch: int, **found: Any) -> None:
        runs.append({"threads": threads, "batch": batch, **found})

    try:
        with find_backend(name).open(artifact.program(reference.precision), threads=threads) as session:
            for batch in BATCHES:
                differences, flips = compare(reference, run_batches(session, reference.inputs, batch))
                fault = _fault(reference, differences, flips)
                add(batch, difference=max(differences.values()), flips=flips, fault=fault)
    except BackendUnavailableError as error:
        runs.clear()
        for batch in BATCHES:
            add(batch, reason=str(error))
    except (BackendError, TensorError) as error:
        for batch in BATCHES[len(runs) :]:
            add(batch, reason=str(error), fault=str(error))
    return runs


def _answer(stdin: BinaryIO) -> dict[str, Any]:
    """What the fresh process does."""
    order = json.loads(stdin.readline())
    artifact = read_artifact(order["directory"], expected_sha256=order.get("sha256"))
    reference = sealed_reference_cases(artifact)
    if "sha256" in order:
        return {
            "runs": [run for threads in THREADS for run in _run_backend(artifact, reference, order["backend"], threads)]
        }
    with find_backend(order["backend"]).open(artifact.program(reference.precision)) as session:
        differences, _ = compare(reference, run_batches(session, reference.inputs, REFERENCE_BATCH))
    largest = {name: max(1.0, float(np.abs(array).max())) for name, array in reference.outputs.items()}
    return {"difference": max(found / largest[name] for name, found in differences.items())}


if __name__ == "__main__":
    with answer_stream() as stream:
        try:
            told = _answer(sys.stdin.buffer)
        except FeatherweightError as failure:
            told = {"fault": str(failure)}
        stream.write(json.dumps(told).encode())
