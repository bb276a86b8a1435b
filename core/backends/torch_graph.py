"""An ONNX graph as a list of PyTorch calls. Imported only when the torch backend opens a program."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.numpy_helper
import torch
from torch import Tensor

from featherweight.core.backends import opening
from featherweight.core.backends.onnx_model import operator, read_graph
from featherweight.core.backends.torch_ops import OPERATORS, Form, Operator, find_operator
from featherweight.core.backends.torch_ops.values import Attributes
from featherweight.core.errors import BackendError, BackendUnavailableError
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, check_tensors

MAX_OPSET = 26


@dataclass(frozen=True)
class Call:
    """A node of a graph as a call of torch. label: its operator and name, for messages."""

    operator: Operator
    op_type: str
    label: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_uses: tuple[str, ...]
    """Values that are not needed after this call."""


def open_graph(program: Program, device: str, threads: int) -> TorchSession:
    """Raises BackendError for a file that is not an ONNX model, for operators that are not known and for other
    specs."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError("backend torch: CUDA does not start; check the driver with nvidia-smi")
    if device == "cuda" and program.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BackendUnavailableError("backend torch: this GPU has no bfloat16 (they have it since Ampere); use fp32")
    graph, opset = read_graph("torch", program, MAX_OPSET)
    constants = {tensor.name: read_constant(tensor, device) for tensor in graph.initializer}
    return TorchSession(program, constants, make_calls(graph, constants, opset), device, threads)


class TorchSession(opening.OpenSession):
    """A program's nodes as calls of torch."""

    def __init__(
        self, program: Program, constants: Mapping[str, Tensor], calls: tuple[Call, ...], device: str, threads: int
    ) -> None:
        super().__init__(program)
        self._constants, self._calls = constants, calls
        self._device, self._threads = device, threads
        self._bf16 = program.precision == "bf16"

    def _run(self, tensors: Tensors, batch: int) -> Tensors:
        values: dict[str, Tensor] = dict(self._constants)
        try:
            with torch.inference_mode(), _threads(self._threads), _arithmetic(self._device, self._bf16):
                for name, array in tensors.items():
                    # A copy: PyTorch may not be given memory that numpy calls read-only.
                    values[name] = torch.tensor(array, device=self._device)
                for call in self._calls:
                    _apply(call, values)
            results = {
                spec.name: values[spec.name].float() if spec.dtype == "float32" else values[spec.name]
                for spec in self.outputs
            }
            outputs = {name: value.cpu().numpy() for name, value in results.items()}
        except RuntimeError as error:
            raise BackendError(f"backend torch: the run failed: {error}") from error
        check_tensors(outputs, self.outputs)
        return outputs

    def _free(self) -> None:
        self._constants, self._calls = {}, ()


def run_call(call: Call, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The call's outputs by name. values: at least its inputs. Raises BackendError where torch does not do it."""
    try:
        results = call.operator([values[name] if name else None for name in call.inputs], call.attributes)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise BackendError(f"backend torch: {call.label} failed: {type(error).__name__}: {error}") from error
    found = results if isinstance(results, tuple) else (results,)
    return {name: value for name, value in zip(call.outputs, found, strict=False) if name}


def _apply(call: Call, values: dict[str, Tensor]) -> None:
    values.update(run_call(call, values))
    for name in call.last_uses:
        values.pop(name, None)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch has one thread count for all; give it back as it was."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _arithmetic(device: str, bf16: bool) -> Iterator[None]:
    """bfloat16 by autocast, or float32 without TensorFloat-32, which cuDNN takes for convolutions by itself."""
    with contextlib.ExitStack() as stack:
        if bf16:
            stack.enter_context(torch.autocast(device, dtype=torch.bfloat16))
        elif device == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        yield


def make_calls(graph: onnx.GraphProto, constants: Mapping[str, Tensor], opset: int) -> tuple[Call, ...]:
    """The nodes in their order. Raises BackendError for a graph that uses what the interpreter does not know, or names
    what nothing makes before."""
    unknown = sorted({operator(node) for node in graph.node if operator(node) not in OPERATORS})
    if unknown:
        raise BackendError(
            f"backend torch: the program uses {', '.join(unknown)}, which this backend does not know; "
            "use the backend onnxruntime or openvino"
        )
    last_use = {name: index for index, node in enumerate(graph.node) for name in (*node.input, *node.output)}
    kept = {*constants, *(value.name for value in graph.output)}
    known = {"", *constants, *(value.name for value in graph.input)}
    calls = []
    for index, node in enumerate(graph.node):
        undefined = [name for name in node.input if name not in known]
        if undefined:
            raise BackendError(f"backend torch: {node.op_type} {node.name!r} uses {undefined[0]!r} before it is made")
        known.update(node.output)
        label = f"{node.op_type} {node.name!r}"
        attributes: Attributes = {entry.name: _attribute(entry) for entry in node.attribute}
        try:
            form = Form(opset, attributes, node.input, node.output, constants)
            found, attributes = find_operator(operator(node), form)
        except ValueError as error:
            raise BackendError(
                f"backend torch: {label} is not run: {error}; use the backend onnxruntime or openvino"
            ) from error
        calls.append(
            Call(
                operator=found,
                op_type=operator(node),
                label=label,
                attributes=attributes,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                last_uses=tuple(
                    {n for n in (*node.input, *node.output) if n and last_use[n] == index and n not in kept}
                ),
            )
        )
    missing = [value.name for value in graph.output if value.name not in known]
    if missing:
        raise BackendError(f"backend torch: nothing in the program makes its output {missing[0]!r}")
    return tuple(calls)


def _attribute(entry: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(entry)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [text.decode(errors="replace") for text in value]
    if isinstance(value, onnx.TensorProto):
        return read_constant(value, "cpu")
    return value


def read_constant(tensor: onnx.TensorProto, device: str) -> Tensor:
    """Raises BackendError for a tensor of a type that torch does not have."""
    try:
        array = onnx.numpy_helper.to_array(tensor)
        value = torch.tensor(array)
    except (ValueError, TypeError) as error:
        raise BackendError(f"backend torch: the constant {tensor.name!r} cannot be read: {error}") from error
    # Integers are shapes and axes, which the interpreter reads on the CPU.
    return value.to(device) if value.is_floating_point() else value
