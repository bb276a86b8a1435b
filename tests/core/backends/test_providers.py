"""Which device is offered, and which providers a program then gets, for machines that this one need not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from featherweight.core.artifact import write_artifact
from featherweight.core.artifact.manifest import Preference
from featherweight.core.backends.base import Availability
from featherweight.core.backends.fastest import choose_program
from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.backends.providers import PROVIDERS, choose_providers, find_devices
from featherweight.core.backends.torch import choose_devices
from featherweight.core.errors import BackendError, BackendUnavailableError
from tests.core.artifact.test_artifact import CONTENTS

LINUX_GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
LINUX = ("AzureExecutionProvider", "CPUExecutionProvider")
MAC = ("CoreMLExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("built_in", "platform", "driver", "tensorrt", "devices"),
    [
        (LINUX, "linux", False, False, ("cpu",)),
        (LINUX, "linux", True, True, ("cpu",)),
        (LINUX_GPU, "linux", False, True, ("cpu",)),
        (LINUX_GPU, "linux", True, False, ("cpu", "cuda")),
        (LINUX_GPU, "linux", True, True, ("cpu", "cuda", "tensorrt")),
        (LINUX_GPU[1:], "linux", True, True, ("cpu", "cuda")),
        ((LINUX_GPU[0], LINUX_GPU[2]), "linux", True, True, ("cpu",)),  # without CUDA beside it for what it leaves
        (MAC, "darwin", False, False, ("cpu", "coreml")),
        (LINUX, "darwin", False, False, ("cpu",)),
        (MAC, "linux", False, False, ("cpu",)),
    ],
)
def test_devices_are_what_build_and_machine_both_have(
    built_in: tuple[str, ...], platform: str, driver: bool, tensorrt: bool, devices: tuple[str, ...]
) -> None:
    assert find_devices(built_in, platform, cuda_driver=driver, tensorrt=tensorrt) == devices


@pytest.mark.parametrize("device", PROVIDERS)
def test_a_device_comes_first_and_the_cpu_last(device: str) -> None:
    found = choose_providers(device, "fp32", "network")
    assert not isinstance(found, str)
    names = [name for name, _ in found]
    assert (names[0], names[-1]) == (PROVIDERS[device], PROVIDERS["cpu"])
    assert len(set(names)) == len(names)


def test_fp32_is_not_tensorfloat() -> None:
    for device in ("cuda", "tensorrt"):
        options = dict(choose_providers(device, "fp32", "network"))
        assert options["CUDAExecutionProvider"] == {"use_tf32": "0"}
    assert dict(choose_providers("tensorrt", "fp32", "network"))["TensorrtExecutionProvider"] == {
        "trt_fp16_enable": "False"
    }
    assert dict(choose_providers("coreml", "fp32", "network"))["CoreMLExecutionProvider"]["ModelFormat"] == "MLProgram"


@pytest.mark.parametrize(
    ("device", "precision", "kind", "why"),
    [
        ("tensorrt", "int8", "network", "zero points"),
        ("coreml", "int8", "network", "quantized operators"),
        ("cuda", "fp32", "trees", "CPU alone"),
        ("tensorrt", "fp32", "trees", "CPU alone"),
        ("coreml", "int8", "trees", "CPU alone"),
        ("abacus", "fp32", "network", "cpu, cuda, tensorrt, coreml"),
    ],
)
def test_what_a_device_would_leave_to_the_cpu_is_refused(device: str, precision: str, kind: str, why: str) -> None:
    said = choose_providers(device, precision, kind)
    assert isinstance(said, str)
    assert why in said


def test_int8_runs_on_cuda_and_everything_on_the_cpu() -> None:
    assert not isinstance(choose_providers("cuda", "int8", "network"), str)
    for precision, kind in (("fp32", "network"), ("int8", "network"), ("fp32", "trees"), ("int8", "trees")):
        assert choose_providers("cpu", precision, kind) == [("CPUExecutionProvider", {})]


def test_probe_offers_only_devices_that_have_a_provider() -> None:
    devices = OnnxRuntime().probe().devices
    assert devices[0] == "cpu"
    assert set(devices) <= PROVIDERS.keys()


def test_a_provider_that_does_not_load_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="the program of this test is made by onnx")
    from tests.conformance.programs import one_operator

    backend = OnnxRuntime()
    if "cuda" in backend.probe().devices:
        pytest.skip("onnxruntime: this host has CUDA")
    offered = replace(backend.probe(), devices=("cpu", "cuda"))
    monkeypatch.setattr(OnnxRuntime, "probe", lambda self: offered)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match="CUDAExecutionProvider did not load"),
    ):
        backend.open(one_operator("Relu"), device="cuda")


@pytest.mark.parametrize(
    ("version", "driver", "bf16", "devices", "precisions"),
    [
        ("2.14.1", True, False, ("cpu", "cuda"), ("fp32", "bf16")),
        ("2.14.1+cu130", True, True, ("cpu", "cuda"), ("fp32", "bf16")),
        ("2.14.1+cpu", True, False, ("cpu",), ("fp32",)),
        ("2.14.1", False, True, ("cpu",), ("fp32", "bf16")),
        ("2.14.1", False, False, ("cpu",), ("fp32",)),
    ],
)
def test_torch(version: str, driver: bool, bf16: bool, devices: tuple[str, ...], precisions: tuple[str, ...]) -> None:
    assert choose_devices(version, cuda_driver=driver, cpu_bf16=bf16) == (devices, precisions)


def test_preferences_of_the_cpu_say_nothing_about_a_gpu(tmp_path: Path) -> None:
    first = Preference(backend="onnxruntime", precision="int8")
    artifact = write_artifact(tmp_path / "artifact", replace(CONTENTS, preferences=(first,)))
    both = Availability(True, devices=("cpu", "cuda"), precisions=("fp32", "int8"))
    available = {"onnxruntime": both}
    assert choose_program(artifact, available)[1].precision == "int8"
    assert choose_program(artifact, available, device="cuda")[1].precision == "fp32"
    with pytest.raises(BackendUnavailableError, match="on tensorrt"):
        choose_program(artifact, available, device="tensorrt")
