"""What every level of the command has, the completion of shells, and `recipe new`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest


class Run(Protocol):
    def __call__(
        self, *words: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(
        *words: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "featherweight.core.cli", *words],
            capture_output=True,
            text=True,
            env=os.environ | (env or {}),
            cwd=cwd,
            check=False,
        )

    return run


@pytest.mark.parametrize("command", ["artifact show", "data", "fraud score"])
def test_help_and_version_on_every_level(command: str, run: Run) -> None:
    assert f"Usage: featherweight {command}" in run(*command.split(), "-h").stdout
    assert run(*command.split(), "--version").stdout.startswith("featherweight 0.")


def test_recipe_new_writes_what_optimize_reads(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert run("recipe", "new", "fraud", str(path)).returncode == 0
    assert 'name = "my-trees"' in path.read_text()
    optimized = run("optimize", str(path), "--out", str(tmp_path / "model"), cwd=tmp_path)
    assert optimized.returncode == 2  # the recipe is whole; only the model that it names is not there yet
    assert "runs/fraud" in optimized.stderr
    assert "fault" not in optimized.stderr


def test_recipe_new_never_overwrites(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("somebody's work")
    result = run("recipe", "new", "imaging", str(path))
    assert result.returncode == 2
    assert "is there already" in result.stderr
    assert path.read_text() == "somebody's work"
    assert run("recipe", "new", "imaging", str(tmp_path / "none" / "mine.toml")).returncode == 6
    assert run("recipe", "new", "imaging", "-").stdout.startswith("# A recipe for the app imaging.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_writes_below_home_alone(shell: str, run: Run, tmp_path: Path) -> None:
    """And only what the shell reads at its start; what it completes comes from the commands themselves."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = run("--install-completion", shell, env=environment)
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    expected = {
        "bash": {".bashrc", ".bash_completions/featherweight.sh"},
        "zsh": {".zshrc", ".zfunc/_featherweight"},
        "fish": {".config/fish/completions/featherweight.fish"},
    }
    assert written == expected[shell]
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_completion_knows_the_commands_of_the_apps(run: Run) -> None:
    asked = {"_FEATHERWEIGHT_COMPLETE": "complete_bash", "COMP_WORDS": "featherweight fraud s", "COMP_CWORD": "2"}
    assert run(env=asked).stdout.split() == ["stream", "score", "serve", "synthesize"]
