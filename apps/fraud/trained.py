"""A trained model on disk: `trees.safetensors` or `network.safetensors` beside features.json, decision.json and
training.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from apps.fraud import network
from apps.fraud.model import Logistic, Network, Settings
from apps.fraud.settings import DecisionRule, FeatureSchema, encode
from apps.fraud.training import NETWORK, SETTINGS, TREES, Training, read_training
from core.digests import check_digests, write_digests
from core.errors import ArtifactError, DataError, OutputError
from core.files import replacing
from core.model import Model, trees_model
from core.terminal import counted
from core.trees.ensemble import Ensemble, tensor_specs
from core.trees.stored import read_trees, write_trees


@dataclass(frozen=True)
class Trained:
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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(trained.model, Ensemble):
            model, other = TREES, NETWORK
            write_trees(directory / TREES, trained.model)
        else:
            model, other = NETWORK, TREES
            with replacing(directory / NETWORK) as partial:
                save_file({name: value.contiguous() for name, value in trained.model.state_dict().items()}, partial)
        text = msgspec.json.format(msgspec.json.encode(trained.training), indent=2)
        contents = (encode(trained.schema), encode(trained.rule), text + b"\n")
        for name, content in zip(SETTINGS, contents, strict=True):
            with replacing(directory / name) as partial:
                partial.write_bytes(content)
        write_digests(directory, (model, *SETTINGS))
        (directory / other).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputError(f"{directory}: the model cannot be written: {reason}") from error


def read_trained(directory: Path) -> Trained:
    """Raises DataError when the folder does not hold a model that `fraud train` wrote."""
    training, schema, rule = read_training(directory)
    try:
        model = _read_model(directory, training.settings, len(schema.names))
    except (SafetensorError, ValueError, RuntimeError, OSError, ArtifactError, DataError) as error:
        raise DataError(f"{directory}: not a trained model ({error}); train it again") from error
    return Trained(model, schema, rule, training)


def _read_model(directory: Path, settings: Settings, columns: int) -> Ensemble | nn.Module:
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
