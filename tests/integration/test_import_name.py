"""The wheel beside somebody else's `core` and `apps`: installed in either order, after theirs is removed, and started
in a folder that has both.

The environment sees the packages that run these tests, so that nothing is fetched; Featherweight itself is the wheel's.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fraud.artifacts import write_fraud_model
from tests.fraud.serving import make_transactions
from tests.imaging.tiny import write_images, write_model
from tests.integration.conftest import ROOT

THEIRS = "their-framework"
FOREIGN = "raise SystemExit('a module of somebody else was run')\n"
FOREIGN_FILES = (
    "core/__init__.py",
    "core/cli.py",
    "core/errors.py",
    "core/artifact/__init__.py",
    "apps/__init__.py",
    "apps/imaging/__init__.py",
    "apps/imaging/cli.py",
    "apps/fraud/__init__.py",
)
COMMANDS_PROGRAM = """
import json, typer
from featherweight.core.cli import app
def words(command, before=()):
    yield before
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            _, inner, _ = command.resolve_command(None, [name])
            yield from words(inner, (*before, name))
print(json.dumps(list(words(typer.main.get_command(app)))))
"""


def site_packages() -> list[Path]:
    """Where the packages are that run this test."""
    return [Path(entry) for entry in sys.path if entry.endswith("site-packages") and Path(entry).is_dir()]


def build_theirs(folder: Path) -> Path:
    """A wheel with the top-level packages `core` and `apps`, each of whose modules must never be imported by us."""
    info = "their_framework-1.0.dist-info"
    files = {
        **dict.fromkeys(FOREIGN_FILES, FOREIGN),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {THEIRS}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for name, text in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,\n"])
    path = folder / "their_framework-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@dataclass(frozen=True)
class Home:
    """A virtual environment, and an empty folder to work in."""

    folder: Path
    work: Path

    @classmethod
    def create(cls, folder: Path) -> Home:
        venv.create(folder / "venv", with_pip=False)
        (folder / "work").mkdir()
        home = cls(folder, folder / "work")
        home._see_ours()
        return home

    @property
    def bin(self) -> Path:
        return self.folder / "venv" / "bin"

    @property
    def packages(self) -> Path:
        (found,) = (self.folder / "venv" / "lib").glob("python*/site-packages")
        return found

    @property
    def _seen(self) -> Path:
        return self.packages / "packages-of-the-tests.pth"

    def _see_ours(self) -> None:
        self._seen.write_text("".join(f"{path}\n" for path in site_packages()))

    def pip(self, *arguments: str | Path) -> None:
        """What is only seen is hidden meanwhile: pip must neither count nor touch it."""
        self._seen.unlink()
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(self.bin / "python"),
            "--no-input",
            *map(str, arguments),
        ]
        done = subprocess.run(
            [*command, "--disable-pip-version-check"], capture_output=True, text=True, check=False, timeout=250
        )
        self._see_ours()
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, *wheels: Path) -> None:
        for wheel in wheels:
            self.pip("install", "--no-deps", "--no-index", wheel)

    def run(self, *command: str, cwd: Path | None = None, code: int = 0, **more: str) -> str:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FEATHERWEIGHT"))
        }
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=cwd or self.work,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "somebody else" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def check_works(self, out: str, cwd: Path | None = None, **environment: str) -> None:
        """A model verified, images classified, transactions scored, and a program that asks the front door."""
        inputs = [str(self.work / name) for name in ("model", "images", "fraud-model", "in.jsonl")]
        model, images, fraud, transactions = inputs
        results, decisions = self.work / out, self.work / f"{out}.jsonl"

        def run(*command: str) -> str:
            return self.run(*command, cwd=cwd, **environment)

        assert "every byte is as it was sealed" in run("featherweight", "artifact", "verify", model)
        run("featherweight", "imaging", "classify", images, "--model", model, "--out", str(results), "--workers", "1")
        with (results / "results.csv").open(newline="") as stream:
            rows = {Path(row["source"]).name: row for row in csv.DictReader(stream)}
        assert len(rows) >= 4
        run("featherweight", "fraud", "score", "--input", transactions, "--output", str(decisions), "--model", fraud)
        assert len(decisions.read_text().splitlines()) == 20
        asked = json.loads(run("python", "-c", FRONT_DOOR, model, images).splitlines()[-1])
        assert Path(asked.pop("where")).is_relative_to(self.packages)
        for name, (decision, probability) in asked.items():
            assert rows[name]["decision"] == decision
            assert float(rows[name]["probability"]) == pytest.approx(probability, abs=1e-6)


FRONT_DOOR = """
import json, pathlib, sys
import numpy
from PIL import Image
import featherweight
files = sorted(pathlib.Path(sys.argv[2]).rglob("*.png"))
with featherweight.open_model(sys.argv[1]) as model:
    found = model.predict([numpy.asarray(Image.open(file)) for file in files])
told = zip((file.name for file in files), zip(found.decisions.tolist(), found.probabilities.tolist()))
print(json.dumps({"where": featherweight.__file__, **dict(told)}))
"""


def fill(home: Home) -> None:
    """The inputs of the commands."""
    write_model(home.work / "model")
    write_images(home.work / "images", 4)
    deep = np.random.default_rng(2).integers(0, 65536, (50, 40), np.uint16)
    Image.fromarray(deep).save(home.work / "images" / "deep.png")
    write_fraud_model(home.work / "fraud-model")
    (home.work / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_transactions(20)))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_theirs(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def home(wheel: Path, theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Theirs, and ours after it. One environment for all tests, the last two of which change it: in another one all
    that is compiled would be compiled again."""
    home = Home.create(tmp_path_factory.mktemp("home"))
    home.install(theirs, wheel)
    fill(home)
    return home


@pytest.fixture(scope="module")
def folder_of_both(home: Home) -> Path:
    """As a project has that calls its own folders `core` and `apps`."""
    folder = home.folder / "project"
    for name in FOREIGN_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(FOREIGN)
    return folder


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"featherweight", "featherweight-0.1.0.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    held = set(names)
    for wanted in (
        "__init__.py",
        "py.typed",  # in the package that is imported: type checkers look nowhere else
        "core/api/notebook.html.j2",
        "core/data/catalogue.toml",
        "core/evidence/reports/evidence.schema.json",
        "core/evidence/reports/templates/evidence.html.j2",
        "core/evidence/reports/templates/style.css",
        "apps/imaging/writers/page.html",
        "apps/imaging/writers/style.css",
    ):
        assert f"featherweight/{wanted}" in held
    # Every file that is committed and no Python is inside, so that a new template or recipe is not forgotten.
    listed = subprocess.run(
        ["git", "ls-files", "core", "apps", "data/models"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        committed = [name.replace("data/models", "core/data/models") for name in listed.stdout.splitlines()]
        assert [name for name in committed if f"featherweight/{name}" not in held] == []


def test_theirs_and_then_ours(home: Home) -> None:
    assert (home.packages / "core" / "cli.py").read_text() == FOREIGN
    home.check_works("after-theirs")


def test_a_folder_that_has_both(home: Home, folder_of_both: Path) -> None:
    home.check_works("folder", cwd=folder_of_both)


def test_a_path_that_has_both(home: Home, folder_of_both: Path) -> None:
    """As Django and its like put the project's folder first on the path."""
    home.check_works("path", PYTHONPATH=str(folder_of_both))


def test_every_command_starts_there(home: Home, folder_of_both: Path) -> None:
    commands = json.loads(home.run("python", "-c", COMMANDS_PROGRAM, cwd=folder_of_both))
    assert ["imaging", "classify"] in commands
    assert ["fraud", "stream"] in commands
    assert ["artifact", "verify"] in commands
    assert len(commands) > 15
    for words in commands:
        assert "Usage: featherweight" in home.run("featherweight", *words, "--help", cwd=folder_of_both, COLUMNS="200")
    home.run("python", "-m", "featherweight.core.cli", "--help", cwd=folder_of_both)


def test_after_theirs_is_removed(home: Home) -> None:
    home.pip("uninstall", "--yes", THEIRS)
    assert not (home.packages / "core").exists()
    home.check_works("alone")


def test_ours_and_then_theirs(home: Home, theirs: Path) -> None:
    home.pip("uninstall", "--yes", THEIRS)
    home.install(theirs)
    home.check_works("before-theirs")
    # And they lose nothing by the removal of ours.
    home.pip("uninstall", "--yes", "featherweight")
    assert not (home.packages / "featherweight").exists()
    for name in FOREIGN_FILES:
        assert (home.packages / name).read_text() == FOREIGN
