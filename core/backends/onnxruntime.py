"""ONNX Runtime: the default, in the base install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.backends import opening
from core.backends.base import Availability, Session
from core.errors import BackendError
from core.hardware import count_usable_cores, has_cuda_driver
from core.program import Program
from core.tensors import Tensors

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}


class OnnxRuntime:
    name = "onnxruntime"
    extra = ""

    def probe(self) -> Availability:
        absent = opening.missing("onnxruntime", self.extra)
        if absent:
            return absent
        devices = ("cpu", "cuda") if has_cuda_driver() and opening.installed_version("onnxruntime-gpu") else ("cpu",)
        version = opening.installed_version("onnxruntime") or opening.installed_version("onnxruntime-gpu")
        return Availability(
            True, version=version, devices=devices, precisions=("fp32", "int8"), kinds=("network", "trees")
        )

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        opening.check_request(self.name, self.probe(), program, device, threads)
        opening.check_self_contained(program.content)
        import onnxruntime

        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
        try:
            inner = onnxruntime.InferenceSession(program.content, _options(threads), providers=providers)
        except _errors() as error:
            raise BackendError(f"backend {self.name}: cannot open the {program.precision} program: {error}") from error
        if device == "cuda" and "CUDAExecutionProvider" not in inner.get_providers():
            raise BackendError(
                f"backend {self.name}: the CUDA provider did not load; check that CUDA and cuDNN are installed"
            )
        opening.check_specs("input", program.inputs, [_described(node) for node in inner.get_inputs()])
        opening.check_specs("output", program.outputs, [_described(node) for node in inner.get_outputs()])
        return _OnnxRuntimeSession(program, inner)


class _OnnxRuntimeSession(opening.OpenSession):
    def __init__(self, program: Program, inner: onnxruntime.InferenceSession) -> None:
        super().__init__(program)
        self._inner = inner
        self._names = [spec.name for spec in program.outputs]
        self._errors = _errors()

    def _run(self, tensors: Tensors, batch: int) -> Tensors:
        try:
            arrays = self._inner.run(self._names, dict(tensors))
        except self._errors as error:
            raise BackendError(f"backend onnxruntime: the run failed: {error}") from error
        return {name: np.asarray(array) for name, array in zip(self._names, arrays, strict=True)}

    def _free(self) -> None:
        del self._inner


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Waiting threads spin: good within a run, but between runs they would take the cores that decode images, and with
    # more threads than cores they take them from each other.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads > count_usable_cores():
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _described(node: Any) -> tuple[str, str, list[int | None]]:
    shape = [size if isinstance(size, int) else None for size in node.shape]
    return node.name, _DTYPES.get(node.type, node.type), shape


def _errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions have no common base below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    named = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*named, RuntimeError, ValueError, TypeError)
