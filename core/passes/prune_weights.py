"""Unstructured magnitude pruning. It makes the shipped file compress better and nothing run faster here."""

from __future__ import annotations

import copy
from dataclasses import asdict

import torch
from torch import Tensor, nn

from featherweight.core.errors import UsageError
from featherweight.core.model import Model, StepRecord
from featherweight.core.networks import check_trainable
from featherweight.core.passes.steps import PruneWeightsStep


def prune_weights(model: Model, step: PruneWeightsStep) -> tuple[Model, StepRecord]:
    """A copy of `model` whose smallest `step.sparsity` of all matrix and kernel weights are zero.

    One threshold for the whole network (Han et al., Learning both Weights and Connections, NeurIPS 2015); biases and
    normalization stay. A recovery that follows keeps the zeros. Raises UsageError for a network without weights.
    """
    check_trainable(model.module(step.kind), step.kind)
    network = copy.deepcopy(model.module(step.kind)).eval()
    weights = prunable_weights(network)
    if not weights:
        raise UsageError(f"prune-weights: {type(network).__name__} has no weight matrix or kernel")
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    removed = round(step.sparsity * magnitudes.numel())
    if removed:
        # kthvalue, because torch.quantile refuses more than 16 million values
        threshold = magnitudes.kthvalue(removed).values
        with torch.no_grad():
            for weight in weights:
                weight.masked_fill_(weight.abs() <= threshold, 0.0)
    facts = {
        "zero_ratio": float(sum(int((weight == 0).sum()) for weight in weights) / magnitudes.numel()),
        "note": "zeros compress in the shipped file; no runtime here skips them, so nothing runs faster",
    }
    return Model(network, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


def prunable_weights(network: nn.Module) -> list[Tensor]:
    """Matrices and kernels, in the network's order."""
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]
