"""The outside of a .tflite file: tensors, constants, operators, packed by the runtime's own schema
(github.com/google-ai-edge/LiteRT, tflite/schema/schema.fbs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from featherweight.core.arrays import Array

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3

_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}

_INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1}
"""The first version of an operator's definition that has int8, where it is not the second."""


@dataclass(frozen=True)
class Quantization:
    """value = (integer - zero) * scale; one of each, or one a channel along `axis`."""

    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int


class FileWriter:
    """Collects one graph; every method returns the tensor's number."""

    def __init__(self) -> None:
        self._buffers = [schema.BufferT()]  # the first is the empty one of all that is computed
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: npt.DTypeLike, quantization: Quantization | None = None
    ) -> int:
        """The number of a new tensor without content."""
        self._tensors.append(
            schema.TensorT(
                shape=list(shape),
                type=_TYPES[np.dtype(dtype)],
                buffer=0,
                name=name,
                quantization=_packed(quantization),
            )
        )
        return len(self._tensors) - 1

    def constant(self, array: Array, *, name: str = "", quantization: Quantization | None = None) -> int:
        """The number of a new tensor with this content, an array of any shape."""
        number = self.tensor(name or f"constant_{len(self._tensors)}", array.shape, array.dtype, quantization)
        self._buffers.append(schema.BufferT(data=np.frombuffer(array.tobytes(), np.uint8)))
        self._tensors[number].buffer = len(self._buffers) - 1
        return number

    def rename(self, tensor: int, name: str) -> None:
        """Give a tensor the name by which callers find it."""
        self._tensors[tensor].name = name

    def operator(self, code: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """Append an operator by LiteRT's name for it; inputs, outputs: numbers of tensors."""
        number = getattr(schema.BuiltinOperator, code)
        int8 = any(self._tensors[tensor].type == schema.TensorType.INT8 for tensor in (*inputs[:1], *outputs))
        version = _INT8_VERSIONS.get(code, 2) if int8 else 1
        kind = type(options).__name__.removesuffix("T")
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault((number, version), len(self._codes)),
                inputs=list(inputs),
                outputs=list(outputs),
                builtinOptionsType=0 if options is None else getattr(schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )

    def encode(self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]) -> bytes:
        """The file's bytes; inputs, outputs: (name, tensor), named so in the file's only signature."""
        graph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=[tensor for _, tensor in inputs],
            outputs=[tensor for _, tensor in outputs],
            operators=self._operators,
            name="main",
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name=name, tensorIndex=tensor) for name, tensor in inputs],
            outputs=[schema.TensorMapT(name=name, tensorIndex=tensor) for name, tensor in outputs],
            signatureKey="serving_default",
            subgraphIndex=0,
        )
        codes = [
            schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=version)
            for number, version in self._codes
        ]
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=codes,
            subgraphs=[graph],
            description="featherweight",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())


def _packed(quantization: Quantization | None) -> Any:
    if quantization is None:
        return None
    return schema.QuantizationParametersT(
        scale=list(quantization.scales),
        zeroPoint=list(quantization.zeros),
        quantizedDimension=quantization.axis if len(quantization.scales) > 1 else 0,
    )
