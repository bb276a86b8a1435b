"""Networks as the passes see them: run on inputs of the model's specs, and refused where no pass can treat them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featherweight.core.causes import describe_cause
from featherweight.core.errors import FeatherweightError, UsageError
from featherweight.core.model import Model
from featherweight.core.tensors import TensorSpec


def example_inputs(model: Model, batch: int = 1) -> tuple[Tensor, ...]:
    """Inputs of the right shapes on the network's device, half of full scale everywhere; whole numbers are 0."""
    parameter = next(model.module("example").parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    return tuple(
        torch.full(
            [batch if size is None else size for size in spec.shape],
            0.5 if spec.dtype == "float32" else 0,
            dtype=getattr(torch, spec.dtype),
            device=device,
        )
        for spec in model.inputs
    )


def run_network(network: nn.Module, inputs: tuple[Tensor, ...], purpose: str) -> tuple[Tensor, ...]:
    """All outputs, in order, without gradients. Raises UsageError, which begins with `purpose`, when the network does
    not run or gives something else than tensors."""
    try:
        with torch.no_grad():
            outputs = network(*inputs)
    except (FeatherweightError, MemoryError):
        raise
    except Exception as error:  # whatever the network's own code raises
        name = type(network).__name__
        raise UsageError(f"{purpose}: {name} does not run on its inputs ({describe_cause(error)})") from error
    found = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not isinstance(found, tuple | list) or not all(isinstance(output, Tensor) for output in found):
        raise UsageError(
            f"{purpose}: {type(network).__name__} returns {_told(outputs)}, expected a tensor or a tuple of tensors; "
            "wrap it in a module that returns the tensors in the order of the model's outputs"
        )
    return tuple(found)


def check_not_scripted(network: nn.Module, purpose: str) -> None:
    """Raise UsageError for a network that no pass can treat."""
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"{purpose}: {name or type(network).__name__} is a scripted (TorchScript) module, whose layers can be "
                "neither pruned nor exported; give the nn.Module that it was made from"
            )


def check_trainable(network: nn.Module, purpose: str) -> None:
    """Raise UsageError for a network whose weights no pass can change: a scripted one, or a foreign file that is fixed
    (core.onnx_network)."""
    check_not_scripted(network, purpose)
    reason = getattr(network, "fixed_because", "")
    if reason:
        raise UsageError(f"{purpose}: {reason}; remove the step from the recipe")


def check_network(model: Model, purpose: str) -> None:
    """Raise UsageError for a network that does not give what the model's specs say."""
    network = model.module(purpose)
    outputs = run_network(network, example_inputs(model, 2), purpose)
    if len(outputs) != len(model.outputs):
        raise UsageError(f"{purpose}: the network gives {len(outputs)} outputs, its specs name {len(model.outputs)}")
    for output, spec in zip(outputs, model.outputs, strict=True):
        if not _fits(output, spec):
            found = f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}"
            raise UsageError(f"{purpose}: for a batch of 2 the network gives {found}, its specs say {spec}")


def _fits(output: Tensor, spec: TensorSpec) -> bool:
    wanted = [2 if size is None else size for size in spec.shape]
    return list(output.shape) == wanted and output.dtype == getattr(torch, spec.dtype)


def _told(outputs: object) -> str:
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {', '.join(type(output).__name__ for output in outputs)}"
    return f"a {type(outputs).__name__}"
