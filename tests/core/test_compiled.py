"""What numba has kept is used again, and never with constants that another module no longer has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
from constants import PLACE
from featherweight.core.compiled import compiled

@compiled({signature}constants=(PLACE,))
def place(number):
    return 10 * number + PLACE
"""
CALL = """
import kernel
from featherweight.core.compiled import find_kept
print(kernel.place(1), sum(kernel.place.stats.cache_hits.values()) if find_kept(kernel.place) else None)
"""


def call(folder: Path, place: int, cache: Path) -> list[str]:
    """(what the function gives, how often its code was found) in a process of its own."""
    (folder / "constants.py").write_text(f"PLACE = {place}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    environment |= {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", CALL], check=True, capture_output=True, env=environment, timeout=120)
    return run.stdout.decode().split()


@pytest.mark.parametrize(("signature", "writable"), [("", True), ('"int64(int64)", ', False)])
def test_code_with_other_constants_is_not_used(tmp_path: Path, signature: str, writable: bool) -> None:
    """Where our folder cannot be made, numba takes the one beside the source, where all constants would be one."""
    (tmp_path / "kernel.py").write_text(KERNEL.format(signature=signature))
    (tmp_path / "file").touch()
    cache = tmp_path / "cache" if writable else tmp_path / "file"
    assert call(tmp_path, 3, cache) == ["13", "0"]
    assert call(tmp_path, 3, cache) == ["13", "1"]
    assert call(tmp_path, 4, cache) == ["14", "0"]
    assert (tmp_path / "cache").exists() == writable
