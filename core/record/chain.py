"""A change after a change: what all of them together may have lost against the first model.

Each change may keep its margin while all together lose several of them. The artifact of each change keeps the links
before it, so that the sum can be told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from featherweight.core.artifact.store import read_artifact
from featherweight.core.errors import UsageError


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An earlier change. losses: limit -> the bound of the loss that its evidence states."""

    artifact: str
    sha256: str
    losses: dict[str, float | None]


@dataclass(frozen=True)
class Chain:
    """links: the changes from the first model to the baseline; direct: limit -> bound of the loss against the first
    model's own predictions on the same cases, where the task gives them; programs: SHA-256 of those in the last link's
    artifact; made_from: of the program that it was made from, empty where its evidence does not say; baseline: of this
    run's, empty while it is not known."""

    links: tuple[Link, ...]
    direct: Mapping[str, float | None] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    made_from: str = ""
    baseline: str = ""

    @property
    def goes_on(self) -> bool | None:
        """Whether the baseline is the program of the last link, byte for byte; None while that is not known."""
        return self.baseline in self.programs if self.baseline and self.programs else None

    def summed(self, losses: Mapping[str, float | None]) -> dict[str, float | None]:
        """Limit -> the sum of the bounds of all changes, `losses` of the last among them; None where one is not known.
        Each holds with 95% confidence; the sum is a bound with less, but losses that all are at their bounds are
        unlikely."""
        found: dict[str, float | None] = {}
        for name in losses:
            bounds = [*(link.losses.get(name) for link in self.links), losses[name]]
            # A bound that is no number is not a loss of nothing.
            known = [max(0.0, one) for one in bounds if one is not None and math.isfinite(one)]
            found[name] = sum(known) if len(known) == len(bounds) else None
        return found


def read_chain(folder: Path, loss_limits: tuple[str, ...]) -> Chain:
    """The chain that ends with the artifact whose program is the baseline. loss_limits: names of the limits on losses.
    Raises WrongModelError, ArtifactError, and UsageError for an artifact without evidence that can be read."""
    artifact = read_artifact(folder)
    try:
        links, made_from = parse_links(
            artifact.evidence["evidence.json"], artifact.manifest.name, artifact.sha256, loss_limits
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"previous: {folder} has no evidence from which a loss could be read ({type(error).__name__}: {error}); "
            "name the artifact that the baseline came from"
        ) from error
    return Chain(links, programs=tuple(program.sha256 for program in artifact.programs), made_from=made_from)


def parse_links(
    content: bytes, artifact: str, sha256: str, loss_limits: tuple[str, ...]
) -> tuple[tuple[Link, ...], str]:
    """The links that an evidence.json states, its own last, and the digest of the program that it was made from. Raises
    KeyError, TypeError, AttributeError, ValueError, RecursionError for what is not such evidence, a bound that is no
    finite number among it."""
    document: dict[str, Any] = json.loads(content, parse_constant=_refuse)
    checks = document[document["decided_on"]]["checks"]
    losses = {check["name"]: check["found"] for check in checks if check["name"] in loss_limits}
    before = msgspec.convert(document.get("chain", {}).get("links", []), tuple[Link, ...])
    link = msgspec.convert({"artifact": artifact, "sha256": sha256, "losses": losses}, Link)
    for one in (*before, link):
        _check_losses(one)
    return (*before, link), str(document.get("programs", {}).get("baseline_sha256") or "")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _check_losses(link: Link) -> None:
    """Numbers too large for a float become infinite, which no bound is. Raises ValueError."""
    wrong = [name for name, loss in link.losses.items() if loss is not None and not math.isfinite(loss)]
    if wrong:
        raise ValueError(f"the bound of {wrong[0]} in {link.artifact} is no finite number")
