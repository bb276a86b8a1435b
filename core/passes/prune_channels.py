"""Structured pruning: whole channels leave the network, so that every runtime gets faster without special kernels."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from core.errors import UsageError
from core.model import Model, StepRecord
from core.passes.steps import PruneChannelsStep
from core.tensors import Tensors

SENSITIVITY_SAMPLES = 256
"""Unlabelled inputs that the scope "sensitivity" looks at; the other scopes look at none."""
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prune_channels(model: Model, step: PruneChannelsStep, batches: Iterable[Tensors] = ()) -> tuple[Model, StepRecord]:
    """A copy of `model` with `step.ratio` of the channels removed through the dependency graph.

    Which channels go is decided by the L2 norm of all weights that a channel's group shares, normalized per layer
    (DepGraph, Fang et al., CVPR 2023). Widths that were multiples of `round_to` stay so. The layer that makes the
    outputs is left as wide as it was. Raises UsageError for a network whose graph cannot be followed.
    """
    network = copy.deepcopy(model.module(step.kind)).eval()
    example = example_inputs(model)
    before = _facts(network, example)
    shapes = _shapes(network, example)
    _remove(network, step, example)
    if _shapes(network, example) != shapes:
        raise UsageError(
            "prune-channels: pruning would change the shape of the network's outputs, so more than one layer makes "
            "them; this network cannot be pruned by channels, remove the step from the recipe"
        )
    after = _facts(network, example)
    facts = {
        "macs_before": before[0],
        "macs_after": after[0],
        "parameters_before": before[1],
        "parameters_after": after[1],
        "widths": _widths(network),
    }
    return Model(network, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


def example_inputs(model: Model, batch: int = 1) -> tuple[Tensor, ...]:
    """Inputs of the right shapes on the network's device, half of full scale everywhere."""
    parameter = next(model.module("prune-channels").parameters())
    return tuple(
        torch.full(
            [batch if size is None else size for size in spec.shape],
            0.5,
            dtype=getattr(torch, spec.dtype),
            device=parameter.device,
        )
        if spec.dtype == "float32"
        else torch.zeros([batch if size is None else size for size in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in model.inputs
    )


@dataclass(frozen=True)
class _Group:
    """Layers that must keep the same channels. scores: one per channel, the mean is 1."""

    root: nn.Module
    pruning_fn: Any
    scores: Tensor


def _remove(network: nn.Module, step: PruneChannelsStep, example: tuple[Tensor, ...]) -> None:
    for name, module in network.named_modules():
        if 1 < getattr(module, "groups", 1) < getattr(module, "in_channels", 1) or isinstance(module, nn.GroupNorm):
            raise UsageError(
                f"prune-channels: {name} ({type(module).__name__}) ties channels together in groups, which this pass "
                "does not prune; remove the step from the recipe"
            )
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(True)  # the graph is traced through autograd
    try:
        graph = torch_pruning.DependencyGraph().build_dependency(network, example)
        groups = _groups(graph, last_layer(network, example))
        for group, kept in zip(groups, _kept(groups, step), strict=True):
            least = group.scores.argsort()[: len(group.scores) - kept].tolist()
            if least:
                graph.get_pruning_group(group.root, group.pruning_fn, least).prune()
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
        raise UsageError(
            f"prune-channels: the dependency graph of {type(network).__name__} cannot be followed "
            f"({type(error).__name__}: {error}); remove the step from the recipe or write the network without "
            "operations that mix channels by hand"
        ) from error
    for parameter, wanted in zip(network.parameters(), trainable, strict=True):
        parameter.requires_grad_(wanted)
        parameter.grad = None


def _groups(graph: Any, head: nn.Module) -> list[_Group]:
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    found = []
    for group in graph.get_all_groups(ignored_layers=[head], root_module_types=list(_LAYERS)):
        scores = importance(group)
        if scores is not None:
            found.append(_Group(group[0].dep.target.module, group[0].dep.handler, scores.detach().cpu()))
    return found


def _kept(groups: list[_Group], step: PruneChannelsStep) -> list[int]:
    """Channels that each group keeps: a multiple of round_to, at least one of them, never more than there are."""
    if step.scope == "layer":
        wanted = [len(group.scores) * (1 - step.ratio) for group in groups]
    else:
        # Half of a layer's own share stays in any case: magnitudes of different layers compare only roughly,
        # and a layer squeezed to nothing cannot be recovered.
        ranked = torch.cat([group.scores for group in groups])
        threshold = ranked.kthvalue(max(1, round(step.ratio * len(ranked)))).values
        wanted = [
            max(float((group.scores > threshold).sum()), len(group.scores) * (1 - step.ratio) / 2) for group in groups
        ]
    return [
        min(len(group.scores), max(step.round_to, round(count / step.round_to) * step.round_to))
        for group, count in zip(groups, wanted, strict=True)
    ]


def last_layer(network: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """The convolution or linear layer that runs last. Raises UsageError when there is none."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: called.append(module))
        for module in network.modules()
        if isinstance(module, _LAYERS)
    ]
    with torch.no_grad():
        network(*example)
    for hook in hooks:
        hook.remove()
    if not called:
        raise UsageError(f"prune-channels: {type(network).__name__} has no convolution and no linear layer to prune")
    return called[-1]


def _shapes(network: nn.Module, example: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        outputs = network(*example)
    return [tuple(output.shape) for output in ((outputs,) if isinstance(outputs, Tensor) else outputs)]


def _facts(network: nn.Module, example: tuple[Tensor, ...]) -> tuple[int, int]:
    macs, parameters = torch_pruning.utils.count_ops_and_params(copy.deepcopy(network), example)
    return int(macs), int(parameters)


def _widths(network: nn.Module) -> dict[str, int]:
    return {name: module.weight.shape[0] for name, module in network.named_modules() if isinstance(module, _LAYERS)}
