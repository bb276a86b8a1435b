"""How much the outputs miss each layer's channels, and which widths follow from that. No label is asked for."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from featherweight.core.errors import UsageError
from featherweight.core.networks import run_network
from featherweight.core.passes.channel_groups import PRUNED, SHAPES_CHANGED, Group, remove_channels, run_order

FRACTIONS = (0.75, 0.5, 0.25, 0.125, 0.0625)
"""Fractions of a group's channels that are kept, in turn, while all other groups keep theirs. No group is pruned below
the last one."""
_DIGITS = 6
"""What lies below is float32's rounding, which must not decide and differs from host to host."""


@dataclass(frozen=True)
class Curve:
    """What pruning one group alone costs. kept: channels, falling from all of them; damage: the outputs' mean squared
    change relative to their variance, from 0. What lies between two measured widths is read off the straight line."""

    kept: tuple[int, ...]
    damage: tuple[float, ...]

    def at(self, kept: int) -> float:
        """The damage with so many channels kept, linear between what was measured."""
        rising = np.maximum.accumulate(self.damage)  # fewer channels are never better, whatever a small sample says
        return float(np.interp(-kept, [-count for count in self.kept], rising))


@dataclass(frozen=True)
class LayerCost:
    """A layer's multiply-accumulates, and which share of its inputs and outputs is which group's channels."""

    macs: float
    inputs: Mapping[int, float]
    outputs: Mapping[int, float]


@dataclass(frozen=True)
class Sensitivity:
    """What each group of channels costs and what its removal would damage."""

    groups: tuple[Group, ...]
    curves: tuple[Curve, ...]
    layers: tuple[LayerCost, ...]


def measure_sensitivity(
    network: nn.Module, example: tuple[Tensor, ...], inputs: tuple[Tensor, ...], round_to: int
) -> Sensitivity:
    """Prune each group alone to FRACTIONS of its channels (multiples of `round_to`) and see how far the outputs for
    `inputs` move; `network` stays as it is.

    BatchNorm normalizes by these inputs in all networks compared, as after a recovery its statistics are new.
    """
    groups = remove_channels(network, example, lambda found: [group.channels for group in found]).groups
    reference = _outputs(network, inputs)
    curves = []
    for index, group in enumerate(groups):
        widths = {max(round_to, round(group.channels * share / round_to) * round_to) for share in FRACTIONS}
        kept = [group.channels, *sorted((width for width in widths if width < group.channels), reverse=True)]
        damage = [_damage(network, example, inputs, reference, index, width) for width in kept[1:]]
        curves.append(Curve(tuple(kept), (0.0, *damage)))
    return Sensitivity(groups, tuple(curves), _layer_costs(network, example, groups))


def count_macs(layers: Sequence[LayerCost], fractions: Sequence[float]) -> float:
    """Multiplications of all layers, when each group keeps this fraction of its channels."""

    def left(shares: Mapping[int, float]) -> float:
        return 1 - sum(share * (1 - fractions[group]) for group, share in shares.items())

    return sum(layer.macs * left(layer.inputs) * left(layer.outputs) for layer in layers)


def allocate(curves: Sequence[Curve], layers: Sequence[LayerCost], wanted_macs: float, round_to: int) -> list[int]:
    """Channels that each group keeps, so that at most `wanted_macs` stay, or as few as the curves reach.

    Greedy: the narrowing that costs the least damage for each multiply-accumulate it saves, again and again (the
    incremental algorithm of Fox, Operations Research 1966; exact for convex curves and additive costs, near it here).
    What the last one saved too much is given back where it mends most. Widths fall in steps of `round_to`.
    """
    kept = [curve.kept[0] for curve in curves]
    steps = [[curve.kept[0], *_multiples(curve.kept, round_to)] for curve in curves]

    def macs(group: int, width: int) -> float:
        widths = [*kept[:group], width, *kept[group + 1 :]]
        return count_macs(layers, [count / curve.kept[0] for count, curve in zip(widths, curves, strict=True)])

    while kept and (now := macs(0, kept[0])) > wanted_macs:
        moves: list[tuple[float, int, int]] = []
        for group, curve in enumerate(curves):
            for width in (width for width in steps[group] if width < kept[group]):
                left = macs(group, width)
                if left < now:
                    moves.append(((curve.at(width) - curve.at(kept[group])) / (now - left), group, width))
                if left <= wanted_macs:
                    break
        if not moves:
            return kept
        _, group, width = min(moves)
        kept[group] = width
    while mends := [
        (curve.at(width) - curve.at(kept[group]), -group, width)
        for group, curve in enumerate(curves)
        for width in steps[group]
        if width > kept[group] and curve.at(width) < curve.at(kept[group]) and macs(group, width) <= wanted_macs
    ]:
        _, group, width = min(mends)
        kept[-group] = width
    return kept


def _multiples(kept: Sequence[int], round_to: int) -> range:
    """The widths below all of a group's channels, falling to its least measured one."""
    return range((kept[0] - 1) // round_to * round_to, kept[-1] - 1, -round_to)


def _damage(
    network: nn.Module,
    example: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    reference: Tensor,
    group: int,
    kept: int,
) -> float:
    trial = copy.deepcopy(network)
    remove_channels(
        trial, example, lambda found: [kept if place == group else one.channels for place, one in enumerate(found)]
    )
    found = _outputs(trial, inputs)
    if found.shape != reference.shape:
        raise UsageError(SHAPES_CHANGED)
    change = (found - reference).square().mean()
    spread = reference.var(dim=0, correction=0).mean().clamp(min=1e-12)
    return round(float(change / spread), _DIGITS)


def _outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """All outputs of each input in one row, [N, values], with the statistics of these inputs in every BatchNorm."""
    judged = copy.deepcopy(network)
    for module in judged.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    outputs = run_network(judged, inputs, PRUNED)
    return torch.cat([output.flatten(1) for output in outputs], dim=1)


def _layer_costs(network: nn.Module, example: tuple[Tensor, ...], groups: Sequence[Group]) -> tuple[LayerCost, ...]:
    shares: dict[tuple[nn.Module, str], dict[int, float]] = defaultdict(dict)
    for index, group in enumerate(groups):
        for member in group.members:
            shares[member.layer, member.side][index] = member.share
    return tuple(
        LayerCost(macs, shares[layer, "inputs"], shares[layer, "outputs"])
        for layer, macs in run_order(network, example)
    )
