"""Runs sessions and returns raw samples. Nothing is judged or averaged here: the caller chooses threads and
device when opening a session and states them as Conditions; statistics come later (core.evidence).

The method: sessions are opened and warmed by untimed runs while they see all cores. For timing, all threads of the
process are pinned to as many cores as the session has threads (core.measure.pinning), and one more untimed run brings
its weights back into their caches. Times are wall time (time.perf_counter_ns) around Session.run, so that checking the
input and taking the output are in them. The notes of a measurement say what was done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from featherweight.core.arrays import Array, Floats
from featherweight.core.artifact.packed import pack
from featherweight.core.backends.base import Backend, Session
from featherweight.core.errors import BackendError, FeatherweightError, UsageError
from featherweight.core.measure.pinning import describe_cores, pinned
from featherweight.core.processes import answer_stream, run_module
from featherweight.core.program import Precision, Program, described_program
from featherweight.core.tensors import Tensors, TensorSpec, check_tensors
from featherweight.core.terminal import counted


@dataclass(frozen=True)
class Conditions:
    """Under what a session was measured, in the words of the caller that opened it. host: names and values of the
    machine (processor, memory, system), as core.hardware reads them."""

    backend: str
    precision: Precision
    threads: int
    device: str = "cpu"
    host: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Wall time of single runs. samples_ms: float64 [runs], in the order they were taken; batch: cases a run."""

    samples_ms: Floats
    batch: int
    conditions: Conditions
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Throughput:
    """Cases that one session finished in a stretch of wall time, one run after another."""

    cases: int
    elapsed_s: float
    batch: int
    conditions: Conditions
    notes: tuple[str, ...] = ()

    @property
    def cases_per_s(self) -> float:
        """Cases over the time that all of them took."""
        return self.cases / self.elapsed_s


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a fresh process. baseline_bytes: the interpreter with numpy, before the runtime was
    imported; peak_bytes: the most at any time until the last run."""

    baseline_bytes: int
    peak_bytes: int
    batch: int
    conditions: Conditions

    @property
    def used_bytes(self) -> int:
        """What the runtime, the opened program and its runs added to the interpreter."""
        return self.peak_bytes - self.baseline_bytes


@dataclass(frozen=True)
class Size:
    """bytes: of a program's ONNX file; compressed_bytes: of the same packed, as an artifact ships it. That one is the
    size that is compared: weights set to zero show only there."""

    bytes: int
    compressed_bytes: int


def measure_size(program: Program) -> Size:
    """A program's bytes, and those of it as the artifact stores it."""
    return Size(len(program.content), len(pack(program.content)))


def measure_latency(
    session: Session, batches: Sequence[Tensors], *, conditions: Conditions, warmup: int = 10, repetitions: int = 100
) -> Latency:
    """Time `repetitions` runs after `warmup` untimed ones, going round the batches, which must all be of one size.

    Raises UsageError for nothing to run, and what Session.run raises.
    """
    size = _common_batch(session, batches)
    _require(repetitions > 0, f"repetitions: found {repetitions}, expected at least 1")
    _warm(session, batches, warmup)
    samples: list[float] = []
    cores = _take_turn(session, batches, samples, repetitions, conditions.threads)
    return Latency(np.array(samples), size, conditions, (f"{warmup} untimed runs first", describe_cores(cores)))


def measure_interleaved(
    sessions: Mapping[str, Session],
    batches: Sequence[Tensors],
    *,
    conditions: Mapping[str, Conditions],
    warmup: int = 10,
    repetitions: int = 100,
    block: int = 5,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, Latency]:
    """Time several sessions in turn, so that what else the host does hits all alike.

    Each round goes through the sessions in a random order drawn from `seed`. A session's turn, pinned to as many cores
    as it has threads, is one untimed run, which brings its weights back into the caches that the others filled, and
    then `block` timed ones; the last turn may be shorter, so that each session has `repetitions` samples. on_step(done,
    total) is called after each turn.

    Raises UsageError for nothing to run, and what Session.run raises.
    """
    _require(bool(sessions), "no session to measure")
    _require(sessions.keys() == conditions.keys(), f"sessions {sorted(sessions)}, conditions {sorted(conditions)}")
    _require(repetitions > 0 and block > 0, f"repetitions {repetitions} and block {block} must be at least 1")
    sizes = {name: _common_batch(session, batches) for name, session in sessions.items()}
    for session in sessions.values():
        _warm(session, batches, warmup)
    names, generator = list(sessions), np.random.default_rng(seed)
    samples: dict[str, list[float]] = {name: [] for name in names}
    cores: dict[str, tuple[int, ...]] = {}
    turns, total = 0, -(-repetitions // block) * len(names)
    while turns < total:
        for index in generator.permutation(len(names)):
            name = names[index]
            runs = min(block, repetitions - len(samples[name]))
            cores[name] = _take_turn(sessions[name], batches, samples[name], runs, conditions[name].threads)
            turns += 1
            if on_step:
                on_step(turns, total)
    others = f"interleaved with {counted(len(names) - 1, 'other sessions')} in random order, seed {seed}"
    note = f"{warmup} untimed runs first, then 1 before each {block}; {others}"
    return {
        name: Latency(np.array(samples[name]), sizes[name], conditions[name], (note, describe_cores(cores[name])))
        for name in names
    }


def _warm(session: Session, batches: Sequence[Tensors], runs: int) -> None:
    for run in range(runs):
        session.run(batches[run % len(batches)])


def _take_turn(
    session: Session, batches: Sequence[Tensors], samples: list[float], runs: int, threads: int
) -> tuple[int, ...]:
    with pinned(threads) as cores:
        session.run(batches[len(samples) % len(batches)])
        for _ in range(runs):
            samples.append(_timed_ms(session, batches[len(samples) % len(batches)]))
    return cores


def measure_throughput(
    session: Session, batches: Sequence[Tensors], *, conditions: Conditions, seconds: float = 2.0, warmup: int = 3
) -> Throughput:
    """Run one batch after another until `seconds` have gone by; the last run is finished and counted."""
    size = _common_batch(session, batches)
    _warm(session, batches, warmup)
    with pinned(conditions.threads) as cores:
        runs, start = 0, time.perf_counter()
        elapsed = 0.0
        while elapsed < seconds or not runs:
            session.run(batches[runs % len(batches)])
            runs += 1
            elapsed = time.perf_counter() - start
    notes = (f"{warmup} untimed runs first", describe_cores(cores))
    return Throughput(runs * size, elapsed, size, conditions, notes)


def measure_peak_memory(
    program: Program,
    backend: Backend,
    *,
    conditions: Conditions,
    batch: int = 1,
    repetitions: int = 3,
    timeout_s: float = 300,
) -> Memory:
    """Open and run the program in a fresh Python process and read the peak of its resident memory.

    The new process imports this module (and numpy), notes its peak so far, then imports the backend's class by name,
    makes it without arguments, opens the program with the conditions' device and threads, runs it on `batch` random
    cases and notes the peak again. On Linux the peak is VmHWM of /proc/self/status, which starts afresh with each
    process (ru_maxrss would start at this process's own); elsewhere it is ru_maxrss.

    Raises BackendError with the reason when the process fails or takes longer than `timeout_s`.
    """
    kind = type(backend)
    order = {
        "backend": [kind.__module__, kind.__qualname__],
        "device": conditions.device,
        "threads": conditions.threads,
        "batch": batch,
        "repetitions": repetitions,
        **program.describe(),
    }
    stdin = json.dumps(order).encode() + b"\n" + program.content
    what = f"{backend.name}: measuring memory"
    stdout = run_module(
        "featherweight.core.measure.performance", stdin, timeout_s=timeout_s, what=what, failure=BackendError
    )
    found = json.loads(stdout)
    return Memory(found["baseline_bytes"], found["peak_bytes"], batch, conditions)


def _measure_own_memory(stdin: BinaryIO) -> dict[str, int]:
    """What the fresh process does."""
    baseline = _peak_resident_bytes()
    order = json.loads(stdin.readline())
    program = described_program(order, stdin.read())
    module, name = order["backend"]
    backend = cast(Backend, getattr(import_module(module), name)())
    generator = np.random.default_rng(0)
    tensors = {spec.name: _random_cases(spec, order["batch"], generator) for spec in program.inputs}
    with backend.open(program, device=order["device"], threads=order["threads"]) as session:
        for _ in range(order["repetitions"]):
            session.run(tensors)
    return {"baseline_bytes": baseline, "peak_bytes": _peak_resident_bytes()}


def _random_cases(spec: TensorSpec, batch: int, generator: np.random.Generator) -> Array:
    shape = [batch if size is None else size for size in spec.shape]
    return generator.uniform(size=shape).astype(spec.dtype)


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not on Windows, which is why it is not imported above

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _common_batch(session: Session, batches: Sequence[Tensors]) -> int:
    sizes = {check_tensors(batch, session.inputs) for batch in batches}
    _require(len(sizes) == 1, f"batches of sizes {sorted(sizes)}: expected at least one batch, all of one size")
    return sizes.pop()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _timed_ms(session: Session, batch: Tensors) -> float:
    start = time.perf_counter_ns()
    session.run(batch)
    return (time.perf_counter_ns() - start) / 1e6


if __name__ == "__main__":
    with answer_stream() as stream:
        try:
            stream.write(json.dumps(_measure_own_memory(sys.stdin.buffer)).encode())
        except FeatherweightError as failure:
            sys.exit(str(failure))
