"""Which layers of a network must keep the same channels, and taking channels out of them, by torch-pruning's graph."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from featherweight.core.causes import describe_cause
from featherweight.core.errors import DataError, FeatherweightError, UsageError
from featherweight.core.export import quiet
from featherweight.core.model import Model
from featherweight.core.networks import run_network
from featherweight.core.tensors import Tensors

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
MAX_PLACES = 2_000_000
"""Places of channels that are followed for one group; densenet-121 takes 17,000."""
PRUNED = "prune-channels: remove the step from the recipe, for with channels gone"
SHAPES_CHANGED = (
    "prune-channels: pruning would change the shape of the network's outputs, so more than one layer makes them; this "
    "network cannot be pruned by channels, remove the step from the recipe"
)


@dataclass(frozen=True)
class Member:
    """A layer some of whose inputs or outputs are the group's channels; share: of all its inputs or outputs."""

    layer: nn.Module
    side: str
    share: float


@dataclass(frozen=True)
class Group:
    """Layers that must keep the same channels. scores: one per channel, the mean is 1."""

    root: nn.Module
    pruning_fn: Any
    scores: Tensor
    members: tuple[Member, ...]

    @property
    def channels(self) -> int:
        """How many channels the group has."""
        return len(self.scores)


KeptOf = Callable[[Sequence[Group]], Sequence[int]]
"""How many channels each group keeps."""


def join_inputs(batches: Iterable[Tensors], model: Model, kind: str) -> tuple[Tensor, ...]:
    """All batches as one, in the order of the network's inputs. Raises DataError when there is none; `kind` names the
    step."""
    parameter = next(model.module(kind).parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    parts = list(batches)
    if not parts:
        raise DataError(f"{kind}: the task gives no calibration inputs; its training set is empty")
    return tuple(torch.cat([torch.from_numpy(batch[spec.name]) for batch in parts]).to(device) for spec in model.inputs)


def remove_channels(network: nn.Module, example: tuple[Tensor, ...], kept_of: KeptOf) -> tuple[Group, ...]:
    """Take out of `network` all but the best-scored channels of each group, as many as `kept_of` says; in place.

    Returns the groups as they were before. Raises UsageError for a network whose graph cannot be followed.
    """
    for name, module in network.named_modules():
        if 1 < getattr(module, "groups", 1) < getattr(module, "in_channels", 1) or isinstance(module, nn.GroupNorm):
            raise UsageError(
                f"prune-channels: {name} ({type(module).__name__}) ties channels together in groups, which this pass "
                "does not prune; remove the step from the recipe"
            )
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(True)  # the graph is traced through autograd
    with _following(network):
        graph = _BoundedGraph().build_dependency(network, example)
        for node in graph.module2node.values():
            for dependency in node.dependencies:
                dependency.index_mapping = _BoundedMappings(dependency.index_mapping, graph)
        groups = _groups(graph, last_layer(network, example))
    wanted = kept_of(groups)
    with _following(network):
        for group, kept in zip(groups, wanted, strict=True):
            least = group.scores.argsort()[: group.channels - kept].tolist()
            if least:
                graph.get_pruning_group(group.root, group.pruning_fn, least).prune()
    for parameter, trained in zip(network.parameters(), trainable, strict=True):
        parameter.requires_grad_(trained)
        parameter.grad = None
    return groups


class _BoundedGraph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """Gives up on networks that rearrange channels so often (windows of attention that are shifted) that the library
    would follow their places for hours, and fill all memory with them."""

    places = 0

    def get_pruning_group(self, module: Any, pruning_fn: Any, idxs: Any) -> Any:
        """The library's own; each group may take MAX_PLACES."""
        self.places = 0
        return super().get_pruning_group(module, pruning_fn, idxs)


class _BoundedMappings(list[Any]):
    """How places of channels change from one layer to the next; counts those that come out."""

    def __init__(self, mappings: Iterable[Any], graph: _BoundedGraph) -> None:
        super().__init__(mappings)
        self._graph = graph

    def __iter__(self) -> Iterator[Any]:
        for mapping in super().__iter__():
            yield None if mapping is None else functools.partial(self._counted, mapping)

    def _counted(self, mapping: Any, places: Any) -> Any:
        found = mapping(places)
        self._graph.places += len(found)
        if self._graph.places > MAX_PLACES:
            raise ValueError("its channels are rearranged too often")
        return found


@contextlib.contextmanager
def _following(network: nn.Module) -> Iterator[None]:
    """What the graph's library raises for a network that it does not understand may be anything."""
    try:
        with quiet():  # its warnings are for authors of networks
            yield
    except (FeatherweightError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(
            f"prune-channels: the dependency graph of {type(network).__name__} cannot be followed "
            f"({describe_cause(error)}); remove the step from the recipe or write the network without operations that "
            "mix channels by hand"
        ) from error


def _groups(graph: Any, head: nn.Module) -> tuple[Group, ...]:
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    found = []
    for group in graph.get_all_groups(ignored_layers=[head], root_module_types=list(LAYERS)):
        scores = importance(group)
        if scores is not None:
            members = tuple(_member(graph, dep, len(places)) for dep, places in group if _is_layer(dep.target.module))
            root = group[0].dep
            found.append(Group(root.target.module, root.handler, scores.detach().cpu(), members))
    return tuple(found)


def _is_layer(module: object) -> bool:
    return isinstance(module, LAYERS)


def _member(graph: Any, dep: Any, count: int) -> Member:
    layer = dep.target.module
    if graph.is_out_channel_pruning_fn(dep.handler) or getattr(layer, "groups", 1) > 1:
        return Member(layer, "outputs", count / layer.weight.shape[0])  # a depthwise layer's inputs are its outputs
    return Member(layer, "inputs", count / layer.weight.shape[1])


def last_layer(network: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """The convolution or linear layer that runs last. Raises UsageError when there is none."""
    layers = [layer for layer, _ in run_order(network, example)]
    if not layers:
        raise UsageError(f"prune-channels: {type(network).__name__} has no convolution and no linear layer to prune")
    return layers[-1]


def run_order(network: nn.Module, example: tuple[Tensor, ...]) -> list[tuple[nn.Module, int]]:
    """(layer, multiply-accumulates for `example`) of every convolution and linear layer, each time that it runs."""
    called: list[tuple[nn.Module, int]] = []

    def ran(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        called.append((layer, output.numel() // layer.weight.shape[0] * layer.weight.numel()))

    hooks = [module.register_forward_hook(ran) for module in network.modules() if _is_layer(module)]
    try:
        run_network(network, example, "prune-channels")
    finally:
        for hook in hooks:
            hook.remove()
    return called
