"""The networks that `imaging train` knows: each maps [N, 1, H, W] float32 in 0..1 to one logit [N, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from featherweight.apps.imaging.training.description import NETWORKS


class Standardize(nn.Module):
    """(x - mean) / std inside the network, so that every program takes plain grey levels in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] to the same shape."""
        return (x - self.mean) / self.std


def resnet18() -> nn.Module:
    """ResNet-18 (He et al., 2016) with one input channel: the baseline that everyone knows."""
    network: nn.Module = torchvision.models.resnet18(num_classes=1)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def resnet18_small_images() -> nn.Module:
    """ResNet-18 for images of 28 to 64 pixels: a 3x3 stem of stride 1, so that the first stage still sees detail."""
    network: nn.Module = torchvision.models.resnet18(num_classes=1)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    return network


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def compact() -> nn.Module:
    """Eight plain 3x3 convolutions, 0.6 M weights: trains in a minute on two cores, int8 suits it well."""
    widths = (
        (1, 16, 2),
        (16, 32, 2),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 192, 2),
    )
    return nn.Sequential(
        *(_block(*width) for width in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 1)
    )


_NETWORKS: dict[str, Callable[[], nn.Module]] = dict(
    zip(NETWORKS, (resnet18, resnet18_small_images, compact), strict=True)
)


def build(name: str, *, mean: float = 0.5, std: float = 0.25) -> nn.Module:
    """The named network behind its standardization. Raises KeyError for a name that is not in NETWORKS."""
    return nn.Sequential(Standardize(mean, std), _NETWORKS[name]())
