"""What the tests of whole commands share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fraud.artifacts import write_fraud_model
from tests.imaging.tiny import write_model

if TYPE_CHECKING:
    from tests.fraud.streaming import Bench

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_model(directory)
    return directory


@pytest.fixture(scope="session")
def fraud_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For who only reads it; a test that changes a model writes its own."""
    directory = tmp_path_factory.mktemp("fraud-model") / "tiny"
    write_fraud_model(directory)
    return directory


@pytest.fixture
def bench(broker_address: str) -> Iterator[Bench]:
    from tests.fraud.streaming import Bench

    bench = Bench(broker_address)
    yield bench
    bench.close()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "wheel", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = folder.glob("featherweight-*.whl")
    return found
