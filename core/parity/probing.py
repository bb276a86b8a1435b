"""Sealed probes run on this host: whether its runtimes, its batches and its processor give the decisions that were
sealed. It needs the artifact's folder alone, and nothing of the network or the optimizer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from core.artifact import Artifact, Decision, Probes, read_artifact
from core.backends.base import Availability, RowSession, Session
from core.backends.fastest import choose_program
from core.backends.registry import find_backend, probe_all
from core.errors import ArtifactError, BackendError, BackendUnavailableError, FeatherweightError, TensorError
from core.processes import run_module
from core.tensors import Tensors

BATCHES = (1, 8, 64)
THREADS = (1, 2)
REFERENCE_BATCH = 8
"""Of the run that gave the sealed outputs, on one thread."""
FRESH_TOLERANCE = 1e-4
"""Of the largest output, or of 1 where that is less: the same runtime on the same file, host and batch rounds alike."""
_FRESH_TIMEOUT_S = 300


@dataclass(frozen=True)
class HostRun:
    """The probes on one backend here. judged: whether the artifact is run on this backend here, so that a fault counts;
    difference: the largest of an output; flips: decisions that are not those sealed, None too where no decision is
    sealed that could be compared; both are None where it was not run, and reason says why; fault: why the run is not
    the same, or ''."""

    backend: str
    threads: int
    batch: int
    judged: bool
    difference: float | None = None
    flips: int | None = None
    reason: str = ""
    fault: str = ""


def sealed_probes(artifact: Artifact) -> Probes:
    """Raises ArtifactError where none are sealed, or not those that the manifest describes."""
    probes = artifact.probes()
    if probes is None:
        raise ArtifactError(
            f"{artifact.directory}: no parity inputs sealed: the artifact was made before they were; make it again"
        )
    return probes


def check_parity(artifact: Artifact) -> tuple[HostRun, ...]:
    """The probes on every backend of this host, at all of BATCHES and THREADS.

    Judged are the backends that the artifact prefers and that run here, or without one the backend that would be taken.
    Raises ArtifactError where there are no probes, BackendUnavailableError when no backend here runs the program.
    """
    probes = sealed_probes(artifact)
    available = probe_all()
    judged = _judged(artifact, probes, available)
    runs = [
        run
        for name, found in available.items()
        for threads in THREADS
        for run in _run_backend(artifact, probes, name, found, threads, name in judged)
    ]
    if not any(run.judged and run.difference is not None for run in runs):
        reasons = "; ".join(sorted({f"{run.backend}: {run.reason}" for run in runs}))
        raise BackendUnavailableError(
            f"{artifact.directory}: nothing here runs its {probes.precision} program: {reasons}"
        )
    return tuple(runs)


def check_session(artifact: Artifact, session: Session) -> None:
    """Run the probes on a session that is to serve, at all of BATCHES.

    Raises ArtifactError when its decisions or outputs are not those sealed, or when none were sealed.
    """
    probes = sealed_probes(artifact)
    for batch in BATCHES:
        difference, flips = compare(probes, run_batches(session, probes.inputs, batch))
        fault = _fault(probes, difference, flips)
        if fault:
            raise ArtifactError(
                f"{artifact.directory}: on this host the artifact does not decide as it was sealed: at batch {batch} "
                f"{fault}; see `featherweight artifact verify`, name another backend, or seal it for this processor"
            )


def check_fresh(directory: Path, backend: str) -> float:
    """Run the probes in a new Python process, which knows the folder alone, on one backend, as a server would; returns
    the largest difference, relative to the largest output.

    Raises ArtifactError when the process fails or its outputs are not those sealed.
    """
    order = json.dumps({"directory": str(directory.absolute()), "backend": backend})
    what = f"{directory}: the fresh process that runs the artifact"
    stdout = run_module(
        "core.parity.probing", order.encode(), timeout_s=_FRESH_TIMEOUT_S, what=what, failure=ArtifactError
    )
    try:
        difference = float(json.loads(stdout.splitlines()[-1])["difference"])
    except (ValueError, LookupError, TypeError) as error:
        raise ArtifactError(f"{what} gave no answer ({error}); do not use this artifact") from error
    if not difference <= FRESH_TOLERANCE:
        raise ArtifactError(
            f"{directory}: opened in a fresh process, the artifact's outputs differ by {difference:.2g} of the largest "
            f"output from those that were judged, more than {FRESH_TOLERANCE:g}; do not use this artifact"
        )
    return difference


def run_batches(session: Session, inputs: Tensors, batch: int) -> Tensors:
    """The outputs of all cases [n], run in full batches: the last one begins again with the first cases. Single cases
    take the lane for single rows, where the session has one."""
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


def compare(probes: Probes, found: Tensors) -> tuple[Mapping[str, float], int | None]:
    """(largest difference of each output, infinity where one is no number; decisions that are not those sealed, None
    where it is not known, because no single output is the score and the app alone decides)."""
    differences = {name: widest(found[name], array) for name, array in probes.outputs.items()}
    if probes.decision is None:
        return differences, None
    before, after = (_decide(probes.decision, outputs) for outputs in (probes.outputs, found))
    return differences, int((before != after).sum())


def widest(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """The largest difference of two arrays of one shape; infinity where one has what is not a number."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _decide(decision: Decision, outputs: Tensors) -> npt.NDArray[np.bool_]:
    return np.asarray(outputs[decision.output][:, decision.column].astype(np.float64) >= decision.threshold)


def _fault(probes: Probes, differences: Mapping[str, float], flips: int | None) -> str:
    if flips:
        return f"{flips} of {probes.count} decisions on the sealed inputs are others"
    beyond = {name: found for name, found in differences.items() if not found <= probes.tolerances[name]}
    return "; ".join(f"{n!r} differs by {d:.3g}, more than {probes.tolerances[n]:.3g}" for n, d in beyond.items())


def _judged(artifact: Artifact, probes: Probes, available: Mapping[str, Availability]) -> set[str]:
    kind = artifact.program(probes.precision).kind
    preferred = {one.backend for one in artifact.manifest.preferences if one.precision == probes.precision}
    here = {name for name in preferred if name in available and available[name].runs(kind, probes.precision)}
    return here or {choose_program(artifact, available)[0]}


def _run_backend(
    artifact: Artifact, probes: Probes, name: str, found: Availability, threads: int, judged: bool
) -> list[HostRun]:
    program = artifact.program(probes.precision)
    if not found.runs(program.kind, probes.precision):
        reason = found.reason or f"it runs no {program.kind} in {probes.precision}"
        return [HostRun(name, threads, batch, judged, reason=reason) for batch in BATCHES]
    runs: list[HostRun] = []
    try:
        with find_backend(name).open(program, threads=threads) as session:
            for batch in BATCHES:
                differences, flips = compare(probes, run_batches(session, probes.inputs, batch))
                fault = _fault(probes, differences, flips)
                runs.append(HostRun(name, threads, batch, judged, max(differences.values()), flips, fault=fault))
    except BackendUnavailableError as error:
        return [HostRun(name, threads, batch, judged, reason=str(error)) for batch in BATCHES]
    except (BackendError, TensorError) as error:
        missing = BATCHES[len(runs) :]
        runs += [HostRun(name, threads, batch, judged, reason=str(error), fault=str(error)) for batch in missing]
    return runs


def _answer(stdin: BinaryIO) -> float:
    """What the fresh process does."""
    order = json.loads(stdin.readline())
    artifact = read_artifact(order["directory"])
    probes = sealed_probes(artifact)
    with find_backend(order["backend"]).open(artifact.program(probes.precision)) as session:
        differences, _ = compare(probes, run_batches(session, probes.inputs, REFERENCE_BATCH))
    largest = {name: max(1.0, float(np.abs(array).max())) for name, array in probes.outputs.items()}
    return max(found / largest[name] for name, found in differences.items())


if __name__ == "__main__":
    try:
        answer = _answer(sys.stdin.buffer)
        sys.stdout.write("\n" + json.dumps({"difference": answer}))  # a line of its own: runtimes print
    except FeatherweightError as failure:
        sys.exit(str(failure))
