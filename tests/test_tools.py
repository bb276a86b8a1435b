"""`make test-tools` on a host without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FETCH = Path(__file__).parent / "tools" / "fetch.sh"


def test_package_lists_that_cannot_be_had_are_asked_for_once(tmp_path: Path) -> None:
    for program in ("bash", "cut", "dirname", "grep", "mktemp", "rm", "tail", "timeout"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    calls = tmp_path / "calls"
    for program, does in (("id", "echo 0"), ("apt-get", f'echo "$1" >> {calls}; exit 100')):
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / program).chmod(0o755)
    said = subprocess.run(
        ["bash", FETCH], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout
    assert calls.read_text().split() == ["update"]
    for name in ("strace", "qemu-x86_64", "java", "mvn"):
        assert f"test-tools: {name} cannot be had" in said
    assert "apt-get update ended with 100" in said
