"""What every test shares: hypothesis' profile and an environment of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code; a run in CI must find what the run before it found.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that `featherweight data` uses as its cache for the length of a test."""
    folder = tmp_path / "data-folder"
    folder.mkdir()
    monkeypatch.setenv("FEATHERWEIGHT_DATA", str(folder))
    return folder
