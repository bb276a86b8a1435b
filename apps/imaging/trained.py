"""A trained network on disk: `weights.safetensors` (with its description) beside preprocess.json and decision.json."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from apps.imaging.network import NETWORKS, build
from apps.imaging.settings import Decision, Preprocess, decode_decision, decode_preprocess, encode
from core.errors import ArtifactError, DataError
from core.model import Model
from core.tensors import TensorSpec

WEIGHTS = "weights.safetensors"


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the weights are: enough to build the network again and to say where it came from."""

    network: str
    side: int
    mean: float
    std: float
    labels: tuple[str, str]
    source: str
    """Training data, its digest, seed: the `weights_source` of the artifact's manifest."""


@dataclass(frozen=True)
class Trained:
    network: nn.Module
    description: Description
    preprocess: Preprocess
    decision: Decision

    def model(self) -> Model:
        """One input `image` float32 [N, 1, side, side] in 0..1, one output `logit` float32 [N, 1]."""
        side = self.description.side
        return Model(
            self.network.eval(),
            (TensorSpec("image", "float32", (None, 1, side, side)),),
            (TensorSpec("logit", "float32", (None, 1)),),
        )


def write_trained(directory: Path, trained: Trained) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    description = msgspec.json.encode(trained.description).decode()
    tensors = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    partial = directory / "weights.partial"
    save_file(tensors, partial, {"description": description})
    (directory / "preprocess.json").write_bytes(encode(trained.preprocess))
    (directory / "decision.json").write_bytes(encode(trained.decision))
    partial.replace(directory / WEIGHTS)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_trained(directory: Path) -> Trained:
    """Raises DataError when the folder does not hold a network that `imaging train` wrote."""
    weights = directory / WEIGHTS
    if not weights.exists():
        raise DataError(
            f"{directory}: no weights.safetensors; make it with: featherweight imaging train --out {directory}"
        )
    try:
        with safe_open(weights, framework="pt") as archive:
            description = msgspec.json.decode((archive.metadata() or {}).get("description", ""), type=Description)
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
        if description.network not in NETWORKS:
            raise DataError(f"{weights}: network {description.network!r} is not one of {', '.join(NETWORKS)}")
        network = build(description.network, mean=description.mean, std=description.std)
        network.load_state_dict(tensors)
        preprocess = decode_preprocess((directory / "preprocess.json").read_bytes())
        decision = decode_decision((directory / "decision.json").read_bytes())
    except (SafetensorError, msgspec.DecodeError, ValueError, RuntimeError, OSError, ArtifactError) as error:
        raise DataError(f"{directory}: not a trained network ({error}); train it again") from error
    return Trained(network.eval(), description, preprocess, decision)
