"""Structured pruning: whole channels leave the network, so that every runtime gets faster without special kernels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import torch
import torch_pruning
from torch import Tensor, nn

from featherweight.core.causes import describe_cause
from featherweight.core.errors import UsageError
from featherweight.core.model import Model, StepRecord
from featherweight.core.networks import check_trainable, example_inputs, run_network
from featherweight.core.passes.attention_heads import prune_heads
from featherweight.core.passes.channel_groups import (
    LAYERS,
    PRUNED,
    SHAPES_CHANGED,
    Followed,
    Group,
    join_inputs,
    remove_channels,
)
from featherweight.core.passes.sensitivity import allocate, count_macs, measure_sensitivity
from featherweight.core.passes.steps import PruneChannelsStep
from featherweight.core.tensors import Tensors

SENSITIVITY_SAMPLES = 64
"""Unlabelled inputs that the scope "sensitivity" looks at; the other scopes look at none."""


def prune_channels(model: Model, step: PruneChannelsStep, batches: Iterable[Tensors] = ()) -> tuple[Model, StepRecord]:
    """A copy of `model` with `step.ratio` of the channels removed through the dependency graph.

    Which channels go is decided by the L2 norm of all weights that a channel's group shares, normalized per layer
    (DepGraph, Fang et al., CVPR 2023). Widths that were multiples of `round_to` stay so. Of attention whole heads go
    too (`attention_heads`), but not by the scope "sensitivity". The layer that makes the outputs is left as wide as it
    was, and so are layers whose channels cannot go alone; the record lists these as `left_whole`. The scope
    "sensitivity" alone reads `batches`, unlabelled inputs, and records the curves that it measured with them. Raises
    UsageError for a network whose graph cannot be followed and where nothing would be removed, DataError where inputs
    are needed and there are none.
    """
    check_trainable(model.module(step.kind), step.kind)
    network = copy.deepcopy(model.module(step.kind)).eval()
    example = example_inputs(model)
    before = _facts(network, example)
    # Two cases, because one that mixes cases together gives the right shape for a single one.
    pair = example_inputs(model, 2)
    shapes = _shapes(network, pair, step.kind)
    measured: dict[str, object] = {}
    if step.scope == "sensitivity":
        inputs = join_inputs(batches, model, step.kind)
        kept, measured = _least_damage(network, step, example, inputs)
        followed = remove_channels(network, example, lambda groups: kept)
    else:
        network, followed = _remove_uniformly(network, step, example, pair, shapes)
    left = list(followed.left)
    _check_shapes(network, pair, shapes)
    if step.scope != "sensitivity":
        heads, unmoved = prune_heads(network, step, lambda: _check_shapes(network, pair, shapes))
        measured, left = {"heads": heads} if heads else {}, [*left, *unmoved]
    measured |= {"left_whole": left} if left else {}
    after = _facts(network, example)
    if after[1] == before[1]:
        raise UsageError(_nothing_removed(step, followed))
    facts = {
        "macs_before": before[0],
        "macs_after": after[0],
        "parameters_before": before[1],
        "parameters_after": after[1],
        "widths": _widths(network),
        **measured,
    }
    return Model(network, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


def _remove_uniformly(
    network: nn.Module,
    step: PruneChannelsStep,
    example: tuple[Tensor, ...],
    pair: tuple[Tensor, ...],
    shapes: Sequence[tuple[int, ...]],
) -> tuple[nn.Module, Followed]:
    """(network without the channels, the groups as they were, with all those that are left whole).

    Attention counts on the width that it was built for, so that a group may not be pruned though the graph says how: in
    a network that does not run without channels of all groups, each is tried alone, and those that break it stay.
    Raises what was wrong with all of them where none can be pruned.
    """
    trial = copy.deepcopy(network)
    followed = remove_channels(trial, example, lambda groups: _kept(groups, step))
    groups = followed.groups
    try:
        _check_shapes(trial, pair, shapes)
        return trial, followed
    except UsageError as error:
        wanted = _kept(groups, step)
        breaking = {place for place in range(len(groups)) if _breaks(network, place, wanted, example, pair, shapes)}
        if len(breaking) == len(groups):
            raise error
    kept = [group.channels if place in breaking else wanted[place] for place, group in enumerate(groups)]
    names = {module: name for name, module in trial.named_modules()}
    whole = [names[groups[place].root] for place in sorted(breaking)]
    followed = remove_channels(network, example, lambda groups: kept)
    return network, followed._replace(left=(*followed.left, *whole))


def _breaks(
    network: nn.Module,
    place: int,
    wanted: Sequence[int],
    example: tuple[Tensor, ...],
    pair: tuple[Tensor, ...],
    shapes: Sequence[tuple[int, ...]],
) -> bool:
    """Whether the network does not run any more without these channels of this group alone."""
    trial = copy.deepcopy(network)
    try:
        remove_channels(
            trial,
            example,
            lambda groups: [wanted[at] if at == place else group.channels for at, group in enumerate(groups)],
        )
        _check_shapes(trial, pair, shapes)
    except UsageError:
        return True
    return False


def _check_shapes(network: nn.Module, inputs: tuple[Tensor, ...], shapes: Sequence[tuple[int, ...]]) -> None:
    if _shapes(network, inputs, PRUNED) != shapes:
        raise UsageError(SHAPES_CHANGED)


def _nothing_removed(step: PruneChannelsStep, followed: Followed) -> str:
    widths = sorted({group.channels for group in followed.groups})
    if not widths and followed.left:
        return (
            f"prune-channels: removes nothing: the channels of {followed.left[0]} are tied together in groups or "
            "rearranged, as are all that could go; remove the step"
        )
    if not widths:
        return "prune-channels: removes nothing: no layer but the last has channels that could go; remove the step"
    found = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    return (
        f"prune-channels: removes nothing at ratio {step.ratio:g}: the layers have {found} channels, and what stays is "
        f"rounded to multiples of {step.round_to}; raise ratio or lower round_to"
    )


def _kept(groups: Sequence[Group], step: PruneChannelsStep) -> list[int]:
    """Channels that each group keeps: a multiple of round_to, at least one of them, never more than there are."""
    if step.scope == "network" and groups:
        # Half of a layer's own share stays in any case: magnitudes of different layers compare only roughly,
        # and a layer squeezed to nothing cannot be recovered.
        ranked = torch.cat([group.scores for group in groups])
        threshold = ranked.kthvalue(max(1, round(step.ratio * len(ranked)))).values
        wanted = [
            max(float((group.scores > threshold).sum()), group.channels * (1 - step.ratio) / 2) for group in groups
        ]
    else:
        wanted = [group.channels * (1 - step.ratio) for group in groups]
    return [
        min(group.channels, max(step.round_to, round(count / step.round_to) * step.round_to))
        for group, count in zip(groups, wanted, strict=True)
    ]


def _least_damage(
    network: nn.Module, step: PruneChannelsStep, example: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
) -> tuple[list[int], dict[str, object]]:
    """Channels that each group keeps so that as many multiply-accumulates go as with one ratio for all, and the damage
    measured is least; and the curves."""
    found = measure_sensitivity(network, example, inputs, step.round_to)
    uniform = _kept(found.groups, step)
    fractions = [kept / group.channels for kept, group in zip(uniform, found.groups, strict=True)]
    kept = allocate(found.curves, found.layers, count_macs(found.layers, fractions), step.round_to)
    names = {module: name for name, module in network.named_modules()}
    curves = {
        names[group.root]: {"channels": list(curve.kept), "damage": list(curve.damage)}
        for group, curve in zip(found.groups, found.curves, strict=True)
    }
    return kept, {"sensitivity": curves, "sensitivity_samples": len(inputs[0])}


def _shapes(network: nn.Module, example: tuple[Tensor, ...], purpose: str) -> list[tuple[int, ...]]:
    """Raises UsageError where the network does not run, as where channels of branches went that must fit together."""
    return [tuple(output.shape) for output in run_network(network, example, purpose)]


def _facts(network: nn.Module, example: tuple[Tensor, ...]) -> tuple[int, int]:
    try:
        macs, parameters = torch_pruning.utils.count_ops_and_params(copy.deepcopy(network), example)
    except MemoryError:
        raise
    except Exception as error:  # of layers that the counter does not know
        raise UsageError(f"prune-channels: its work cannot be counted ({describe_cause(error)})") from error
    return int(macs), int(parameters)


def _widths(network: nn.Module) -> dict[str, int]:
    return {name: module.weight.shape[0] for name, module in network.named_modules() if isinstance(module, LAYERS)}
