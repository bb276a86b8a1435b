"""The notebooks of the documentation run as they stand, and keep no outputs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cells"]
    return found


def program(path: Path) -> str:
    """All cells of code, one after the other."""
    return "\n\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")


def test_there_are_three_and_their_outputs_are_stripped() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["lightgbm", "onnx", "torch"]
    for path in NOTEBOOKS:
        ast.parse(program(path))
        for cell in cells(path):
            assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None), path


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", program(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "models" / path.stem / "manifest.json").is_file()
