"""A trained model on disk: `trees.safetensors` or `network.safetensors` beside features.json, decision.json and
training.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, encode
from featherweight.apps.fraud.training import network
from featherweight.apps.fraud.training.description import NETWORK, SETTINGS, TREES, Training, read_training
from featherweight.apps.fraud.training.models import Logistic, ModelSettings, Network
from featherweight.core.digests import check_digests, write_digests
from featherweight.core.errors import ArtifactError, DataError
from featherweight.core.files import atomic_write, read_errors, write_errors
from featherweight.core.model import Model, trees_model
from featherweight.core.terminal import counted
from featherweight.core.trees.ensemble import Ensemble, tensor_specs
from featherweight.core.trees.safetensors_file import read_trees, write_trees


@dataclass(frozen=True)
class Trained:
    """A fitted model with all that is needed to score with it and to optimize it."""

    model: Ensemble | nn.Module
    schema: FeatureSchema
    rule: DecisionRule
    training: Training

    def core_model(self) -> Model:
        """One input `features` float32 [N, F], one output `score` float32 [N, 1]."""
        if isinstance(self.model, Ensemble):
            return trees_model(self.model)
        return Model(self.model.eval(), *tensor_specs(len(self.schema.names)))


def write_trained(directory: Path, trained: Trained) -> None:
    """Raises OutputError."""
    with write_errors(directory, "the model cannot be written"):
        directory.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(trained.training), indent=2)
    contents = dict(zip(SETTINGS, (encode(trained.schema), encode(trained.rule), text + b"\n"), strict=True))
    if isinstance(trained.model, Ensemble):
        model, other = TREES, NETWORK
        write_trees(directory / TREES, trained.model)
    else:
        model, other = NETWORK, TREES
        contents[NETWORK] = save({name: value.contiguous() for name, value in trained.model.state_dict().items()})
    for name, content in contents.items():
        with atomic_write(directory / name, "the model cannot be written") as partial:
            partial.write_bytes(content)
    write_digests(directory, (model, *SETTINGS))
    with write_errors(directory / other, "the model of an earlier training cannot be removed"):
        (directory / other).unlink(missing_ok=True)


def read_trained(directory: Path) -> Trained:
    """Raises DataError when the folder does not hold a model that `fraud train` wrote."""
    training, schema, rule = read_training(directory)
    unreadable = (SafetensorError, ValueError, RuntimeError, ArtifactError, DataError)
    with read_errors(directory, "not a trained model", "train it again", also=unreadable):
        model = _read_model(directory, training.settings, len(schema.names))
    return Trained(model, schema, rule, training)


def _read_model(directory: Path, settings: ModelSettings, columns: int) -> Ensemble | nn.Module:
    match settings:
        case Network():
            width, layers = settings.width, settings.layers
        case Logistic():
            width, layers = 0, 0
        case _:
            check_digests(directory, (TREES,))
            trees = read_trees(directory / TREES)
            if trees.features != columns:
                raise DataError(
                    f"{TREES} takes {counted(trees.features, 'columns')}, but features.json names {columns}"
                )
            return trees
    built = network.build(columns, width, layers)
    check_digests(directory, (NETWORK,))
    tensors: dict[str, torch.Tensor] = load_file(directory / NETWORK)
    built.load_state_dict(tensors)
    return built.eval()
