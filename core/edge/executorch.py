"""ExecuTorch with the XNNPACK delegate: one .pte file, int8 with the program's own scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featherweight.core.edge.base import Run, check_installed, check_network
from featherweight.core.errors import BackendError
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec


class ExecuTorch:
    """ExecuTorch programs, for networks."""

    name = "executorch"
    file = "model.pte"
    packages = ("executorch", "torch", "torchao")
    notes = (
        "one case at a time; method forward, tensors in the artifact's order",
        "the runtime needs the XNNPACK delegate and the portable kernels",
    )

    def check(self, program: Program) -> None:
        """See Target."""
        check_network(self.name, program)
        check_installed(self.name, ("executorch", "torch", "onnx"), "executorch")

    def encode(self, program: Program) -> bytes:
        """See Target."""
        from featherweight.core.export import quiet

        with quiet():
            from featherweight.core.edge.executorch_graph import encode_network

            return encode_network(program)

    def open(self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Run:
        """See Target."""
        import torch
        from executorch.runtime import Runtime, Verification

        torch.set_num_threads(1)
        try:
            program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            method = program.load_method("forward")
        except RuntimeError as error:
            raise BackendError(f"executorch: the runtime does not open {path.name}: {error}") from error
        if method is None:
            raise BackendError(f"executorch: {path.name} has no method forward")

        def run(tensors: Tensors) -> Tensors:
            found = method.execute([torch.tensor(tensors[spec.name]) for spec in inputs])
            # A copy: the next run writes to the same memory.
            return {spec.name: value.numpy().copy() for spec, value in zip(outputs, found, strict=True)}

        return run
