"""Whole tasks in a second, nothing mocked: synthetic images and a small residual network; rows and fitted trees."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence

import lightgbm
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from featherweight.core.model import Model, trees_model
from featherweight.core.task import Alerts, CaseView, HeldOut, HeldOutName, SealedFiles
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.training import Fit, Schedule, fit
from featherweight.core.trees.ensemble import Ensemble
from featherweight.core.trees.lightgbm import from_lightgbm

# On tensors this small, threads that wait for each other on a busy host cost ten times what they save.
torch.set_num_threads(1)

SIDE = 24
INPUTS = (TensorSpec("image", "float32", (None, 1, SIDE, SIDE)),)
OUTPUTS = (TensorSpec("logit", "float32", (None, 1)),)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(inner)))


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Block(32),
        nn.Conv2d(32, 64, 3, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 1),
    )


def images(count: int, seed: int | list[int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Noise [count, 1, SIDE, SIDE]; the positive ones have a faint bright square somewhere."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    found = generator.normal(0.4, 0.12, (count, 1, SIDE, SIDE))
    for image, label in zip(found, labels, strict=True):
        row, column = generator.integers(2, SIDE - 8, 2)
        image[0, row : row + 6, column : column + 6] += 0.17 * label
    return found.clip(0, 1).astype(np.float32), labels


@functools.cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    inputs, labels = images(384, seed=1)
    batches = [
        (torch.from_numpy(inputs[i : i + 32]), torch.from_numpy(labels[i : i + 32]).float().view(-1, 1))
        for i in range(0, 384, 32)
    ]

    def loss(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, targets)

    schedule = Schedule(epochs=6, steps_per_epoch=12, learning_rate=3e-3, ema_decay=0.9, mixed_precision=False)
    return fit(Fit(small_network(), schedule, loss), lambda epoch: batches)


def trained_model() -> Model:
    """A trained network of the test's own."""
    return Model(copy.deepcopy(_trained()).eval(), INPUTS, OUTPUTS)


class SquaresTask:
    """Fulfils core.task.Task. `asked` records which data was asked for, in order."""

    def __init__(self, cases: int = 400) -> None:
        self.baseline = trained_model()
        self.positive_threshold = 0.0
        self.baseline_probability = None
        self.cases = cases
        self.asked: list[str] = []

    def training_batches(self, epoch: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        self.asked.append("training")
        inputs, labels = images(320, seed=1)
        order = np.random.default_rng([seed, epoch]).permutation(320)
        return [
            (torch.from_numpy(inputs[part]), torch.from_numpy(labels[part]).float().view(-1, 1))
            for part in order.reshape(10, 32)
        ]

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        self.asked.append("calibration")
        inputs, _ = images(320, seed=1)
        for start in range(0, min(samples, 320), 8):
            yield {"image": inputs[start : start + 8]}

    def validation_cases(self) -> HeldOut:
        self.asked.append("validation_cases")
        return self._held_out("v", 2)

    def calibration_cases(self) -> HeldOut:
        self.asked.append("calibration_cases")
        return self._held_out("v", 2)

    def test_cases(self) -> HeldOut:
        self.asked.append("test_cases")
        return self._held_out("t", 3)

    def scores(self, outputs: Tensors) -> npt.NDArray[np.float64]:
        return outputs["logit"][:, 0].astype(np.float64)

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        return {"image": images(count, [seed, 4])[0]}

    def show(self, part: HeldOutName, indices: Sequence[int]) -> list[CaseView]:
        self.asked.append(f"shown {part}")
        inputs, _ = images(self.cases, 2 if part == "validation" else 3)
        return [CaseView({"place": str(index)}, np.rint(inputs[index, 0] * 255).astype(np.uint8)) for index in indices]

    def seal(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[SealedFiles, float]:
        ranked = np.sort(scores)
        accuracies = [((scores >= threshold) == (labels == 1)).mean() for threshold in ranked]
        threshold = float(ranked[int(np.argmax(accuracies))])
        return SealedFiles(
            "squares", ("empty", "square"), {"decision.json": f"{threshold}".encode()}, "made up"
        ), threshold

    def _held_out(self, prefix: str, seed: int) -> HeldOut:
        inputs, labels = images(self.cases, seed)
        sites = np.where(np.arange(self.cases) % 3 == 0, "north", "south")
        ids = tuple(f"{prefix}{index}" for index in range(self.cases))
        return HeldOut(ids, {"image": inputs}, labels, {"site": sites})


def rows(
    count: int, seed: int | list[int], *, features: int = 6
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Rows [count, features] with missing values and ties; a quarter is positive, as four of the features say."""
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(count, features)).astype(np.float32)
    found[:, 1] = np.round(found[:, 1] * 2) / 2
    found[generator.random(found.shape) < 0.05] = np.nan
    seen = np.nan_to_num(found, nan=1.0)
    logit = 3 * seen[:, 0] + 2 * seen[:, 1] * (seen[:, 2] > 0) - 2 * np.abs(seen[:, 3]) - 1
    return found, (logit + generator.normal(size=count) > 0).astype(np.int64)


@functools.cache
def fitted_trees(trees: int = 40) -> Ensemble:
    inputs, labels = rows(3000, seed=1)
    parameters = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(inputs, labels), trees)
    return from_lightgbm(booster)


class TreesTask:
    """A task of trees: it has no training batches, because only networks are recovered."""

    def __init__(self, cases: int = 2000) -> None:
        self.baseline = trees_model(fitted_trees())
        self.positive_threshold = 0.0
        self.baseline_probability = None
        self.cases = cases

    def training_batches(self, epoch: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        raise AssertionError("trees are not recovered")

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        inputs, _ = rows(3000, seed=1)
        for start in range(0, min(samples, 3000), 500):
            yield {"features": inputs[start : start + 500]}

    def validation_cases(self) -> HeldOut:
        return self._held_out("v", 2)

    def calibration_cases(self) -> HeldOut:
        return self._held_out("v", 2)

    def test_cases(self) -> HeldOut:
        return self._held_out("t", 3)

    def scores(self, outputs: Tensors) -> npt.NDArray[np.float64]:
        return outputs["score"][:, 0].astype(np.float64)

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        return {"features": rows(count, [seed, 4])[0]}

    def show(self, part: HeldOutName, indices: Sequence[int]) -> list[CaseView]:
        inputs, _ = rows(self.cases, 2 if part == "validation" else 3)
        return [CaseView({f"f{column}": f"{value:g}" for column, value in enumerate(inputs[i])}) for i in indices]

    def seal(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[SealedFiles, float]:
        threshold = float(np.quantile(scores, 1 - labels.mean()))
        return SealedFiles("rows", ("no", "yes"), {"decision.json": f"{threshold}".encode()}, "made up"), threshold

    def _held_out(self, prefix: str, seed: int) -> HeldOut:
        inputs, labels = rows(self.cases, seed)
        ids, cards = tuple(f"{prefix}{index}" for index in range(self.cases)), np.arange(self.cases) // 4
        days = np.arange(self.cases) * 5 // self.cases
        alerts = Alerts(days, np.ones(self.cases, bool), per_day=20)
        bands = np.where(inputs[:, 0] > 0, "high", "low")
        return HeldOut(ids, {"features": inputs}, labels, {"first feature": bands}, cards, alerts)
