"""The command, run as people run it: in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import cli
from core.artifact import Contents, write_artifact
from core.errors import MissingExtraError, UsageError
from core.program import Program
from core.tensors import TensorSpec

ROOT = Path(__file__).parents[2]
SERVING = (
    "core.artifact",
    "core.backends.base",
    "core.backends.fastest",
    "core.backends.onnxruntime",
    "core.backends.openvino",
    "core.backends.registry",
    "core.backends.torch",
    "core.cli",
    "core.datasets_cli",
    "core.evidence",
    "core.hardware",
    "core.measure",
    "apps.imaging.batch",
    "apps.imaging.classify",
    "apps.imaging.cli",
    "apps.imaging.pixels",
    "apps.imaging.readers",
    "apps.imaging.settings",
    "apps.imaging.writers",
)


def run(*arguments: str, code: int = 0, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "core.cli", *arguments]
    settings = {**os.environ, "COLUMNS": "200", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=settings)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    specs = (TensorSpec("x", "float32", (None, 3)),)
    contents = Contents(
        name="tiny [red]x[/red]",
        app="imaging",
        labels=("a", "b"),
        programs=(Program(b"not opened here", "int8", specs, specs),),
        sealed={"p.json": b"{}"},
        evidence={"evidence.json": b"{}"},
        weights_source="none",
        versions={"featherweight": "0.1.0"},
        forced=True,
        missed_limits=("auc fell by 0.01",),
    )
    return write_artifact(tmp_path / "artifact", contents).directory


def test_help_names_every_group_and_exit_code() -> None:
    text = run("--help").stdout
    for word in ("optimize", "artifact", "imaging", "data", "hardware", "Exit codes", "4 a limit was missed"):
        assert word in text
    for group in ("hardware", "optimize", "artifact", "data"):
        assert "Usage:" in run(group, "--help").stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['featherweight', '--help']\n"
        "from core.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnxruntime', 'openvino', 'torch', 'pyarrow', 'psutil', 'cv2'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    assert run("--version").stdout.startswith("featherweight 0.")


def test_hardware() -> None:
    text = run("hardware").stdout
    assert "onnxruntime" in text
    assert "cores" in text
    told = json.loads(run("hardware", "--json").stdout)
    assert told["hardware"]["cores_usable"] >= 1
    assert told["backends"]["onnxruntime"]["available"] is True
    assert told["backends"]["openvino"]["extra"] == "openvino"


def test_a_backend_that_cannot_run_says_why(tmp_path: Path) -> None:
    """With a path of imports in which OpenVINO is hidden."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'openvino' else real(name, package)\n"
    )
    text = run("hardware", path=f"{tmp_path}{os.pathsep}{ROOT}").stdout
    assert "pip install 'featherweight[openvino]'" in text


def test_artifact_show(artifact: Path) -> None:
    text = run("artifact", "show", str(artifact)).stdout
    assert "tiny [red]x[/red]" in text
    assert "auc fell by 0.01" in text
    told = json.loads(run("artifact", "show", str(artifact), "--json").stdout)
    assert told["manifest"]["labels"] == ["a", "b"]
    assert len(told["sha256"]) == 64


def test_artifact_verify(artifact: Path) -> None:
    assert "every byte is as it was sealed" in run("artifact", "verify", str(artifact)).stdout
    assert json.loads(run("artifact", "verify", str(artifact), "--json").stdout)["passed"] is True
    run("artifact", "verify", str(artifact), "--sha256", "0" * 64, code=5)
    (artifact / "sealed" / "p.json").write_bytes(b"[]")
    assert "do not use this artifact" in run("artifact", "verify", str(artifact), code=5).stdout
    told = json.loads(run("artifact", "verify", str(artifact), "--json", code=5).stdout)
    assert [check["file"] for check in told["checks"] if not check["passed"]] == ["sealed/p.json"]
    assert "are not those that were sealed" in run("artifact", "show", str(artifact), code=5).stderr


def test_mistakes_are_told_in_words(tmp_path: Path) -> None:
    assert "no such recipe file" in run("optimize", "none.toml", "--out", str(tmp_path), code=2).stderr
    assert "does not exist" in run("artifact", "show", str(tmp_path / "none"), code=5).stderr
    assert "Did you mean 'imaging'" in run("imagin", code=2).stderr
    run("artifact", "show", code=2)


def _plugin(folder: Path, value: str, source: str) -> str:
    """An installed distribution with one entry point; returns the path that finds it."""
    (folder / "plugin_under_test.py").write_text(source)
    info = folder / "plugin_under_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-under-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[featherweight.commands]\nplugged = {value}\n")
    return f"{folder}{os.pathsep}{ROOT}"


def test_an_app_registers_its_group(tmp_path: Path) -> None:
    source = (
        "import typer\n"
        "from core.errors import DataError\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def greet(name: str) -> None:\n"
        "    typer.echo(f'hello {name}')\n"
        "@app.command()\n"
        "def fail() -> None:\n"
        "    raise DataError('scan.dcm: found [red]nothing[/red]')\n"
        "@app.command()\n"
        "def train() -> None:\n"
        "    raise ModuleNotFoundError('No module named torch', name='torch')\n"
        "@app.command()\n"
        "def wait() -> None:\n"
        "    import time\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "@app.command()\n"
        "def flood() -> None:\n"
        "    while True: print('x' * 1000)\n"
    )
    there = _plugin(tmp_path, "plugin_under_test:app", source)
    assert "plugged" in run("--help", path=there).stdout
    assert run("plugged", "greet", "you", path=there).stdout == "hello you\n"
    assert "error: scan.dcm: found [red]nothing[/red]" in run("plugged", "fail", code=2, path=there).stderr
    assert "pip install 'featherweight[train]'" in run("plugged", "train", code=2, path=there).stderr
    assert "Usage: featherweight plugged greet" in run("plugged", "greet", "--help", path=there).stdout
    _interrupted(there)
    _unread(there)


def _interrupted(there: str) -> None:
    command = [sys.executable, "-m", "core.cli", "plugged", "wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": there}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors


def _unread(there: str) -> None:
    command = [sys.executable, "-m", "core.cli", "plugged", "flood"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": there}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(30)
    assert errors == b""


@pytest.mark.parametrize(
    ("value", "source", "said"),
    [
        ("plugin_under_test:app", "import no_such_package_at_all", "no_such_package_at_all"),
        ("plugin_under_test:app", "def (", "invalid syntax"),
        ("plugin_under_test:missing", "", "missing"),
        ("plugin_under_test:app", "app = 3", "found int, expected a typer.Typer"),
        ("plugin_that_is_gone:app", "", "plugin_that_is_gone"),
    ],
)
def test_a_broken_plugin_is_told_and_breaks_nothing_else(tmp_path: Path, value: str, source: str, said: str) -> None:
    there = _plugin(tmp_path, value, source)
    text = run("plugged", "greet", code=2, path=there).stderr
    assert said in text
    assert "plugin-under-test" in text
    assert "plugged" in run("--help", path=there).stdout


def test_extras_of_missing_modules_exist() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    for extra in set(cli._EXTRAS.values()):
        assert f"\n{extra} = [" in settings
    assert issubclass(MissingExtraError, UsageError)


def test_the_serving_path_loads_no_training_library() -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {SERVING!r}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'torchvision', 'sklearn', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
