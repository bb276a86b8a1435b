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
from apps.fraud.settings import DecisionRule, FeatureSchema, decode_features, decode_rule, encode
from core.errors import ArtifactError, DataError, OutputError
from core.model import Model, trees_model
from core.trees.ensemble import Ensemble, tensor_specs
from core.trees.stored import read_trees, write_trees

TREES, NETWORK, TRAINING = "trees.safetensors", "network.safetensors", "training.json"


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which days are for what: training, `delay_days`, validation, `delay_days`, test; the last test day is `until`
    (YYYY-MM-DD; empty: the data's last whole day)."""

    train_days: int = 7
    delay_days: int = 7
    validation_days: int = 7
    test_days: int = 7
    until: str = ""


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the model is, and from what: enough to read the same split again. source: the `weights_source` of the
    artifact's manifest."""

    settings: Settings
    layout: Layout
    alerts_a_day: float
    seed: int
    source: str


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
            write_trees(directory / TREES, trained.model)
            (directory / NETWORK).unlink(missing_ok=True)
        else:
            partial = directory / "network.partial"
            save_file({name: value.contiguous() for name, value in trained.model.state_dict().items()}, partial)
            partial.replace(directory / NETWORK)
            (directory / TREES).unlink(missing_ok=True)
        (directory / "features.json").write_bytes(encode(trained.schema))
        (directory / "decision.json").write_bytes(encode(trained.rule))
        text = msgspec.json.format(msgspec.json.encode(trained.training), indent=2)
        (directory / TRAINING).write_bytes(text + b"\n")
    except OSError as error:
        raise OutputError(f"{directory}: the model cannot be written: {error.strerror or error}") from error


def read_trained(directory: Path) -> Trained:
    """Raises DataError when the folder does not hold a model that `fraud train` wrote."""
    if not (directory / TRAINING).is_file():
        raise DataError(f"{directory}: no {TRAINING}; make it with: featherweight fraud train --out {directory}")
    try:
        training = msgspec.json.decode((directory / TRAINING).read_bytes(), type=Training)
        schema = decode_features((directory / "features.json").read_bytes())
        rule = decode_rule((directory / "decision.json").read_bytes())
        model = _read_model(directory, training.settings, len(schema.names))
    except (SafetensorError, msgspec.DecodeError, ValueError, RuntimeError, OSError, ArtifactError, DataError) as error:
        raise DataError(f"{directory}: not a trained model ({error}); train it again") from error
    return Trained(model, schema, rule, training)


def _read_model(directory: Path, settings: Settings, columns: int) -> Ensemble | nn.Module:
    match settings:
        case Network():
            width, layers = settings.width, settings.layers
        case Logistic():
            width, layers = 0, 0
        case _:
            trees = read_trees(directory / TREES)
            if trees.features != columns:
                raise DataError(f"{TREES} takes {trees.features} columns, but features.json names {columns}")
            return trees
    built = network.build(columns, width, layers)
    tensors: dict[str, torch.Tensor] = load_file(directory / NETWORK)
    built.load_state_dict(tensors)
    return built.eval()
