"""A trained network on disk: `weights.safetensors` (with its description) beside preprocess.json and decision.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, encode
from featherweight.apps.imaging.training.description import FILES, WEIGHTS, Description, read_description
from featherweight.apps.imaging.training.network import build
from featherweight.core.digests import write_digests
from featherweight.core.files import atomic_write, read_errors
from featherweight.core.model import Model
from featherweight.core.tensors import TensorSpec


@dataclass(frozen=True)
class Trained:
    """A trained network with all that is needed to classify with it and to optimize it."""

    network: nn.Module
    description: Description
    preprocess: Preprocess
    decision: DecisionRule

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
    contents = (save(tensors, {"description": description}), encode(trained.preprocess), encode(trained.decision))
    for name, content in zip(FILES, contents, strict=True):
        with atomic_write(directory / name, "the network cannot be written", make_folder=True) as partial:
            partial.write_bytes(content)
    write_digests(directory, FILES)


def read_trained(directory: Path) -> Trained:
    """Raises DataError when the folder does not hold a network that `imaging train` wrote."""
    description, preprocess, decision = read_description(directory)
    unreadable = (SafetensorError, ValueError, RuntimeError)
    with read_errors(directory, "not a trained network", "train it again", also=unreadable):
        network = build(description.network, mean=description.mean, std=description.std)
        network.load_state_dict(load_file(directory / WEIGHTS))
    return Trained(network.eval(), description, preprocess, decision)
