"""What an artifact's evidence says, for programs and notebooks. The page `evidence.html` says it to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import msgspec

from featherweight.core.api.notebook import render_evidence
from featherweight.core.artifact import Artifact, read_artifact
from featherweight.core.errors import ArtifactError
from featherweight.core.terminal import counted

SCHEMA = "featherweight-evidence/2"


class Interval(msgspec.Struct, frozen=True):
    """An estimate and its two-sided 95% interval, in the metric's own unit."""

    estimate: float
    low: float
    high: float


class LimitResult(msgspec.Struct, frozen=True):
    """A limit of the recipe, judged. status: `passed`, `failed` or `not measured`; found: the bound that was compared
    with `limit`, in the limit's unit, None when nothing could be measured; explanation: in words."""

    name: str
    status: str
    found: float | None
    limit: float
    explanation: str


class _Program(msgspec.Struct, frozen=True):
    name: str
    metrics: dict[str, Interval | None]


class _Split(msgspec.Struct, frozen=True):
    cases: int
    checks: tuple[LimitResult, ...]
    baseline: _Program
    candidate: _Program


class _Document(msgspec.Struct, frozen=True):
    """What is needed of evidence.json; what else it holds is in `SealedEvidence.document`."""

    title: str
    created: str
    passed: bool
    forced: bool
    decided_on: Literal["test", "validation"]
    validation: _Split
    warnings: tuple[str, ...]
    facts: dict[str, str]
    test: _Split | None = None


@dataclass(frozen=True, eq=False)
class SealedEvidence:
    """What was measured and judged when an artifact was made.

    name: of the artifact; title: as evidence.json has it; created: ISO 8601, UTC; passed: whether every limit was
    kept; forced: sealed though one was not; decided_on: `test`, cases that were run once, or `validation`; cases: how
    many of them; limits: one result a limit; baseline, candidate: metric -> estimate with 95% interval, None where it
    was not measured, of the model before and after; warnings: what a reader must be told; facts: further lines, among
    them the range of the program's inputs; document: all of evidence.json, whose schema is published with the package;
    page: evidence.html, the same for people, one file that needs no network.

    >>> import featherweight
    >>> evidence = featherweight.read_evidence("data/models/card-fraud")
    >>> evidence.passed, evidence.decided_on, evidence.cases
    (False, 'test', 40440)
    >>> for limit in evidence.limits:
    ...     print(limit.name, limit.status)
    average_precision_loss passed
    card_precision_loss passed
    flip_ratio_max passed
    >>> f"{evidence.candidate['average_precision'].estimate:.3f}"
    '0.744'
    """

    name: str
    title: str
    created: str
    passed: bool
    forced: bool
    decided_on: Literal["test", "validation"]
    cases: int
    limits: tuple[LimitResult, ...]
    baseline: Mapping[str, Interval | None]
    candidate: Mapping[str, Interval | None]
    warnings: tuple[str, ...]
    facts: Mapping[str, str]
    document: Mapping[str, Any]
    page: str

    @property
    def verdict(self) -> str:
        """One line: whether the limits were kept, and on what that rests."""
        if not self.limits:
            return "not judged: the recipe sets no limit"
        kept = sum(limit.status == "passed" for limit in self.limits)
        word = "passed" if self.passed else "not passed"
        forced = ", sealed by force" if self.forced else ""
        cases = counted(self.cases, f"{self.decided_on} cases")
        return f"{word}{forced}, {kept} of {len(self.limits)} limits kept on {cases}"

    def __repr__(self) -> str:
        return f"<SealedEvidence {self.name}: {self.verdict}>"

    def _repr_html_(self) -> str:
        return render_evidence(self)


def read_evidence(folder: str | PathLike[str]) -> SealedEvidence:
    """The evidence of an artifact, after every digest of the artifact was checked; no runtime is opened.

    folder: of the artifact. Raises WrongModelError where no artifact is, ArtifactError for one that cannot be trusted
    or holds no evidence.

    >>> import featherweight
    >>> featherweight.read_evidence("data/models/chest-xray")
    <SealedEvidence chest-xray: not passed, sealed by force, 4 of 5 limits kept on 618 test cases>
    """
    return parse_evidence(read_artifact(Path(folder)))


def parse_evidence(artifact: Artifact) -> SealedEvidence:
    """Raises ArtifactError where none is sealed, or not in the form of this version."""
    try:
        content = artifact.evidence["evidence.json"]
    except KeyError as error:
        raise ArtifactError(f"{artifact.directory}: no evidence.json is sealed; make the artifact again") from error
    try:
        document = json.loads(content)
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ArtifactError(
                f"{artifact.directory}: evidence.json has the schema {schema!r}, this version reads {SCHEMA!r}: "
                "install the featherweight that made the artifact, or make it again"
            )
        found = msgspec.convert(document, _Document)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{artifact.directory}: evidence.json: not an evidence document: {error}") from error
    split = found.test if found.decided_on == "test" and found.test is not None else found.validation
    return SealedEvidence(
        name=artifact.manifest.name,
        title=found.title,
        created=found.created,
        passed=found.passed,
        forced=found.forced,
        decided_on=found.decided_on,
        cases=split.cases,
        limits=split.checks,
        baseline=split.baseline.metrics,
        candidate=split.candidate.metrics,
        warnings=found.warnings,
        facts=found.facts,
        document=document,
        page=artifact.evidence.get("evidence.html", b"").decode("utf-8", "replace"),
    )
