"""Energy: the RAPL counters are a folder of files, as the kernel's are; the session that runs writes into them."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.core.errors import UsageError
from featherweight.core.measure.energy import (
    Counter,
    choose_gpu,
    cost_per_million,
    measure_energy,
    open_nvml,
    open_rapl,
    probe_counters,
)
from featherweight.core.measure.performance import Conditions, Throughput
from featherweight.core.tensors import Tensors
from tests.core.measure.test_measure import HERE, SleepingSession, batches

RANGE = 1_000_000


def domain(powercap: Path, folder: str, name: str, microjoules: int = 0) -> Path:
    path = powercap / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


class DrawingSession(SleepingSession):
    """Each run takes `microjoules` of each counter."""

    def __init__(self, *counters: Path, microjoules: int) -> None:
        super().__init__()
        self.counters, self.microjoules = counters, microjoules

    def run(self, tensors: Tensors) -> Tensors:
        for counter in self.counters:
            counter.write_text(str((int(counter.read_text()) + self.microjoules) % RANGE))
        return super().run(tensors)


def test_rapl_counts_packages_and_their_memory_and_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl").mkdir()
    counted = [
        domain(tmp_path, "intel-rapl:0", "package-0", RANGE - 10),  # starts again from 0 in the first stretch
        domain(tmp_path, "intel-rapl:0:0", "dram"),
        domain(tmp_path, "intel-rapl:1", "package-1"),
    ]
    twice = [
        domain(tmp_path, "intel-rapl:1:0", "core"),
        domain(tmp_path, "intel-rapl:2", "psys"),
        domain(tmp_path, "intel-rapl-mmio:0", "package-0"),
    ]
    session = DrawingSession(*counted, *twice, microjoules=600)
    found = measure_energy(session, batches(4), conditions=HERE, watts_per_core=7, seconds=0, powercap=tmp_path)
    assert found.provenance == "rapl"
    assert found.joules == pytest.approx(3 * 600e-6 / 4)
    assert (found.low, found.high) == pytest.approx((found.joules, found.joules)), "all stretches took the same"
    assert "2 processor packages and their memory" in found.method
    assert "7 W" not in found.method


def test_the_interval_is_students(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0")

    class Uneven(DrawingSession):
        def run(self, tensors: Tensors) -> Tensors:
            self.microjoules = 100 + 10 * next(runs)
            return super().run(tensors)

    runs = itertools.count(-4)  # four runs are not counted, then ten stretches of one run each: 100 to 190
    session = Uneven(counter, microjoules=0)
    found = measure_energy(session, batches(1), conditions=HERE, seconds=0, powercap=tmp_path)
    assert found.joules == pytest.approx(145e-6)
    # scipy.stats.t.interval(0.95, 9, 145, sem([100, 110, ..., 190]))
    assert (found.low, found.high) == pytest.approx((123.3425e-6, 166.6575e-6), rel=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, RANGE - 1), min_size=1, max_size=8), st.integers(0, RANGE - 1))
def test_rapl_adds_up_over_every_new_start(steps: list[int], start: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        counter = domain(Path(folder), "intel-rapl:0", "package-0", start)
        opened = open_rapl(Path(folder))
        assert isinstance(opened, Counter)
        at, joules = start, 0.0
        for step in steps:
            at = (at + step) % RANGE
            counter.write_text(str(at))
            joules = opened.read()
        assert joules == pytest.approx(sum(steps) / 1e6)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Without an administrator's rights, under which every file can be read."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="this system has no user ids")
def test_a_counter_for_the_administrator_alone_says_so() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        domain(Path(folder), "intel-rapl:0", "package-0").chmod(0)
        with nobody():
            said = open_rapl(Path(folder))
            assert isinstance(said, str)
            assert "administrator" in said
            assert "administrator" in probe_counters(Path(folder))["rapl"]
            found = measure_energy(SleepingSession(), batches(), conditions=HERE, seconds=0, powercap=Path(folder))
    assert (found.provenance, found.joules, found.low, found.high) == ("not available", None, None, None)
    assert "administrator" in found.method
    assert "no watts per core" in found.method


def test_counters_that_say_nothing_are_no_counters(tmp_path: Path) -> None:
    assert "no processor package" in str(open_rapl(tmp_path / "nowhere"))
    counter = domain(tmp_path, "intel-rapl:0", "package-0")
    found = measure_energy(SleepingSession(), batches(), conditions=HERE, seconds=0, powercap=tmp_path)
    assert (found.provenance, found.joules) == ("not available", None)
    assert "stand still" in found.method
    counter.write_text("soon")
    assert "cannot be read" in str(open_rapl(tmp_path))


class LosingSession(DrawingSession):
    """After some runs its counter says something else than a number, or is gone."""

    def run(self, tensors: Tensors) -> Tensors:
        self.left -= 1
        if self.left:
            return super().run(tensors)
        (counter,) = self.counters
        counter.write_text("") if self.empty else counter.unlink()
        self.counters = ()
        return SleepingSession.run(self, tensors)

    left, empty = 8, False


@pytest.mark.parametrize("empty", [True, False])
def test_a_counter_that_is_lost_while_it_runs_is_no_counter(tmp_path: Path, empty: bool) -> None:
    for watts, provenance in ((None, "not available"), (7.0, "estimate")):
        folder = tmp_path / provenance
        session = LosingSession(domain(folder, "intel-rapl:0", "package-0"), microjoules=600)
        session.empty = empty
        found = measure_energy(session, batches(), conditions=HERE, seconds=0, powercap=folder, watts_per_core=watts)
        assert session.left <= 0
        assert found.provenance == provenance
        assert (found.joules is None) is (watts is None)
        assert "not readable any more while it ran" in found.method
        assert "energy_uj" in found.method


def test_a_gpu_that_is_lost_while_it_runs_is_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's library alone is not the real one: there is no GPU where the tests run."""

    class NVMLError(Exception):
        pass

    def read(handle: object) -> int:
        if not next(left):
            raise NVMLError("GPU is lost")
        return 1000 * next(drawn)

    left, drawn = itertools.count(-5), itertools.count()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    library = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=read,
        nvmlDeviceGetName=lambda handle: "a board",
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = measure_energy(
        SleepingSession(), batches(), conditions=replace(HERE, device="cuda"), seconds=0, watts_per_core=7.0
    )
    assert (found.provenance, found.joules) == ("not available", None)
    assert found.method.endswith("not readable any more while it ran: GPU is lost")


def test_an_estimate_has_the_range_of_the_watts_and_names_itself(tmp_path: Path) -> None:
    stated = {"watts_per_core": 10.0, "watts_range": (5.0, 12.0)}
    found = measure_energy(SleepingSession(), batches(), conditions=HERE, seconds=0, powercap=tmp_path, **stated)
    assert found.provenance == "estimate"
    assert found.joules is not None
    assert found.joules > 0
    assert (found.low, found.high) == pytest.approx((found.joules / 2, found.joules * 1.2))
    assert "10 W a core (5 to 12)" in found.method
    bare = measure_energy(
        SleepingSession(), batches(), conditions=HERE, seconds=0, powercap=tmp_path, watts_per_core=10.0
    )
    assert (bare.provenance, bare.low, bare.high) == ("estimate", None, None)


def test_nothing_is_estimated_of_an_accelerator(tmp_path: Path) -> None:
    """The processor's time says nothing of what a GPU draws; nor does the processor's counter."""
    domain(tmp_path, "intel-rapl:0", "package-0")
    there = replace(HERE, device="coreml")
    found = measure_energy(
        SleepingSession(), batches(), conditions=there, seconds=0, powercap=tmp_path, watts_per_core=10.0
    )
    assert (found.provenance, found.joules) == ("not available", None)


@pytest.mark.parametrize(
    ("watts", "span"),
    [(0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (5.0, (6.0, 7.0)), (5.0, (0.0, 7.0)),
     (5.0, (5.0, 4.0)), (None, (1.0, 2.0))],
)  # fmt: skip
def test_watts_that_are_none_are_refused(watts: float | None, span: tuple[float, float] | None) -> None:
    with pytest.raises(UsageError, match="watts per core"):
        measure_energy(SleepingSession(), batches(), conditions=HERE, watts_per_core=watts, watts_range=span)


@pytest.mark.parametrize(
    ("count", "visible", "chosen"),
    [(1, "", 0), (1, "0", 0), (2, "", None), (2, "1", None), (2, "GPU-1f2, GPU-3", "GPU-1f2"), (0, "", None)],
)
def test_the_gpu_that_is_metered_is_the_one_that_runs(count: int, visible: str, chosen: int | str | None) -> None:
    assert choose_gpu(count, visible) == chosen


def test_nvml_counts_up() -> None:
    counter = open_nvml()
    if isinstance(counter, str):
        pytest.skip(counter)
    assert counter.provenance == "nvml"
    assert counter.read() > 0


def test_a_million_decisions_cost_their_threads_share_of_the_hours() -> None:
    one = Throughput(1000, 1.0, 1, HERE)
    assert cost_per_million(one, 3.6, cores=4) == pytest.approx(3.6 / 4 * 1000 / 3600)
    assert cost_per_million(replace(one, conditions=Conditions("x", "fp32", 2)), 3.6, cores=4) == pytest.approx(0.5)
    assert cost_per_million(replace(one, conditions=Conditions("x", "fp32", 9)), 3.6, cores=4) == pytest.approx(1)
    on_gpu = replace(one, conditions=Conditions("x", "fp32", 1, "cuda"))
    assert cost_per_million(on_gpu, 3.6, cores=4) == pytest.approx(1)
    assert cost_per_million(one, 0, cores=1) == 0
    for price, cores in ((-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 0)):
        with pytest.raises(UsageError, match="price per hour"):
            cost_per_million(one, price, cores=cores)
