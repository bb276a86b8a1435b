"""LiteRT, once TensorFlow Lite: one .tflite file, int8 with the program's own scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featherweight.core.edge.base import Run, check_installed, check_network
from featherweight.core.errors import BackendError
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec


class LiteRt:
    """LiteRT (formerly TensorFlow Lite) models, for networks."""

    name = "litert"
    file = "model.tflite"
    packages = ("ai-edge-litert",)
    notes = ("one case at a time; tensors as the artifact names them, in the signature serving_default",)

    def check(self, program: Program) -> None:
        """See Target."""
        check_network(self.name, program)
        check_installed(self.name, ("ai_edge_litert", "flatbuffers", "onnx"), "edge")

    def encode(self, program: Program) -> bytes:
        """See Target."""
        from featherweight.core.edge.litert_operators import encode_network

        return encode_network(program)

    def open(self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Run:
        """See Target."""
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
            signature = interpreter.get_signature_runner()
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"litert: the runtime does not open {path.name}: {error}") from error

        def run(tensors: Tensors) -> Tensors:
            found: Tensors = signature(**tensors)
            return {spec.name: found[spec.name] for spec in outputs}

        return run
