"""What prune-channels leaves whole, and that what it takes is what nothing else needs: a network without channels gives
what the whole one gives with these channels at zero."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from featherweight.core.errors import UsageError
from featherweight.core.export import export
from featherweight.core.losses import BINARY
from featherweight.core.model import Model
from featherweight.core.networks import example_inputs
from featherweight.core.passes import prune_channels as passes
from featherweight.core.passes.attention_heads import prune_heads
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.recover import recover
from featherweight.core.passes.steps import PruneChannelsStep, RecoverStep
from featherweight.core.tensors import TensorSpec
from tests.conformance.families import model_of

STEP = PruneChannelsStep(0.5, round_to=8)


def randomized(model: Model) -> Model:
    """Every parameter and statistic drawn anew: zeros and ones hide what a pass mixes up."""
    torch.manual_seed(5)
    network = copy.deepcopy(model.module("test")).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dtype.is_floating_point and name.endswith(("weight", "bias", "running_mean")) and tensor.ndim < 2:
                tensor.normal_(0.3 if name.endswith("weight") else 0.0, 0.2)
            elif tensor.dtype.is_floating_point and name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dtype.is_floating_point and tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
    return Model(network, model.inputs, model.outputs)


def zeroed(monkeypatch: pytest.MonkeyPatch, model: Model) -> nn.Module:
    """The network as `prune_channels` leaves it, but with zeros in the place of the channels that it takes out."""
    graph = torch_pruning.DependencyGraph

    def silence(group: Any, *_: Any, **__: Any) -> None:
        for dep, places in group:
            layer = dep.target.module
            if graph().is_out_channel_pruning_fn(dep.handler):
                with torch.no_grad():
                    for tensor in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
                        if isinstance(tensor, Tensor):
                            tensor.select(0, 0)  # a layer of channels
                            tensor[places] = 0

    monkeypatch.setattr(torch_pruning.dependency.Group, "prune", silence)
    counted = iter(range(10, 100))
    monkeypatch.setattr(passes, "_facts", lambda network, example: (0, next(counted)))  # nothing seems to go
    found, _ = prune_channels(model, STEP)
    monkeypatch.undo()
    return found.module("test")


def outputs(network: nn.Module, model: Model) -> Tensor:
    torch.manual_seed(7)
    inputs = [
        torch.rand_like(tensor) if tensor.is_floating_point() else torch.randint(0, 32, tensor.shape)
        for tensor in example_inputs(model, 3)
    ]
    with torch.no_grad():
        found: Tensor = network.eval()(*inputs)
    return found


@pytest.mark.parametrize("name", ["regnet", "swin", "densenet", "image and table"])
def test_a_pruned_network_is_the_whole_one_without_these_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomized(model_of(name))
    wanted = outputs(zeroed(monkeypatch, model), model)
    pruned, record = prune_channels(model, STEP)
    assert record.facts["parameters_after"] < record.facts["parameters_before"]  # type: ignore[operator]
    torch.testing.assert_close(outputs(pruned.module("test"), model), wanted, rtol=1e-3, atol=1e-4)
    whole = outputs(model.module("test"), model)
    assert float((wanted - whole).abs().max()) > 1e-3, "the channels that went did nothing"


def test_layers_that_tie_channels_in_groups_keep_theirs_and_others_lose_some() -> None:
    model = model_of("regnet")
    pruned, record = prune_channels(model, STEP)
    before, after = (
        {name: layer.out_channels for name, layer in one.module("test").named_modules() if isinstance(layer, nn.Conv2d)}
        for one in (model, pruned)
    )
    grouped = [name for name, layer in model.module("test").named_modules() if getattr(layer, "groups", 1) > 1]
    assert grouped
    assert all(after[name] == before[name] for name in grouped)
    assert set(grouped) <= set(record.facts["left_whole"])  # type: ignore[call-overload]
    assert after["stem.0"] < before["stem.0"]


def test_shifted_windows_keep_the_width_they_share_and_their_perceptrons_lose_half() -> None:
    pruned, record = prune_channels(model_of("swin"), STEP)
    blocks = [block for name, block in pruned.module("test").named_modules() if name.endswith(".mlp")]
    assert [block[0].out_features for block in blocks] == [64, 64]  # type: ignore[index]
    assert record.facts["left_whole"] == ["features.1.1.mlp.3", "features.1.0.mlp.3", "features.0.0"]


def test_a_network_that_is_all_groups_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(8, 16, 3, groups=2), nn.GroupNorm(4, 16), nn.Flatten(), nn.Linear(16 * 36, 1))
    inputs, wanted = TensorSpec("x", "float32", (None, 8, 8, 8)), TensorSpec("y", "float32", (None, 1))
    with pytest.raises(UsageError, match="the channels of 0 are tied together in groups or rearranged"):
        prune_channels(Model(network.eval(), (inputs,), (wanted,)), STEP)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(32, 4), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.triu(torch.ones(6, 6, dtype=torch.bool), 1)
        rows = x.transpose(0, 1)
        found: Tensor = self.head(self.attention(rows, rows, rows, attn_mask=mask, need_weights=False)[0].mean(0))
        return found


@pytest.mark.parametrize("name", ["vit", "text transformer"])
def test_attention_loses_the_heads_of_least_weight_and_gives_what_the_others_gave(name: str) -> None:
    """The other heads at zero: their columns of the layer that joins them."""
    model = randomized(model_of(name))
    whole = copy.deepcopy(model.module("test"))
    places = [at for at, one in whole.named_modules() if isinstance(one, nn.MultiheadAttention)]
    attention = whole.get_submodule(places[0])
    assert isinstance(attention, nn.MultiheadAttention)
    with torch.no_grad():
        attention.in_proj_weight.view(3, 4, 8, 32)[:, 1:3] *= 0.1
        attention.out_proj.weight.view(32, 4, 8)[:, 1:3] *= 0.1
    fewer = copy.deepcopy(whole)
    assert prune_heads(fewer, STEP, lambda: None) == (dict.fromkeys(places, 2), [])
    full = outputs(whole, model)
    with torch.no_grad():
        attention.out_proj.weight.view(32, 4, 8)[:, 1:3] = 0
    wanted = outputs(whole, model)
    torch.testing.assert_close(outputs(fewer, model), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(full, wanted, atol=1e-4)


def test_a_transformer_that_is_pruned_is_exported_and_trained() -> None:
    model = model_of("text transformer")
    pruned, record = prune_channels(model, STEP)
    assert record.facts["heads"] == {"layer.self_attn": 2}
    assert len(export(pruned)[0].content) < len(export(model)[0].content) / 1.5
    words = torch.from_numpy(np.random.default_rng(0).integers(0, 32, (64, 6)))
    target = (words.sum(1, keepdim=True) > 93).float()
    step = RecoverStep(6, 3e-2, teacher_weight=0.0)
    _, trained = recover(pruned, step, model.module("test"), lambda epoch: [(words, target)] * 4, stated=BINARY)
    losses = trained.facts["losses"]
    assert losses[-1] < losses[0] / 2  # type: ignore[index,operator]


def test_attention_that_needs_a_mask_keeps_its_heads() -> None:
    inputs, wanted = TensorSpec("x", "float32", (None, 6, 32)), TensorSpec("y", "float32", (None, 1))
    with pytest.raises(UsageError, match="removes nothing"):
        prune_channels(Model(Masked().eval(), (inputs,), (wanted,)), STEP)


def test_heads_stay_where_their_widths_do_not_fit_the_multiple() -> None:
    attention = nn.MultiheadAttention(48, 4)
    network = nn.Sequential()
    network.add_module("attention", attention)
    for round_to, kept in ((12, 2), (16, 4), (24, 2), (8, 2), (5, 4)):
        trial = copy.deepcopy(network)
        found, left = prune_heads(trial, PruneChannelsStep(0.5, round_to=round_to), lambda: None)
        assert (found, left) == ({"attention": kept} if kept < 4 else {}, [])
