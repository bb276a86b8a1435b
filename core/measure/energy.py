"""What a decision costs: energy, always with where the number comes from, and money at a price that the user gives.

Counters come first: RAPL (Linux' powercap, Intel and AMD) for sessions on the CPU, NVML for those on an NVIDIA GPU.
Where the CPU's cannot be read, an estimate: processor time times a stated power. Else nothing is said but why.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from featherweight.core.backends.base import Session
from featherweight.core.errors import UsageError
from featherweight.core.measure.performance import Conditions, Throughput, measure_throughput
from featherweight.core.tensors import Tensors

Provenance = Literal["rapl", "nvml", "estimate", "not available"]

POWERCAP = Path("/sys/class/powercap")
STRETCHES = 10
_T_95 = 2.262
"""Two-sided 95% point of Student's t with STRETCHES - 1 degrees of freedom."""


@dataclass(frozen=True)
class Energy:
    """Joules of one case.

    provenance: a counter (rapl, nvml), an estimate from processor time and a stated power, or not available: figures of
    different provenance are never compared. low, high: 95% interval of a counter, or what the stated power's own range
    gives, None without one. method: one sentence. joules is None where not available, and method says why.
    """

    provenance: Provenance
    joules: float | None
    low: float | None
    high: float | None
    method: str


class _CounterLost(Exception):  # noqa: N818  (no error of a caller's: measure_energy answers with the reason)
    """A counter that could be read cannot be read any more."""


def measure_energy(
    session: Session,
    batches: Sequence[Tensors],
    *,
    conditions: Conditions,
    watts_per_core: float | None = None,
    watts_range: tuple[float, float] | None = None,
    seconds: float = 5.0,
    powercap: Path = POWERCAP,
) -> Energy:
    """Run the batches for about `seconds`, in 10 stretches, and divide what each took by its cases.

    A counter counts its whole device: everything else that runs there meanwhile, and what it draws when idle, is in the
    figure. The interval is Student's over the stretches. An estimate is the processor time of this process, all its
    threads, times `watts_per_core`: the power of one busy core (a processor's rated power over its cores, say), with
    `watts_range` as its lowest and highest. It takes the place of a counter that stands still or cannot be read, be it
    only from some moment on: what was counted until then is not used.

    Raises UsageError for nothing to run and for watts that are not valid, and what Session.run raises.
    """
    _check_watts(watts_per_core, watts_range)
    counter = _find_counter(conditions.device, powercap)
    found = _meter(session, batches, conditions, counter, seconds) if isinstance(counter, Counter) else counter
    if isinstance(found, Energy):
        return found
    if conditions.device != "cpu":
        return Energy("not available", None, None, None, found)
    if watts_per_core is None:
        return Energy("not available", None, None, None, f"{found}; and no watts per core were stated")
    return _estimate(session, batches, conditions, watts_per_core, watts_range, seconds, found)


def _meter(
    session: Session, batches: Sequence[Tensors], conditions: Conditions, counter: Counter, seconds: float
) -> Energy | str:
    """What the counter says, or why it says nothing: it may become unreadable, or stand still, while it is used."""
    try:
        taken = _take_stretches(session, batches, conditions, counter.read, seconds)
    except _CounterLost as error:
        return f"{counter.scope}: not readable any more while it ran: {error}"
    joules = fmean(taken)
    if joules <= 0:
        return f"{counter.scope}: they stand still"
    half = _T_95 * stdev(taken) / STRETCHES**0.5
    method = (
        f"{counter.scope}, all that it drew while it ran, idle power too; {STRETCHES} stretches of {seconds:g} s in all"
    )
    return Energy(counter.provenance, joules, max(0.0, joules - half), joules + half, method)


def cost_per_million(throughput: Throughput, price_per_hour: float, *, cores: int) -> float:
    """What a million decisions cost, in the unit of `price_per_hour`.

    price_per_hour: of the `cores` that this process may use: the machine's, or the share of it that is paid for. A
    session on the CPU is charged for its threads' share of them, so that the others are taken to do as much for their
    money; one on an accelerator is charged for all. Raises UsageError for a price that is not valid and for no cores.
    """
    if not 0 <= price_per_hour < float("inf") or cores < 1:
        raise UsageError(
            f"price per hour {price_per_hour} for {cores} cores; expected a price of 0 or more, 1 core or more"
        )
    conditions = throughput.conditions
    share = min(1.0, conditions.threads / cores) if conditions.device == "cpu" else 1.0
    return price_per_hour * share / 3600 / throughput.cases_per_s * 1e6


@dataclass(frozen=True)
class Counter:
    """read() gives the joules since some moment, or raises _CounterLost; scope: what they are the joules of."""

    provenance: Provenance
    scope: str
    read: Callable[[], float]


def probe_counters(powercap: Path = POWERCAP) -> dict[str, str]:
    """Counter -> what it counts, or why it cannot be read here (then the text begins with "no: "). Never raises."""
    found = {"rapl": open_rapl(powercap), "nvml": open_nvml()}
    return {
        name: one.scope if isinstance(one, Counter) else f"no: {one.partition(': ')[2]}" for name, one in found.items()
    }


def _find_counter(device: str, powercap: Path) -> Counter | str:
    """A counter of this device, or why there is none."""
    if device == "cpu":
        return open_rapl(powercap)
    if device in ("cuda", "tensorrt"):
        return open_nvml()
    return f"no counter of the device {device} is known"


def open_rapl(powercap: Path = POWERCAP) -> Counter | str:
    """The counters of all processor packages and of their memory, summed; or why they cannot be read.

    The kernel's names (https://docs.kernel.org/power/powercap/powercap.html): `intel-rapl:0` is a package, on AMD too,
    and `intel-rapl:0:1` a part of it: core and uncore are counted in the package already, dram is not. Left out: psys,
    which holds the packages once more, and `intel-rapl-mmio`, another road to the same counter.
    """
    domains: list[_RaplDomain] = []
    packages = 0
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                domains.append(_RaplDomain(folder))
                packages += name != "dram"
        except PermissionError:
            return f"RAPL: {folder}/energy_uj is for the administrator alone, who may let others read it (chmod o+r)"
        except (OSError, ValueError) as error:
            return f"RAPL: {folder} cannot be read: {error}"
    if not packages:
        return f"RAPL: no processor package in {powercap} (a virtual machine, or a kernel without intel_rapl)"
    memory = " and their memory" if len(domains) > packages else ""
    scope = f"RAPL counters of {packages} processor package{'s' if packages > 1 else ''}{memory}"
    return Counter("rapl", scope, lambda: sum(domain.read_joules() for domain in domains))


class _RaplDomain:
    """One counter in microjoules. It starts again from 0 above its range, at full power after minutes, so that it is to
    be read more often than that."""

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._total = self._read(), 0

    def _read(self) -> int:
        return int(self._counter.read_text())

    def read_joules(self) -> float:
        """Since it was opened."""
        try:
            now = self._read()
        except (OSError, ValueError) as error:
            raise _CounterLost(f"{self._counter}: {error}") from error
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6


def open_nvml() -> Counter | str:
    """The energy counter of the GPU that CUDA takes; or why there is none (https://docs.nvidia.com/deploy/nvml-api/)."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return "NVML: pynvml is not installed; run: pip install nvidia-ml-py"
    try:
        pynvml.nvmlInit()
        chosen = choose_gpu(pynvml.nvmlDeviceGetCount(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        if chosen is None:
            return "NVML: several GPUs, which CUDA may number otherwise; set CUDA_VISIBLE_DEVICES to one's UUID"
        by_uuid, by_index = pynvml.nvmlDeviceGetHandleByUUID, pynvml.nvmlDeviceGetHandleByIndex
        handle = by_uuid(chosen) if isinstance(chosen, str) else by_index(chosen)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        name = pynvml.nvmlDeviceGetName(handle)
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    scope = f"NVML counters of the whole board {name} without the CPU"

    def read() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except pynvml.NVMLError as error:
            raise _CounterLost(str(error)) from error

    return Counter("nvml", scope, read)


def choose_gpu(count: int, visible: str) -> int | str | None:
    """NVML's index or the UUID of the GPU that CUDA calls 0, with CUDA_VISIBLE_DEVICES as given; None where it is not
    plain, because CUDA numbers the fastest first and NVML by the bus."""
    first = visible.split(",")[0].strip()
    if first.startswith("GPU-"):
        return first
    return 0 if count == 1 else None


def _take_stretches(
    session: Session, batches: Sequence[Tensors], conditions: Conditions, read: Callable[[], float], seconds: float
) -> list[float]:
    """What `read` counted for one case, in each of the stretches, after one that is not counted."""
    measure_throughput(session, batches, conditions=conditions, seconds=0)
    taken = []
    for _ in range(STRETCHES):
        before = read()
        done = measure_throughput(session, batches, conditions=conditions, seconds=seconds / STRETCHES, warmup=0)
        taken.append((read() - before) / done.cases)
    return taken


def _estimate(
    session: Session,
    batches: Sequence[Tensors],
    conditions: Conditions,
    watts: float,
    watts_range: tuple[float, float] | None,
    seconds: float,
    reason: str,
) -> Energy:
    """reason: why there is no better."""
    core_seconds = fmean(_take_stretches(session, batches, conditions, time.process_time, seconds))
    low, high = (None, None) if watts_range is None else (core_seconds * bound for bound in watts_range)
    stated = "with no range" if watts_range is None else f"{watts_range[0]:g} to {watts_range[1]:g}"
    method = (
        f"{core_seconds * 1e3:.4g} ms of processor time a case, over {seconds:g} s, at a stated {watts:g} W a core "
        f"({stated}); nothing was metered: {reason}"
    )
    return Energy("estimate", core_seconds * watts, low, high, method)


def _check_watts(watts: float | None, watts_range: tuple[float, float] | None) -> None:
    if watts_range is not None and watts is None:
        raise UsageError(f"a range of watts per core, {watts_range}, without the watts per core")
    low, high = watts_range or (watts, watts)
    if watts is not None and not (0 < (low or 0) <= watts <= (high or 0) < float("inf")):
        raise UsageError(f"watts per core {watts} in the range {watts_range}; expected 0 < low <= watts <= high")
