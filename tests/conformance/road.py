"""The whole road of a family of networks: trained a little on drawn cases, loaded, pruned where that works, recovered,
quantized, judged, sealed and verified."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from featherweight import Data, open_model
from featherweight.core.artifact import read_artifact
from featherweight.core.doors.request import ModelRequest, open_custom
from featherweight.core.errors import FeatherweightError, UsageError
from featherweight.core.model import Model
from featherweight.core.parity.reproduction import check_parity
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.recover import estimate_batch_norm
from featherweight.core.passes.steps import PruneChannelsStep
from featherweight.core.request import run_recipe

SEALED = "sealed"
CASES = {"train": 256, "validation": 300, "test": 300}
RECIPE = """
version = 1
name = "road"
objective = "smallest"

[source]
task = "custom"
{prune}
[[step]]
kind = "quantize"
change_max = 0.05

[measure]
repetitions = 3

[limits]
auc_loss = 0.05
flip_ratio_max = 0.1
"""
PRUNE = """
[[step]]
kind = "prune-channels"
ratio = 0.25
round_to = 8

[[step]]
kind = "recover"
epochs = 2
"""


class MeanOutput(nn.Module):
    """One score of a network that gives many, a mask say: their mean."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.network(inputs)
        return found.flatten(1).mean(1, keepdim=True)


def seal_family(model: Model, folder: Path) -> str:
    """An empty text, or why no artifact of the network was sealed; what is no refusal comes through. folder: an empty
    one."""
    network = model.module("test")
    network = network if len(model.outputs[0].shape) == 2 else MeanOutput(network)
    parts = [_drawn(model, count, seed) for seed, count in enumerate(CASES.values())]
    _train(network, *parts[0])
    data = Data(**{name: (tuple(inputs), labels) for name, (inputs, labels) in zip(CASES, parts, strict=True)})
    recipe = folder / "road.toml"
    with _inside(folder):
        try:
            task = open_custom(ModelRequest(network, data))
            recipe.write_text(RECIPE.format(prune=PRUNE if _can_be_pruned(task.baseline) else ""))
            outcome = run_recipe(recipe, folder / "artifact", task=task, anyway=True)
        except FeatherweightError as error:
            return str(error).partition("\n")[0]
    assert outcome.artifact.precisions == ("int8",)
    runs = check_parity(read_artifact(folder / "artifact"))
    assert runs
    assert not [run for run in runs if run.judged and run.fault]
    inputs, labels = parts[2]
    named = {spec.name: array for spec, array in zip(task.baseline.inputs, inputs, strict=True)}
    with open_model(folder / "artifact") as opened:
        found = opened.predict(inputs[0] if len(inputs) == 1 else named)
    assert ((found.decisions == "1") == (labels == 1)).mean() > 0.7
    return ""


def _can_be_pruned(model: Model) -> bool:
    try:
        prune_channels(model, PruneChannelsStep(0.25, round_to=8))
    except UsageError:
        return False
    return True


def _drawn(model: Model, count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """(inputs, labels [count]): the positive have more on their left half, or more of the later words."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    inputs = []
    for spec in model.inputs:
        shape = (count, *(size or 1 for size in spec.shape[1:]))
        sign = (2 * labels - 1).reshape(-1, *[1] * (len(shape) - 1))
        if spec.dtype == "int64":
            later = rng.random(shape) < 0.5 + 0.3 * sign
            inputs.append(rng.integers(0, 16, shape) + 16 * later)
            continue
        values = rng.normal(size=shape)
        values[..., : shape[-1] // 2] += sign
        inputs.append(values.astype(np.float32))
    return inputs, labels


def _train(network: nn.Module, inputs: list[np.ndarray], labels: np.ndarray) -> None:
    torch.manual_seed(1)
    given, truth = [torch.from_numpy(array) for array in inputs], torch.from_numpy(labels).float()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    network.train()
    batches = [(tuple(one[at : at + 32] for one in given), truth[at : at + 32]) for at in range(0, len(truth), 32)]
    for step in range(40):
        some, wanted = batches[step % len(batches)]
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(*some)[:, 0], wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    # Some families move their BatchNorm statistics by a thousandth a step.
    estimate_batch_norm(network, batches)
    network.eval()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """With that current folder, below which finished work is kept."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
