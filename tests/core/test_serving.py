"""A model's source, and what it opens to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featherweight.core.artifact import Contents, write_artifact
from featherweight.core.errors import ArtifactError, UsageError, WrongModelError
from featherweight.core.program import Program
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import TensorSpec
from tests.small_programs import identity_file

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs, outputs = ((TensorSpec(name, "float32", (None, 4)),) for name in "xy")
    contents = Contents(
        name="same",
        app="imaging",
        labels=("a", "b"),
        programs=(Program(identity_file(), "fp32", inputs, outputs),),
        sealed={"p.json": b"{}"},
        evidence={"evidence.json": b"{}"},
        weights_source="none",
        versions={"featherweight": "0.1.0"},
    )
    return write_artifact(tmp_path_factory.mktemp("serving") / "model", contents).directory


def test_a_source_opens_to_an_artifact_with_a_session_that_runs(folder: Path) -> None:
    source = ModelSource(folder, "onnxruntime", threads=2)
    artifact = source.read("imaging")
    with source.open(artifact) as opened:
        assert (opened.artifact, opened.backend, opened.program) == (artifact, "onnxruntime", artifact.programs[0])
        np.testing.assert_array_equal(opened.session.run({"x": ROWS})["y"], ROWS)
    chosen = source.choose(artifact)
    assert (chosen.artifact, chosen.backend, chosen.program, chosen.threads) == (
        artifact, "onnxruntime", artifact.programs[0], 2,
    )  # fmt: skip
    chosen.check_tried(batches=(1,))
    with chosen.open() as opened:
        np.testing.assert_array_equal(opened.session.run({"x": ROWS})["y"], ROWS)


def test_what_cannot_be_opened_is_told(folder: Path) -> None:
    with pytest.raises(WrongModelError, match="not of 'fraud'"):
        ModelSource(folder).read("fraud")
    artifact = ModelSource(folder).read("imaging")
    for source, error, says in (
        (ModelSource(folder, "abacus"), UsageError, "abacus"),
        (ModelSource(folder, "onnxruntime", threads=0), UsageError, "threads = 0"),
        (ModelSource(folder, "onnxruntime", verify_decisions=True), ArtifactError, "no reference inputs sealed"),
    ):
        with pytest.raises(error, match=says):
            source.open(artifact)
        with pytest.raises(error, match=says):
            source.choose(artifact).open()
