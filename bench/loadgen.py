"""An artifact under the load of MLPerf Inference, made by its own library (mlcommons-loadgen).

    python -m bench.loadgen --artifact data/models/chest-xray --scenario SingleStream [--network runs/chest-xray]
    python -m bench.loadgen --artifact data/models/card-fraud --scenario Server --seconds 60 --qps 2000 --bound-ms 5

SingleStream: one case after another, the 90th percentile of the latency. Offline: all cases at once, cases per second.
Server: cases at random times (Poisson), `--qps` of them a second, of which 99% are to be answered within `--bound-ms`;
without these, half of what the fastest contender does one at a time, at most 5,000, and ten times its median, at least
1 ms: handing a case to the thread that answers takes time in Python, too. A contender that would need four times as
long as the cases take to come is not loaded. Contenders: every backend and precision of the artifact that runs here,
and with --network what it was made from: torch eager, and fp32 on the same backends. Inputs are the artifact's sealed
reference inputs, or random numbers where it has none. Threads are not pinned to cores, because loadgen's own would be
too. What Python does for each case is in all figures, and is most of those of trees: 90,000 answers a second were the
most seen. A submission to MLPerf runs for ten minutes a scenario.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np

from bench.timing import median, record, show
from featherweight.core.artifact.store import Artifact, read_artifact
from featherweight.core.backends.registry import find_backend, probe_all
from featherweight.core.errors import BackendUnavailableError
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec

Run = Callable[[Tensors], object]
SCENARIOS = ("SingleStream", "Offline", "Server")
CASES = 64


@dataclass(frozen=True)
class Load:
    """seconds: the least that a test lasts; batch: the most cases of one run, but of SingleStream's; qps, bound_ms: of
    Server."""

    scenario: str
    seconds: float
    batch: int
    qps: float = 1.0
    bound_ms: float = 1.0


class Library:
    """loadgen's query sample library: `CASES` cases, all in memory."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def pick(self, samples: Sequence[Any]) -> Tensors:
        rows = [sample.index for sample in samples]
        return {name: array[rows] for name, array in self.tensors.items()}


def measure(run: Run, library: Library, load: Load) -> dict[str, str]:
    """One test; loadgen's own summary of it, key -> value."""
    with tempfile.TemporaryDirectory() as folder, _system(run, library, load) as system:
        cases = loadgen.ConstructQSL(CASES, CASES, lambda indices: None, lambda indices: None)
        log = loadgen.LogSettings()
        log.log_output.outdir = folder
        log.enable_trace = False
        try:
            loadgen.StartTestWithLogSettings(system, cases, _settings(run, library, load), log)
        finally:
            loadgen.DestroyQSL(cases)
        return parse_summary((Path(folder) / "mlperf_log_summary.txt").read_text())


def parse_summary(text: str) -> dict[str, str]:
    """The lines `key : value` of mlperf_log_summary.txt."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon and value.strip()}


def _settings(run: Run, library: Library, load: Load) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, load.scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(load.seconds * 1000)
    settings.server_target_qps = load.qps
    settings.server_target_latency_ns = round(load.bound_ms * 1e6)
    # From these loadgen takes how many cases last for the duration; rather too many than too few.
    if load.scenario == "SingleStream":
        settings.single_stream_expected_latency_ns = max(1, round(_milliseconds(run, _first(library, 1)) * 0.5e6))
    if load.scenario == "Offline":
        rate = load.batch / (_milliseconds(run, _first(library, load.batch)) / 1000)
        settings.offline_expected_qps = 1.5 * min(rate, 500_000)  # more answers a second Python was not seen to give
    return settings


@contextlib.contextmanager
def _system(run: Run, library: Library, load: Load) -> Iterator[int]:
    """The system under test: in Server one thread answers whatever has come meanwhile; else loadgen's own does."""

    def answer(samples: Sequence[Any]) -> None:
        for start in range(0, len(samples), load.batch):
            part = samples[start : start + load.batch]
            run(library.pick(part))
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part])

    if load.scenario != "Server":
        system = loadgen.ConstructSUT(answer, lambda: None)
        yield system
        loadgen.DestroySUT(system)
        return
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def serve() -> None:
        while (first := waiting.get()) is not None:
            samples = [first]
            while len(samples) < load.batch and not waiting.empty():
                samples.append(waiting.get())
            answer([sample for sample in samples if sample is not None])
            if samples[-1] is None:
                return

    def take(samples: Sequence[Any]) -> None:
        for sample in samples:
            waiting.put(sample)

    server = threading.Thread(target=serve, name="server")
    server.start()
    system = loadgen.ConstructSUT(take, lambda: None)
    try:
        yield system
    finally:
        waiting.put(None)
        server.join()
        loadgen.DestroySUT(system)


def _first(library: Library, count: int) -> Tensors:
    return {name: np.resize(array, (count, *array.shape[1:])) for name, array in library.tensors.items()}


def _milliseconds(run: Run, tensors: Tensors) -> float:
    """A run's median of fifteen, or of as many as a second has, after an untimed one."""
    run(tensors)
    times: list[float] = []
    while len(times) < 15 and sum(times) < 1000:
        start = time.perf_counter()
        run(tensors)
        times.append((time.perf_counter() - start) * 1000)
    return median(times)


def contenders(artifact: Artifact, network: Path | None, threads: int, device: str) -> dict[str, Run]:
    """Name -> how it runs; first what the others are compared with, where there is a network."""
    found: dict[str, Run] = {}
    programs = [(f"artifact {precision}", artifact.program(precision)) for precision in artifact.precisions]
    if network is not None:
        eager, fp32 = _before(artifact, network, device)
        found |= eager
        programs.insert(0, ("baseline fp32", fp32))
    for what, program in programs:
        for name, available in probe_all().items():
            if device in available.devices and available.runs(program.kind, program.precision):
                with contextlib.suppress(BackendUnavailableError):  # it may say so of a single program
                    found[f"{what} on {name}"] = find_backend(name).open(program, threads=threads, device=device).run
    return found


def _before(artifact: Artifact, network: Path, device: str) -> tuple[dict[str, Run], Program]:
    """What the artifact was made from: torch eager, where it is a network, and its fp32 program."""
    import torch

    from featherweight.core.export import export

    if artifact.manifest.app == "fraud":
        from featherweight.apps.fraud.training.trained import read_trained as read_fraud

        model = read_fraud(network).core_model()
    else:
        from featherweight.apps.imaging.training.trained import read_trained as read_imaging

        model = read_imaging(network).model()
    program, _ = export(model)
    if program.kind == "trees":
        return {}, program
    place = "cpu" if device == "cpu" else "cuda"
    eager = model.module("loadgen").to(place)

    def run(tensors: Tensors) -> object:
        with torch.inference_mode():
            return eager(*(torch.from_numpy(array).to(place) for array in tensors.values())).cpu().numpy()

    return {"torch eager fp32": run}, program


def cases(artifact: Artifact, inputs: Sequence[TensorSpec]) -> Tensors:
    """`CASES` of the artifact's reference inputs, or of random numbers."""
    reference = artifact.reference_cases()
    if reference is not None:
        rows = np.arange(CASES) % reference.count
        return {name: array[rows] for name, array in reference.inputs.items()}
    generator = np.random.default_rng(0)
    return {
        spec.name: generator.uniform(size=[size or CASES for size in spec.shape]).astype(spec.dtype) for spec in inputs
    }


def _row(load: Load, name: str, run: Run, library: Library) -> tuple[float | None, list[str]]:
    """(the scenario's figure, larger is better; cells)."""
    case_ms = _milliseconds(run, _first(library, load.batch)) / load.batch if load.scenario == "Server" else 0.0
    if case_ms * load.qps > 4000:
        return None, [name, "-", "-", f"not loaded: {case_ms:.3g} ms a case"]
    found = measure(run, library, load)

    def ms(key: str) -> float:
        return int(found[key]) / 1e6

    missed = [key.removesuffix(" satisfied") for key, value in found.items() if value.upper() == "NO"]
    valid = "VALID" if found["Result is"] == "VALID" else f"INVALID ({', '.join(missed)})"
    match load.scenario:
        case "SingleStream":
            p90 = ms("90.0th percentile latency (ns)")
            return 1 / p90, [name, f"{p90:.3f}", f"{ms('50.00 percentile latency (ns)'):.3f}", valid]
        case "Offline":
            rate = float(found["Samples per second"])
            return rate, [name, f"{rate:,.0f}", valid]
        case _:
            p99 = ms("99.00 percentile latency (ns)")
            rate = float(found["Scheduled samples per second"])
            return 1 / p99, [name, f"{rate:,.1f}", f"{p99:.3f}", valid]


COLUMNS = {
    "SingleStream": ["contender", "p90 ms", "p50 ms", "result"],
    "Offline": ["contender", "cases/s", "result"],
    "Server": ["contender", "scheduled/s", "p99 ms", "result"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    parser.add_argument("--network", type=Path, help="what the artifact was made from, for the ratios")
    parser.add_argument("--seconds", type=float, default=10, help="the least that a test lasts")
    parser.add_argument("--batch", type=int, default=32, help="the most cases of one run in Offline and Server")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--qps", type=float)
    parser.add_argument("--bound-ms", type=float)
    parser.add_argument("--record", type=Path, help="write the table as JSON, too")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))  # torch eager's
    artifact = read_artifact(options.artifact)
    library = Library(cases(artifact, artifact.programs[0].inputs))
    runs = contenders(artifact, options.network, options.threads, options.device)
    if not runs:
        raise SystemExit(f"no backend here runs {options.artifact} on {options.device}")
    fastest = min(_milliseconds(run, _first(library, 1)) for run in runs.values())
    qps, bound_ms = options.qps or min(500 / fastest, 5000), options.bound_ms or max(10 * fastest, 1)
    batch = 1 if options.scenario == "SingleStream" else options.batch
    load = Load(options.scenario, options.seconds, batch, qps, bound_ms)
    figures = [_row(load, name, run, library) for name, run in runs.items()]
    columns, rows = COLUMNS[load.scenario], [cells for _, cells in figures]
    if options.network is not None:
        base = figures[0][0]
        columns = [*columns, f"against {rows[0][0]}"]
        rows = [[*cells, f"{figure / base:.2f}x" if figure and base else "-"] for figure, cells in figures]
    wanted = f", 99% within {bound_ms:.3g} ms" if load.scenario == "Server" else ""
    title = f"{artifact.manifest.name}: {load.scenario}{wanted}, {options.seconds:g} s, threads {options.threads}"
    show(title, columns, rows)
    if options.record:
        record(options.record, {title: (columns, rows)})


if __name__ == "__main__":
    main()
