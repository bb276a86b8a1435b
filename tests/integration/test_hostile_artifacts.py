"""Commands and a live service are given artifacts that cannot be trusted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.core.artifact import read_artifact
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.fraud.artifacts import endless_program, write_fraud_model
from tests.fraud.serving import COMMAND, make_transactions, serving
from tests.imaging.tiny import SIDE, write_model
from tests.small_programs import file_that_does_not_open


def test_a_service_decides_on_while_an_endless_artifact_is_tried(tmp_path: Path) -> None:
    model = tmp_path / "model"
    first = write_fraud_model(model, seed=0)
    transactions = iter(make_transactions(100_000))
    with serving(tmp_path, model) as served, served.client() as client:

        def decided_by() -> str:
            answer = client.post("/v1/score", json=next(transactions))
            assert answer.status_code == 200
            return str(answer.json()["model"])

        write_fraud_model(model, program=endless_program())
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert decided_by().endswith(first.sha256[:12])
        # A good one in its place is not held up by it.
        good, until = write_fraud_model(model, seed=1), time.monotonic() + 60
        while not decided_by().endswith(good.sha256[:12]):
            assert time.monotonic() < until, served.said
        write_fraud_model(model, program=endless_program())
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert decided_by().endswith(good.sha256[:12])
        began = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began < 20
    assert "Traceback" not in served.said
    assert read_artifact(model).manifest.name == "tiny-fraud"


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (("imaging", "classify", "{image}", "--out", "{out}", "--model", "{model}"), "imaging"),
        (("fraud", "score", "--input", "{empty}", "--output", "{out}", "--model", "{model}"), "fraud"),
        (("fraud", "serve", "--port", "0", "--model", "{model}"), "fraud"),
        (("fraud", "stream", "--bootstrap-servers", "localhost:1", "--model", "{model}"), "fraud"),
        (("artifact", "export", "{model}", "--target", "ort-mobile", "--out", "{out}"), "fraud"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_every_command_ends_with_5_for_a_program_that_fails_when_it_is_tried(
    words: tuple[str, ...], model: str, tmp_path: Path
) -> None:
    given, wanted, shape = (
        ("image", "logit", (1, SIDE, SIDE)) if model == "imaging" else ("features", "score", (len(CATALOGUE),))
    )
    specs = (TensorSpec(given, "float32", (None, *shape)),), (TensorSpec(wanted, "float32", (None, 1)),)
    program = Program(file_that_does_not_open(given, wanted, *shape), "fp32", *specs)
    if model == "imaging":
        write_model(tmp_path / "model", program=program)
    else:
        write_fraud_model(tmp_path / "model", program=program)
    Image.new("L", (40, 40), 128).save(tmp_path / "image.png")
    (tmp_path / "empty").write_bytes(b"")
    places = {"model": "model", "out": "out", "image": "image.png", "empty": "empty"}
    command = [word.format(**{name: tmp_path / place for name, place in places.items()}) for word in words]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *command], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 5, done.stderr
    assert "do not use this artifact" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
