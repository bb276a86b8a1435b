"""The current folder may hold anybody's files: none of them is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from featherweight.core.errors import BackendError
from featherweight.core.processes import run_module
from tests.imaging.tiny import write_images, write_model

FOREIGN = "raise SystemExit('a file of the current folder was run')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One where modules lie whose names Python and Featherweight import."""
    (tmp_path / "here" / "core").mkdir(parents=True)
    for name in ("struct.py", "queue.py", "core/__init__.py"):
        (tmp_path / "here" / name).write_text(FOREIGN)
    return tmp_path / "here"


def test_decoding_processes_run_nothing_that_lies_there(folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    write_model(tmp_path / "model")
    script = tmp_path / "bin" / "job.py"  # a script's own folder comes first, as with the installed command
    script.parent.mkdir()
    script.write_text("from featherweight.core.cli import main\nif __name__ == '__main__':\n    main()\n")
    words = ["imaging", "classify", "../images", "--model", "../model", "--out", "../out", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, script, *words], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "a file of the current folder" not in done.stderr


def test_fresh_processes_run_nothing_that_lies_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(BackendError, match=r"it ended with code 1: .*JSONDecodeError"):
        run_module("featherweight.core.measure.performance", b"", timeout_s=60, what="it", failure=BackendError)
