"""A foreign ONNX file as a module that can be trained, pruned and exported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from featherweight.core.backends.torch_ops import Operator
from featherweight.core.backends.torch_ops.convolution import pad_spatial
from featherweight.core.backends.torch_ops.values import Attributes
from featherweight.core.onnx_network.tracing import Sizes
from featherweight.core.program import Precision
from featherweight.core.tensors import TensorSpec


@dataclass(frozen=True)
class Constant:
    """The key of a weight or table among the module's own."""

    key: str


@dataclass(frozen=True)
class Told:
    """Numbers that an operator is told: a shape, axes, places."""

    sizes: Sizes


Source = str | Constant | Told | Sizes | tuple[float, ...] | None
"""Where an input of a step comes from: a value by name, a constant, numbers that are told, the same as a tensor,
scales, or nowhere."""


@dataclass(frozen=True)
class Step:
    """What is done next: a layer of this key, or an operator. pads: added around the input of a layer before it."""

    label: str
    sources: tuple[Source, ...]
    outputs: tuple[str, ...]
    layer: str = ""
    operator: Operator | None = None
    attributes: Attributes | None = None
    pads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The steps of a network and what they need."""

    steps: tuple[Step, ...]
    layers: Mapping[str, nn.Module]
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True)
class OnnxFile:
    """content: as it was given; program: what is exported of an untouched network; precision: int8 of a file that was
    quantized before; difference: of the module's outputs from ONNX Runtime's, relative to the largest."""

    content: bytes
    program: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    notes: tuple[str, ...] = ()
    precision: Precision = "fp32"
    difference: float = 0.0


class OnnxNetwork(nn.Module):
    """content, inputs, outputs: the file's bytes and tensors, whose first size is the number of cases. fixed_because:
    why its weights can be neither trained nor pruned, or ''; then ONNX Runtime computes what `forward` gives."""

    def __init__(self, file: OnnxFile, plan: Plan | None, fixed_because: str = "") -> None:
        super().__init__()
        self.file, self.fixed_because = file, fixed_because
        self.steps = () if plan is None else plan.steps
        self.layers = nn.ModuleDict({} if plan is None else dict(plan.layers))
        self.constants = nn.Module()
        for key, value in ({} if plan is None else plan.parameters).items():
            self.constants.register_parameter(key, nn.Parameter(value.clone()))
        for key, value in ({} if plan is None else plan.buffers).items():
            self.constants.register_buffer(key, value.clone())
        self._runtime: Any = None
        self._digest = self._digest_weights()

    @property
    def content(self) -> bytes:
        """The file as it was given."""
        return self.file.content

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the order of `forward`."""
        return self.file.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the order in which `forward` gives them."""
        return self.file.outputs

    @property
    def precision(self) -> Precision:
        """int8 for a file that was quantized before it came here."""
        return self.file.precision

    def is_untouched(self) -> bool:
        """Whether all weights are as they were read."""
        return self._digest_weights() == self._digest

    def forward(
        self,
        first: Tensor,
        second: Tensor | None = None,
        third: Tensor | None = None,
        fourth: Tensor | None = None,
        fifth: Tensor | None = None,
        sixth: Tensor | None = None,
        seventh: Tensor | None = None,
        eighth: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """The outputs in order; one alone is not in a tuple. Inputs have names here, and not one for all, because
        exporters pair each with its shape."""
        every = (first, second, third, fourth, fifth, sixth, seventh, eighth)
        given = [tensor for tensor in every if tensor is not None]
        found = self._run_on_onnxruntime(given) if self.fixed_because else self._run_steps(given)
        return found[0] if len(found) == 1 else tuple(found)

    def _run_steps(self, given: Sequence[Tensor]) -> list[Tensor]:
        values = {spec.name: tensor for spec, tensor in zip(self.inputs, given, strict=True)}
        cases = given[0].shape[0]
        for step in self.steps:
            inputs = [self._input(source, values, cases) for source in step.sources]
            if step.layer:
                results = self.layers[step.layer](pad_spatial(inputs[0], step.pads))
            else:
                assert step.operator is not None  # noqa: S101  (a step is one of both)
                results = step.operator(inputs, step.attributes or {})
            found = results if isinstance(results, tuple) else (results,)
            values.update((name, value) for name, value in zip(step.outputs, found, strict=False) if name)
        return [values[spec.name] for spec in self.outputs]

    def _input(self, source: Source, values: Mapping[str, Tensor], cases: Any) -> Any:
        match source:
            case None:
                return None
            case str():
                return values[source]
            case Constant():
                return getattr(self.constants, source.key)
            case Told():
                return source.sizes.at(cases)
            case Sizes():
                numbers = source.at(cases)
                return torch.tensor(numbers[0] if source.scalar else numbers)
            case _:
                return list(source)

    def _run_on_onnxruntime(self, given: Sequence[Tensor]) -> list[Tensor]:
        if self._runtime is None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._runtime = onnxruntime.InferenceSession(self.file.program, options, providers=["CPUExecutionProvider"])
        arrays = {spec.name: tensor.detach().cpu().numpy() for spec, tensor in zip(self.inputs, given, strict=True)}
        outputs = self._runtime.run([spec.name for spec in self.outputs], arrays)
        return [torch.from_numpy(np.asarray(output)).to(given[0].device) for output in outputs]

    def _digest_weights(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        """What tells this network from others of the same layers: the search keeps its results by it."""
        return f"sha256={hashlib.sha256(self.file.content).hexdigest()}"

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens the runtime anew."""
        return {**self.__dict__, "_runtime": None}
