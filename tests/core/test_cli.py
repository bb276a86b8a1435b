"""The command `featherweight`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from featherweight.core import cli
from featherweight.core.artifact import Contents, write_artifact
from featherweight.core.errors import EXTRA_OF, MissingExtraError, UsageError
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.small_programs import identity_file

ROOT = Path(__file__).parents[2]
SERVING = (
    "featherweight.core.artifact",
    "featherweight.core.backends.base",
    "featherweight.core.backends.fastest",
    "featherweight.core.backends.onnxruntime",
    "featherweight.core.backends.openvino",
    "featherweight.core.backends.registry",
    "featherweight.core.backends.torch",
    "featherweight.core.cli",
    "featherweight.core.datasets.cli",
    "featherweight.core.evidence",
    "featherweight.core.hardware",
    "featherweight.core.measure.performance",
    "featherweight.apps.imaging.batch.job",
    "featherweight.apps.imaging.classify",
    "featherweight.apps.imaging.cli",
    "featherweight.apps.imaging.pixels",
    "featherweight.apps.imaging.readers",
    "featherweight.apps.imaging.sealed",
    "featherweight.apps.imaging.writers",
)


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


class Run(Protocol):
    def __call__(self, *arguments: str, code: int = 0) -> Done: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The console script's function in this process, which is ten times faster than another process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str, code: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["featherweight", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        text = capsys.readouterr()
        assert ended.value.code == code, text.err
        return Done(text.out, text.err)

    return call


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    specs = (TensorSpec("x", "float32", (None, 3)),)
    contents = Contents(
        name="tiny [red]x[/red]",
        app="imaging",
        labels=("a", "b"),
        programs=(Program(identity_file(), "int8", specs, specs),),
        sealed={"p.json": b"{}"},
        evidence={"evidence.json": b"{}"},
        weights_source="none",
        versions={"featherweight": "0.1.0"},
        forced=True,
        missed_limits=("auc fell by 0.01",),
    )
    return write_artifact(tmp_path / "artifact", contents).directory


def test_help_names_every_group_and_exit_code(run: Run) -> None:
    text = run("--help").stdout
    for word in ("optimize", "artifact", "imaging", "data", "hardware", "Exit codes", "4 a limit was missed"):
        assert word in text
    for group in ("hardware", "optimize", "artifact", "data"):
        assert "Usage:" in run(group, "--help").stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['featherweight', '--help']\n"
        "from featherweight.core.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnxruntime', 'openvino', 'torch', 'pyarrow', 'psutil', 'PIL'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(run: Run) -> None:
    assert run("--version").stdout.startswith("featherweight 0.")


def test_hardware(run: Run) -> None:
    text = run("hardware").stdout
    assert "onnxruntime" in text
    assert "cores" in text
    told = json.loads(run("hardware", "--json").stdout)
    assert told["hardware"]["cores_usable"] >= 1
    assert told["backends"]["onnxruntime"]["available"] is True
    assert told["backends"]["openvino"]["extra"] == "openvino"
    assert told["energy"].keys() == {"rapl", "nvml"}
    assert all(told["energy"].values())
    assert "energy counter" in text


def test_a_backend_that_cannot_run_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    assert "pip install '.[openvino]'" in run("hardware").stdout


def test_artifact_show(run: Run, artifact: Path) -> None:
    text = run("artifact", "show", str(artifact)).stdout
    assert "tiny [red]x[/red]" in text
    assert "auc fell by 0.01" in text
    told = json.loads(run("artifact", "show", str(artifact), "--json").stdout)
    assert told["manifest"]["labels"] == ["a", "b"]
    assert len(told["sha256"]) == 64


def test_artifact_verify(run: Run, artifact: Path) -> None:
    assert "every byte is as it was sealed" in run("artifact", "verify", str(artifact)).stdout
    assert json.loads(run("artifact", "verify", str(artifact), "--json").stdout)["passed"] is True
    run("artifact", "verify", str(artifact), "--sha256", "0" * 64, code=5)
    (artifact / "sealed" / "p.json").write_bytes(b"[]")
    assert "do not use this artifact" in run("artifact", "verify", str(artifact), code=5).stdout
    told = json.loads(run("artifact", "verify", str(artifact), "--json", code=5).stdout)
    assert [check["file"] for check in told["checks"] if not check["passed"]] == ["sealed/p.json"]
    assert "are not those that were sealed" in run("artifact", "show", str(artifact), code=5).stderr


def test_mistakes_are_told_in_words(run: Run, tmp_path: Path) -> None:
    assert "no such recipe file" in run("optimize", "none.toml", "--out", str(tmp_path), code=2).stderr
    assert "no such recipe file" in run("optimize", "x" * 300, "--out", str(tmp_path), code=2).stderr
    assert "there is no such folder" in run("artifact", "show", "x" * 300, code=2).stderr
    assert "there is no such folder" in run("artifact", "verify", str(tmp_path / "none"), code=2).stderr
    out = str(tmp_path / "out")
    assert "is empty" in run("artifact", "export", str(tmp_path), "--target", "ort-mobile", "--out", out, code=2).stderr
    assert "1024" in run("optimize", "none.toml", "--out", str(tmp_path), "--threads", "1025", code=2).stderr
    assert "there is no such folder" in run("artifact", "show", str(tmp_path / "none"), code=2).stderr
    assert "Did you mean 'imaging'" in run("imagin", code=2).stderr
    run("artifact", "show", code=2)


Plugin = Callable[[str, str], str]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """Install a distribution whose entry point `plugged` has the given value, and a module with the given source."""

    def install(value: str, source: str) -> str:
        (tmp_path / "plugin_under_test.py").write_text(source)
        info = tmp_path / "plugin_under_test-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-under-test\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[featherweight.commands]\nplugged = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)
        return f"{tmp_path}{os.pathsep}{ROOT}"

    yield install
    sys.modules.pop("plugin_under_test", None)


PLUGIN = """
import time
import typer
from featherweight.core.errors import DataError

app = typer.Typer()

@app.command()
def greet(name: str) -> None:
    typer.echo(f"hello {name}")

@app.command()
def fail() -> None:
    raise DataError("scan.dcm: found [red]nothing[/red]")

@app.command()
def train() -> None:
    raise ModuleNotFoundError("No module named torch", name="torch")

@app.command()
def wait() -> None:
    print("ready", flush=True)
    time.sleep(60)

@app.command()
def flood() -> None:
    while True:
        print("x" * 1000)
"""


def test_an_app_registers_its_group(run: Run, plug: Plugin) -> None:
    plug("plugin_under_test:app", PLUGIN)
    assert "plugged" in run("--help").stdout
    assert run("plugged", "greet", "you").stdout == "hello you\n"
    assert "error: scan.dcm: found [red]nothing[/red]" in run("plugged", "fail", code=2).stderr
    assert "pip install '.[train]'" in run("plugged", "train", code=2).stderr
    assert "Usage: featherweight plugged greet" in run("plugged", "greet", "--help").stdout


def test_an_interruption_is_130_and_an_unread_output_quiet(plug: Plugin) -> None:
    settings = {**os.environ, "PYTHONPATH": plug("plugin_under_test:app", PLUGIN)}
    command = [sys.executable, "-m", "featherweight.core.cli", "plugged"]
    with (
        subprocess.Popen([*command, "wait"], stdout=-1, stderr=-1, env=settings) as waiting,
        subprocess.Popen([*command, "flood"], stdout=-1, stderr=-1, env=settings) as flooding,
    ):
        assert waiting.stdout is not None
        waiting.stdout.readline()
        time.sleep(0.1)
        waiting.send_signal(signal.SIGINT)
        assert b"Traceback" not in waiting.communicate(timeout=30)[1]
        assert waiting.returncode == 130
        assert flooding.stdout is not None
        assert flooding.stderr is not None
        flooding.stdout.readline()
        flooding.stdout.close()
        assert flooding.stderr.read() == b""


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
def test_a_broken_plugin_is_told_and_breaks_nothing_else(
    run: Run, plug: Plugin, value: str, source: str, said: str
) -> None:
    plug(value, source)
    text = run("plugged", "greet", code=2).stderr
    assert said in text
    assert "plugin-under-test" in text
    assert "plugged" in run("--help").stdout


def test_extras_of_missing_modules_exist() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    for extra in set(EXTRA_OF.values()):
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


@pytest.mark.parametrize("extra", ["fraud", "openvino", "train"])
def test_every_package_of_an_extra_is_named_when_it_is_missing(extra: str) -> None:
    """A traceback would be all that a server gets whose extra was installed before a package was added to it."""
    from importlib.metadata import packages_distributions, requires

    modules = packages_distributions()
    for requirement in requires("featherweight") or ():
        name, _, marker = requirement.partition(";")
        if f'extra == "{extra}"' in marker.replace("'", '"'):
            wanted = re.split(r"[<>=!~ \[]", name)[0].lower().replace("_", "-")
            found = {m for m, owners in modules.items() if wanted in {o.lower().replace("_", "-") for o in owners}}
            assert not found or found & set(EXTRA_OF), (
                f"featherweight.core.errors.EXTRA_OF has nothing of {wanted}: {sorted(found)}"
            )
