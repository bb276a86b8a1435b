from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.core import hardware
from featherweight.core.hardware import Accelerator, Hardware, parse_cpuinfo, parse_nvidia_smi, parse_quota


def test_x86() -> None:
    text = textwrap.dedent("""\
        processor\t: 0
        model name\t: AMD EPYC 9R14
        flags\t\t: fpu avx2 fma avx512f avx512_bf16 avx512_vnni

        processor\t: 1
        model name\t: another
        flags\t\t: fpu
        """)
    assert parse_cpuinfo(text) == ("AMD EPYC 9R14", ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16"))


def test_arm64() -> None:
    name, flags = parse_cpuinfo("processor : 0\nFeatures : fp asimd asimddp i8mm bf16\n")
    assert (name, flags) == ("", ("neon", "dotprod", "i8mm", "bf16"))


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2.0),
        ("150000 100000", 1.5),
        ("max 100000", None),
        ("-1 100000", None),
        ("", None),
        ("1 0", None),
    ],
)
def test_quota(text: str, cores: float | None) -> None:
    assert parse_quota(text) == cores


def test_nvidia_smi() -> None:
    text = "NVIDIA H100 80GB HBM3, 81559\nOdd, name, [N/A]\n\n"
    assert parse_nvidia_smi(text) == (Accelerator("NVIDIA H100 80GB HBM3", 81559 << 20), Accelerator("Odd, name", 0))


@settings(deadline=None)
@given(st.text())
def test_parsers_take_any_text(text: str) -> None:
    parse_cpuinfo(text)
    parse_quota(text)
    parse_nvidia_smi(text)


def test_this_host() -> None:
    host = hardware.read_hardware()
    assert host.cpu
    assert 1 <= host.cores_usable <= host.cores_logical
    assert host.memory_bytes > 1 << 28


def test_clock(tmp_path: Path) -> None:
    assert hardware.read_clock(tmp_path) == ""
    for path, text in {
        "cpu0/cpufreq/scaling_governor": "powersave",
        "cpu1/cpufreq/scaling_governor": "performance",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(f"{text}\n")
    assert hardware.read_clock(tmp_path) == "governor performance and powersave"
    for path, text, said in (("cpufreq/boost", "1", "turbo on"), ("cpufreq/boost", "0", "turbo off")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        assert hardware.read_clock(tmp_path).endswith(f", {said}")
    (tmp_path / "cpufreq" / "boost").unlink()
    (tmp_path / "intel_pstate").mkdir()
    (tmp_path / "intel_pstate" / "no_turbo").write_text("1\n")
    assert hardware.read_clock(tmp_path).endswith(", turbo off")


def test_facts_say_only_what_is_known() -> None:
    host = Hardware("Some CPU", "x86_64", 0, 8, 2, ("avx2",), 3 << 29, (), "", 1, False)
    assert host.facts() == {
        "cpu": "Some CPU",
        "architecture": "x86_64",
        "cores": "2 usable of 8 logical, unknown physical",
        "memory": "1.5 GiB",
        "instruction sets": "avx2",
        "clock": "unknown",
    }
    more = replace(host, numa_nodes=2, virtual=True, clock="turbo on", accelerators=(Accelerator("A GPU", 0),)).facts()
    assert more["cores"].endswith(", 2 NUMA nodes")
    assert (more["clock"], more["accelerators"]) == ("turbo on", "A GPU")
    assert "virtual machine" in more


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_is_respected() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from featherweight.core.hardware import count_usable_cores; print(count_usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has an NVIDIA device")
def test_looking_for_a_gpu_where_there_is_none_starts_no_program() -> None:
    """ctypes.util.find_library asks a compiler and a linker, which every start of a service would pay for."""
    program = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event == 'subprocess.Popen': raise SystemExit(f'started {arguments[1]}')\n"
        "sys.addaudithook(refuse)\n"
        "from featherweight.core.hardware import has_cuda_driver\n"
        "assert not has_cuda_driver()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
