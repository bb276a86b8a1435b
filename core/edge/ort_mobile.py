"""ONNX Runtime's own format: one .ort file, which its builds for phones and boxes read without protobuf. The graph in
it is optimized already, but not laid out for one processor, as onnxruntime.tools.convert_onnx_models_to_ort does it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.edge.base import Run
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec


class OrtMobile:
    """ONNX Runtime's own format, for its mobile builds."""

    name = "ort-mobile"
    file = "model.ort"
    packages = ("onnxruntime",)
    notes = (
        "any number of cases at a time",
        "runs in onnxruntime's packages for Android, iOS and Linux; a build of your own has to include the operators "
        "(of trees: those of ai.onnx.ml)",
    )

    def check(self, program: Program) -> None:
        """Every kind of program, in the base install."""

    def encode(self, program: Program) -> bytes:
        """See Target."""
        import onnxruntime

        with tempfile.TemporaryDirectory(prefix="featherweight-") as folder:
            path = Path(folder) / self.file
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.save_model_format", "ORT")
            # The NCHWc layout depends on the width of this processor's registers.
            onnxruntime.InferenceSession(
                program.content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
            )
            return path.read_bytes()

    def open(self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Run:
        """See Target."""
        return OnnxRuntime().open_converted(Program(path.read_bytes(), "fp32", tuple(inputs), tuple(outputs))).run
