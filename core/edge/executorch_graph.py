"""An ONNX network as an ExecuTorch program for its XNNPACK delegate. int8 keeps the program's own scales: each
QuantizeLinear and DequantizeLinear becomes PyTorch's operator of that kind, which the delegate turns into int8 kernels,
so that nothing is calibrated again. uint8 becomes int8 by moving the zero point by 128, which is the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnx.numpy_helper
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers torch.ops.quantized_decomposed)
from torch.fx.experimental.proxy_tensor import make_fx

from featherweight.core.backends.onnx_model import operator, read_graph
from featherweight.core.backends.torch_ops import OPERATORS, Form, find_operator
from featherweight.core.edge.onnx_nodes import attributes, ordered
from featherweight.core.errors import UsageError
from featherweight.core.program import Program

_MAX_OPSET = 26
_INT8 = (-128, 127, torch.int8)

Values = dict[str, Tensor]


def encode_network(program: Program) -> bytes:
    """The bytes of a .pte file for one case at a time. Raises UsageError for an operator that is not known and for what
    ExecuTorch cannot lower, BackendError for a file that is not an ONNX model."""
    graph, opset = read_graph("executorch", program, _MAX_OPSET)
    unknown = sorted({operator(node) for node in graph.node} - {*OPERATORS, "QuantizeLinear", "DequantizeLinear"})
    if unknown:
        raise UsageError(f"executorch: the program uses {', '.join(unknown)}, which is not written; use ort-mobile")
    examples = tuple(
        torch.zeros([size or 1 for size in spec.shape], dtype=getattr(torch, spec.dtype)) for spec in program.inputs
    )
    try:
        # Traced with real numbers, so that shapes and axes, which ONNX keeps in tensors, are plain integers.
        traced = make_fx(_function(program, graph, opset), pre_dispatch=True)(*examples)
        lowered = to_edge_transform_and_lower(
            torch.export.export(traced, examples),
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        return bytes(lowered.to_executorch().buffer)
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"executorch: the program cannot be lowered: {reason}; use litert or ort-mobile") from error


def _function(program: Program, graph: onnx.GraphProto, opset: int) -> Callable[..., tuple[Tensor, ...]]:
    """The graph as a function of its inputs; what only constants go into is computed here, once."""
    constants: Values = {entry.name: torch.tensor(onnx.numpy_helper.to_array(entry)) for entry in graph.initializer}
    steps: list[tuple[onnx.NodeProto, Callable[[Values], Any]]] = []
    for node in ordered("executorch", graph):
        step = _step(node, constants, opset)
        if node.input and constants.keys() >= {*node.input} and not _is_weight(node, constants):
            constants[node.output[0]] = step(constants)
        else:
            steps.append((node, step))

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        values = {**constants, **{spec.name: tensor for spec, tensor in zip(program.inputs, given, strict=True)}}
        for node, step in steps:
            results = step(values)
            values.update(zip(node.output, results if isinstance(results, tuple) else (results,), strict=False))
        return tuple(values[spec.name] for spec in program.outputs)

    return run


def _is_weight(node: onnx.NodeProto, constants: Mapping[str, Tensor]) -> bool:
    """Dequantized in the program, so that the delegate sees the int8 weights; biases are floats to it."""
    return node.op_type == "DequantizeLinear" and constants[node.input[0]].dtype != torch.int32


def _step(node: onnx.NodeProto, constants: Mapping[str, Tensor], opset: int) -> Callable[[Values], Any]:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _quantization(node, constants)
    given = {name: _native(value) for name, value in attributes(node).items()}
    call, found = find_operator(operator(node), Form(opset, given, node.input, node.output, constants))
    return lambda values: call([values[name] if name else None for name in node.input], found)


def _quantization(node: onnx.NodeProto, constants: Mapping[str, Tensor]) -> Callable[[Values], Tensor]:
    known = torch.ops.quantized_decomposed
    name, scale = node.input[0], constants[node.input[1]]
    zero = constants[node.input[2]] if len(node.input) > 2 else torch.zeros(scale.shape, dtype=torch.uint8)
    weight = constants.get(name)
    if weight is not None and weight.dtype == torch.int32:
        return lambda values: weight.float() * scale
    if scale.numel() > 1:
        if weight is None or zero.dtype != torch.int8 or node.op_type == "QuantizeLinear":
            raise UsageError("executorch: only int8 weights are quantized per channel; use ort-mobile")
        zeros, axis = zero.long(), attributes(node).get("axis", 1)
        return lambda values: known.dequantize_per_channel.default(weight, scale, zeros, axis, *_INT8)
    call = known.quantize_per_tensor if node.op_type == "QuantizeLinear" else known.dequantize_per_tensor
    # For weights without a zero point the type decides; computed values are then uint8, as ONNX has it.
    unsigned = zero.dtype == torch.uint8 and (weight is None or weight.dtype != torch.int8)
    shift, step = 128 * unsigned, float(scale)
    if weight is not None and weight.dtype == torch.uint8:
        moved = (weight.short() - 128).to(torch.int8)
        return lambda values: call.default(moved, step, int(zero) - shift, *_INT8)
    return lambda values: call.default(values[name], step, int(zero) - shift, *_INT8)


def _native(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return torch.tensor(onnx.numpy_helper.to_array(value)) if isinstance(value, onnx.TensorProto) else value
