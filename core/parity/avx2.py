"""Run a program in a fresh process that is restricted to AVX2, and checked to be: it gives the outputs of a processor
without AVX-512 and VNNI, such as most of those older than 2020 and many laptops.

ONNX Runtime has no switch, and OpenVINO's (ONEDNN_MAX_CPU_ISA) leaves some of its kernels at AVX-512, so these two run
on an emulated processor, which ends a process at the first instruction that it lacks; numba compiles for the processor
that its variables name. On such processors 8-bit products are added in pairs of 16 bits (vpmaddubsw), which saturate,
so that int8 programs with weights of more than 7 bits give other scores there.
"""

from __future__ import annotations

import io
import json
import platform
import shutil
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import BackendError, BackendUnavailableError, FeatherweightError
from featherweight.core.hardware import read_hardware
from featherweight.core.processes import answer_stream, run_module
from featherweight.core.program import Program, described_program
from featherweight.core.tensors import Tensors

SECONDS = 60.0
"""Time after which the fresh process begins no further batch: an emulated processor is a hundred times slower."""
TIMEOUT_S = 240.0

EMULATOR = "qemu-x86_64"
PROCESSOR = "Haswell-noTSX"
"""The first with AVX2 and FMA (2013)."""
_NUMBA = MappingProxyType(
    {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+cx16,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse,+sse2,"
        "+sse3,+sse4.1,+sse4.2,+ssse3",
    }
)


def has_more_than_avx2() -> bool:
    """Whether this processor has any instruction that the restricted run must not use."""
    return any(name.startswith(("avx512", "avx_vnni", "amx")) for name in read_hardware().instruction_sets)


def has_avx2_alone() -> bool:
    """Whether every run here is restricted to AVX2 anyway; False also where nothing is known of the processor."""
    return "avx2" in read_hardware().instruction_sets and not has_more_than_avx2()


def run_on_avx2(
    backend: str, program: Program, inputs: Tensors, *, batch: int, seconds: float = SECONDS
) -> tuple[Tensors, int]:
    """The outputs of the first cases, as many as the process gets through, at least one batch; and how many.

    Raises BackendUnavailableError, with the reason, where this backend cannot be restricted to AVX2 on this host,
    and BackendError when the process fails or finds that it is not restricted.
    """
    through, environment = _restriction(backend)
    order = {
        "backend": backend,
        **program.describe(),
        "batch": batch,
        "seconds": seconds,
        "program_bytes": len(program.content),
    }
    stdin = (
        json.dumps(order).encode() + b"\n" + program.content + _packed([inputs[spec.name] for spec in program.inputs])
    )
    what = f"backend {backend}, restricted to AVX2"
    try:
        stdout = run_module(
            "featherweight.core.parity.avx2",
            stdin,
            timeout_s=TIMEOUT_S,
            what=what,
            failure=BackendError,
            through=through,
            environment=environment,
        )
        arrays = _unpacked(stdout)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BackendError(f"{what}: the process does not start, or gives no answer: {error}") from error
    if len(arrays) != len(program.outputs):
        raise BackendError(f"{what}: {len(arrays)} outputs for {len(program.outputs)}")
    return {spec.name: array for spec, array in zip(program.outputs, arrays, strict=True)}, len(arrays[0])


def _restriction(backend: str) -> tuple[Sequence[str], Mapping[str, str]]:
    """(the command in front of Python's, variables) for a process that has AVX2 and no more."""
    if backend == "native":
        return (), _NUMBA
    if backend not in ("onnxruntime", "openvino"):
        raise BackendUnavailableError(f"nothing here restricts the backend {backend} to AVX2")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BackendUnavailableError(f"{backend} is restricted to AVX2 by emulation on Linux on x86-64 alone")
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise BackendUnavailableError(
            f"{backend} has no switch for it and {EMULATOR} is not installed; install the package qemu-user"
        )
    return (emulator, "-cpu", PROCESSOR), {}


def check_restricted(backend: str) -> None:
    """Raise BackendError unless the runtime in this process is restricted to AVX2."""
    if backend == "native":
        from numba.core.registry import cpu_target

        names = set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))
        restricted = "+avx2" in names and not any(name.startswith("+avx512") for name in names)
    else:
        # What the instruction CPUID tells this process, which is all that a runtime can know of its processor.
        features = vars(import_module("numpy._core._multiarray_umath"))["__cpu_features__"]
        restricted = features["AVX2"] and not any(has for name, has in features.items() if name.startswith("AVX512"))
    if not restricted:
        raise BackendError(f"backend {backend} is not restricted to AVX2: the process has more instructions, or fewer")


def _answer(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """What the fresh process does: read the order, run the batches, write the outputs."""
    began = time.monotonic()
    order = json.loads(stdin.readline())
    content = stdin.read(order["program_bytes"])
    program = described_program(order, content)
    inputs = dict(zip([spec.name for spec in program.inputs], _unpacked(stdin.read()), strict=True))
    check_restricted(order["backend"])
    found: list[Tensors] = []
    cases, batch = len(next(iter(inputs.values()))), order["batch"]
    with find_backend(order["backend"]).open(program) as session:
        for start in range(0, cases, batch):
            if found and time.monotonic() - began > order["seconds"]:
                break
            found.append(session.run({name: array[start : start + batch] for name, array in inputs.items()}))
    stdout.write(_packed([np.concatenate([one[spec.name] for one in found]) for spec in program.outputs]))


def _packed(arrays: Sequence[Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, allow_pickle=False)
    return buffer.getvalue()


def _unpacked(content: bytes) -> list[Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return [archive[f"arr_{index}"] for index in range(len(archive.files))]


if __name__ == "__main__":
    with answer_stream() as stream:
        try:
            _answer(sys.stdin.buffer, stream)
        except FeatherweightError as failure:
            sys.exit(str(failure))
