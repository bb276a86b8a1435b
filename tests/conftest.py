"""What every test shares: hypothesis' profile, an environment of its own, and no emulated processor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import featherweight.core  # noqa: F401  (before a test imports a runtime, whose telemetry it switches off)

# Deadlines measure the machine, not the code; a run in CI must find what the run before it found.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def _no_emulator() -> Iterator[None]:
    """Sealing asks an emulated processor where there is one, which takes a minute; tests/core/parity asks it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featherweight.core.parity.avx2.EMULATOR", "no-emulator-in-tests")
        yield


@pytest.fixture(scope="session")
def broker_address() -> Iterator[str]:
    """One broker for all tests that do not stop it; each has topics of its own."""
    from tests.fraud.broker import GIVEN, start_broker

    if GIVEN:
        yield GIVEN
        return
    broker = start_broker()
    try:
        yield broker.address
    finally:
        broker.remove()


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that `featherweight data` uses as its cache for the length of a test."""
    folder = tmp_path / "data-folder"
    folder.mkdir()
    monkeypatch.setenv("FEATHERWEIGHT_DATA", str(folder))
    return folder
