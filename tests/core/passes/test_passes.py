"""Each pass on a real network: what it does, that it never works in place, and what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import DataError, UsageError
from featherweight.core.export import export
from featherweight.core.losses import BINARY, CLASSES
from featherweight.core.model import Model
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.prune_weights import prune_weights
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.recover import distillation_loss, estimate_batch_norm, recover
from featherweight.core.passes.steps import PruneChannelsStep, PruneWeightsStep, QuantizeStep, RecoverStep
from featherweight.core.tensors import TensorSpec
from tests.core.networks import Transformer
from tests.fakes import INPUTS, OUTPUTS, SquaresTask, images, trained_model


def state(network: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(network.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def auc(network: nn.Module) -> float:
    inputs, labels = images(300, seed=9)
    with torch.no_grad():
        scores = network.eval()(torch.from_numpy(inputs))[:, 0].numpy()
    return float((scores[labels == 1][:, None] > scores[labels == 0][None]).mean())


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_channels_leave_and_widths_are_multiples_of_16(scope: str) -> None:
    model = trained_model()
    before, trainable = state(model.network), [p.requires_grad for p in model.network.parameters()]
    pruned, record = prune_channels(model, PruneChannelsStep(0.5, scope=scope))  # type: ignore[arg-type]
    assert same(before, model.network.state_dict())
    assert [p.requires_grad for p in model.network.parameters()] == trainable
    widths = dict(record.facts["widths"])  # type: ignore[call-overload]
    assert widths.pop("9") == 1
    assert all(width % 16 == 0 and width > 0 for width in widths.values())
    assert pruned.network[4].weight.shape[0] == widths["4"]  # type: ignore[index, union-attr]
    assert record.facts["macs_after"] < record.facts["macs_before"] / 2  # type: ignore[operator]
    assert record.facts["parameters_after"] == sum(p.numel() for p in pruned.network.parameters())
    assert pruned.network(torch.rand(3, 1, 24, 24)).shape == (3, 1)


def test_the_channels_that_matter_least_leave() -> None:
    model = trained_model()
    first = model.network[0]  # type: ignore[index]
    with torch.no_grad():
        for module in (model.network[4], model.network[5]):  # type: ignore[index]
            module.weight[::2] = 0
        model.network[9].weight[:, ::2] = 0  # type: ignore[index]
    inputs = torch.rand(4, 1, 24, 24)
    with torch.no_grad():
        model.network[5].bias[::2] = 0  # type: ignore[index]
        expected = model.network(inputs)
    assert first is model.network[0]  # type: ignore[index]
    pruned, _ = prune_channels(model, PruneChannelsStep(0.5, round_to=32))
    assert pruned.network[4].weight.shape[0] == 32  # type: ignore[index, union-attr]
    with torch.no_grad():
        torch.testing.assert_close(pruned.network(inputs), expected)


def test_of_attention_the_widths_of_the_perceptrons_are_pruned() -> None:
    """The width that all layers share is written into the heads' code, so it stays."""
    torch.manual_seed(2)
    model = Model(Transformer().eval(), INPUTS, OUTPUTS)
    with torch.no_grad():
        for block in model.network.inner.encoder.layers:  # type: ignore[union-attr]
            block.mlp[0].weight[::2] = 0
            block.mlp[0].bias[::2] = 0
            block.mlp[3].weight[:, ::2] = 0
    pruned, record = prune_channels(model, PruneChannelsStep(0.5))
    widths = dict(record.facts["widths"])  # type: ignore[call-overload]
    assert widths["inner.encoder.layers.encoder_layer_0.mlp.0"] == 32
    assert widths["inner.conv_proj"] == 32
    assert len(record.facts["left_whole"]) == 1  # type: ignore[arg-type]
    inputs = torch.rand(3, 1, 24, 24)
    with torch.no_grad():  # what went did nothing
        torch.testing.assert_close(pruned.module("test")(inputs), model.module("test")(inputs))


def test_a_layer_is_never_pruned_to_nothing() -> None:
    _, record = prune_channels(trained_model(), PruneChannelsStep(0.95))
    assert set(dict(record.facts["widths"]).values()) == {16, 1}  # type: ignore[call-overload]
    with pytest.raises(
        UsageError, match=r"removes nothing at ratio 0\.95: the layers have 32 to 64 channels, and .* of 64"
    ):
        prune_channels(trained_model(), PruneChannelsStep(0.95, round_to=64))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 32, 22), nn.Conv2d(32, 1, 22)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.stem(x)
        return self.one(inner).flatten(1), self.two(inner).flatten(1)


class Features(nn.Module):
    """Gives the channels of its only layer but the last as an output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 1, 22)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.stem(x)
        return inner.flatten(1), self.head(inner).flatten(1)


@pytest.mark.parametrize(
    ("network", "part"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 32, 3), nn.Conv2d(32, 32, 3, groups=4), nn.Flatten(), nn.Linear(12800, 1)),
            "groups",
        ),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(576)), "no convolution"),
        (Features(), "shape of the network's outputs"),
    ],
)
def test_networks_that_cannot_be_pruned_say_why(network: nn.Module, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        prune_channels(Model(network.eval(), INPUTS, OUTPUTS), PruneChannelsStep(0.5))


def test_a_layer_that_makes_outputs_is_left_whole_and_the_others_are_pruned() -> None:
    pruned, record = prune_channels(Model(TwoHeads().eval(), INPUTS, OUTPUTS), PruneChannelsStep(0.5))
    assert dict(record.facts["widths"]) == {"stem": 16, "one": 32, "two": 1}  # type: ignore[call-overload]
    assert record.facts["left_whole"] == ["one"]
    assert pruned.network is not None


def test_small_weights_become_zero_and_stay_zero_in_recovery() -> None:
    model, task = trained_model(), SquaresTask()
    before = state(model.network)
    sparse, record = prune_weights(model, PruneWeightsStep(0.6))
    assert same(before, model.network.state_dict())
    assert record.facts["zero_ratio"] == pytest.approx(0.6, abs=0.001)
    assert "nothing runs faster" in str(record.facts["note"])
    kept = sparse.network.state_dict()
    assert all(torch.equal(kept[name], before[name]) for name in before if before[name].ndim <= 1)

    again, _ = recover(
        sparse, RecoverStep(1), model.network, lambda epoch: task.training_batches(epoch, 0), keep_zeros=True
    )
    weights = [weight for weight in again.network.parameters() if weight.ndim > 1]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert zeros >= 0.599
    assert not same(kept, again.network.state_dict())


def test_recovery_brings_a_pruned_network_back_and_leaves_teacher_and_pupil_alone() -> None:
    model, task = trained_model(), SquaresTask()
    pruned, _ = prune_channels(model, PruneChannelsStep(0.5))
    teacher, pupil = state(model.network), state(pruned.network)
    steps: list[tuple[int, int, float]] = []
    recovered, record = recover(
        pruned,
        RecoverStep(3, learning_rate=3e-3, ema_decay=0.9),
        model.network,
        lambda epoch: task.training_batches(epoch, 0),
        on_step=lambda *step: steps.append(step),
    )
    assert same(teacher, model.network.state_dict())
    assert same(pupil, pruned.network.state_dict())
    assert not recovered.network.training
    assert [step[:2] for step in steps] == [(done, 30) for done in range(1, 31)]
    losses = list(record.facts["losses"])  # type: ignore[call-overload]
    assert losses[-1] < losses[0]
    assert auc(recovered.network) > 0.97
    assert auc(pruned.network) < auc(recovered.network)


def test_recovery_without_batches_is_refused() -> None:
    with pytest.raises(DataError, match="no training batch"):
        recover(trained_model(), RecoverStep(1), trained_model().network, lambda epoch: [])


def test_batch_norm_statistics_are_those_of_the_data() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1))
    inputs = torch.from_numpy(images(320, seed=5)[0])
    batches = [(inputs[i : i + 32], torch.zeros(32)) for i in range(0, 320, 32)]
    estimate_batch_norm(network, batches)
    norm = network[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert float(norm.running_mean) == pytest.approx(float(inputs.mean()), abs=1e-4)
    assert norm.momentum == 0.1
    assert not network.training


class Fixed(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("classes", [1, 3])
def test_the_teachers_logits_are_where_its_part_of_the_loss_is_least(classes: int) -> None:
    torch.manual_seed(0)
    opinion = torch.randn(5, classes)
    targets = torch.ones(5, 1) if classes == 1 else torch.ones(5, dtype=torch.int64)
    outputs = opinion.clone().requires_grad_(True)
    kind = BINARY if classes == 1 else CLASSES
    distillation_loss(Fixed(opinion), kind, 1.0, 3.0)(outputs, torch.zeros(5), targets).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert float(outputs.grad.abs().max()) < 1e-6
    hard = distillation_loss(Fixed(opinion), kind, 0.0, 3.0)(outputs, torch.zeros(5), targets)
    plain = nn.BCEWithLogitsLoss() if classes == 1 else nn.CrossEntropyLoss()
    assert float(hard.detach()) == pytest.approx(float(plain(opinion, targets)))


def test_specs_travel_through_every_pass() -> None:
    inputs = (TensorSpec("picture", "float32", (None, 1, 24, 24)),)
    model = Model(trained_model().network, inputs, OUTPUTS)
    for found, _ in (prune_channels(model, PruneChannelsStep(0.3)), prune_weights(model, PruneWeightsStep(0.3))):
        assert (found.inputs, found.outputs) == (inputs, OUTPUTS)
    assert np.isfinite(auc(model.network))


def test_a_higher_temperature_does_not_silence_the_teacher() -> None:
    """Without the squared temperature the gradient at 10 would be a hundredth of that at 1."""
    sizes = []
    for temperature in (1.0, 10.0):
        outputs = torch.full((4, 1), 0.2, requires_grad=True)
        loss = distillation_loss(Fixed(torch.zeros(4, 1)), BINARY, 1.0, temperature)
        loss(outputs, torch.zeros(4), torch.zeros(4, 1)).backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        sizes.append(float(outputs.grad.abs().mean()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_small_dense_networks_go_through_the_whole_chain() -> None:
    """As a fraud scorer's: rows in, one logit out, no picture anywhere."""
    torch.manual_seed(0)
    specs = (TensorSpec("features", "float32", (None, 15)),), (TensorSpec("score", "float32", (None, 1)),)
    layers = (nn.BatchNorm1d(15), nn.Linear(15, 64), nn.ReLU(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 1))
    rows = np.random.default_rng(0).normal(size=(512, 15)).astype(np.float32)
    targets = torch.from_numpy((rows[:, :1] > 0).astype(np.float32))
    batches = [(torch.from_numpy(rows[i : i + 64]), targets[i : i + 64]) for i in range(0, 512, 64)]
    model = Model(nn.Sequential(*layers).eval(), *specs)
    narrow, record = prune_channels(model, PruneChannelsStep(0.5))
    assert record.facts["widths"] == {"1": 32, "3": 16, "5": 1}
    sparse, _ = prune_weights(narrow, PruneWeightsStep(0.3))
    recovered, _ = recover(sparse, RecoverStep(4, 3e-3), model.module("test"), lambda epoch: batches, keep_zeros=True)
    plain, _ = export(recovered)
    program, _ = quantize(
        plain, QuantizeStep(weight_bits=7), ({"features": rows[i : i + 64]} for i in range(0, 512, 64))
    )
    found = []
    for one in (plain, program):
        with find_backend().open(one) as session:
            found.append(session.run({"features": rows})["score"])
    np.testing.assert_allclose(found[1], found[0], atol=0.1 * float(np.abs(found[0]).max()))
    one_layer = Model(nn.Sequential(nn.Linear(15, 1)).eval(), *specs)
    logistic, _ = quantize(export(one_layer)[0], QuantizeStep(), [{"features": rows}])
    assert logistic.precision == "int8"


def test_channels_that_are_rearranged_without_end_are_left_whole_soon() -> None:
    """Shifted windows: torch-pruning follows them until the memory is full."""
    torch.manual_seed(2)
    swin = SwinTransformer([4, 4], 32, [2], [2], [2, 2], num_classes=1).eval()
    specs = (TensorSpec("x", "float32", (None, 3, 32, 32)),), (TensorSpec("y", "float32", (None, 1)),)
    _, record = prune_channels(Model(swin, *specs), PruneChannelsStep(0.5, round_to=8))
    assert record.facts["left_whole"] == ["features.1.1.mlp.3", "features.1.0.mlp.3", "features.0.0"]
