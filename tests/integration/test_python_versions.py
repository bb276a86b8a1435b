"""The wheel, installed as a server has it with each Python of VERSIONS that is on the path: the bundled models give the
same outputs, bit for bit, because constraints.txt gives each the same versions of the runtimes."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.imaging.tiny import write_images
from tests.integration.conftest import ROOT
from tests.integration.test_serving_install import Server, pip
from tests.test_python_versions import VERSIONS

TIMES = ("decode_ms", "inference_ms")
MODELS = "import featherweight.core.bundled as b; print(b.data_directory() / 'models')"


def find_pythons() -> dict[str, str]:
    """The interpreters that start: pyenv leaves one on the path for each version that it could have."""
    found = {}
    for version in VERSIONS:
        python = shutil.which(f"python{version}")
        if python and subprocess.run([python, "-c", ""], capture_output=True, check=False, timeout=60).returncode == 0:
            found[version] = python
    return found


def install(python: str, wheel: Path, home: Path) -> Server:
    made = subprocess.run([python, "-m", "venv", home / "venv"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    server = Server(home / "venv" / "bin", home)
    words = ["--only-binary=:all:", "--constraint", str(ROOT / "constraints.txt")]
    words += [f"featherweight[fraud] @ {wheel.as_uri()}"]
    installed = pip(server.bin / "python", "install", *words, timeout_s=900)  # fetches what no earlier run has fetched
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return server


def run_bundled_models(server: Server, images: Path, transactions: Path) -> tuple[list[dict[str, str]], bytes]:
    """What the two models say of the same images and transactions, without the times."""
    server.featherweight("imaging", "classify", str(images), "--out", "classified")
    with (server.folder / "classified" / "results.csv").open(newline="") as stream:
        rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)]
    server.featherweight("fraud", "score", "--input", str(transactions), "--output", "scored.jsonl")
    models = server.run("python", "-I", "-c", MODELS).stdout.strip()
    for model in ("chest-xray", "card-fraud"):
        server.featherweight("artifact", "verify", f"{models}/{model}")
    return rows, (server.folder / "scored.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_bundled_models_give_the_same_outputs_with_each_python(wheel: Path, tmp_path: Path) -> None:
    pythons = find_pythons()
    if len(pythons) < 2:
        pytest.skip(f"needs two of Python {', '.join(VERSIONS)} on the path; found {', '.join(pythons) or 'none'}")
    first = next(iter(pythons.values()))
    reached = pip(first, "download", "--no-deps", "--dest", str(tmp_path), "mdurl")
    if reached.returncode != 0:
        pytest.skip(f"needs a package index to install from: {reached.stderr.strip().splitlines()[-1:]}")

    outputs = {}
    for version, python in pythons.items():
        home = tmp_path / version
        home.mkdir()
        server = install(python, wheel, home)
        if not outputs:
            write_images(tmp_path / "images", 12)
            server.featherweight("fraud", "synthesize", str(tmp_path / "cards"), "--jsonl", "--customers", "50")
        outputs[version] = run_bundled_models(server, tmp_path / "images", tmp_path / "cards" / "transactions.jsonl")
        shutil.rmtree(home / "venv")

    wanted_rows, wanted_scores = next(iter(outputs.values()))
    assert len(wanted_rows) >= 12
    assert wanted_scores
    for version, (rows, scores) in outputs.items():
        assert rows == wanted_rows, version
        assert scores == wanted_scores, version
