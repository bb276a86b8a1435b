"""Small dense networks over raw features: missing values and scales are settled inside the graph."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from featherweight.core.arrays import FeatureRows, Scores

BOUND = 5.0


class Standardize(nn.Module):
    """NaN becomes `typical`, the median; then (x - mean) / std, cut at BOUND if `bounded`: a few amounts run
    away."""

    typical: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int, *, bounded: bool) -> None:
        super().__init__()
        self.bounded = bounded
        self.register_buffer("typical", torch.zeros(columns))
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def fit(self, features: FeatureRows) -> None:
        """features: [N, F]. Columns that never vary, or are never there, become 0."""
        there = np.where(np.isnan(features).all(axis=0), 0, features).astype(np.float64)
        typical = np.nanmedian(there, axis=0)
        filled = np.where(np.isnan(there), typical, there)
        deviation = filled.std(axis=0)
        self.typical.copy_(torch.from_numpy(typical))
        self.mean.copy_(torch.from_numpy(filled.mean(axis=0)))
        self.scale.copy_(torch.from_numpy(1 / np.where(deviation > 0, deviation, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, F] to the same shape: missing values filled in, then scaled, then cut off."""
        filled = torch.where(torch.isnan(x), self.typical, x)
        scaled = (filled - self.mean) * self.scale
        return torch.clamp(scaled, -BOUND, BOUND) if self.bounded else scaled


def build(columns: int, width: int, layers: int) -> nn.Sequential:
    """float32 [N, columns] -> margin [N, 1]; with no layers between, a plain logistic regression."""
    widths = [columns, *[width] * layers]
    hidden: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        hidden += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(Standardize(columns, bounded=layers > 0), *hidden, nn.Linear(widths[-1], 1))


def standardize_of(network: nn.Module) -> Standardize:
    """The network's first layer."""
    return next(module for module in network.modules() if isinstance(module, Standardize))


def last_of(network: nn.Module) -> nn.Linear:
    """The network's last linear layer."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def predict(network: nn.Module, features: FeatureRows, batch: int = 8192) -> Scores:
    """Margins [N] of features [N, F]."""
    network.eval()
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(features[start : start + batch])).view(-1).double()
            for start in range(0, len(features), batch)
        ]
    return torch.cat(parts).numpy()
