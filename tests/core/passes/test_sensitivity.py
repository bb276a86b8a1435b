"""Pruning by measured sensitivity: what the outputs do not miss goes first, and as much goes as was asked for."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from featherweight.core.errors import DataError
from featherweight.core.model import Model
from featherweight.core.networks import example_inputs
from featherweight.core.passes.channel_groups import join_inputs, remove_channels, run_order
from featherweight.core.passes.prune_channels import SENSITIVITY_SAMPLES, prune_channels
from featherweight.core.passes.sensitivity import Curve, LayerCost, allocate, count_macs, measure_sensitivity
from featherweight.core.passes.steps import PruneChannelsStep
from featherweight.core.tensors import Tensors
from tests.fakes import INPUTS, OUTPUTS, SquaresTask, trained_model


def inputs() -> list[Tensors]:
    return list(SquaresTask().calibration_batches(SENSITIVITY_SAMPLES, 0))


def layer_with_silent_channels() -> Model:
    """Of layer 4, whose channels layer 9 alone reads, the outputs see every fourth channel only."""
    model = trained_model()
    with torch.no_grad():
        for module in (model.network[4], model.network[5]):  # type: ignore[index]
            for kept in (1, 2, 3):
                module.weight[kept::4] = 0
        for kept in (1, 2, 3):
            model.network[5].bias[kept::4] = 0  # type: ignore[index]
            model.network[9].weight[:, kept::4] = 0  # type: ignore[index]
    return model


def test_channels_that_the_outputs_do_not_see_leave_first() -> None:
    model = layer_with_silent_channels()
    before = copy.deepcopy(model.network.state_dict())  # type: ignore[union-attr]
    step = PruneChannelsStep(0.25, 8, "sensitivity")
    pruned, record = prune_channels(model, step, inputs())
    _, uniform = prune_channels(model, PruneChannelsStep(0.25, 8))
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())  # type: ignore[union-attr]
    assert record.facts["widths"]["4"] == 16  # type: ignore[index]
    curve = record.facts["sensitivity"]["4"]  # type: ignore[index]
    assert curve["channels"] == [64, 48, 32, 16, 8]
    assert curve["damage"][:4] == [0, 0, 0, 0]
    assert curve["damage"][4] > 0.001
    assert record.facts["sensitivity_samples"] == SENSITIVITY_SAMPLES
    assert 0 < record.facts["macs_after"] <= uniform.facts["macs_after"]  # type: ignore[operator]
    again, repeated = prune_channels(model, step, inputs())
    assert repeated.facts == record.facts
    assert again.network(torch.ones(1, 1, 24, 24)) == pruned.network(torch.ones(1, 1, 24, 24))  # type: ignore[operator]


def test_without_inputs_nothing_can_be_measured() -> None:
    with pytest.raises(DataError, match="prune-channels: the task gives no calibration inputs"):
        prune_channels(trained_model(), PruneChannelsStep(0.5, scope="sensitivity"))


def test_costs_are_those_of_the_pruned_network() -> None:
    """Predicted from shares of inputs and outputs, then counted as the network runs that was really pruned."""
    model = trained_model()
    network, example = model.module("test"), example_inputs(model)
    found = measure_sensitivity(network, example, join_inputs(inputs()[:1], model, "test"), 16)
    for kept in ([32, 16, 32], [64, 16, 16], [16, 32, 16]):
        widths = [min(width, group.channels) for width, group in zip(kept, found.groups, strict=True)]
        pruned = copy.deepcopy(network)
        remove_channels(pruned, example, lambda groups, widths=widths: widths)  # type: ignore[misc]
        fractions = [width / group.channels for width, group in zip(widths, found.groups, strict=True)]
        counted = sum(macs for _, macs in run_order(pruned, example))
        assert count_macs(found.layers, fractions) == pytest.approx(counted)


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(1, 32, 3, 2), nn.Conv2d(32, 32, 3, groups=32)
        self.last = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.deep(self.first(x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_depthwise_layer_costs_as_its_channels_do() -> None:
    torch.manual_seed(0)
    model = Model(Depthwise().eval(), INPUTS, OUTPUTS)
    _, record = prune_channels(model, PruneChannelsStep(0.5, 4, "sensitivity"), inputs())
    assert record.facts["widths"] == {"first": 16, "deep": 16, "last": 1}
    assert record.facts["macs_after"] == pytest.approx(record.facts["macs_before"] / 2, rel=0.02)  # type: ignore[operator]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Curve], list[LayerCost], float, int]:
    """A chain of layers: each group is one layer's outputs and the next one's inputs."""
    round_to = draw(st.sampled_from([4, 8]))
    curves = []
    for _ in range(draw(st.integers(1, 4))):
        kept = sorted(
            draw(st.sets(st.integers(1, 8).map(lambda n: n * round_to), min_size=1, max_size=4)), reverse=True
        )
        damage = draw(st.lists(st.floats(0, 2), min_size=len(kept) - 1, max_size=len(kept) - 1))
        curves.append(Curve(tuple(kept), (0.0, *damage)))
    costs = draw(st.lists(st.floats(1, 1000), min_size=len(curves) + 1, max_size=len(curves) + 1))
    layers = [
        LayerCost(cost, {place - 1: 1.0} if place else {}, {place: 1.0} if place < len(curves) else {})
        for place, cost in enumerate(costs)
    ]
    return curves, layers, draw(st.floats(0, 1)) * sum(costs), round_to


def macs(curves: list[Curve], layers: list[LayerCost], kept: tuple[int, ...] | list[int]) -> float:
    return count_macs(layers, [count / curve.kept[0] for count, curve in zip(kept, curves, strict=True)])


@given(problems())
def test_as_much_goes_as_was_asked_for_and_no_more_than_a_step_beyond(
    problem: tuple[list[Curve], list[LayerCost], float, int],
) -> None:
    curves, layers, wanted, round_to = problem
    kept = allocate(curves, layers, wanted, round_to)
    for count, curve in zip(kept, curves, strict=True):
        assert curve.kept[-1] <= count <= curve.kept[0]
        assert count % round_to == 0
    if macs(curves, layers, [curve.kept[-1] for curve in curves]) <= wanted:
        assert macs(curves, layers, kept) <= wanted
        for place, curve in enumerate(curves):
            if kept[place] < curve.kept[0]:
                wider = [*kept]
                wider[place] += round_to
                better = curve.at(wider[place]) < curve.at(kept[place])
                assert not better or macs(curves, layers, wider) > wanted
    assert allocate(curves, layers, wanted, round_to) == kept


def test_the_least_damage_is_found_where_everything_can_be_tried() -> None:
    curves = [
        Curve((32, 24, 16, 8), (0, 0.01, 0.05, 0.4)),
        Curve((32, 24, 16, 8), (0, 0.2, 0.5, 1.0)),
        Curve((32, 24, 16, 8), (0, 0.0, 0.001, 0.02)),
    ]
    layers = [LayerCost(100.0, {}, {0: 1.0}), LayerCost(100.0, {}, {1: 1.0}), LayerCost(100.0, {}, {2: 1.0})]
    for wanted in (250.0, 200.0, 150.0, 100.0):
        possible = [
            kept for kept in itertools.product((32, 24, 16, 8), repeat=3) if macs(curves, layers, kept) <= wanted
        ]

        def damage(kept: tuple[int, ...] | list[int]) -> float:
            return sum(curve.at(count) for curve, count in zip(curves, kept, strict=True))

        assert damage(allocate(curves, layers, wanted, 8)) == pytest.approx(min(map(damage, possible)))


def test_a_curve_never_says_that_fewer_channels_are_better() -> None:
    curve = Curve((64, 32, 16), (0.0, 0.5, 0.1))
    assert [curve.at(count) for count in (64, 48, 32, 24, 16)] == [0, 0.25, 0.5, 0.5, 0.5]
