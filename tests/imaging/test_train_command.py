"""`imaging train` as a process: what it prints where, and a folder that is there when it is whole."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from apps.imaging.trained import read_trained

COMMAND = (sys.executable, "-c", "from core.cli import main; main()", "imaging", "train")
SMALL = ("--network", "compact", "--side", "32", "--batch", "8")
EPOCHS = 20
"""So many that they are not over when the interruption comes."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright images are the positive ones; each is a patient's only one."""
    folder = tmp_path_factory.mktemp("data")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "patient", "split"))
        for index in range(48):
            label, split = index % 2, ("train", "train", "validation", "test")[index // 2 % 4]
            Image.new("L", (32, 32), 60 + 100 * label + index).save(folder / f"{index}.png")
            rows.writerow((f"{index}.png", label, f"p{index}", split))
    return folder


def start(data: Path, out: Path, epochs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--data", str(data), "--out", str(out), *SMALL, "--epochs", str(epochs), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_interrupted_and_gone_on_with_nothing_but_json_on_standard_output(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "chest"
    first = start(data, out, epochs=EPOCHS)
    assert first.stderr is not None
    told = next(line for line in first.stderr if "epoch 1:" in line)
    first.send_signal(signal.SIGINT)
    printed, rest = first.communicate(timeout=120)
    assert (first.returncode, printed) == (130, ""), told + rest
    assert "the same command goes on" in rest
    assert "Traceback" not in rest
    assert not out.exists()
    (work,) = out.parent.iterdir()
    assert (work / "checkpoint.safetensors").is_file()

    second = start(data, out, epochs=EPOCHS)
    printed, rest = second.communicate(timeout=120)
    assert second.returncode == 0, rest
    assert "epoch 1:" not in rest
    assert f"epoch {EPOCHS}:" in rest
    assert json.loads(printed)["train_cases"] == 24
    assert [path.name for path in out.parent.iterdir()] == ["chest"]
    assert json.loads((out / "metrics.json").read_text()) == json.loads(printed)
    assert read_trained(out).description.network == "compact"


def test_a_second_training_into_the_same_folder_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "chest"
    first = start(data, out, epochs=400)
    assert first.stderr is not None
    try:
        next(line for line in first.stderr if "epoch 1:" in line)
        second = start(data, out, epochs=1)
        printed, told = second.communicate(timeout=120)
        assert (second.returncode, printed) == (2, ""), told
        assert "another process writes there" in told
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    third = start(data, out, epochs=1)  # the lock of a killed process is nobody's
    _, told = third.communicate(timeout=120)
    assert "another process" not in told
