"""Program: what a backend opens. One ONNX file with a stated precision."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from featherweight.core.tensors import TensorSpec

Precision = Literal["fp32", "bf16", "int8"]
"""fp32 runs in float32 throughout. bf16 is the same float32 file, run with bfloat16 arithmetic by backends that have
it. int8 is a file with QDQ nodes, unsigned activations and per-channel weights; of trees, one whose leaves are int8
multiples of one power of two."""

Kind = Literal["network", "trees"]
"""What the graph holds: layers, or one ai.onnx.ml TreeEnsemble. Not every runtime runs both."""


@dataclass(frozen=True)
class Program:
    """An ONNX file's bytes with the specs of its tensors; every input's and output's first dimension is the batch."""

    content: bytes
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kind: Kind = "network"

    @property
    def sha256(self) -> str:
        """The digest of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def describe(self) -> dict[str, Any]:
        """All but the content, as JSON has it: for a fresh process that is to run it."""
        return {
            "precision": self.precision,
            "kind": self.kind,
            "inputs": [asdict(spec) for spec in self.inputs],
            "outputs": [asdict(spec) for spec in self.outputs],
        }


def described_program(description: Mapping[str, Any], content: bytes) -> Program:
    """The program of which `describe` told."""
    inputs, outputs = (
        tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in description[side])
        for side in ("inputs", "outputs")
    )
    return Program(content, description["precision"], inputs, outputs, description["kind"])
