"""What the folder of a trained network says of it; reading that loads no framework, so a wrong one is told at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from apps.imaging.settings import Decision, Preprocess, decode_decision, decode_preprocess
from core.errors import ArtifactError, DataError

WEIGHTS = "weights.safetensors"
NETWORKS = ("resnet18", "resnet18-small-images", "compact")
"""The names of those that apps.imaging.network builds."""
SMALL_SIDE = 96
"""Images of fewer pixels a side have no detail to spare: not for blur, not for training at a smaller side first."""


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the weights are: enough to build the network again and to say where it came from."""

    network: str
    side: int
    mean: float
    std: float
    labels: tuple[str, str]
    source: str
    """Training data, its digest, seed: the `weights_source` of the artifact's manifest."""


def read_description(directory: Path) -> tuple[Description, Preprocess, Decision]:
    """Raises DataError when the folder does not hold a network that `imaging train` wrote."""
    weights = directory / WEIGHTS
    if not weights.exists():
        raise DataError(f"{directory}: no {WEIGHTS}; make it with: featherweight imaging train --out {directory}")
    try:
        with safe_open(weights, framework="np") as archive:
            description = msgspec.json.decode((archive.metadata() or {}).get("description", ""), type=Description)
        preprocess = decode_preprocess((directory / "preprocess.json").read_bytes())
        decision = decode_decision((directory / "decision.json").read_bytes())
    except (SafetensorError, msgspec.DecodeError, OSError, ArtifactError) as error:
        raise DataError(f"{directory}: not a trained network ({error}); train it again") from error
    if description.network not in NETWORKS:
        raise DataError(f"{weights}: network {description.network!r} is not one of {', '.join(NETWORKS)}")
    return description, preprocess, decision


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
