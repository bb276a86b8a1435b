"""The layers that pyproject.toml promises hold, and a planted violation of each is seen to fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> tuple[int, str]:
    command = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(root / 'src')!r}); {LINT}",
        "--no-cache",
    ]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    return found.returncode, found.stdout + found.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("core", "apps", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_hold() -> None:
    code, text = lint(ROOT)
    assert code == 0, text
    assert "0 broken" in text


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/measure/performance.py", "import featherweight.apps.imaging.frames", "core never imports the apps"),
        ("core/artifact/store.py", "import torch", "the serving path needs no torch"),
        ("apps/imaging/pixels.py", "import sklearn", "the serving path needs no torch"),
        ("apps/imaging/pixels.py", "import cv2", "nothing under the GPL or LGPL is imported"),
        ("core/statistics/intervals.py", "import featherweight.core.passes.steps", "the layers of core"),
        ("core/tensors.py", "import featherweight.core.program", "the layers of core"),
        ("core/newcomer.py", "", "the layers of core"),
        ("apps/imaging/frames.py", "import featherweight.apps.imaging.batch.job", "the layers of the imaging app"),
        ("apps/fraud/labels.py", "import featherweight.apps.fraud.features.catalogue", "the layers of the fraud app"),
        ("apps/fraud/features/store.py", "import sklearn", "the serving path needs no torch"),
        ("core/backends/native.py", "import torch", "the serving path needs no torch"),
        ("core/doors/scores.py", "import torch", "the serving path needs no torch"),
        ("core/backends/fastest.py", "import onnx", "the base install has no onnx"),
        ("apps/fraud/http/service.py", "import featherweight.apps.fraud.http.heads", "layers of the fraud app's HTTP"),
        ("apps/fraud/plausible.py", "import featherweight.core.web.access", "the fraud service knows no HTTP"),
        ("core/evidence/figures.py", "import featherweight.core.evidence.reports.words", "no two siblings"),
    ],
)
def test_a_planted_violation_is_found(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / module
    before = path.read_text() if path.exists() else ""
    path.write_text(before + f"\n{line}\n")
    code, text = lint(copy)
    assert code == 1, text
    assert any(contract in row and "BROKEN" in row for row in text.splitlines()), text
