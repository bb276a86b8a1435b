"""Measuring, on a real session that is a few lines of numpy: what is timed is known, so that samples can be checked."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from featherweight.core.backends.base import Availability
from featherweight.core.errors import BackendError, TensorError, UsageError
from featherweight.core.measure.performance import (
    Conditions,
    measure_interleaved,
    measure_latency,
    measure_peak_memory,
    measure_size,
    measure_throughput,
)
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec, check_tensors

INPUTS, OUTPUTS = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)
HERE = Conditions("sleeping", "fp32", 1)


class SleepingSession:
    inputs, outputs = INPUTS, OUTPUTS

    def __init__(self, ms: float = 0.0, megabytes: int = 0, journal: list[str] | None = None, name: str = "") -> None:
        self.ms, self.megabytes, self.journal, self.name = ms, megabytes, journal, name

    def run(self, tensors: Tensors) -> Tensors:
        check_tensors(tensors, self.inputs)
        if self.journal is not None:
            self.journal.append(self.name)
        block = np.ones(self.megabytes * 131_072)
        time.sleep(self.ms / 1000)
        return {"y": tensors["x"] + np.float32(block.sum() * 0)}

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SleepingBackend:
    """The program's content is the number of megabytes that a run allocates."""

    name, extra = "sleeping", ""

    def probe(self) -> Availability:
        return Availability(True)

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> SleepingSession:
        if not program.content.isdigit():
            raise BackendError("not a number of megabytes")
        return SleepingSession(megabytes=int(program.content))


def batches(size: int = 2) -> list[Tensors]:
    return [{"x": np.zeros((size, 4), np.float32)} for _ in range(3)]


def program(content: bytes) -> Program:
    return Program(content, "fp32", INPUTS, OUTPUTS)


def test_latency_has_every_sample_and_is_no_shorter_than_the_run():
    found = measure_latency(SleepingSession(2), batches(), conditions=HERE, warmup=1, repetitions=7)
    assert found.samples_ms.shape == (7,)
    assert found.samples_ms.min() >= 2
    assert (found.batch, found.conditions) == (2, HERE)


def test_interleaved_gives_all_the_same_number_of_samples_in_mixed_order():
    journal: list[str] = []
    sessions = {name: SleepingSession(journal=journal, name=name) for name in "abc"}
    steps: list[tuple[int, int]] = []
    found = measure_interleaved(
        sessions, batches(), conditions=dict.fromkeys("abc", HERE), warmup=0, repetitions=11, block=4,
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert {name: len(part.samples_ms) for name, part in found.items()} == dict.fromkeys("abc", 11)
    assert steps == [(done, 9) for done in range(1, 10)]
    assert {name: journal.count(name) for name in "abc"} == dict.fromkeys("abc", 11 + 3)
    turns = [name for i, name in enumerate(journal) if i == 0 or journal[i - 1] != name]
    assert turns != list("abc" * 3), "a fixed order lets one session always follow the same other"


def test_throughput_counts_cases():
    found = measure_throughput(SleepingSession(5), batches(8), conditions=HERE, seconds=0.05, warmup=0)
    assert found.cases % 8 == 0
    assert found.elapsed_s >= 0.05
    assert found.cases_per_s <= 8 / 0.005


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads to cores")
def test_sessions_are_warmed_on_all_cores_and_timed_on_as_many_as_they_have_threads():
    class Looking(SleepingSession):
        def run(self, tensors: Tensors) -> Tensors:
            seen.append(len(os.sched_getaffinity(0)))
            return super().run(tensors)

    every, seen = len(os.sched_getaffinity(0)), list[int]()
    held = [every] * 2 + [1] * 4
    latency = measure_latency(Looking(), batches(), conditions=HERE, warmup=2, repetitions=3)
    assert seen == held
    seen.clear()
    many = replace(HERE, threads=1000)
    conditions = {"one": HERE, "many": many}
    found = measure_interleaved(
        dict.fromkeys(conditions, Looking()), batches(), conditions=conditions, warmup=2, repetitions=3
    )
    assert sorted(seen) == sorted(held + [every] * 6)
    throughput = measure_throughput(Looking(), batches(), conditions=HERE, seconds=0)
    assert seen[-4:] == [every] * 3 + [1]
    assert len(os.sched_getaffinity(0)) == every
    for notes in (latency.notes, found["one"].notes, throughput.notes):
        assert any(note.startswith("all threads pinned to the core ") for note in notes)


def test_nothing_to_run_and_mixed_batches_are_refused():
    with pytest.raises(UsageError, match="all of one size"):
        measure_latency(SleepingSession(), [], conditions=HERE)
    with pytest.raises(UsageError, match=r"sizes \[2, 3\]"):
        measure_latency(SleepingSession(), [*batches(2), *batches(3)], conditions=HERE)
    with pytest.raises(UsageError, match="repetitions"):
        measure_latency(SleepingSession(), batches(), conditions=HERE, repetitions=0)
    with pytest.raises(UsageError, match="no session"):
        measure_interleaved({}, batches(), conditions={})
    with pytest.raises(TensorError):
        measure_latency(SleepingSession(), [{"z": np.zeros((1, 4), np.float32)}], conditions=HERE)


def test_size_shows_zeros_only_when_gzipped():
    dense, sparse = np.random.default_rng(0).bytes(10_000), bytes(10_000)
    assert measure_size(program(dense)).compressed_bytes > 9_900
    found = measure_size(program(sparse))
    assert found.bytes == 10_000
    assert found.compressed_bytes < 100


def test_peak_memory_is_that_of_a_fresh_process():
    ballast = np.ones(25_000_000)  # 200 MB here must not show there
    found = measure_peak_memory(program(b"60"), SleepingBackend(), conditions=HERE, batch=3)
    assert ballast.sum() > 0
    assert 55e6 < found.used_bytes < 150e6
    assert found.baseline_bytes < 120e6
    assert found.batch == 3


def test_a_process_that_fails_gives_its_reason():
    with pytest.raises(BackendError, match="code 1: not a number of megabytes"):
        measure_peak_memory(program(b"?"), SleepingBackend(), conditions=HERE)
