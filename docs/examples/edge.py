"""The bundled chest x-ray model in a process of 64 MB: docs/examples/edge.md explains it.

    python docs/examples/edge.py OUT

OUT is a new folder. Needs the extra `edge`; ExecuTorch is shown where the extra `executorch` and g++ are there.
"""

# ruff: noqa: T201

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from featherweight.apps.imaging.synthetic.radiographs import synthetic_cases
from featherweight.core.artifact import read_artifact
from featherweight.core.backends.onnxruntime import OnnxRuntime

HERE = Path(__file__).resolve().parent
ARTIFACT = HERE.parents[1] / "data" / "models" / "chest-xray"
LIMIT_KB = 64 << 10
RUNS, STARTS = 200, 5

# ONNX Runtime has no C library in its wheel: this is the least that Python needs to run a .ort file.
ORT_BOX = """
import sys, time, json, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
side = int(sys.argv[3])
levels = numpy.frombuffer(open(sys.argv[2], "rb").read()[-side * side :], numpy.uint8)
picture, times = (levels / numpy.float32(255)).reshape(1, 1, side, side), []
for _ in range(int(sys.argv[4]) + 1):
    began = time.perf_counter()
    ((logit,),) = session.run(None, {session.get_inputs()[0].name: picture})[0]
    times.append(time.perf_counter() - began)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
median = sorted(times)[len(times) // 2]
print(json.dumps({"logit": float(logit), "latency_ms": median * 1e3, "peak_memory_kb": int(peak)}))
"""


@dataclass(frozen=True)
class Box:
    name: str
    command: list[str]
    """Takes the number of runs as one more argument."""
    model: Path
    libraries: list[Path]


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    side, picture = write_picture(out / "picture.pgm")
    print(f"the artifact's own program on onnxruntime: logit {expected_logit(picture, side):.6f}\n")
    boxes = [litert_box(out, picture), ort_box(out, picture, side)]
    if importlib.util.find_spec("executorch") and shutil.which("g++"):
        boxes.insert(1, executorch_box(out, picture, side))
    print("| box | model | runtime | first answer | peak memory | median latency | logit | in 64 MB |")
    print("|---|---|---|---|---|---|---|---|")
    for box in boxes:
        show(box)


def write_picture(path: Path) -> tuple[int, Path]:
    """A synthetic radiograph of the network's own size."""
    artifact = read_artifact(ARTIFACT)
    side = int(json.loads(artifact.sealed["preprocess.json"])["side"])
    (case,) = synthetic_cases(1, seed=1, side=side)
    levels = (case.pixels / case.pixels.max() * 255).astype(np.uint8)
    path.write_bytes(f"P5 {side} {side} 255\n".encode() + levels.tobytes())
    return side, path


def expected_logit(picture: Path, side: int) -> float:
    levels = np.frombuffer(picture.read_bytes()[-side * side :], np.uint8)
    program = read_artifact(ARTIFACT).programs[0]
    with OnnxRuntime().open(program) as session:
        image = levels.reshape(1, 1, side, side).astype(np.float32) / 255
        return float(session.run({"image": image})["logit"][0, 0])


def export(target: str, out: Path) -> Path:
    command = [sys.executable, "-m", "featherweight.core.cli", "artifact", "export", str(ARTIFACT), "--target", target]
    subprocess.run([*command, "--out", str(out / target)], check=True)
    return out / target


def package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{name} is not installed; in the source of Featherweight, run: pip install '.[edge]'")
    return Path(found.submodule_search_locations[0])


def litert_box(out: Path, picture: Path) -> Box:
    folder, library = export("litert", out), package_folder("ai_edge_litert") / "libLiteRt.so"
    command = [sys.executable, "-I", "-S", str(HERE / "edge_box.py"), str(library), str(folder), str(picture)]
    return Box("Python and libLiteRt.so", command, folder / "model.tflite", [library])


def executorch_box(out: Path, picture: Path, side: int) -> Box:
    root, program = package_folder("executorch"), out / "edge_box"
    names = ("executorch", "executorch_kernels_optimized", "executorch_backend_xnnpack", "executorch_threadpool")
    include = root / "include"
    compiler = ["g++", "-O2", "-w", "-std=c++17", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED"]
    where = [f"-I{include}", f"-I{include}/executorch/runtime/core/portable_type/c10", f"-L{root}/lib"]
    linked = ["-Wl,--no-as-needed", *(f"-l{name}" for name in names), f"-Wl,-rpath,{root}/lib"]
    subprocess.run([*compiler, *where, str(HERE / "edge_box.cpp"), "-o", str(program), *linked], check=True)
    model = export("executorch", out) / "model.pte"
    # Its pool has as many threads as the process may use cores.
    command = ["taskset", "-c", "0", str(program), str(model), str(picture), str(side)]
    return Box("C++ and ExecuTorch", command, model, [root / "lib" / f"lib{name}.so" for name in names])


def ort_box(out: Path, picture: Path, side: int) -> Box:
    model = export("ort-mobile", out) / "model.ort"
    command = [sys.executable, "-c", ORT_BOX, str(model), str(picture), str(side)]
    library = next(package_folder("onnxruntime").glob("capi/onnxruntime_pybind11_state*.so"))
    return Box("Python, numpy and onnxruntime", command, model, [library])


def show(box: Box) -> None:
    done = run(box, RUNS, limited=True)
    fits = done.returncode == 0
    if not fits:
        done = run(box, RUNS, limited=False)
    answer = json.loads(done.stdout.splitlines()[-1])
    starts = []
    for _ in range(STARTS):
        began = time.perf_counter()
        run(box, 0, limited=fits)
        starts.append((time.perf_counter() - began) * 1e3)
    model, runtime = box.model.stat().st_size, sum(library.stat().st_size for library in box.libraries)
    print(
        f"| {box.name} | {model / 1e3:.0f} kB | {runtime / 1e6:.1f} MB | {median(starts):.0f} ms | "
        f"{answer['peak_memory_kb'] / 1024:.1f} MB | {answer['latency_ms']:.2f} ms | {answer['logit']:.6f} | "
        f"{'yes' if fits else 'no'} |"
    )


def run(box: Box, runs: int, *, limited: bool) -> subprocess.CompletedProcess[str]:
    """`ulimit -v` bounds the address space: all that is mapped, resident or not, the libraries' files included."""
    script = f'ulimit -v {LIMIT_KB if limited else "unlimited"}; exec "$@"'
    command = ["bash", "-c", script, "bash", *box.command, str(runs)]
    return subprocess.run(command, capture_output=True, text=True, check=not limited)


if __name__ == "__main__":
    main()
