"""What this host has, read without loading any runtime."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

INSTRUCTION_SETS: Mapping[str, str] = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx_vnni": "avx_vnni",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "fphp": "fp16",
    "sve": "sve",
}
"""Flags of /proc/cpuinfo (x86 `flags`, arm64 `Features`) that matter for inference -> the name shown."""

_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Accelerator:
    """A device beside the CPU; memory_bytes is 0 where it is not known."""

    name: str
    memory_bytes: int = 0


@dataclass(frozen=True)
class Hardware:
    """cores_physical may be 0 where the system does not tell; cores_usable counts what affinity and cgroup quota
    leave to this process; memory_bytes is the smaller of the machine's memory and the cgroup's limit; clock is what
    sets the cores' frequency, '' where the system does not tell; numa_nodes: parts of the memory, each near to some
    cores."""

    cpu: str
    architecture: str
    cores_physical: int
    cores_logical: int
    cores_usable: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    accelerators: tuple[Accelerator, ...]
    clock: str = ""
    numa_nodes: int = 1
    virtual: bool = False

    def facts(self) -> dict[str, str]:
        """Names and values for a reader of measurements: what else than the program makes them what they are."""
        cores = (
            f"{self.cores_usable} usable of {self.cores_logical} logical, {self.cores_physical or 'unknown'} physical"
        )
        found = {
            "cpu": self.cpu,
            "architecture": self.architecture,
            "cores": cores + (f", {self.numa_nodes} NUMA nodes" if self.numa_nodes > 1 else ""),
            "memory": f"{self.memory_bytes / 2**30:.1f} GiB",
            "instruction sets": " ".join(self.instruction_sets) or "unknown",
            "clock": self.clock or "unknown",
            "virtual machine": "yes: neighbours on the machine may disturb timings" if self.virtual else "",
            "accelerators": ", ".join(device.name for device in self.accelerators),
        }
        return {name: value for name, value in found.items() if value}


def read_hardware() -> Hardware:
    """Never raises: what cannot be found out is 0, empty or 'unknown'."""
    cpu, flags = parse_cpuinfo(_read(Path("/proc/cpuinfo")))
    return Hardware(
        cpu=cpu or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores_physical=psutil.cpu_count(logical=False) or 0,
        cores_logical=psutil.cpu_count() or 1,
        cores_usable=count_usable_cores(),
        instruction_sets=flags,
        memory_bytes=min([psutil.virtual_memory().total, *_cgroup_memory()]),
        accelerators=_read_accelerators(),
        clock=read_clock(),
        numa_nodes=max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))),
        virtual=" hypervisor" in _read(Path("/proc/cpuinfo")),
    )


def read_clock(cpus: Path = Path("/sys/devices/system/cpu")) -> str:
    """`governor performance, turbo off`; '' where the system does not tell, as in most virtual machines."""
    governors = sorted({_read(path).strip() for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""})
    found = [f"governor {' and '.join(governors)}"] if governors else []
    # Intel's driver has a switch that turns turbo off, others one that turns it on.
    for switch, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        state = _read(cpus / switch).strip()
        found += [f"turbo {'on' if state == on else 'off'}"] if state else []
    return ", ".join(found)


def count_usable_cores() -> int:
    """Cores that affinity and cgroup quota leave to this process, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(allowed, int(quota)) if quota else allowed)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself."""
    return bool(_BF16 & set(parse_cpuinfo(_read(Path("/proc/cpuinfo")))[1]))


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """(model name, instruction sets in the order of INSTRUCTION_SETS) of /proc/cpuinfo; ('', ()) for other text."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = set(fields.get("flags", fields.get("features", "")).split())
    return fields.get("model name", ""), tuple(shown for flag, shown in INSTRUCTION_SETS.items() if flag in flags)


def parse_quota(text: str) -> float | None:
    """Cores of cgroup v2's cpu.max ('200000 100000' -> 2.0); None for 'max' and for anything else."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1]) or None


def _cgroup_quota() -> float | None:
    quota = parse_quota(_read(Path("/sys/fs/cgroup/cpu.max")))
    old = Path("/sys/fs/cgroup/cpu")
    return quota or parse_quota(f"{_read(old / 'cpu.cfs_quota_us').strip()} {_read(old / 'cpu.cfs_period_us').strip()}")


def _cgroup_memory() -> list[int]:
    paths = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    texts = [_read(path).strip() for path in paths]
    return [int(text) for text in texts if text.isascii() and text.isdigit()]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _read_accelerators() -> tuple[Accelerator, ...]:
    command = shutil.which("nvidia-smi")
    if command:
        query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return parse_nvidia_smi(done.stdout)
    if has_cuda_driver():
        return (Accelerator("NVIDIA GPU (driver found, no nvidia-smi)"),)
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return (Accelerator("Apple GPU"),)
    return ()


def has_cuda_driver() -> bool:
    """Whether this host has NVIDIA's device file and driver library."""
    # The device first: where there is no such library, looking for it starts a compiler, if the host has one.
    return Path("/dev/nvidiactl").exists() and ctypes.util.find_library("cuda") is not None


def parse_nvidia_smi(text: str) -> tuple[Accelerator, ...]:
    """Lines of `name, MiB` as nvidia-smi's csv,noheader,nounits prints them."""
    found = []
    for line in text.splitlines():
        name, comma, memory = line.rpartition(",")
        if comma:
            digits = memory.strip()
            known = digits.isascii() and digits.isdigit()
            found.append(Accelerator(name.strip(), int(digits) << 20 if known else 0))
    return tuple(found)
