"""Model: a trained network with its tensor specs; it becomes a Program by export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from core.tensors import TensorSpec


@dataclass(frozen=True)
class Model:
    """network: an nn.Module in eval mode that takes the inputs in order and returns the outputs in order."""

    network: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class StepRecord:
    """What one pass did, for the evidence: the pass's name, its settings and what it found (counts, sizes, losses)."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
