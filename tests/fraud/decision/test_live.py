"""Another artifact takes over while decisions go on; a broken one does not."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from featherweight.apps.fraud.decision.live import FolderState, LiveModel, open_checked, read_folder_state
from featherweight.apps.fraud.decision.scorer import Scorer
from featherweight.apps.fraud.features.catalogue import CATALOGUE, HANDBOOK
from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, encode
from featherweight.core.artifact.store import read_artifact
from featherweight.core.artifact.write import Contents, write_artifact
from featherweight.core.backends import tried
from featherweight.core.errors import ArtifactError, FeatherweightError
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import endless_program, trees_program, write_fraud_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_fraud_model(tmp_path / "model", seed=0)
    return tmp_path / "model"


@pytest.fixture
def live(folder: Path) -> Iterator[LiveModel]:
    model = LiveModel(ModelSource(folder, "onnxruntime"), look_every_s=0.0)
    yield model
    model.close()


def poll_until(live: LiveModel, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        live.poll()
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.005)


def seal(directory: Path, *, app: str = "fraud", source: str = "histories", delay_days: float = 7.0) -> None:
    schema = FeatureSchema(
        source=source,  # type: ignore[arg-type]
        names=CATALOGUE,
        reference_values=(1.0,) * len(CATALOGUE),
        delay_days=delay_days,
    )
    rule = DecisionRule(slope=1.0, intercept=0.0, review_threshold=0.9, decline_threshold=0.97, chosen_for="tests")
    write_artifact(
        directory,
        Contents(
            name="other",
            app=app,
            labels=("legitimate", "fraud"),
            programs=[trees_program(seed=5)],
            sealed={"features.json": encode(schema), "decision.json": encode(rule)},
            evidence={},
            weights_source="drawn at random for tests",
            versions={},
        ),
    )


def test_nothing_happens_while_the_folder_stands_still(live: LiveModel) -> None:
    before = live.scorer
    for _ in range(5):
        assert not live.poll()
    assert live.scorer is before


def test_a_replaced_artifact_takes_over(folder: Path, live: LiveModel) -> None:
    old = live.scorer.model
    write_fraud_model(folder, seed=1)
    poll_until(live, lambda: live.swaps == 1)
    assert live.scorer.model != old
    assert live.scorer.model.endswith(read_artifact(folder).sha256[:12])
    assert np.isfinite(live.scorer.score(np.ones(len(CATALOGUE), np.float32)))
    assert not live.poll()


def test_the_old_one_decides_until_poll_returns(folder: Path, live: LiveModel) -> None:
    old = live.scorer
    write_fraud_model(folder, seed=1)
    live.request_reload()
    assert not live.poll()
    assert live._opening is not None
    live._opening.result(60)
    assert live.scorer is old
    assert np.isfinite(old.score(np.ones(len(CATALOGUE), np.float32)))
    assert live.poll()
    assert live.scorer is not old


def test_copied_file_by_file_it_waits_for_the_last(folder: Path, tmp_path: Path) -> None:
    live = LiveModel(ModelSource(folder, "onnxruntime"), look_every_s=0.2)
    write_fraud_model(tmp_path / "new", seed=1)
    for path in sorted(tmp_path.glob("new/**/*")):
        if path.is_file():
            shutil.copyfile(path, folder / path.relative_to(tmp_path / "new"))
            live.poll()
            time.sleep(0.05)
            live.poll()
    poll_until(live, lambda: live.swaps == 1)
    assert live.refused == 0
    live.close()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda folder: next(folder.rglob("*.onnx*")).write_bytes(b"x"), "fp32.onnx"),
        (lambda folder: shutil.rmtree(folder), "there is no such folder"),
        (lambda folder: seal(folder, app="imaging"), "of the app 'imaging'"),
        (lambda folder: seal(folder, source="given"), "of the source 'given'"),
        (lambda folder: seal(folder, delay_days=3), "delay_days is 3"),
    ],
)
def test_a_broken_one_is_refused_in_one_line(
    fault: Callable[[Path], object], says: str, folder: Path, live: LiveModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "featherweight.fraud")
    old = live.scorer
    fault(folder)
    poll_until(live, lambda: live.refused == 1)
    live.request_reload()
    poll_until(live, lambda: live.refused == 2)
    assert live.scorer is old
    assert np.isfinite(old.score(np.ones(len(CATALOGUE), np.float32)))
    (line,) = caplog.messages
    assert says in line
    assert old.model in line
    shutil.rmtree(folder, ignore_errors=True)
    write_fraud_model(folder, seed=2)
    poll_until(live, lambda: live.swaps == 1)


def test_without_any_artifact_there_is_nothing_to_serve(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        LiveModel(ModelSource(tmp_path / "none"))
    next(folder.rglob("*.onnx*")).write_bytes(b"x")
    with pytest.raises(ArtifactError, match="found 1 bytes"):
        LiveModel(ModelSource(folder))


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    names = list(HANDBOOK)
    write_fraud_model(tmp_path / "m", names=names)
    artifact = read_artifact(tmp_path / "m")
    program = artifact.program("fp32")
    content = program.content
    # Every leaf is a number, but their sums are beyond float32: the file stays a valid program of the right shape.
    model = onnx.load_from_string(content)
    (leaves,) = (a for a in model.graph.node[0].attribute if a.name == "leaf_weights")
    leaves.t.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(leaves.t), 3e38), "leaf_weights"))
    contents = Contents(
        name="nan",
        app="fraud",
        labels=("legitimate", "fraud"),
        programs=[type(program)(model.SerializeToString(), "fp32", program.inputs, program.outputs, kind=program.kind)],
        sealed=artifact.sealed,
        evidence={},
        weights_source="drawn at random for tests",
        versions={},
    )
    write_artifact(tmp_path / "nan", contents)
    with pytest.raises(FeatherweightError, match="finite"):
        open_checked(ModelSource(tmp_path / "nan", "onnxruntime"))


def test_one_that_never_ends_is_refused_and_the_next_takes_over(
    folder: Path, live: LiveModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tried, "TIME_S", 3.0)
    old = live.scorer
    write_fraud_model(folder, program=endless_program())
    poll_until(live, lambda: live.refused == 1)
    assert live.scorer is old
    assert "took longer than 3 s" in caplog.messages[-1]
    write_fraud_model(folder, seed=1)
    poll_until(live, lambda: live.swaps == 1)


def test_what_is_tried_is_given_up_for_what_comes_after(folder: Path, live: LiveModel) -> None:
    write_fraud_model(folder, program=endless_program())
    poll_until(live, lambda: live._opening is not None)
    write_fraud_model(folder, seed=1)
    poll_until(live, lambda: live.swaps == 1)
    assert live.refused == 0
    assert live.scorer.model.endswith(read_artifact(folder).sha256[:12])


def test_the_folder_is_left_alone_while_what_is_outdated_ends(
    folder: Path, live: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def count(directory: Path) -> FolderState:
        nonlocal looks
        looks += 1
        return read_folder_state(directory)

    may_end = threading.Event()

    def endless(*_: object) -> Scorer:
        may_end.wait(60)
        raise ArtifactError("given up")

    monkeypatch.setattr("featherweight.apps.fraud.decision.live.read_folder_state", count)
    opening, live._open = live._open, endless  # type: ignore[assignment]
    live.request_reload()
    poll_until(live, lambda: live._opening is not None)
    live.request_reload()
    poll_until(live, lambda: live._outdated)
    live._open, looks = opening, 0
    for _ in range(50):
        assert not live.poll()
    assert looks == 0
    write_fraud_model(folder, seed=1)
    may_end.set()
    poll_until(live, lambda: live.swaps == 1)
    assert live.refused == 0


def test_closing_does_not_wait_for_what_never_ends(folder: Path) -> None:
    live = LiveModel(ModelSource(folder, "onnxruntime"), look_every_s=0.0)
    write_fraud_model(folder, program=endless_program())
    poll_until(live, lambda: live._opening is not None)
    began = time.monotonic()
    live.close()
    assert time.monotonic() - began < 15


def test_whatever_else_goes_wrong_the_old_one_decides_on(
    folder: Path, live: LiveModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours, or no memory: not a reason to end the service."""

    def fails(*_: object, **__: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("featherweight.apps.fraud.decision.live.try_out", fails)
    write_fraud_model(folder, seed=1)
    poll_until(live, lambda: live.refused == 1)
    assert "MemoryError: no more" in caplog.messages[-1]
    assert live.swaps == 0
