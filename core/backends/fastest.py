"""From an artifact to a session: the fastest program that this host can run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from featherweight.core.artifact import Artifact
from featherweight.core.backends.base import Availability, Session
from featherweight.core.backends.registry import DEFAULT, NAMES, find_backend, probe_all
from featherweight.core.backends.tried import check_tried
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.program import Precision, Program

_UNTRIED = "no figures on the test cases"
BATCHES = (1, 64)
"""With which a program is tried unless the caller knows better."""
_USUAL_ORDER: tuple[Precision, ...] = ("int8", "bf16", "fp32")
_ORDER_ON_ACCELERATORS: tuple[Precision, ...] = ("bf16", "fp32", "int8")
"""Where int8 is only simulated (core.backends.providers, core.backends.torch)."""


def choose_program(
    artifact: Artifact, available: Mapping[str, Availability], *, device: str = "cpu"
) -> tuple[str, Program]:
    """(backend's name, program): the first of the artifact's measured preferences that `available` can run; without
    one, the default backend before the others and int8 before bf16 before fp32. Preferences are measured on a CPU, so
    that on another device they say nothing, and int8 comes last.

    Raises BackendUnavailableError, with the reason of every backend, when none can run any program.
    """
    for choice in _runnable(artifact, available, device):
        return choice
    raise _nothing_runs(artifact, available, device)


def _runnable(artifact: Artifact, available: Mapping[str, Availability], device: str) -> Iterator[tuple[str, Program]]:
    for name, precision in _candidates(artifact, device):
        found = available.get(name)
        if found is not None and device in found.devices and precision in artifact.precisions:
            program = artifact.program(precision)
            if found.runs(program.kind, precision) and _why_not(artifact, name, precision, device) is None:
                yield name, program


def _why_not(artifact: Artifact, name: str, precision: Precision, device: str) -> str | None:
    """Why a runtime must not serve the artifact: it has no figures on the test cases, or they missed a limit. All
    figures are those of a CPU; an artifact without a list of runtimes has none, and is of a version that asked none."""
    runtimes = artifact.manifest.runtimes
    if runtimes is None:
        return None
    if device != "cpu":
        return f"{_UNTRIED} on {device}: an artifact is judged on the CPU, where it may be served"
    known = next((one for one in runtimes if (one.backend, one.precision) == (name, precision)), None)
    if known is None:
        return f"{_UNTRIED} in {precision}: it was not tried when the artifact was made"
    return None if known.serves else known.told


def _nothing_runs(artifact: Artifact, available: Mapping[str, Availability], device: str) -> BackendUnavailableError:
    reasons = "; ".join(
        f"{name}: {found.reason or _refused(artifact, name, found, device)}" for name, found in available.items()
    )
    held = ", ".join(artifact.precisions)
    return BackendUnavailableError(
        f"nothing here runs the artifact {artifact.manifest.name!r} ({held}) on {device}: {reasons}{_remedy(artifact, device)}"
    )


def _refused(artifact: Artifact, name: str, found: Availability, device: str) -> str:
    """Why an available runtime does not serve it."""
    fit = [one for one in artifact.precisions if found.runs(artifact.program(one).kind, one)]
    refused = [why for one in fit if (why := _why_not(artifact, name, one, device)) is not None]
    if device in found.devices and refused:  # what was found says more than that nothing was
        return next((why for why in refused if not why.startswith(_UNTRIED)), refused[0])
    return f"runs {', '.join(found.precisions)} on {', '.join(found.devices)}"


def _remedy(artifact: Artifact, device: str) -> str:
    serving = [one.backend for one in artifact.manifest.runtimes or () if one.serves]
    if not serving:
        return ""
    if device != "cpu":
        return f". On the CPU it may be served by {', '.join(serving)}"
    return f". It may be served by {', '.join(serving)}; for another runtime, optimize again where it is installed"


def _candidates(artifact: Artifact, device: str) -> Iterator[tuple[str, Precision]]:
    if device == "cpu":
        for preference in artifact.manifest.preferences:
            yield preference.backend, preference.precision
    for name in (DEFAULT, *(name for name in NAMES if name != DEFAULT)):
        for precision in _USUAL_ORDER if device == "cpu" else _ORDER_ON_ACCELERATORS:
            yield name, precision


def open_fastest_named(
    artifact: Artifact,
    *,
    threads: int = 1,
    backend: str | None = None,
    device: str = "cpu",
    batches: Sequence[int] = BATCHES,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[str, Program, Session]:
    """Open the program that `choose_program` chooses, among all backends or for the one named; where that backend
    says that it is not for this program, the next one. On the CPU it is tried first (core.backends.tried) with these
    batches; stopping: ends that. Returns the backend's name, the program and its session.

    Raises UsageError for an unknown backend, BackendUnavailableError when nothing fits, ArtifactError for a program
    that fails when it is tried, BackendError when it does not open.
    """
    available = probe_all() if backend is None else {backend: find_backend(backend).probe()}
    refused: BackendUnavailableError | None = None
    for name, program in _runnable(artifact, available, device):
        try:
            if device == "cpu":
                check_tried(artifact, name, program, batches=batches, stopping=stopping)
            return name, program, find_backend(name).open(program, device=device, threads=threads)
        except BackendUnavailableError as error:
            refused = refused or error
    raise refused or _nothing_runs(artifact, available, device)
