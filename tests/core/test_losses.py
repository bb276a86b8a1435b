"""The loss of a recovery is the task's; what cannot be known is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from featherweight.core.errors import DataError, FeatherweightError, UsageError
from featherweight.core.losses import BINARY, CLASSES, UNLABELLED, VALUES, TaskLoss, infer_loss
from featherweight.core.model import Model
from featherweight.core.passes.recover import distillation_loss, find_loss, recover
from featherweight.core.passes.steps import RecoverStep
from featherweight.core.tensors import TensorSpec

Batch = tuple[Tensor, Tensor]


def rows(count: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32))


def model_of(outputs: int, *, inputs: int = 1) -> Model:
    torch.manual_seed(0)
    specs = tuple(TensorSpec(f"features{place}", "float32", (None, 4)) for place in range(inputs))
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, outputs))
    return Model(network.eval(), specs, (TensorSpec("score", "float32", (None, outputs)),))


def batches_of(targets: Tensor) -> list[Batch]:
    inputs = rows(len(targets))
    return [(inputs[i : i + 32], targets[i : i + 32]) for i in range(0, len(targets), 32)]


FINDINGS = (rows()[:, :3] > 0.3).float()
"""Multi-label: of one row none, some or all may be 1."""
QUANTITY = 100 * rows()[:, :1]


def trained(model: Model, targets: Tensor, stated: TaskLoss | None, weight: float = 0.0) -> tuple[Model, list[float]]:
    step = RecoverStep(20, 2e-2, teacher_weight=weight, ema_decay=0.5)
    batches = batches_of(targets)
    found, record = recover(model, step, model.module("test"), lambda epoch: batches, stated=stated)
    assert stated is None or record.facts["loss"] == stated.name
    return found, list(record.facts["losses"])  # type: ignore[call-overload]


def test_several_findings_of_one_case_are_each_a_yes_or_no() -> None:
    recovered, losses = trained(model_of(3), FINDINGS, BINARY)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        found = recovered.module("test")(rows())
    assert float(((found > 0) == (FINDINGS > 0.5)).float().mean()) > 0.9
    # A softmax could not: its shares add up to 1, and here often none is 1 and often several are.
    assert float(found.sigmoid().sum(1).max()) > 1.5


def test_quantities_are_trained_by_their_squared_error() -> None:
    model = model_of(1)
    recovered, losses = trained(model, QUANTITY, VALUES)
    outputs = model.module("test")(rows()[:32]).detach()
    teaching = distillation_loss(model.module("test"), VALUES, 0.0, 2.0)
    assert float(teaching(outputs, rows()[:32], QUANTITY[:32])) == pytest.approx(
        float(functional.mse_loss(outputs, QUANTITY[:32]))
    )
    assert losses[-1] < losses[0]
    assert recovered is not model


@pytest.mark.parametrize("loss", [BINARY, CLASSES, VALUES], ids=lambda loss: loss.name)
def test_the_teachers_part_is_least_where_both_agree(loss: TaskLoss) -> None:
    opinion = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    outputs = opinion.clone().requires_grad_(True)
    loss.soft(outputs, opinion, 3.0).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert float(outputs.grad.abs().max()) < 1e-6


NUMBERS = torch.arange(256) % 3
UNSTATED = [
    ("several findings", 3, FINDINGS),
    ("one of several, as ones", 3, functional.one_hot(NUMBERS, 3).float()),
    ("a quantity", 1, QUANTITY),
    ("a quantity from 0 to 1", 1, rows()[:, :1].sigmoid()),
    ("class numbers beyond the outputs", 2, NUMBERS),
    ("labels without a second dimension", 1, FINDINGS[:, 0]),
]


@pytest.mark.parametrize(("outputs", "targets"), [one[1:] for one in UNSTATED], ids=[one[0] for one in UNSTATED])
def test_what_the_targets_do_not_tell_is_refused_before_a_step(outputs: int, targets: Tensor) -> None:
    steps: list[float] = []
    model, batches = model_of(outputs), batches_of(targets)
    with pytest.raises(UsageError, match=r"method training_loss\(\) that returns BINARY"):
        recover(
            model,
            RecoverStep(1),
            model.module("test"),
            lambda epoch: batches,
            on_step=lambda done, total, loss: steps.append(loss),
        )
    assert steps == []


def test_what_the_targets_tell_beyond_doubt_needs_no_statement() -> None:
    outputs = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
    assert infer_loss(outputs, NUMBERS) is CLASSES
    assert infer_loss(outputs[:, :1], FINDINGS[:, :1]) is BINARY
    # These are probabilities already: a loss of logits would take a sigmoid of a sigmoid.
    assert infer_loss(outputs[:, :1].sigmoid(), FINDINGS[:, :1]) is None
    assert infer_loss(outputs.softmax(1), NUMBERS) is None


@pytest.mark.parametrize(
    ("stated", "targets", "told"),
    [
        (BINARY, QUANTITY.repeat(1, 3), "expected them from 0 to 1"),
        (BINARY, FINDINGS[:, :1], r"found targets float32 \[32, 1\] for outputs float32 \[32, 3\]"),
        (CLASSES, FINDINGS, "expected class numbers"),
        (CLASSES, NUMBERS + 1, "class numbers from 1 to 3, expected 0 to 2"),
        (VALUES, NUMBERS, "expected floats of the outputs' shape"),
        (VALUES, torch.full((256, 3), float("nan")), "not a finite number"),
    ],
)
def test_targets_that_do_not_fit_what_was_stated(stated: TaskLoss, targets: Tensor, told: str) -> None:
    with pytest.raises(DataError, match=told):
        find_loss(model_of(3), batches_of(targets), stated)


def test_a_later_batch_that_does_not_fit_is_told_too() -> None:
    model, batches = model_of(3), batches_of(FINDINGS)
    batches[3] = (batches[3][0], batches[3][1] * 7)
    with pytest.raises(DataError, match="from 0 to 7"):
        recover(model, RecoverStep(1), model.module("test"), lambda epoch: batches, stated=BINARY)


def two_inputs() -> Iterator[Batch]:
    yield (rows(32), rows(32)), FINDINGS[:32]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("model", "batches", "told"),
    [
        (model_of(3, inputs=2), batches_of(FINDINGS), "are .Tensor, Tensor., expected a tuple of 2 inputs and one of"),
        (model_of(3), two_inputs(), r"training batches are \(\(Tensor, Tensor\), Tensor\), expected two tensors"),
        (model_of(3), [], "smaller than one batch"),
    ],
)
def test_networks_and_batches_that_the_loop_cannot_train(model: Model, batches: list[Batch], told: str) -> None:
    with pytest.raises(FeatherweightError, match=told):
        find_loss(model, batches, BINARY)


class Twofold(nn.Module):
    """Two inputs; a class, a quantity, and an embedding that has no labels."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.classes, self.value, self.embedding = nn.Linear(32, 3), nn.Linear(32, 1), nn.Linear(32, 5)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.middle(torch.cat([left, right], dim=1))
        return self.classes(found), self.value(found), 1000 * self.embedding(found)


def twofold() -> Model:
    torch.manual_seed(0)
    inputs = tuple(TensorSpec(name, "float32", (None, 4)) for name in ("left", "right"))
    outputs = tuple(
        TensorSpec(name, "float32", (None, size)) for name, size in (("class", 3), ("value", 1), ("embedding", 5))
    )
    return Model(Twofold().eval(), inputs, outputs)


LEFT, RIGHT = rows(), rows().flip(0)
CLASS = (LEFT + RIGHT)[:, :3].argmax(1)


def twofold_batches(epoch: int) -> list[tuple[list[Tensor], tuple[Tensor, ...]]]:
    """Inputs as a list, as a DataLoader gives them."""
    targets = (CLASS, LEFT[:, :1] * 2, torch.zeros(len(LEFT), 0))
    return [
        ([LEFT[i : i + 32], RIGHT[i : i + 32]], tuple(one[i : i + 32] for one in targets)) for i in range(0, 256, 32)
    ]


def test_several_inputs_and_outputs_are_trained_each_by_its_own_loss() -> None:
    model, losses = twofold(), (CLASSES, VALUES, UNLABELLED)
    with torch.no_grad():
        before = model.module("test")(LEFT, RIGHT)
    step = RecoverStep(40, 2e-2, teacher_weight=0.3, ema_decay=0.5)
    found, record = recover(model, step, model.module("test"), twofold_batches, stated=losses)  # type: ignore[arg-type]
    assert record.facts["loss"] == "classes, values, unlabelled"
    with torch.no_grad():
        classes, value, embedding = found.module("test")(LEFT, RIGHT)
    assert float((classes.argmax(1) == CLASS).float().mean()) > 0.9
    assert float((before[0].argmax(1) == CLASS).float().mean()) < 0.6
    assert float(functional.mse_loss(value, 2 * LEFT[:, :1])) < 0.3 * float((2 * LEFT[:, :1]).var())
    # No labels pull the embedding, and its size, a thousand times the others', does not drown them.
    assert float(functional.mse_loss(embedding, before[2])) < 0.2 * float(before[2].var())


def test_what_each_of_several_outputs_means_is_inferred_or_asked_for() -> None:
    model = twofold()
    with pytest.raises(UsageError, match=r"what the outputs \[32, 1\] mean cannot be told"):
        find_loss(model, twofold_batches(0), None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"states 1 loss for 3 outputs; return a tuple"):
        find_loss(model, twofold_batches(0), CLASSES)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="do not fit its loss 'classes'"):
        find_loss(model, twofold_batches(0), (CLASSES, CLASSES, UNLABELLED))  # type: ignore[arg-type]


def test_the_loss_of_several_outputs_is_the_mean_of_theirs() -> None:
    model = twofold()
    (inputs, targets), *_ = twofold_batches(0)
    with torch.no_grad():
        opinions = model.module("test")(*inputs)
    outputs = tuple(output + 0.1 for output in opinions)
    losses = (CLASSES, VALUES, UNLABELLED)
    loss = distillation_loss(model.module("test"), losses, 0.25, 2.0)
    wanted = [
        0.75 * one.hard(output, target) + 0.25 * one.soft(output, opinion, 2.0)
        for one, output, opinion, target in zip(losses, outputs, opinions, targets, strict=True)
    ]
    assert float(loss(outputs, tuple(inputs), targets)) == pytest.approx(float(sum(wanted)) / 3)
