"""Which of ONNX Runtime's execution providers run a program on the device that was asked for. Pure: what is there is
told by the caller, so that the choice for any machine can be tested on any other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from featherweight.core.program import Kind, Precision

Options = Mapping[str, str]

_CPU: Final = "CPUExecutionProvider"
PROVIDERS: Final[Mapping[str, str]] = {
    "cpu": _CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Device -> the provider that runs it."""
_CUDA: Final = (PROVIDERS["cuda"], {"use_tf32": "0"})


def find_devices(built_in: Collection[str], platform: str, *, cuda_driver: bool, tensorrt: bool) -> tuple[str, ...]:
    """The devices that may be asked for.

    built_in: the providers that this build of the runtime holds, which says nothing of the machine; platform: as
    sys.platform; cuda_driver, tensorrt: whether NVIDIA's driver and TensorRT's libraries are there. That a provider
    does not load all the same is found when a program is opened.
    """
    there = {
        "cpu": True,
        "cuda": cuda_driver,
        "tensorrt": cuda_driver and tensorrt and PROVIDERS["cuda"] in built_in,
        "coreml": platform == "darwin",
    }
    return tuple(
        name for name, provider in PROVIDERS.items() if there[name] and (name == "cpu" or provider in built_in)
    )


def choose_providers(device: str, precision: Precision, kind: Kind) -> list[tuple[str, Options]] | str:
    """The providers in their order, each taking what those before it leave, with their options; or why this device
    would not run such a program, but leave it to the CPU.

    fp32 means float32 throughout, so that TensorFloat-32 is switched off; TensorRT's provider has no option for it, and
    its answers differ by about a thousandth. int8 on CUDA computes in float32 on the rounded numbers: right, and no
    faster than fp32.
    """
    if device != "cpu" and kind == "trees":
        return "tree ensembles run on the CPU alone"
    match device:
        case "cpu":
            return [(_CPU, {})]
        case "cuda":
            return [_CUDA, (_CPU, {})]
        case "tensorrt" if precision == "int8":
            # "Non-zero zero point is not supported" (github.com/NVIDIA/TensorRT/issues/2774).
            return "TensorRT takes no zero points, which the activations of int8 programs have; use the device cuda"
        case "tensorrt":
            return [(PROVIDERS[device], {"trt_fp16_enable": "False"}), _CUDA, (_CPU, {})]
        case "coreml" if precision == "int8":
            return "CoreML's provider has no quantized operators; use the device cpu"
        case "coreml":
            # Its older format, NeuralNetwork, computes in float16 wherever it is faster.
            return [(PROVIDERS[device], {"ModelFormat": "MLProgram"}), (_CPU, {})]
    return f"its devices are {', '.join(PROVIDERS)}"
