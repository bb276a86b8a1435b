"""Where every app opens an artifact: which one and how (`ModelSource`), then the artifact with a session that runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.core.adapters import ModelAdapter, open_adapter
from featherweight.core.artifact import Artifact, read_artifact
from featherweight.core.backends.base import Session
from featherweight.core.backends.fastest import BATCHES, choose_program, open_fastest_named
from featherweight.core.backends.registry import find_backend, probe_all
from featherweight.core.backends.tried import check_tried
from featherweight.core.closing import Closing
from featherweight.core.errors import ArtifactError, FeatherweightError
from featherweight.core.parity.reproduction import BATCHES as REFERENCE_BATCHES
from featherweight.core.parity.reproduction import check_session
from featherweight.core.program import Program


@dataclass(frozen=True)
class OpenArtifact(Closing):
    """A verified artifact with one of its programs open on a backend. Use it in a `with` block, or call `close`."""

    artifact: Artifact
    backend: str
    program: Program
    session: Session

    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class ChosenProgram:
    """A verified artifact, and which of its programs is to run on which backend, with how many threads; not open."""

    artifact: Artifact
    backend: str
    program: Program
    threads: int

    def check_tried(self, *, batches: Sequence[int]) -> None:
        """Have another process run it first with these batches. Raises ArtifactError for a program that fails."""
        check_tried(self.artifact, self.backend, self.program, batches=batches)

    def open(self) -> OpenArtifact:
        """Open what `check_tried` has seen. Raises BackendError."""
        session = find_backend(self.backend).open(self.program, threads=self.threads)
        return OpenArtifact(self.artifact, self.backend, self.program, session)


@dataclass(frozen=True)
class ModelSource:
    """Which artifact to open, and how to run it here."""

    folder: Path
    """The artifact's."""
    backend: str | None = None
    """Runtime by name; the artifact's fastest on this host if None."""
    threads: int = 1
    """Threads of the session."""
    verify_decisions: bool = False
    """Whether this host must first reproduce the artifact's reference decisions."""

    def read(self, app: str | None = None) -> Artifact:
        """Read and verify the folder. Raises ArtifactError for what cannot be trusted, WrongModelError where there is
        no artifact or, where an app is named, one of another app."""
        return read_artifact(self.folder, app=app)

    def open_adapter(self, artifact: Artifact) -> ModelAdapter | None:
        """How arrays become the artifact's inputs and outputs decisions; None where its app is not installed. Raises
        ArtifactError for sealed files that are not the app's, and as `core.adapters.open_adapter` does."""
        manifest = artifact.manifest
        inputs = tuple(entry.spec() for entry in manifest.inputs)
        try:
            return open_adapter(manifest.app, manifest.labels, artifact.sealed, inputs)
        except ArtifactError as error:
            raise ArtifactError(f"{self.folder}: {error}") from error

    def choose(self, artifact: Artifact) -> ChosenProgram:
        """Choose what is to run, for callers that have other things to check before a session is open; verify its
        decisions where that is asked.

        Raises UsageError for an unknown backend, BackendUnavailableError when nothing here runs the artifact,
        ArtifactError when this host does not reproduce its reference decisions.
        """
        available = probe_all() if self.backend is None else {self.backend: find_backend(self.backend).probe()}
        backend, program = choose_program(artifact, available)
        chosen = ChosenProgram(artifact, backend, program, self.threads)
        if self.verify_decisions:
            chosen.check_tried(batches=REFERENCE_BATCHES)
            with chosen.open() as model:
                check_session(artifact, model.session)
        return chosen

    def open(
        self, artifact: Artifact, *, batches: Sequence[int] = BATCHES, stopping: Callable[[], bool] = lambda: False
    ) -> OpenArtifact:
        """Open the artifact that `read` gave, after another process has run its program with these batches; stopping:
        ends that. A backend that refuses the program gives way to the next one. Verifies its decisions where that is
        asked.

        Raises UsageError for an unknown backend, BackendUnavailableError when nothing here runs the artifact,
        ArtifactError for a program that fails or does not reproduce its reference decisions, BackendError when it does
        not open.
        """
        backend, program, session = open_fastest_named(
            artifact, threads=self.threads, backend=self.backend, batches=batches, stopping=stopping
        )
        if self.verify_decisions:
            try:
                check_session(artifact, session)
            except FeatherweightError:
                session.close()
                raise
        return OpenArtifact(artifact, backend, program, session)
