"""Recovery: fine-tune a pruned network with the unpruned one as its teacher."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from featherweight.core.errors import DataError, UsageError
from featherweight.core.losses import TaskLoss, infer_loss
from featherweight.core.model import Model, StepRecord
from featherweight.core.networks import check_trainable, run_network
from featherweight.core.passes.prune_weights import prunable_weights
from featherweight.core.passes.steps import RecoverStep
from featherweight.core.terminal import counted
from featherweight.core.training import Batches, Fit, Loss, Schedule, Tensors, as_tuple, fast_bfloat16

OnStep = Callable[[int, int, float], None]
"""(steps done, steps in all, loss)."""
CHECKPOINT_EVERY_S: Final = 60.0
"""Epochs that end sooner after the last checkpoint write none: repeating them costs less."""


@dataclass(frozen=True)
class Checkpoint:
    """A training that is not at its end. losses: the mean of each finished epoch; tensors: what it goes on from."""

    losses: tuple[float, ...]
    tensors: Mapping[str, Tensor]


class Checkpoints(Protocol):
    """Where one training is kept while it runs."""

    def read(self) -> Checkpoint | None:
        """None where none is kept, or none that can be read."""
        ...

    def write(self, checkpoint: Checkpoint) -> None:
        """In the place of the one before. Raises OutputError."""
        ...


def recover(
    model: Model,
    step: RecoverStep,
    teacher: nn.Module,
    batches: Batches,
    *,
    stated: tuple[TaskLoss, ...] | TaskLoss | None = None,
    keep_zeros: bool = False,
    on_step: OnStep = lambda done, total, loss: None,
    checkpoints: Checkpoints | None = None,
) -> tuple[Model, StepRecord]:
    """A copy of `model` trained for `step.epochs` on `batches`; `teacher` stays as it is.

    stated: the task's loss, one for each output; None where it states none. The BatchNorm statistics are estimated anew
    before the first step, because those of the unpruned network no longer hold. `keep_zeros` holds weights that are
    zero at zero. Runs on the GPU where torch has one. With `checkpoints` a killed training goes on after its last one,
    and ends with the same weights as an undisturbed one; on a GPU only without dropout, whose random state there is not
    kept. Raises what `find_loss` raises, before anything is trained.
    """
    module = model.module(step.kind)  # trees are refused as such, whatever the batches are
    losses_of = find_loss(Model(teacher, model.inputs, model.outputs), batches(0), stated)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = copy.deepcopy(module).to(device).to(memory_format=torch.channels_last).requires_grad_(True)
    mentor = copy.deepcopy(teacher).to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    estimate_batch_norm(network, batches(0))
    steps = count_batches(batches(0))
    mixed = fast_bfloat16(device)
    schedule = Schedule(
        step.epochs, steps, step.learning_rate, step.weight_decay, ema_decay=step.ema_decay, mixed_precision=mixed
    )
    masks = [weight != 0 for weight in prunable_weights(network)] if keep_zeros else []
    loss = distillation_loss(mentor, losses_of, step.teacher_weight, step.temperature, mixed_precision=mixed)
    run = Fit(network, schedule, loss)
    losses = [] if checkpoints is None else _go_on(run, checkpoints)
    done, written = len(losses) * steps, time.monotonic()

    def stepped(value: float) -> None:
        nonlocal done
        done += 1
        _apply(masks, network)
        on_step(done, step.epochs * steps, value)

    for epoch in range(len(losses), step.epochs):
        losses.append(run.run_epoch(batches(epoch), stepped))
        if checkpoints is not None and time.monotonic() - written >= CHECKPOINT_EVERY_S:
            state = {**run.tensors(), _RANDOM: torch.get_rng_state()}
            checkpoints.write(Checkpoint(tuple(losses), state))
            written = time.monotonic()
    _apply(masks, run.averaged)
    averaged = run.averaged.eval().cpu().to(memory_format=torch.contiguous_format)
    facts = {
        "loss": loss_names(losses_of),
        "steps": done,
        "losses": [round(mean, 5) for mean in losses],
        "mixed_precision": mixed,
        "device": device.type,
    }
    return Model(averaged, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


_RANDOM: Final = "random state"


def _go_on(run: Fit, checkpoints: Checkpoints) -> list[float]:
    """Set `run` to where the last checkpoint was written, and the random numbers of dropout too; gives the losses until
    there."""
    found = checkpoints.read()
    if found is None:
        return []
    tensors = dict(found.tensors)
    torch.set_rng_state(tensors.pop(_RANDOM))
    run.restore(tensors, len(found.losses))
    return list(found.losses)


def find_loss(
    model: Model, batches: Iterable[tuple[Tensors, Tensors]], stated: tuple[TaskLoss, ...] | TaskLoss | None
) -> tuple[TaskLoss, ...]:
    """The loss of each output: the one stated, or what the first batch shows beyond doubt.

    Raises UsageError for a network that the training loop cannot train and for a loss that is not known, DataError for
    targets that do not fit the loss and when there is not one batch.
    """
    network = model.module("recover")
    check_trainable(network, "recover")
    first = next(iter(batches), None)
    if first is None:
        raise DataError("recover: the task gives no training batch; its training set is smaller than one batch")
    inputs, targets = _parts(first, model)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    outputs = run_network(network, tuple(tensor.to(device) for tensor in inputs), "recover")
    if len(outputs) != len(targets):
        raise UsageError(
            f"recover: the network gives {counted(len(outputs), 'outputs')}, its specs name {len(targets)}"
        )
    outputs = tuple(output.cpu() for output in outputs)
    losses = None if stated is None else as_tuple(stated)
    if losses is not None and len(losses) != len(outputs):
        raise UsageError(
            f"recover: the task states {counted(len(losses), 'losses')} for {counted(len(outputs), 'outputs')}; "
            "return a tuple with one for each from training_loss(), UNLABELLED where an output has no targets"
        )
    found = losses or tuple(_inferred(*pair) for pair in zip(outputs, targets, strict=True))
    for loss, output, target in zip(found, outputs, targets, strict=True):
        check_targets(loss, output, target)
    return found


def loss_names(losses: Sequence[TaskLoss]) -> str:
    """Their names, for what is kept and recorded."""
    return ", ".join(loss.name for loss in losses)


def _parts(batch: object, model: Model) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and the targets of a batch. Raises UsageError where they are not as many as the model's."""
    pair = as_tuple(batch)
    parts = [as_tuple(part) for part in pair]
    wanted = [len(model.inputs), len(model.outputs)]
    fit = len(parts) == 2 and [len(part) for part in parts] == wanted
    if not fit or not all(isinstance(tensor, Tensor) for part in parts for tensor in part):
        expected = "two tensors: inputs, targets"
        if wanted != [1, 1]:
            expected = f"a tuple of {counted(wanted[0], 'inputs')} and one of {counted(wanted[1], 'targets')}"
        raise UsageError(
            f"recover: the task's training batches are ({', '.join(map(_told, pair))}), expected {expected}"
        )
    return parts[0], parts[1]


def _told(part: object) -> str:
    if isinstance(part, tuple | list):
        return f"({', '.join(type(one).__name__ for one in part)})"
    return type(part).__name__


def _inferred(outputs: Tensor, targets: Tensor) -> TaskLoss:
    found = infer_loss(outputs, targets)
    if found is None:
        raise UsageError(
            f"recover: what the outputs {list(outputs.shape)} mean cannot be told from targets "
            f"{str(targets.dtype).removeprefix('torch.')} {list(targets.shape)}, and training with a wrong loss would "
            "not be noticed; state it in the task: a method training_loss() that returns BINARY (each output a yes or "
            "no), CLASSES or VALUES of featherweight.core.losses"
        )
    return found


def check_targets(loss: TaskLoss, outputs: Tensor, targets: Tensor) -> None:
    """Raise DataError where the targets are not what the loss takes. outputs, targets: tensors [N, ...] of a batch."""
    fault = loss.fault(outputs, targets)
    if fault:
        raise DataError(f"recover: the task's targets do not fit its loss {loss.name!r}: {fault}")


def distillation_loss(
    teacher: nn.Module,
    task: tuple[TaskLoss, ...] | TaskLoss,
    teacher_weight: float,
    temperature: float,
    *,
    mixed_precision: bool = False,
) -> Loss:
    """Hard labels and the teacher's softened opinion (Hinton et al., 2015), each by the task's loss; of several
    outputs the mean."""

    def one(loss: TaskLoss, outputs: Tensor, opinion: Tensor, targets: Tensor) -> Tensor:
        check_targets(loss, outputs, targets)
        hard, soft = loss.hard(outputs, targets), loss.soft(outputs, opinion.float(), temperature)
        return (1 - teacher_weight) * hard + teacher_weight * soft

    def loss(outputs: Tensors, inputs: Tensors, targets: Tensors) -> Tensor:
        given = as_tuple(inputs)
        with torch.no_grad(), torch.autocast(given[0].device.type, dtype=torch.bfloat16, enabled=mixed_precision):
            opinions = as_tuple(teacher(*given))
        each = zip(as_tuple(task), as_tuple(outputs), opinions, as_tuple(targets), strict=True)
        return torch.stack([one(*parts) for parts in each]).mean()

    return loss


def estimate_batch_norm(network: nn.Module, batches: Iterable[tuple[Tensors, Tensors]], count: int = 20) -> None:
    """Replace the running statistics by plain means over up to `count` batches; changes `network`."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the cumulative mean
    network.train()
    device = next(network.parameters()).device
    with torch.no_grad():
        for inputs, _ in islice(batches, count):
            network(*(tensor.to(device) for tensor in as_tuple(inputs)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def count_batches(batches: Iterable[tuple[Tensors, Tensors]]) -> int:
    """How many batches an epoch has; those without a length are gone through."""
    return len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)


def _apply(masks: list[Tensor], network: nn.Module) -> None:
    if masks:
        with torch.no_grad():
            for weight, mask in zip(prunable_weights(network), masks, strict=True):
                weight.mul_(mask)
