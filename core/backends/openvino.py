"""OpenVINO on CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.core.backends import opening
from featherweight.core.backends.base import Availability, Session
from featherweight.core.errors import BackendError
from featherweight.core.hardware import cpu_has_bf16
from featherweight.core.program import Precision, Program
from featherweight.core.tensors import Tensors

if TYPE_CHECKING:
    import openvino

_DTYPES = {"f32": "float32", "i64": "int64", "i32": "int32", "u8": "uint8"}
_ERRORS = (RuntimeError, ValueError, TypeError)
"""What OpenVINO's Python binding raises."""


class OpenVino:
    """OpenVINO on the processor."""

    name = "openvino"
    extra = "openvino"

    def probe(self) -> Availability:
        """See Backend."""
        absent = opening.missing("openvino", self.extra)
        if absent:
            return absent
        # Without instructions for it bfloat16 would be emulated: not the speed that its name promises.
        precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8") if cpu_has_bf16() else ("fp32", "int8")
        return Availability(
            True, version=opening.installed_version("openvino"), devices=("cpu",), precisions=precisions
        )

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        """See Backend."""
        opening.check_request(self.name, self.probe(), program, device, threads)
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(model=program.content)
            inputs = [_described(port) for port in model.inputs]
            outputs = [_described(port) for port in model.outputs]
        except _ERRORS as error:
            raise BackendError(f"backend {self.name}: cannot open the {program.precision} program: {error}") from error
        opening.check_specs("input", program.inputs, inputs)
        opening.check_specs("output", program.outputs, outputs)
        return _OpenVinoSession(program, core, model, threads)


class _OpenVinoSession(opening.OpenSession):
    """A single row runs on a program compiled for just that shape, which saves a tenth of a small network's time;
    all other batch sizes share one with a free batch. Each is compiled when it is first needed."""

    def __init__(self, program: Program, core: openvino.Core, model: openvino.Model, threads: int) -> None:
        super().__init__(program)
        self._core, self._model = core, model
        self._properties = _properties(program.precision, threads)
        self._requests: dict[bool, openvino.InferRequest] = {}

    def _run(self, tensors: Tensors, batch: int) -> Tensors:
        request = self._request(single=batch == 1)
        try:
            # Inputs are read where they are; outputs are copies, since the request writes into the same memory again.
            results = request.infer(dict(tensors), share_inputs=True, share_outputs=False)
            return {spec.name: np.asarray(results[spec.name]) for spec in self.outputs}
        except _ERRORS as error:
            raise BackendError(f"backend openvino: the run failed: {error}") from error

    def _request(self, *, single: bool) -> openvino.InferRequest:
        if single not in self._requests:
            try:
                model = self._model
                if single:
                    model = model.clone()
                    model.reshape({spec.name: [size or 1 for size in spec.shape] for spec in self.inputs})
                self._requests[single] = self._core.compile_model(model, "CPU", self._properties).create_infer_request()
            except _ERRORS as error:
                raise BackendError(f"backend openvino: cannot compile the program: {error}") from error
        return self._requests[single]

    def _free(self) -> None:
        self._requests.clear()
        del self._model, self._core


def _properties(precision: Precision, threads: int) -> dict[str, Any]:
    return {
        # OpenVINO takes bfloat16 for fp32 programs by itself where the CPU has it: the numbers would not be fp32's.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of two sessions can end on one core.
        "ENABLE_CPU_PINNING": False,
    }


def _described(port: Any) -> tuple[str, str, list[int | None]]:
    element = port.get_element_type().get_type_name()
    shape = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    return port.get_any_name(), _DTYPES.get(element, element), shape
