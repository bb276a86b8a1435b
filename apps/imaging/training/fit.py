"""Train a network on labelled images: augmentation, loss, checkpoints."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from featherweight.apps.imaging.training.cases import Cases
from featherweight.apps.imaging.training.description import SMALL_SIDE
from featherweight.apps.imaging.training.network import build
from featherweight.core.arrays import GreyBytes, Labels, Scores
from featherweight.core.errors import DataError
from featherweight.core.files import atomic_write, is_there, read_errors
from featherweight.core.state_file import UNREADABLE, encode_state, read_state
from featherweight.core.training import Fit, Schedule, fast_bfloat16


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
    ema_decay: float = 0.995
    mirror: bool = True
    augmentation: float = 1.0
    start: str = ""
    """Digest of the weights to start from; empty: from scratch."""
    seed: int = 0


def augment(images: Tensor, generator: torch.Generator, *, mirror: bool = True, strength: float = 1.0) -> Tensor:
    """Random views of [N, 1, H, W] in 0..1: affine, brightness, contrast, gamma, blur, noise; strength 0 leaves only
    the mirroring.

    Blur and noise are there on purpose: in hospital archives sharpness and compression follow the device and
    the year, and a network that reads the diagnosis from them fails at the next hospital.
    """
    count, side = images.shape[0], images.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    def around(middle: float, below: float, above: float) -> Tensor:
        return middle + strength * uniform(-below, above)

    angle = around(0, 0.2, 0.2)
    scale, aspect = around(1, 0.15, 0.15), around(1, 0.1, 0.1)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if mirror else torch.ones(count)
    theta = torch.stack(
        [
            torch.stack([flip * scale * aspect * angle.cos(), -scale * angle.sin(), around(0, 0.12, 0.12)], 1),
            torch.stack([flip * scale * angle.sin(), scale / aspect * angle.cos(), around(0, 0.12, 0.12)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [count, 1, side, side], align_corners=False)
    views = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    shape = (count, 1, 1, 1)
    views = views.clamp(1e-4, 1).pow(around(1, 0.3, 0.4).view(shape))
    views = (views - 0.5) * around(1, 0.25, 0.25).view(shape) + 0.5 + around(0, 0.12, 0.12).view(shape)
    blurred = functional.avg_pool2d(functional.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    # Three pixels of a 28-pixel image are an organ, not a device's softness.
    softest = 1.0 if side >= SMALL_SIDE else side / 224
    views = torch.lerp(views, blurred, uniform(0, strength * softest).view(shape))
    noise = torch.randn(views.shape, generator=generator) * uniform(0, strength * 0.03).view(shape)
    return (views + noise).clamp(0, 1)


def as_tensor(images: GreyBytes) -> Tensor:
    """uint8 [N, H, W] to float32 [N, 1, H, W] in 0..1."""
    return torch.from_numpy(images).float().div_(255).unsqueeze(1)


@dataclass(frozen=True)
class Epoch:
    """Shuffled, augmented batches of one epoch: ([B, 1, side, side], [B, 1]); the same for the same (seed, epoch)."""

    cases: Cases
    epoch: int
    batch: int
    side: int
    seed: int
    mirror: bool = True
    augmentation: float = 1.0

    def __len__(self) -> int:
        return len(self.cases) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.cases), generator=generator).numpy()
        for start in range(0, len(self) * self.batch, self.batch):
            index = order[start : start + self.batch]
            images = as_tensor(self.cases.images[index])
            if images.shape[-1] != self.side:
                images = functional.interpolate(images, size=(self.side, self.side), mode="area")
            targets = torch.from_numpy(self.cases.labels[index]).float().view(-1, 1)
            yield augment(images, generator, mirror=self.mirror, strength=self.augmentation), targets


def calibration_views(cases: Cases, seed: int = 0) -> Cases:
    """Every case as it is, then every case in a random view of `augment`: what calibration and threshold are fitted on.

    Held-out images come from the devices and years of the training images, so a network is surer on them than it will
    be elsewhere. The varied views stand for elsewhere; ADR 005 has the reasoning.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [cases.images]
    for start in range(0, len(cases), 64):
        view = augment(as_tensor(cases.images[start : start + 64]), generator).squeeze(1)
        parts.append((view * 255).round().to(torch.uint8).numpy())
    ids = (*cases.ids, *(f"{name}, varied" for name in cases.ids))
    return Cases(np.concatenate(parts), np.tile(cases.labels, 2), ids, cases.patients * 2)


def balanced_loss(labels: Labels, smoothing: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Cross-entropy in which both classes weigh the same however many there are of each. labels: int64 [N], of the
    training set."""
    positive = float(labels.mean())

    def loss(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        weights = torch.where(targets > 0.5, 0.5 / positive, 0.5 / (1 - positive))
        smooth = targets * (1 - smoothing) + 0.5 * smoothing
        return functional.binary_cross_entropy_with_logits(outputs, smooth, weight=weights)

    return loss


def predict(network: nn.Module, images: GreyBytes, batch: int = 64) -> Scores:
    """Logits [N] of uint8 images [N, H, W]."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        parts = [
            network(as_tensor(images[start : start + batch]).to(device)).float().view(-1).cpu()
            for start in range(0, len(images), batch)
        ]
    return torch.cat(parts).double().numpy()


def train(
    cases: Cases,
    settings: TrainSettings,
    checkpoint: Path,
    *,
    earlier: Path | None = None,
    start: nn.Module | None = None,
    on_step: Callable[[int, int, float], None] = lambda done, total, loss: None,
    on_epoch: Callable[[int, float, nn.Module], None] = lambda epoch, loss, network: None,
) -> nn.Module:
    """Train from scratch or from the weights of `start`, or go on from `checkpoint` if it is there, else from the one
    at `earlier`.

    Returns the averaged network in eval mode, on the CPU. Trains on the GPU where torch has one.

    The checkpoint is replaced after each epoch and bound to the settings. `on_step` hears (steps done, steps in
    all, loss), `on_epoch` (epochs done, mean loss, averaged network). Raises DataError for a checkpoint of other
    settings.
    """
    torch.manual_seed(settings.seed)
    mean, std = float(cases.images.mean() / 255), float(cases.images.std() / 255)
    network = build(settings.network, mean=mean, std=std)
    if start is not None:
        network.load_state_dict(start.state_dict())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).to(memory_format=torch.channels_last)
    sides = [side for side, count in settings.stages for _ in range(count)]
    steps = len(cases) // settings.batch
    if steps == 0:
        raise DataError(
            f"{len(cases)} training images are fewer than one batch of {settings.batch}; lower --batch-size, or add "
            "images"
        )
    schedule = Schedule(
        len(sides),
        steps,
        settings.learning_rate,
        settings.weight_decay,
        settings.ema_decay,
        mixed_precision=fast_bfloat16(device),
    )
    run = Fit(network, schedule, balanced_loss(cases.labels, settings.label_smoothing))
    _restore(run, settings, checkpoint if earlier is None or is_there(checkpoint) else earlier)
    while run.epoch < len(sides):
        batches = Epoch(
            cases, run.epoch, settings.batch, sides[run.epoch], settings.seed, settings.mirror, settings.augmentation
        )
        counter = itertools.count(run.epoch * steps + 1)
        loss = run.run_epoch(batches, lambda value, counter=counter: on_step(next(counter), len(sides) * steps, value))  # type: ignore[misc]
        _write_checkpoint(run, settings, checkpoint)
        on_epoch(run.epoch, loss, run.averaged)
    return run.averaged.eval().cpu()


def _describe(settings: TrainSettings) -> str:
    return json.dumps(asdict(settings), sort_keys=True)


def _write_checkpoint(run: Fit, settings: TrainSettings, path: Path) -> None:
    metadata = {"epoch": str(run.epoch), "settings": _describe(settings)}
    remedy = "make room, and the same command goes on from the epoch before"
    with atomic_write(path, "the checkpoint cannot be written", remedy, make_folder=True) as partial:
        partial.write_bytes(encode_state(run.tensors(), metadata))


def _restore(run: Fit, settings: TrainSettings, path: Path) -> None:
    with read_errors(path, "not a readable checkpoint", "delete it to start over", also=(*UNREADABLE, DataError)):
        if not path.exists() and not path.is_symlink():
            return
        if not path.is_file():
            raise DataError("it is not a regular file")
        tensors, metadata = read_state(path)
        epoch = int(metadata["epoch"])
        if not 0 < epoch <= run.schedule.epochs and metadata.get("settings") == _describe(settings):
            raise DataError(f"it is of epoch {epoch}, of {run.schedule.epochs}")
    if metadata.get("settings") != _describe(settings):
        raise DataError(f"{path}: the checkpoint of a run with other settings; delete it or train into another folder")
    try:
        run.restore(tensors, epoch)
    except (RuntimeError, LookupError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a checkpoint of this network ({reason}); delete it to start over") from error
