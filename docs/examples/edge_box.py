"""What runs on the box: a chest x-ray model exported for LiteRT, one picture, Python's standard library and the one
shared object of the runtime. No numpy, nothing of Featherweight. docs/examples/edge.md explains it.

    python -I -S edge_box.py LIBRARY FOLDER PICTURE.pgm RUNS

LIBRARY is libLiteRt.so, FOLDER what `featherweight artifact export --target litert` wrote. PICTURE is a binary PGM of
the network's own size: scaling is left to the program that takes the picture. RUNS more times are timed. Prints a line
of JSON.
"""

# ruff: noqa: T201

import array
import ctypes
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

FLOAT32, CPU, READ, WRITE = 1, 1, 0, 1  # of LiteRT's C interface, litert/c/litert_*.h


class Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint, 7),
        ("has_strides", ctypes.c_uint, 1),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class TensorType(ctypes.Structure):
    _fields_ = (("element_type", ctypes.c_int), ("layout", Layout))


class LiteRtModel:
    """One input, one output of one number, on one thread."""

    def __init__(self, library: str, path: Path, shape: list[int]) -> None:
        self._library = ctypes.CDLL(library)
        self._environment, self._compiled = ctypes.c_void_p(), ctypes.c_void_p()
        model, options = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("CreateEnvironment", ctypes.c_int(0), None, ctypes.byref(self._environment))
        self._call("CreateModelFromFile", self._environment, bytes(path), ctypes.byref(model))
        self._call("CreateOptions", ctypes.byref(options))
        self._call("SetOptionsHardwareAccelerators", options, ctypes.c_int(CPU))
        self._call("CreateCompiledModel", self._environment, model, options, ctypes.byref(self._compiled))
        self._input, self._output = self._buffer("Input", shape), self._buffer("Output", [1, 1])

    def run(self, values: "array.array[float]") -> float:
        ctypes.memmove(self._lock(self._input, WRITE), values.buffer_info()[0], 4 * len(values))
        self._call("UnlockTensorBuffer", self._input)
        one = ctypes.c_size_t(1)
        first, given, wanted = ctypes.c_size_t(0), ctypes.byref(self._input), ctypes.byref(self._output)
        self._call("RunCompiledModel", self._compiled, first, one, given, one, wanted)
        answer = ctypes.c_float.from_address(self._lock(self._output, READ)).value
        self._call("UnlockTensorBuffer", self._output)
        return answer

    def _buffer(self, which: str, shape: list[int]) -> ctypes.c_void_p:
        requirements, buffer, first = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t(0)
        name = f"GetCompiledModel{which}BufferRequirements"
        self._call(name, self._compiled, first, first, ctypes.byref(requirements))
        kind = TensorType(FLOAT32, Layout(len(shape), 0, (ctypes.c_int32 * 8)(*shape)))
        name = "CreateManagedTensorBufferFromRequirements"
        self._call(name, self._environment, ctypes.byref(kind), requirements, ctypes.byref(buffer))
        return buffer

    def _lock(self, buffer: ctypes.c_void_p, mode: int) -> int:
        address = ctypes.c_void_p()
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), ctypes.c_int(mode))
        return int(address.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise SystemExit(f"LiteRt{name} failed with status {status}")


def read_picture(path: Path, side: int) -> "array.array[float]":
    """side * side numbers, 0 is black and 1 is white."""
    header, content = f"P5 {side} {side} 255\n".encode(), path.read_bytes()
    if not content.startswith(header) or len(content) != len(header) + side * side:
        raise SystemExit(f"{path}: expected a picture that begins with {header!r} and has {side} x {side} bytes")
    return array.array("f", (level / 255 for level in content[len(header) :]))


def read_peak_kb() -> int:
    """The most memory that was resident since the process began (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(library: str, folder: Path, picture: Path, runs: int) -> None:
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    decision = json.loads((folder / "sealed/decision.json").read_text(encoding="utf-8"))
    shape = [size or 1 for size in facts["inputs"][0]["shape"]]
    model = LiteRtModel(library, folder / facts["file"]["name"], shape)
    values = read_picture(picture, shape[2])
    logit, times = model.run(values), []
    for _ in range(runs):
        began = time.perf_counter()
        model.run(values)
        times.append(time.perf_counter() - began)
    probability = 1 / (1 + math.exp(-(decision["slope"] * logit + decision["intercept"])))
    answer = {
        "logit": round(logit, 6),
        "probability": round(probability, 4),
        "label": facts["labels"][probability >= decision["threshold"]],
        "latency_ms": round(statistics.median(times) * 1e3, 3) if times else None,
        "peak_memory_kb": read_peak_kb(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
