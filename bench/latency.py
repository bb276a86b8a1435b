"""One 224x224 image, one thread: the compressed artifact against what a user would run instead, in one interleaved run.

    python -m bench.latency --network runs/chest-xray --artifact data/models/chest-xray [--repetitions 200]
        [--device cuda] [--record bench/results/latency-h100.json]

Contenders: torch eager and torch.compile fp32, ONNX Runtime and OpenVINO fp32, OpenVINO bf16, OpenVINO int8 by
NNCF of the unpruned baseline, ONNX Runtime int8 of the unpruned baseline, and the artifact on both engines. With
--device, beside them in the same run: the baseline in fp32 and bf16 and the artifact on every backend of that device.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.timing import median, record, show
from featherweight.apps.imaging.training.layouts import read_split
from featherweight.apps.imaging.training.trained import read_trained
from featherweight.core.artifact.packed import pack
from featherweight.core.artifact.store import read_artifact
from featherweight.core.backends.registry import find_backend, probe_all
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.export import export
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program


def nncf_int8(program: Program, calibration: np.ndarray) -> Callable[[np.ndarray], object]:
    """OpenVINO's own road: NNCF post-training quantization of the fp32 model, default settings."""
    import nncf
    import openvino

    core = openvino.Core()
    model = core.read_model(program.content)
    dataset = nncf.Dataset([image[None] for image in calibration], lambda image: {"image": image})
    quantized = nncf.quantize(model, dataset, subset_size=len(calibration))
    quantized.reshape([1, *program.inputs[0].shape[1:]])
    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(quantized, "CPU", hints).create_infer_request()
    return lambda image: request.infer({"image": image}, share_inputs=True)


def on_device(device: str, *programs: Program) -> dict[str, Callable[[np.ndarray], object]]:
    """The programs on each backend that has the device and runs them there."""
    found: dict[str, Callable[[np.ndarray], object]] = {}
    for backend, available in probe_all().items():
        for name, program in zip(("fp32", "bf16", "artifact"), programs, strict=True):
            if device in available.devices and available.runs(program.kind, program.precision):
                with contextlib.suppress(BackendUnavailableError):  # it may refuse this precision on this device
                    session = find_backend(backend).open(program, device=device, threads=1)
                    found[f"{backend} {name} on {device}"] = lambda image, run=session.run: run({"image": image})
    if not found:
        raise SystemExit(f"no backend here runs any of this on {device}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--data", default="chest_xray_224")
    parser.add_argument("--reader", default="kermany")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument(
        "--device", default="cpu", help="cuda, tensorrt or coreml, where `featherweight hardware` has it"
    )
    parser.add_argument("--record", type=Path, help="write the tables as JSON, too")
    options = parser.parse_args()
    torch.set_num_threads(1)

    trained = read_trained(options.network)
    split = read_split(options.data, options.reader, side=trained.description.side, seed=0)
    images = split.validation.images[:32, None].astype(np.float32) / 255
    calibration = split.train.images[::20, None].astype(np.float32) / 255
    fp32, _ = export(trained.model())
    batches = ({"image": calibration[i : i + 8]} for i in range(0, len(calibration), 8))
    int8, _ = quantize(fp32, QuantizeStep(precision="int8"), batches)
    bf16 = Program(fp32.content, "bf16", fp32.inputs, fp32.outputs)
    artifact = read_artifact(options.artifact)
    shipped = artifact.programs[0]

    def eager(network: Any) -> Callable[[np.ndarray], object]:
        def run(image: np.ndarray) -> object:
            with torch.inference_mode():
                return network(torch.from_numpy(image)).numpy()

        return run

    def session(backend: str, program: Program) -> Callable[[np.ndarray], object]:
        opened = find_backend(backend).open(program, threads=1)
        return lambda image: opened.run({"image": image})

    contenders: dict[str, Callable[[np.ndarray], object]] = {
        "torch eager fp32, unpruned": eager(trained.network),
        "torch.compile fp32, unpruned": eager(torch.compile(trained.network)),
        "ONNX Runtime fp32, unpruned": session("onnxruntime", fp32),
        "OpenVINO fp32, unpruned": session("openvino", fp32),
        "OpenVINO bf16, unpruned": session("openvino", bf16),
        "ONNX Runtime int8, unpruned": session("onnxruntime", int8),
        "OpenVINO int8 (NNCF), unpruned": nncf_int8(fp32, calibration),
        "artifact on ONNX Runtime": session("onnxruntime", shipped),
        "artifact on OpenVINO": session("openvino", shipped),
    }
    if options.device != "cpu":
        contenders |= on_device(options.device, fp32, bf16, shipped)
    for run in contenders.values():
        for image in images[:10]:
            run(image[None])
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    generator = random.Random(0)  # noqa: S311
    for step in range(options.repetitions):
        names = list(contenders)
        generator.shuffle(names)
        image = images[step % len(images)][None]
        for name in names:
            contenders[name](image)  # warms the caches for this engine after another one used them
            start = time.perf_counter()
            contenders[name](image)
            samples[name].append((time.perf_counter() - start) * 1000)
    eager_ms, nncf_ms = median(samples["torch eager fp32, unpruned"]), median(samples["OpenVINO int8 (NNCF), unpruned"])
    rows = [
        [
            name,
            f"{median(values):.2f}",
            f"{float(np.percentile(values, 95)):.2f}",
            f"{eager_ms / median(values):.1f}x",
            f"{nncf_ms / median(values):.2f}x",
        ]
        for name, values in samples.items()
    ]
    packed = len(pack(fp32.content))
    sizes = [
        [name, f"{len(p.content):,}", f"{len(pack(p.content)):,}", f"{packed / len(pack(p.content)):.1f}x"]
        for name, p in (("fp32 ONNX of the baseline", fp32), ("shipped program", shipped))
    ]
    columns = ["contender", "p50 ms", "p95 ms", "against torch eager", "against OpenVINO int8"]
    tables = {
        f"one 224x224 image, one thread, {options.repetitions} interleaved repetitions": (columns, rows),
        "size": (["file", "bytes", "as shipped (gzip)", "smaller as shipped"], sizes),
    }
    for title, (names, cells) in tables.items():
        show(title, names, cells)
    if options.record:
        record(options.record, tables)


if __name__ == "__main__":
    main()
