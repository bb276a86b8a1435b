"""Restricted to AVX2, and checked to be: what only a processor without VNNI computes."""

from __future__ import annotations

import platform
import shutil
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import BackendError, BackendUnavailableError
from featherweight.core.export import export
from featherweight.core.model import trees_model
from featherweight.core.parity import avx2
from featherweight.core.parity.avx2 import check_restricted, has_more_than_avx2, run_on_avx2
from featherweight.core.parity.reproduction import run_batches
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.fakes import fitted_trees, rows

EMULATOR = "qemu-x86_64"
more_than_avx2 = pytest.mark.skipif(not has_more_than_avx2(), reason="this processor has nothing beyond AVX2")


def products() -> Program:
    """Sums of 64 products of 8 bits each, exact in 32 bits: weights of 127, and of 63, which 7 bits hold."""
    weights = np.stack([np.full(64, 127, np.int8), np.full(64, 63, np.int8)], axis=1)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "program",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    inputs, outputs = (TensorSpec("x", "uint8", (None, 64)),), (TensorSpec("y", "int32", (None, 2)),)
    return Program(model.SerializeToString(), "int8", inputs, outputs)


@more_than_avx2
@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"{EMULATOR} is not installed")
def test_on_an_emulated_processor_onnx_runtime_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    """vpmaddubsw adds two products in 16 bits: of 255 x 127 they do not fit, of 255 x 63 they do."""
    monkeypatch.setattr(avx2, "EMULATOR", EMULATOR)
    program, inputs = products(), {"x": np.full((12, 64), 255, np.uint8)}
    exact = [64 * 255 * 127, 64 * 255 * 63]
    with find_backend("onnxruntime").open(program) as session:
        np.testing.assert_array_equal(session.run(inputs)["y"], [exact] * 12)
    found, cases = run_on_avx2("onnxruntime", program, inputs, batch=8)
    assert cases == 12
    np.testing.assert_array_equal(found["y"], [[32 * 32767, exact[1]]] * 12)
    # Out of time after the first batch: what there is comes back.
    found, cases = run_on_avx2("onnxruntime", program, inputs, batch=8, seconds=0.0)
    assert (cases, found["y"].shape) == (8, (8, 2))


def test_numba_compiles_for_the_processor_that_is_named() -> None:
    """The trees' other kernel, without byte permutes of AVX-512, gives the same sums."""
    program, inputs = export(trees_model(fitted_trees()))[0], {"features": rows(20, seed=5)[0]}
    with find_backend("onnxruntime").open(program) as session:
        expected = run_batches(session, inputs, 8)["score"]
    found, cases = run_on_avx2("native", program, inputs, batch=8)
    assert cases == 20
    np.testing.assert_allclose(found["score"], expected, rtol=1e-5, atol=1e-5)


@more_than_avx2
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "native"])
def test_a_process_that_is_not_restricted_is_found(backend: str) -> None:
    with pytest.raises(BackendError, match="not restricted to AVX2"):
        check_restricted(backend)


@more_than_avx2
def test_the_switch_alone_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in front that restricts nothing: the fresh process sees it and gives no outputs."""
    monkeypatch.setattr(avx2, "_restriction", lambda backend: ((), {"ONEDNN_MAX_CPU_ISA": "AVX2"}))
    with pytest.raises(BackendError, match="not restricted to AVX2"):
        run_on_avx2("onnxruntime", products(), {"x": np.zeros((1, 64), np.uint8)}, batch=8)


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="emulation of x86-64 on Linux")
def test_without_an_emulator_it_is_said_what_to_install() -> None:
    with pytest.raises(BackendUnavailableError, match="install the package qemu-user"):
        run_on_avx2("openvino", products(), {"x": np.zeros((1, 64), np.uint8)}, batch=8)
    with pytest.raises(BackendUnavailableError, match="nothing here restricts the backend torch"):
        run_on_avx2("torch", products(), {"x": np.zeros((1, 64), np.uint8)}, batch=8)


def test_a_process_that_does_not_start_or_gives_no_answer_is_a_failure_of_that_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, inputs = products(), {"x": np.zeros((2, 64), np.uint8)}
    for through, told in ((("/no/such/emulator",), "does not start"), (("/bin/true",), "gives no answer")):
        monkeypatch.setattr(avx2, "_restriction", lambda backend, through=through: (through, {}))
        with pytest.raises(BackendError, match=told):
            run_on_avx2("onnxruntime", program, inputs, batch=8)
