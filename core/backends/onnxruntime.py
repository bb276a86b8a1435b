"""ONNX Runtime: the default, in the base install; with its GPU build or on a Mac, accelerators too."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
import io
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.core.backends import opening
from featherweight.core.backends.base import Availability, Session
from featherweight.core.backends.providers import PROVIDERS, Options, choose_providers, find_devices
from featherweight.core.errors import BackendError, BackendUnavailableError
from featherweight.core.hardware import count_usable_cores, has_cuda_driver
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
}


class OnnxRuntime:
    """ONNX Runtime on the processor or a GPU; what the base install has."""

    name = "onnxruntime"
    extra = ""

    def probe(self) -> Availability:
        """See Backend."""
        absent = opening.missing("onnxruntime", self.extra)
        if absent:
            return absent
        version = opening.installed_version("onnxruntime") or opening.installed_version("onnxruntime-gpu")
        return Availability(
            True, version=version, devices=_devices(), precisions=("fp32", "int8"), kinds=("network", "trees")
        )

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        """See Backend."""
        operators = opening.check_request(self.name, self.probe(), program, device, threads)
        # Where nothing but weights is int8 they become float32 once, here, and not again in each run.
        return self._open(program, device, threads, float_weights="QuantizeLinear" not in operators)

    def open_converted(self, program: Program) -> Session:
        """A program in ONNX Runtime's own format, which it knows by the first bytes. Only for a file that we have just
        made: nothing checks what is in it."""
        return self._open(program, "cpu", 1)

    def _open(self, program: Program, device: str, threads: int, *, float_weights: bool = False) -> Session:
        providers = choose_providers(device, program.precision, program.kind)
        if isinstance(providers, str):
            raise BackendUnavailableError(f"backend {self.name}: not on the device {device}: {providers}")
        inner = _create(program, providers, _options(threads, float_weights=float_weights))
        opening.check_specs("input", program.inputs, [_described(node) for node in inner.get_inputs()])
        opening.check_specs("output", program.outputs, [_described(node) for node in inner.get_outputs()])
        return _OnnxRuntimeSession(program, inner)


def _devices() -> tuple[str, ...]:
    """Importing the runtime takes a third of a second, which only a host with an accelerator pays."""
    driver = has_cuda_driver()
    if not driver and sys.platform != "darwin":
        return ("cpu",)
    import onnxruntime

    tensorrt = ctypes.util.find_library("nvinfer") is not None or importlib.util.find_spec("tensorrt") is not None
    built_in = onnxruntime.get_available_providers()
    return find_devices(built_in, sys.platform, cuda_driver=driver, tensorrt=tensorrt)


def _create(
    program: Program, providers: list[tuple[str, Options]], options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    import onnxruntime

    wanted = [name for name, _ in providers]
    if PROVIDERS["cuda"] in wanted:
        # From packages of NVIDIA, where there are; what it cannot find it prints.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    if PROVIDERS["tensorrt"] in wanted and importlib.util.find_spec("tensorrt") is not None:
        importlib.import_module("tensorrt")  # loads its libraries
    try:
        # Without its fallback, which would go on on the CPU and print that it does.
        inner = onnxruntime.InferenceSession(program.content, options, providers=providers, enable_fallback=0)
    except _errors() as error:
        raise BackendError(f"backend onnxruntime: cannot open the {program.precision} program: {error}") from error
    if wanted[0] not in inner.get_providers():
        raise BackendError(
            f"backend onnxruntime: {wanted[0]} did not load; check that the libraries it needs are installed "
            "(https://onnxruntime.ai/docs/execution-providers/)"
        )
    return inner


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


def _options(threads: int, *, float_weights: bool) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Waiting threads spin: good within a run, but between runs they would take the cores that decode images, and with
    # more threads than cores they take them from each other.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if float_weights:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
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
