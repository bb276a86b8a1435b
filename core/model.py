"""Model: a trained network or fitted trees with tensor specs; it becomes a Program by export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featherweight.core.errors import UsageError
from featherweight.core.program import Kind
from featherweight.core.tensors import TensorSpec
from featherweight.core.trees.ensemble import Ensemble

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """network: an nn.Module in eval mode that takes the inputs in order and returns the outputs in order, or trees,
    which take `features` [N, F], float32 or float64, and return `score` float32 [N, targets]: see `trees_model`."""

    network: nn.Module | Ensemble
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def kind(self) -> Kind:
        """Whether it is a network or trees."""
        return "trees" if isinstance(self.network, Ensemble) else "network"

    def module(self, purpose: str) -> nn.Module:
        """Raises UsageError for trees; `purpose` names the step that needs a network."""
        if isinstance(self.network, Ensemble):
            raise UsageError(f"{purpose} is for networks, but this model is trees; remove the step from the recipe")
        return self.network

    def ensemble(self, purpose: str) -> Ensemble:
        """Raises UsageError for a network."""
        if not isinstance(self.network, Ensemble):
            raise UsageError(f"{purpose} is for trees, but this model is a network; remove the step from the recipe")
        return self.network


def trees_model(ensemble: Ensemble) -> Model:
    """An ensemble with the input and the output that every ensemble has."""
    return Model(ensemble, *ensemble.specs)


@dataclass(frozen=True)
class StepRecord:
    """What one pass did, for the evidence: the pass's name, its settings and what it found (counts, sizes, losses)."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
