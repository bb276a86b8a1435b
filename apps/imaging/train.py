"""Train a network on labelled images; choose calibration and threshold on the validation part alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from apps.imaging.cases import Cases
from apps.imaging.network import build
from core.training import Fit, Schedule


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a training run; sealed beside the weights."""

    network: str = "resnet18"
    side: int = 224
    # (side of the training images, epochs): most of what is to be learnt shows at half size, at a quarter of the cost
    stages: tuple[tuple[int, int], ...] = ((112, 8), (160, 4), (224, 4))
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    mirror: bool = True
    seed: int = 0


def augment(images: Tensor, generator: torch.Generator, *, mirror: bool = True) -> Tensor:
    """Random views of [N, 1, H, W] in 0..1: affine, brightness, contrast, gamma, blur, noise.

    Blur and noise are there on purpose: in hospital archives sharpness and compression follow the device and
    the year, and a network that reads the diagnosis from them fails at the next hospital.
    """
    count, side = images.shape[0], images.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle = uniform(-0.2, 0.2)
    scale, aspect = uniform(0.85, 1.15), uniform(0.9, 1.1)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if mirror else torch.ones(count)
    theta = torch.stack(
        [
            torch.stack([flip * scale * aspect * angle.cos(), -scale * angle.sin(), uniform(-0.12, 0.12)], 1),
            torch.stack([flip * scale * angle.sin(), scale / aspect * angle.cos(), uniform(-0.12, 0.12)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [count, 1, side, side], align_corners=False)
    views = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    shape = (count, 1, 1, 1)
    views = views.clamp(1e-4, 1).pow(uniform(0.7, 1.4).view(shape))
    views = (views - 0.5) * uniform(0.75, 1.25).view(shape) + 0.5 + uniform(-0.12, 0.12).view(shape)
    blurred = functional.avg_pool2d(functional.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    views = torch.lerp(views, blurred, uniform(0, 1).view(shape))
    noise = torch.randn(views.shape, generator=generator) * uniform(0, 0.03).view(shape)
    return (views + noise).clamp(0, 1)


def as_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W] to float32 [N, 1, H, W] in 0..1."""
    return torch.from_numpy(images).float().div_(255).unsqueeze(1)


def training_batches(
    cases: Cases, epoch: int, *, batch: int, side: int, seed: int, mirror: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of one epoch: ([B, 1, side, side], [B, 1]); the same for the same (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(cases), generator=generator).numpy()
    for start in range(0, len(order) - batch + 1, batch):
        index = order[start : start + batch]
        images = as_tensor(cases.images[index])
        if images.shape[-1] != side:
            images = functional.interpolate(images, size=(side, side), mode="area")
        yield augment(images, generator, mirror=mirror), torch.from_numpy(cases.labels[index]).float().view(-1, 1)


def balanced_loss(labels: npt.NDArray[np.int64], smoothing: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Cross-entropy in which both classes weigh the same however many there are of each."""
    positive = float(labels.mean())

    def loss(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        weights = torch.where(targets > 0.5, 0.5 / positive, 0.5 / (1 - positive))
        smooth = targets * (1 - smoothing) + 0.5 * smoothing
        return functional.binary_cross_entropy_with_logits(outputs, smooth, weight=weights)

    return loss


def predict(network: nn.Module, images: npt.NDArray[np.uint8], batch: int = 64) -> npt.NDArray[np.float64]:
    """Logits [N] of uint8 images [N, H, W]."""
    network.eval()
    with torch.inference_mode():
        parts = [network(as_tensor(images[i : i + batch])).float().view(-1) for i in range(0, len(images), batch)]
    return torch.cat(parts).double().numpy()


def train(
    train_cases: Cases,
    settings: TrainSettings,
    directory: Path,
    *,
    on_step: Callable[[int, int, float], None] = lambda done, total, loss: None,
    on_epoch: Callable[[int, float, nn.Module], None] = lambda epoch, loss, network: None,
) -> nn.Module:
    """Train from scratch or go on from the checkpoint in `directory`; returns the averaged network.

    The checkpoint is written after each epoch. `on_step` hears (steps done, steps in all, loss).
    """
    torch.manual_seed(settings.seed)
    mean, std = float(train_cases.images.mean() / 255), float(train_cases.images.std() / 255)
    network = build(settings.network, mean=mean, std=std).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    epochs = [side for side, count in settings.stages for _ in range(count)]
    steps = len(train_cases) // settings.batch
    schedule = Schedule(len(epochs), steps, settings.learning_rate, settings.weight_decay, ema_decay=0.995)
    run = Fit(network, schedule, balanced_loss(train_cases.labels, settings.label_smoothing))
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / "checkpoint.pt"
    while run.epoch < len(epochs):
        side = epochs[run.epoch]
        done = run.epoch * steps
        batches = training_batches(
            train_cases, run.epoch, batch=settings.batch, side=side, seed=settings.seed, mirror=settings.mirror
        )
        counter = iter(range(done + 1, done + steps + 1))
        loss = run.run_epoch(batches, lambda value: on_step(next(counter), len(epochs) * steps, value))
        on_epoch(run.epoch, loss, run.averaged)
    (directory / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    return run.averaged.eval()
