"""PyTorch on CPU and CUDA: runs the same ONNX file operator by operator, for the `train` extra.

It refuses int8 programs: PyTorch would only simulate their rounding in float32, slower than not quantized at all. On
CUDA too: its int8 matrix product (torch._int_mm) is private, wants more than 16 rows and knows no convolutions.
"""

from __future__ import annotations

from featherweight.core.backends import opening
from featherweight.core.backends.base import Availability, Session
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.hardware import cpu_has_bf16, has_cuda_driver
from featherweight.core.program import Precision, Program


class Torch:
    """PyTorch, which runs fp32 programs node by node: the reference for the others."""

    name = "torch"
    extra = "torch"

    def probe(self) -> Availability:
        """See Backend."""
        absent = opening.missing("torch", self.extra) or opening.missing("onnx", self.extra)
        if absent:
            return absent
        version = opening.installed_version("torch")
        devices, precisions = choose_devices(version, cuda_driver=has_cuda_driver(), cpu_bf16=cpu_has_bf16())
        return Availability(True, version=version, devices=devices, precisions=precisions)

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        """See Backend."""
        available = self.probe()
        if program.precision == "int8":
            raise BackendUnavailableError(
                "backend torch: cannot run int8 programs: it would only simulate them in float32; "
                "use the backend onnxruntime or openvino"
            )
        opening.check_request(self.name, available, program, device, threads)
        if program.precision == "bf16" and device == "cpu" and not cpu_has_bf16():
            raise BackendUnavailableError("backend torch: this CPU has no bfloat16 instructions; use fp32")
        from featherweight.core.backends.torch_graph import open_graph

        return open_graph(program, device, threads)


def choose_devices(version: str, *, cuda_driver: bool, cpu_bf16: bool) -> tuple[tuple[str, ...], tuple[Precision, ...]]:
    """(devices, precisions) of this build of PyTorch; "+cpu" ends the version of one that knows no GPU."""
    cuda = cuda_driver and not version.endswith("+cpu")
    return ("cpu", "cuda") if cuda else ("cpu",), ("fp32", "bf16") if cuda or cpu_bf16 else ("fp32",)
