"""Recovery: fine-tune a pruned network with the unpruned one as its teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sized
from dataclasses import asdict
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.errors import DataError
from core.model import Model, StepRecord
from core.passes.prune_weights import prunable_weights
from core.passes.steps import RecoverStep
from core.training import Batches, Fit, Schedule, fast_bfloat16

OnStep = Callable[[int, int, float], None]
"""(steps done, steps in all, loss)."""


def recover(
    model: Model,
    step: RecoverStep,
    teacher: nn.Module,
    batches: Batches,
    *,
    keep_zeros: bool = False,
    on_step: OnStep = lambda done, total, loss: None,
) -> tuple[Model, StepRecord]:
    """A copy of `model` trained for `step.epochs` on `batches`; `teacher` stays as it is.

    Targets are float [N, 1] for one logit or class numbers int64 [N] for several. The BatchNorm statistics are
    estimated anew before the first step, because those of the unpruned network no longer hold. `keep_zeros` holds
    weights that are zero at zero. Runs on the GPU where torch has one. Raises DataError when there is not one batch.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = (
        copy.deepcopy(model.module(step.kind)).to(device).to(memory_format=torch.channels_last).requires_grad_(True)
    )
    mentor = copy.deepcopy(teacher).to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    estimate_batch_norm(network, batches(0))
    steps = count_batches(batches(0))
    if steps == 0:
        raise DataError("recover: the task gives no training batch; its training set is smaller than one batch")
    mixed = fast_bfloat16(device)
    schedule = Schedule(
        step.epochs, steps, step.learning_rate, step.weight_decay, ema_decay=step.ema_decay, mixed_precision=mixed
    )
    masks = [weight != 0 for weight in prunable_weights(network)] if keep_zeros else []
    loss = distillation_loss(mentor, step.teacher_weight, step.temperature, mixed_precision=mixed)
    run = Fit(network, schedule, loss)
    losses, done = [], 0

    def stepped(value: float) -> None:
        nonlocal done
        done += 1
        _apply(masks, network)
        on_step(done, step.epochs * steps, value)

    for epoch in range(step.epochs):
        losses.append(run.run_epoch(batches(epoch), stepped))
    _apply(masks, run.averaged)
    averaged = run.averaged.eval().cpu().to(memory_format=torch.contiguous_format)
    facts = {
        "steps": done,
        "losses": [round(mean, 5) for mean in losses],
        "mixed_precision": mixed,
        "device": device.type,
    }
    return Model(averaged, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


def distillation_loss(
    teacher: nn.Module, teacher_weight: float, temperature: float, *, mixed_precision: bool = False
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Hard labels and the teacher's softened opinion (Hinton et al., 2015), for one logit [N, 1] or several [N, C].

    The teacher's part is multiplied by the squared temperature, so that its gradients keep their size.
    """

    def loss(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=mixed_precision):
            opinion = teacher(inputs)
        opinion = opinion.float() / temperature
        if outputs.shape[1] == 1:
            hard = functional.binary_cross_entropy_with_logits(outputs, targets)
            soft = functional.binary_cross_entropy_with_logits(outputs / temperature, opinion.sigmoid())
        else:
            hard = functional.cross_entropy(outputs, targets)
            soft = functional.cross_entropy(outputs / temperature, opinion.softmax(1))
        return (1 - teacher_weight) * hard + teacher_weight * temperature**2 * soft

    return loss


def estimate_batch_norm(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], count: int = 20) -> None:
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
            network(inputs.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def count_batches(batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    return len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)


def _apply(masks: list[Tensor], network: nn.Module) -> None:
    if masks:
        with torch.no_grad():
            for weight, mask in zip(prunable_weights(network), masks, strict=True):
                weight.mul_(mask)
