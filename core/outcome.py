"""What optimizing ends with. Apart from `core.optimize`, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featherweight.core.artifact.store import Artifact
from featherweight.core.evidence.report import CandidateRecord, Evidence


@dataclass(frozen=True)
class Outcome:
    """A sealed artifact, what was compared, on which backend the chosen program was fastest, and what to know.

    candidates: the table of all that was tried; cases: the page of those that compression changed, None where it
    changed none. Both lie outside the artifact.

    >>> import featherweight
    >>> outcome = featherweight.optimize("recipe.toml", "models/mine", task=my_task)
    >>> outcome.artifact.directory.name, outcome.unchanged, outcome.candidates.is_file()
    ('mine', False, True)
    """

    artifact: Artifact
    evidence: Evidence
    backend: str
    warnings: tuple[str, ...]
    candidates: Path
    cases: Path | None

    @property
    def unchanged(self) -> bool:
        """What was sealed is the baseline itself: nothing was optimized."""
        return self.evidence.unchanged

    @property
    def refused(self) -> tuple[CandidateRecord, ...]:
        """Candidates that could not be made or run; each says why."""
        return tuple(one for one in self.evidence.candidates if one.latency is None)

    @property
    def forced(self) -> bool:
        """Sealed though limits were missed; the manifest lists them."""
        return self.artifact.manifest.forced
