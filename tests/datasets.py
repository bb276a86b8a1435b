"""Local copies of the public data sets, for the tests that need real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featherweight.core.datasets.catalogue import read_catalogue

_NAMED = os.environ.get("FEATHERWEIGHT_DATA")  # read once: a test may point the variable elsewhere
_ROOT = Path(__file__).resolve().parent.parent


def data_folders() -> tuple[Path, ...]:
    """Where copies may lie: the folder of FEATHERWEIGHT_DATA, or else what was fetched and one beside the checkout."""
    if _NAMED:
        return (Path(_NAMED),)
    return (_ROOT / "data" / "cache", _ROOT.parent / "shared" / "datasets")


def local_copy(name: str) -> Path:
    """The file of a set of the catalogue; skips the test, with the set's name, where there is none."""
    entry = read_catalogue()[name]
    for folder in data_folders():
        path = folder / entry.file
        if path.is_file() and path.stat().st_size == entry.bytes:
            return path
    pytest.skip(f"needs the data set {name}: featherweight data fetch {name}, or name its folder in FEATHERWEIGHT_DATA")
