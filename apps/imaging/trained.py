"""A trained network on disk: `weights.safetensors` (with its description) beside preprocess.json and decision.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from apps.imaging.network import NETWORKS, build
from apps.imaging.settings import Decision, Preprocess, decode_decision, decode_preprocess, encode
from core.digests import check_digests, file_digest, write_digests
from core.errors import ArtifactError, DataError, OutputError
from core.files import replacing
from core.model import Model
from core.tensors import TensorSpec

WEIGHTS = "weights.safetensors"
_FILES = (WEIGHTS, "preprocess.json", "decision.json")
_UNREADABLE = (SafetensorError, msgspec.DecodeError, RuntimeError, OSError, UnicodeError, ArtifactError, DataError)


__all__ = ["WEIGHTS", "Description", "Trained", "describe", "file_digest", "read_trained", "write_trained"]


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
    """Raises OutputError."""
    description = msgspec.json.encode(trained.description).decode()
    tensors = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / WEIGHTS) as partial:
            save_file(tensors, partial, {"description": description})
        for name, settings in (("preprocess.json", trained.preprocess), ("decision.json", trained.decision)):
            with replacing(directory / name) as partial:
                partial.write_bytes(encode(settings))
        write_digests(directory, _FILES)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{directory}: the network cannot be written ({describe(error)})") from error


def read_trained(directory: Path) -> Trained:
    """Raises DataError when the folder does not hold a network that `imaging train` wrote."""
    weights = directory / WEIGHTS
    try:
        if not weights.is_file():
            raise DataError(f"no {WEIGHTS}; make it with: featherweight imaging train --out {directory}")
        check_digests(directory, _FILES)
        with safe_open(weights, framework="pt") as archive:
            description = msgspec.json.decode((archive.metadata() or {}).get("description", ""), type=Description)
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
        if description.network not in NETWORKS:
            raise DataError(f"network {description.network!r} is not one of {', '.join(NETWORKS)}")
        network = build(description.network, mean=description.mean, std=description.std)
        network.load_state_dict(tensors)
        preprocess = decode_preprocess((directory / "preprocess.json").read_bytes())
        decision = decode_decision((directory / "decision.json").read_bytes())
        if preprocess.side != description.side:
            raise DataError(f"the network takes {description.side} pixels a side, preprocess.json {preprocess.side}")
    except _UNREADABLE as error:
        raise DataError(f"{directory}: not a trained network ({describe(error)}); train it again") from error
    return Trained(network.eval(), description, preprocess, decision)


def describe(error: Exception) -> str:
    """In words, without the number and the path that the system puts into an OSError's own."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
