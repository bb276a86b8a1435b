"""No Python version is named that `make test-versions` does not test; each has an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PREFIX = "Programming Language :: Python :: "
NAMED = [line.removeprefix(PREFIX) for line in PROJECT["project"]["classifiers"] if line.startswith(PREFIX)]
ASSIGNED = "VERSIONS := "
VERSIONS = next(
    line.removeprefix(ASSIGNED).split()
    for line in (ROOT / "Makefile").read_text().splitlines()
    if line.startswith(ASSIGNED)
)

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(folder: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")}
    environment = kept if path is None else {**kept, "PATH": str(path)}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_this_python_is_one_that_make_tests() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in VERSIONS


def test_one_lowest_version_everywhere() -> None:
    lowest = VERSIONS[0]
    assert PROJECT["project"]["requires-python"] == f">={lowest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")


def test_make_tests_each_version_that_is_named() -> None:
    assert NAMED
    assert set(NAMED) <= set(VERSIONS)


@needs_make
def test_an_interpreter_that_is_named_has_an_environment_of_its_own() -> None:
    assert "\n.venv/bin/python -m pytest" in "\n" + make(ROOT, "-n", "test").stdout
    assert "\n.venv-python3.12/bin/python -m pytest" in "\n" + make(ROOT, "-n", "test", "PYTHON=python3.12").stdout
    assert "\n.venv-python3.12/bin/python -m pytest" in "\n" + make(ROOT, "-n", "test", "PYTHON=/x/python3.12").stdout
    assert "VENV=.venv-python3.12 ./demo.sh" in make(ROOT, "-n", "demo", "PYTHON=python3.12").stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile, and environments that look installed. Their Python notes its version; told to, it fails."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for version in VERSIONS:
        home = tmp_path / f".venv-python{version}"
        (home / "bin").mkdir(parents=True)
        python = home / "bin" / "python"
        python.write_text(f'#!/bin/sh\necho "{version} $*" >> ran\n[ ! -e fail-{version} ]\n')
        python.chmod(0o755)
        (home / ".installed").touch()
    (tmp_path / "bin").mkdir()
    for program in ("make", "sh"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def install_pythons(checkout: Path, *versions: str) -> Path:
    for version in versions:
        python = checkout / "bin" / f"python{version}"
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
    return checkout / "bin"


@needs_make
def test_each_version_that_is_installed_is_tested_also_after_one_has_failed(checkout: Path) -> None:
    path = install_pythons(checkout, "3.11", "3.13")
    done = make(checkout, "test-versions", path=path)
    assert done.returncode == 0, done.stderr
    assert (checkout / "ran").read_text().splitlines() == [
        f"{version} -m pytest --numprocesses=2 --dist=loadfile" for version in ("3.11", "3.13")
    ]
    assert "python3.12 is not installed here" in done.stdout
    assert "ran with: 3.11 3.13; failed with: none" in done.stdout

    (checkout / "fail-3.11").touch()
    failed = make(checkout, "test-versions", path=path)
    assert failed.returncode == 2
    assert "ran with: 3.11 3.13; failed with: 3.11" in failed.stdout


@needs_make
def test_no_version_at_all_is_a_failure(checkout: Path) -> None:
    done = make(checkout, "test-versions", path=install_pythons(checkout))
    assert done.returncode == 2
    assert "ran with: none" in done.stdout
