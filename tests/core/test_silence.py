"""Telemetry that somebody else's imports have begun before ours, and where libraries keep things; the commands are
watched by tests/integration/test_silence.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featherweight.core.silence import redirect_caches

BEFORE_US = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # of this test: nothing is to be sent before our turn either
import onnxruntime
import openvino_telemetry.main

ended = []
onnxruntime.disable_telemetry_events = lambda: ended.append(True)
del os.environ["ORT_DISABLE_TELEMETRY"]
import core

assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert ended

class Collector:
    received = 0
    def send(self, message):
        self.received += 1

sender, collector = openvino_telemetry.main.TelemetrySender(), Collector()
sender.send(collector, "an event")
sender.executor.shutdown()
assert not collector.received
"""


def test_what_was_imported_before_us_sends_no_more() -> None:
    subprocess.run([sys.executable, "-c", BEFORE_US], check=True, timeout=60)


COMPILED = """
from featherweight.core.compiled import compiled

@compiled("float64(float64)")
def double(number):
    return 2 * number
"""


def test_what_numba_compiles_is_kept_in_our_folder(tmp_path: Path) -> None:
    """Not beside the module; and the functions of others, who may be in the same process, stay where they were."""
    (tmp_path / "doubling.py").write_text(COMPILED)
    settings = {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")} | settings
    program = "import doubling, numba; assert doubling.double(2.0) == 4; assert not numba.config.CACHE_DIR"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=environment)
    kept = list(tmp_path.rglob("*.nbi"))
    assert len(kept) == 1
    assert tmp_path / "cache" / "featherweight" / "numba" in kept[0].parents


def test_caches_are_left_alone_where_ours_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would refuse to be imported. What the user has named stays, too."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("CUDA_CACHE_PATH", "named")
    (tmp_path / "file").touch()
    redirect_caches(tmp_path / "file" / "cache")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    redirect_caches(tmp_path / "home" / "cache")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "home" / "cache" / "torch")
    assert os.environ["CUDA_CACHE_PATH"] == "named"
    assert not (tmp_path / "home").exists()


def test_a_home_that_may_not_be_looked_into_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may look into everything, so the system's answer is put in its place."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.delenv("CUDA_CACHE_PATH", raising=False)
    redirect_caches(tmp_path / "home" / ".cache" / "featherweight")
