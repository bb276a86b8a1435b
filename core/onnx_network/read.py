"""The door for ONNX files that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from featherweight.core.arrays import Array
from featherweight.core.backends.foreign import draw_inputs, run_foreign
from featherweight.core.backends.torch_graph import make_calls, read_constant
from featherweight.core.errors import BackendError, FeatherweightError, UsageError
from featherweight.core.onnx_network.cleaning import (
    CleanFile,
    clean,
    free_batch,
    is_quantized,
    opset_of,
    same_values,
    state_specs,
)
from featherweight.core.onnx_network.network import OnnxFile, OnnxNetwork, Plan
from featherweight.core.onnx_network.planning import make_plan
from featherweight.core.onnx_network.tracing import BATCHES, trace
from featherweight.core.tensors import TensorSpec
from featherweight.core.terminal import counted

TOLERANCE = 1e-3
"""Largest difference of an output, relative to its largest value, that reordered float32 sums explain."""

_QUANTIZED = (
    "the ONNX file is quantized already, so it is taken as it is; to prune, train or quantize it, give the file that "
    "it was made from"
)

Outputs = Sequence[Mapping[str, Array]]
"""Of each batch, by name."""


def read_onnx_network(content: bytes) -> OnnxNetwork:
    """A module from the bytes of an ONNX file of opset 11 to 26.

    The bytes are checked (core.inspection), run by ONNX Runtime in a process that may die, and the module's outputs are
    compared with what came out. A file that the module does not do, or does otherwise, is still exported and quantized
    as it is; `fixed_because` then says why nothing trains it. Raises UsageError for bytes that no runtime should see or
    that ONNX Runtime does not run, and for shapes that are not of any number of cases.
    """
    file = clean(content)
    file, expected = _freed(file)
    outputs = _specs(expected)
    program = state_specs(file.model, file.inputs, outputs)
    made = OnnxFile(
        content, program.SerializeToString(deterministic=True), file.inputs, outputs, opset_of(program), file.notes
    )
    if is_quantized(file.model):
        return OnnxNetwork(replace(made, precision="int8"), None, _QUANTIZED).eval()
    try:
        network = OnnxNetwork(made, _planned(file, outputs)).eval()
        difference = _difference(network, expected)
    except BackendError as error:
        return OnnxNetwork(made, None, f"PyTorch does not do what the ONNX file says ({error})").eval()
    if not difference <= TOLERANCE:
        return OnnxNetwork(
            made, None, f"PyTorch's outputs for it differ from ONNX Runtime's by {difference:.2g} of the largest"
        ).eval()
    network.file = replace(made, difference=difference)
    return network


def _freed(file: CleanFile) -> tuple[CleanFile, Outputs]:
    """The file for any number of cases, and ONNX Runtime's outputs for BATCHES of them."""
    if file.fixed_batch is None:
        return file, run_foreign(file.content, file.inputs, BATCHES)
    free = free_batch(file)
    size = file.fixed_batch
    said = (
        f"the ONNX file takes {counted(size, 'cases')} at a time, and does not become one for any number by itself; "
        "export it with a free first size (dynamic_axes, or dynamic_shapes)"
    )
    (wanted,) = run_foreign(file.content, file.inputs, (3 * size,), at_a_time=size)
    try:
        whole, *found = run_foreign(free.content, file.inputs, (3 * size, *BATCHES))
    except UsageError as error:
        raise UsageError(f"{said} ({error})") from error
    if any(not same_values(whole[name], array) <= TOLERANCE for name, array in wanted.items()):
        raise UsageError(said)
    return free, found


def _specs(outputs: Outputs) -> tuple[TensorSpec, ...]:
    specs = []
    for name in outputs[0]:
        arrays = [found[name] for found in outputs]
        shapes = [array.shape for array in arrays]
        if any(not shape or shape[0] != batch for shape, batch in zip(shapes, BATCHES, strict=True)) or any(
            shape[1:] != shapes[0][1:] for shape in shapes
        ):
            told = ", ".join(str(list(shape)) for shape in shapes)
            raise UsageError(
                f"the ONNX file's output {name!r} has the shapes {told} for {', '.join(map(str, BATCHES))} cases; "
                "expected the number of cases first, and the other sizes always the same"
            )
        dtype = str(arrays[0].dtype)
        if dtype not in ("float32", "int64", "int32", "uint8"):
            raise UsageError(f"the ONNX file's output {name!r} is of the type {dtype}; expected float32")
        specs.append(TensorSpec(name, dtype, (None, *shapes[0][1:])))  # type: ignore[arg-type]
    return tuple(specs)


def _planned(file: CleanFile, outputs: Sequence[TensorSpec]) -> Plan:
    """Raises BackendError for a graph that the interpreter does not run."""
    graph, opset = file.model.graph, opset_of(file.model)
    constants = {tensor.name: read_constant(tensor, "cpu") for tensor in graph.initializer}
    calls = make_calls(graph, constants, opset)
    found = trace(calls, constants, file.inputs)
    return make_plan(calls, found, outputs, opset)


def _difference(network: OnnxNetwork, expected: Outputs) -> float:
    """The largest, over all of BATCHES. Raises BackendError where the network does not run."""
    worst = 0.0
    for batch, wanted in zip(BATCHES, expected, strict=True):
        drawn = draw_inputs(network.inputs, batch)
        try:
            with torch.no_grad():
                outputs = network(*(torch.from_numpy(drawn[spec.name]) for spec in network.inputs))
        except (FeatherweightError, MemoryError):
            raise
        except Exception as error:
            raise BackendError(f"its module does not run: {error}") from error
        found: tuple[Tensor, ...] = (outputs,) if isinstance(outputs, Tensor) else outputs
        for spec, tensor in zip(network.outputs, found, strict=True):
            worst = max(worst, same_values(np.asarray(tensor), wanted[spec.name]))
    return worst
