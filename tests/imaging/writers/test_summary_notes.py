"""The artifact's notes and missed limits reach the job's summary; a journal belongs to one backend and precision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from featherweight.apps.imaging.batch.job import Job, run_job
from featherweight.apps.imaging.classify import SealedModel, read_model
from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, encode
from featherweight.apps.imaging.writers.summary import Summary
from featherweight.core.artifact import Contents, write_artifact
from featherweight.core.errors import UsageError
from featherweight.core.serving import ModelSource
from tests.imaging.tiny import LABELS, SIDE, onnx_program

MISSED, NOTES = ("auc_loss: 0.02, more than 0.01",), ("made without a reference set", "for tests alone")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SealedModel:
    decision = DecisionRule(slope=2.0, intercept=-26.0, threshold=0.4)
    contents = Contents(
        name="tiny",
        app="imaging",
        labels=LABELS,
        programs=[onnx_program()],
        sealed={"preprocess.json": encode(Preprocess(side=SIDE)), "decision.json": encode(decision)},
        evidence={},
        weights_source="drawn at random for tests",
        versions={},
        forced=True,
        missed_limits=MISSED,
        notes=NOTES,
    )
    folder = write_artifact(tmp_path_factory.mktemp("model") / "tiny", contents).directory
    return read_model(ModelSource(folder, backend="onnxruntime"))


def classify(model: SealedModel, folder: Path) -> Summary | None:
    source = folder / "in"
    source.mkdir(exist_ok=True)
    Image.new("L", (40, 40), 90).save(source / "a.png")
    job = Job(source=source, out=folder / "out", workers=1, batch=1)
    return run_job(job, model, on_progress=lambda _: None, stopping=lambda: False)


def test_missed_limits_and_notes_of_the_artifact_are_in_every_summary(model: SealedModel, tmp_path: Path) -> None:
    summary = classify(model, tmp_path)
    assert summary is not None
    assert (summary.model.missed_limits, summary.model.notes) == (MISSED, NOTES)
    written = json.loads((tmp_path / "out" / "summary.json").read_text())["model"]
    assert (written["missed_limits"], written["notes"]) == (list(MISSED), list(NOTES))
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(text in page for text in (*MISSED, *NOTES))


def test_a_job_does_not_go_on_with_another_backend_or_precision(model: SealedModel, tmp_path: Path) -> None:
    """Its table would mix decisions of two programs."""
    chosen = model.chosen
    classify(model, tmp_path)
    with pytest.raises(UsageError, match="backend was onnxruntime fp32, is now openvino fp32"):
        classify(replace(model, chosen=replace(chosen, backend="openvino")), tmp_path)
    with pytest.raises(UsageError, match="backend was onnxruntime fp32, is now onnxruntime int8"):
        classify(replace(model, chosen=replace(chosen, program=replace(chosen.program, precision="int8"))), tmp_path)
