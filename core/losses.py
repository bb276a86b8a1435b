"""What the outputs of a network mean, and so which loss it is trained with. A task states it (core.task.StatesLoss);
from the targets alone it can be told in two cases only, and a wrong loss trains without a complaint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class TaskLoss:
    """hard: (outputs, targets) -> scalar; soft: (outputs, the teacher's outputs, temperature) -> scalar, least where
    both agree, its gradient of the same size whatever the temperature; fault: (outputs, targets) -> why they do not fit
    this loss, or ''."""

    name: str
    hard: Callable[[Tensor, Tensor], Tensor]
    soft: Callable[[Tensor, Tensor, float], Tensor]
    fault: Callable[[Tensor, Tensor], str]


def _hard_binary(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


def _soft_binary(outputs: Tensor, opinion: Tensor, temperature: float) -> Tensor:
    wanted = (opinion / temperature).sigmoid()
    return temperature**2 * functional.binary_cross_entropy_with_logits(outputs / temperature, wanted)


def _soft_classes(outputs: Tensor, opinion: Tensor, temperature: float) -> Tensor:
    wanted = (opinion / temperature).softmax(1)
    return temperature**2 * functional.cross_entropy(outputs / temperature, wanted)


def _hard_values(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs, targets.to(outputs.dtype))


def _soft_values(outputs: Tensor, opinion: Tensor, temperature: float) -> Tensor:
    return functional.mse_loss(outputs, opinion)


def _values_fault(outputs: Tensor, targets: Tensor) -> str:
    if not targets.is_floating_point() or targets.shape != outputs.shape:
        return f"found targets {_shape(targets)} for outputs {_shape(outputs)}, expected floats of the outputs' shape"
    return "" if bool(torch.isfinite(targets).all()) else "found a target that is not a finite number"


def _binary_fault(outputs: Tensor, targets: Tensor) -> str:
    fault = _values_fault(outputs, targets)
    if not fault and len(targets) and not 0 <= float(targets.min()) <= float(targets.max()) <= 1:
        return f"found targets from {float(targets.min()):g} to {float(targets.max()):g}, expected them from 0 to 1"
    return fault


def _classes_fault(outputs: Tensor, targets: Tensor) -> str:
    classes = outputs.shape[1] if outputs.ndim > 1 else 0
    if classes < 2:
        return f"found outputs {_shape(outputs)}, expected a logit for each of at least two classes"
    if targets.dtype != torch.int64 or targets.shape != (outputs.shape[0], *outputs.shape[2:]):
        return f"found targets {_shape(targets)} for outputs {_shape(outputs)}, expected class numbers int64 [N]"
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        return f"found class numbers from {int(targets.min())} to {int(targets.max())}, expected 0 to {classes - 1}"
    return ""


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


BINARY = TaskLoss("binary", _hard_binary, _soft_binary, _binary_fault)
"""Every output is the logit of a yes-or-no question of its own, one or many (multi-label): binary cross-entropy."""
CLASSES = TaskLoss("classes", functional.cross_entropy, _soft_classes, _classes_fault)
"""The outputs are the logits of classes of which one is right: cross-entropy over their softmax."""
VALUES = TaskLoss("values", _hard_values, _soft_values, _values_fault)
"""The outputs are quantities (regression): mean squared error. The temperature plays no part."""


def _hard_unlabelled(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.new_zeros(())


def _soft_unlabelled(outputs: Tensor, opinion: Tensor, temperature: float) -> Tensor:
    return functional.mse_loss(outputs, opinion) / opinion.var(correction=0).clamp(min=1e-6)


UNLABELLED = TaskLoss("unlabelled", _hard_unlabelled, _soft_unlabelled, lambda outputs, targets: "")
"""An output without targets, beside others that have them: it stays what it is for the teacher, by the mean squared
difference relative to the variance."""


def infer_loss(outputs: Tensor, targets: Tensor) -> TaskLoss | None:
    """The loss of a task that states none, where one batch leaves no doubt: class numbers for several logits, or
    nothing but 0 and 1 for one logit. None elsewhere: several numbers from 0 to 1 may be the findings of one image, the
    shares of classes that exclude each other, or quantities; and outputs that all lie from 0 to 1 are probabilities
    rather than logits."""
    if bool(((outputs >= 0) & (outputs <= 1)).all()):
        return None
    if not CLASSES.fault(outputs, targets):
        return CLASSES
    one = outputs.ndim == 2 and outputs.shape[1] == 1
    if one and not BINARY.fault(outputs, targets) and bool(((targets == 0) | (targets == 1)).all()):
        return BINARY
    return None
