"""A change after a change: what all of them together may have lost against the first model.

Each change may keep its margin while all together lose several of them. The artifact of each change keeps the links
before it, so that the sum can be told.
"""

from __future__ import annotations

import json
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
    model's own predictions on the same cases, where the task gives them."""

    links: tuple[Link, ...]
    direct: Mapping[str, float | None] = field(default_factory=dict)

    def summed(self, losses: Mapping[str, float | None]) -> dict[str, float | None]:
        """Limit -> the sum of the bounds of all changes, `losses` of the last among them; None where one is not known.
        Each holds with 95% confidence; the sum is a bound with less, but losses that all are at their bounds are
        unlikely."""
        found: dict[str, float | None] = {}
        for name in losses:
            bounds = [*(link.losses.get(name) for link in self.links), losses[name]]
            known = [max(0.0, one) for one in bounds if one is not None]
            found[name] = sum(known) if len(known) == len(bounds) else None
        return found


def read_chain(folder: Path, loss_limits: tuple[str, ...]) -> Chain:
    """The chain that ends with the artifact whose program is the baseline. loss_limits: names of the limits on losses.
    Raises WrongModelError, ArtifactError, and UsageError for an artifact without evidence that can be read."""
    artifact = read_artifact(folder)
    try:
        document: dict[str, Any] = json.loads(artifact.evidence["evidence.json"])
        checks = document[document["decided_on"]]["checks"]
        losses = {check["name"]: check["found"] for check in checks if check["name"] in loss_limits}
        before = msgspec.convert(document.get("chain", {}).get("links", []), tuple[Link, ...])
        link = msgspec.convert({"artifact": artifact.manifest.name, "sha256": artifact.sha256, "losses": losses}, Link)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"previous: {folder} has no evidence from which a loss could be read ({type(error).__name__}: {error}); "
            "name the artifact that the baseline came from"
        ) from error
    return Chain((*before, link))
