"""The one training loop: an app trains with it, the recover pass fine-tunes with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Tensors = Tensor | tuple[Tensor, ...]
"""One tensor, or several in the order of the network's inputs or outputs."""

Batches = Callable[[int], Iterable[tuple[Tensors, Tensors]]]
"""epoch -> batches of (inputs, targets); the epoch seeds the order, so that a resumed run sees the same batches."""

Loss = Callable[[Any, Any, Any], Tensor]
"""(outputs, inputs, targets) -> scalar; each as the network and the batches give it, `Tensors`."""


def as_tuple(tensors: Any) -> tuple[Any, ...]:
    """One tensor alone, or the several that a tuple or a list holds."""
    return tuple(tensors) if isinstance(tensors, tuple | list) else (tensors,)


def on_device(tensors: Tensors, device: torch.device) -> Tensors:
    """The same on the device, one or several as it was."""
    moved = tuple(tensor.to(device) for tensor in as_tuple(tensors))
    return moved if isinstance(tensors, tuple | list) else moved[0]


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 has its own instructions there; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    The learning rate rises linearly over the first tenth of the steps and falls as a cosine to zero
    (Loshchilov & Hutter, SGDR, 2017, without restarts).
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    weight_decay: float = 0.02
    ema_decay: float = 0.99
    mixed_precision: bool = True

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step: it rises in the first tenth of the steps, then falls to 0
        along a cosine."""
        total = max(1, self.epochs * self.steps_per_epoch)
        warm = max(1, total // 10)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


@dataclass
class Fit:
    """A training run that can stop after any epoch and go on from `state()`."""

    network: nn.Module
    schedule: Schedule
    loss: Loss
    epoch: int = 0

    def __post_init__(self) -> None:
        decayed = [p for p in self.network.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.schedule.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.schedule.learning_rate)
        self.averaged = copy.deepcopy(self.network).eval()
        for parameter in self.averaged.parameters():
            parameter.requires_grad_(False)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a later process needs to go on, for safetensors; pair it with `epoch`."""
        kept = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        kept |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            kept |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return {name: value.detach().cpu().contiguous().clone() for name, value in kept.items()}

    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Go on from `tensors()`. Raises RuntimeError when they belong to another network."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self.network.load_state_dict(parts["network"])
        self.averaged.load_state_dict(parts["averaged"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.epoch = epoch

    def run_epoch(self, batches: Iterable[tuple[Tensors, Tensors]], on_step: Callable[[float], None]) -> float:
        """Train one epoch; `on_step` hears each batch's loss. Returns the mean loss."""
        self.network.train()
        device = next(self.network.parameters()).device
        losses = []
        for index, (inputs, targets) in enumerate(batches):
            inputs, targets = on_device(inputs, device), on_device(targets, device)
            step = self.epoch * self.schedule.steps_per_epoch + index
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.learning_rate * self.schedule.factor(step)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.schedule.mixed_precision):
                outputs = self.network(*as_tuple(inputs))
            plain = tuple(output.float() for output in as_tuple(outputs))
            loss = self.loss(plain if isinstance(outputs, tuple | list) else plain[0], inputs, targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimizer.step()
            self._average(step)
            losses.append(loss.item())
            on_step(losses[-1])
        self.epoch += 1
        return sum(losses) / max(1, len(losses))

    def _average(self, step: int) -> None:
        # The exponential moving average of the weights: one network with most of the gain of an
        # ensemble. The first steps use a shorter memory, or the random start would linger.
        decay = min(self.schedule.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(
                self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if mean.dtype.is_floating_point:
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)


def fit(run: Fit, batches: Batches, on_step: Callable[[float], None] = lambda loss: None) -> nn.Module:
    """Run the epochs that are left; returns the averaged network in eval mode."""
    while run.epoch < run.schedule.epochs:
        run.run_epoch(batches(run.epoch), on_step)
    return run.averaged.eval()
