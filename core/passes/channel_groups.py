"""Which layers of a network must keep the same channels, and taking channels out of them, by torch-pruning's graph."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
MAX_PLACES_OF_ONE = 5_000
"""The same for a single channel, which is followed first: attention in shifted windows has millions."""
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


class Followed(NamedTuple):
    """What a network's graph says. left: names of layers whose channels this pass leaves, because layers tie them in
    groups (grouped convolutions, GroupNorm) or because they are rearranged too often to be followed."""

    groups: tuple[Group, ...]
    left: tuple[str, ...]


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


def remove_channels(network: nn.Module, example: tuple[Tensor, ...], kept_of: KeptOf) -> Followed:
    """Take out of `network` all but the best-scored channels of each group, as many as `kept_of` says; in place.

    Returns the groups as they were before. Raises UsageError for a network whose graph cannot be followed.
    """
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(True)  # the graph is traced through autograd
    with _following(network):
        graph = _BoundedGraph().build_dependency(network, example)
        for node in graph.module2node.values():
            for dependency in node.dependencies:
                dependency.index_mapping = _BoundedMappings(dependency.index_mapping, graph)
        followed = _follow(graph, network, last_layer(network, example))
    wanted = kept_of(followed.groups)
    with _following(network):
        for group, kept in zip(followed.groups, wanted, strict=True):
            least = group.scores.argsort()[: group.channels - kept].tolist()
            if least:
                graph.get_pruning_group(group.root, group.pruning_fn, least).prune()
    for parameter, trained in zip(network.parameters(), trainable, strict=True):
        parameter.requires_grad_(trained)
        parameter.grad = None
    return followed


class RearrangedError(ValueError):
    """Channels of a group are rearranged so often that it is not known where they are."""


class _BoundedGraph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """Gives up on networks that rearrange channels so often (windows of attention that are shifted) that the library
    would follow their places for hours, and fill all memory with them."""

    places = 0
    most = MAX_PLACES

    def get_pruning_group(self, module: Any, pruning_fn: Any, idxs: Any) -> Any:
        """The library's own. Raises RearrangedError where it takes more places than a group, or one channel, may."""
        self.places, self.most = 0, MAX_PLACES_OF_ONE if len(idxs) == 1 else MAX_PLACES
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
        if self._graph.places > self._graph.most:
            raise RearrangedError("its channels are rearranged too often")
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


def _follow(graph: Any, network: nn.Module, head: nn.Module) -> Followed:
    """Every group but that of the head, and those that are left. Roots are layers that are in no group before them."""
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    names = {module: name for name, module in network.named_modules()}
    seen: set[object] = {head}
    found, left = [], []
    for module in list(graph.module2node):
        if not _is_layer(module) or module in seen:
            continue
        try:
            group = _group_of(graph, module)
        except RearrangedError:
            left.append(names[module])
            continue
        makers = {dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)}
        seen |= makers
        if head in makers:
            continue
        if any(_ties(dep.target.module) for dep, _ in group):
            left.append(names[module])
            continue
        scores = importance(group)
        if scores is not None:
            members = tuple(_member(graph, dep, len(places)) for dep, places in group if _is_layer(dep.target.module))
            root = group[0].dep
            found.append(Group(root.target.module, root.handler, scores.detach().cpu(), members))
    return Followed(tuple(found), tuple(left))


def _group_of(graph: Any, layer: Any) -> Any:
    """All that must go with the layer's outputs. Raises RearrangedError."""
    pruner = graph.get_pruner_of_module(layer)
    graph.get_pruning_group(layer, pruner.prune_out_channels, [0])
    return graph.get_pruning_group(layer, pruner.prune_out_channels, list(range(pruner.get_out_channels(layer))))


def _ties(module: Any) -> bool:
    """Whether the layer joins channels in groups of its own, which would not be whole any more."""
    grouped = 1 < getattr(module, "groups", 1) < getattr(module, "in_channels", 1)
    return grouped or isinstance(module, nn.GroupNorm)


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
