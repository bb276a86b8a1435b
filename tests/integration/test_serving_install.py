"""The wheel, installed the way a server has it: the base dependencies and nothing to train with."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fraud.artifacts import write_fraud_model
from tests.fraud.serving import make_transactions
from tests.imaging.tiny import write_images, write_model

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "data" / "models" / "chest-xray"
INSTALL = ("install", "--only-binary=:all:", "--no-compile", "--constraint", str(ROOT / "constraints.txt"))
"""Not compiled: most of it is never imported here, and Python compiles what is."""
TRAINING = ("torch", "torchvision", "sklearn", "onnx", "safetensors", "torch_pruning")


@dataclass(frozen=True)
class Server:
    """A virtual environment with the wheel. folder: an empty working directory, far from the checkout."""

    bin: Path
    folder: Path

    def run(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FEATHERWEIGHT"))
        }
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def featherweight(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("featherweight", *arguments, code=code)


def pip(python: Path | str, *arguments: str, timeout_s: float = 250) -> subprocess.CompletedProcess[str]:
    """pip of the tests' own environment, for another interpreter: to put one there takes seconds."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--no-input", "--disable-pip-version-check"]
    command += arguments
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    home = tmp_path_factory.mktemp("server")
    venv.create(home / "venv", with_pip=False)
    python = home / "venv" / "bin" / "python"
    # Only an index that cannot be reached excuses this test: what is missing or in conflict must fail it.
    reached = pip(python, "download", "--no-deps", "--dest", str(home), "mdurl")
    if reached.returncode != 0:
        pytest.skip(f"needs a package index to install from: {reached.stderr.strip().splitlines()[-1:]}")
    installed = pip(python, *INSTALL, str(wheel))
    assert installed.returncode == 0, installed.stdout + installed.stderr
    folder = home / "work"
    folder.mkdir()
    return Server(python.parent, folder)


def test_there_is_nothing_to_train_with(server: Server) -> None:
    probe = f"import importlib.util as u; print([n for n in {TRAINING!r} if u.find_spec(n)])"
    assert server.run("python", "-I", "-c", probe).stdout.strip() == "[]"
    where = server.run(
        "python", "-I", "-c", "import featherweight.core.bundled as b; print(b.data_directory())"
    ).stdout.strip()
    assert ROOT not in Path(where).parents
    assert (Path(where) / "catalogue.toml").is_file()


def test_help_names_every_group(server: Server) -> None:
    text = server.featherweight("--help").stdout
    for group in ("optimize", "artifact", "hardware", "imaging", "data"):
        assert group in text
    for group in ("artifact", "imaging", "data"):
        assert "Usage" in server.featherweight(group, "--help").stdout


def test_all_names_are_there_and_told(server: Server) -> None:
    shown = "print(pydoc.plain(pydoc.render_doc(featherweight)))"
    program = f"import pydoc, featherweight; from featherweight import *; {shown}"
    told = server.run("python", "-I", "-c", program).stdout
    for name in ("open_model", "read_evidence", "optimize", "OpenModel", "Outcome", "TensorError"):
        assert name in told


def test_hardware_says_why_a_backend_cannot_run(server: Server) -> None:
    backends = json.loads(server.featherweight("hardware", "--json").stdout)["backends"]
    assert backends["onnxruntime"]["available"] is True
    assert backends["torch"]["available"] is False
    assert backends["torch"]["reason"]


def test_the_data_catalogue_is_in_the_wheel(server: Server) -> None:
    assert "pneumoniamnist" in {
        row["name"] for row in json.loads(server.featherweight("data", "list", "--json").stdout)
    }


def test_a_folder_is_classified(server: Server) -> None:
    write_model(server.folder / "model")
    write_images(server.folder / "images", 12)
    assert "manifest" in server.featherweight("artifact", "verify", "model").stdout
    server.featherweight("imaging", "classify", "images", "--model", "model", "--out", "out")
    with (server.folder / "out" / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) >= 12
    assert {row["decision"] for row in rows} <= {"normal", "suspicious"}
    assert (server.folder / "out" / "index.html").stat().st_size > 1000


@pytest.mark.skipif(not (BUNDLED / "manifest.json").is_file(), reason="no bundled model data/models/chest-xray yet")
def test_the_bundled_model_is_in_the_wheel_and_is_the_default(server: Server) -> None:
    where = server.run(
        "python", "-I", "-c", "import featherweight.core.bundled as b; print(b.data_directory())"
    ).stdout.strip()
    server.featherweight("artifact", "verify", f"{where}/models/chest-xray")
    write_images(server.folder / "more", 6)
    server.featherweight("imaging", "classify", "more", "--out", "bundled")
    with (server.folder / "bundled" / "results.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) >= 6


def test_training_and_optimizing_name_the_missing_extra(server: Server) -> None:
    (server.folder / "x.toml").write_text((ROOT / "apps" / "imaging" / "recipes" / "demo.toml").read_text())
    message = server.featherweight("optimize", "x.toml", "--out", "sealed", code=2).stderr
    assert "its extra 'train'" in message
    assert not (server.folder / "sealed").exists()


FRAUD = ("fraud", "score", "--input", "in.jsonl", "--output", "out.jsonl", "--model", "fraud-model")


@pytest.fixture(scope="module")
def transactions(server: Server) -> Path:
    """in.jsonl, and a model beside it."""
    write_fraud_model(server.folder / "fraud-model")
    path = server.folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_transactions(50)))
    return path


def test_comparing_names_the_missing_extra(server: Server) -> None:
    words = ("compare", "a.csv", "b.csv", "--data", "c.csv", "--label", "y", "--limit", "auc_loss=0.1", "--out", "v")
    assert "its extra 'compare'" in server.featherweight(*words, code=2).stderr


def test_scoring_names_the_missing_extra(server: Server, transactions: Path) -> None:
    for words in (
        FRAUD,
        ("fraud", "serve", "--model", "fraud-model"),
        ("fraud", "stream", "--bootstrap-servers", "localhost:1"),
    ):
        assert "its extra 'fraud'" in server.featherweight(*words, code=2).stderr
    assert "score" in server.featherweight("fraud", "--help").stdout


# From here on the extra is there; what asks for its absence stands above.
@pytest.fixture(scope="module")
def scorer(server: Server, wheel: Path) -> Server:
    installed = pip(server.bin / "python", *INSTALL, f"featherweight[fraud] @ {wheel.as_uri()}")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return server


def test_transactions_are_scored_without_anything_to_train_with(scorer: Server, transactions: Path) -> None:
    probe = f"import importlib.util as u; print([n for n in {TRAINING!r} if u.find_spec(n)])"
    assert scorer.run("python", "-I", "-c", probe).stdout.strip() == "['onnx']"
    assert "50 transactions" in scorer.featherweight(*FRAUD).stderr
    rows = [json.loads(line) for line in (scorer.folder / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 50
    assert {row["outcome"] for row in rows} <= {"approve", "review", "decline"}
