from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.imaging.classify import Classifier, read_model
from featherweight.apps.imaging.frames import Frame, FrameId, Prediction, RejectedFrame
from featherweight.apps.imaging.sealed import Preprocess, encode
from featherweight.core.errors import ArtifactError, DigestError, UsageError, WrongModelError
from featherweight.core.serving import ModelSource
from tests.imaging.tiny import LABELS, SIDE, onnx_program, pixels, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_model(directory)
    return directory


def frames(count: int, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    images = [(pixels(rng)[:SIDE, :SIDE] / 255).astype(np.float32) for _ in range(count)]
    return [Frame(FrameId(str(index), 0), image, 1.0) for index, image in enumerate(images)]


def probabilities(classifier: Classifier, given: list[Frame]) -> list[float]:
    return [result.probability for result in classifier.classify(given) if isinstance(result, Prediction)]


def test_the_probability_is_the_sealed_calibration_of_the_logit(model: Path) -> None:
    from featherweight.core.backends.registry import find_backend

    some = frames(9)
    sealed = read_model(ModelSource(model))
    with sealed.open(batch=4) as classifier:
        results = classifier.classify(some)
    with find_backend("onnxruntime").open(sealed.chosen.program) as session:
        logits = session.run({"image": np.stack([frame.pixels for frame in some])[:, None]})["logit"][:, 0]
    expected = 1 / (1 + np.exp(-(2.0 * logits.astype(np.float64) - 26.0)))
    for frame, result, probability in zip(some, results, expected, strict=True):
        assert isinstance(result, Prediction)
        assert result.id == frame.id
        assert result.probability == pytest.approx(probability, abs=1e-5)
        assert result.decision == LABELS[int(result.probability >= 0.4)]
        assert result.inference_ms > 0
    assert {result.decision for result in results if isinstance(result, Prediction)} == set(LABELS)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(24)), st.lists(st.integers(1, 9), min_size=24))
def test_an_image_gets_the_same_bits_in_any_company(order: list[int], sizes: list[int]) -> None:
    some = frames(24)
    classifier = _shared()
    alone = probabilities(classifier, some)
    left = [some[index] for index in order]
    found: dict[str, float] = {}
    for size in sizes:
        part, left = left[:size], left[size:]
        found |= {frame.id.source: probability for frame, probability in zip(part, probabilities(classifier, part))}  # noqa: B905
    assert [found[frame.id.source] for frame in some] == alone


_opened: list[Classifier] = []


def _shared() -> Classifier:
    if not _opened:
        import tempfile

        with tempfile.TemporaryDirectory() as name:
            write_model(Path(name, "m"))
            _opened.append(read_model(ModelSource(Path(name, "m"))).open(batch=8))
    return _opened[0]


def test_no_number_is_a_rejected_frame_and_spares_its_neighbours(model: Path) -> None:
    some = frames(3)
    some[1].pixels[:] = np.nan
    with read_model(ModelSource(model)).open(batch=4) as classifier:
        first, second, third = classifier.classify(some)
        clean = classifier.classify([some[0], some[2]])
    assert isinstance(second, RejectedFrame)
    assert second.reason == "no-number"
    assert isinstance(first, Prediction)
    assert isinstance(third, Prediction)
    assert [first.probability, third.probability] == [p.probability for p in clean if isinstance(p, Prediction)]


def test_an_artifact_with_a_changed_byte_is_not_trusted(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    program = next(copy.rglob("*.onnx*"))
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    program.write_bytes(content)
    with pytest.raises(DigestError) as caught:
        read_model(ModelSource(copy))
    assert caught.value.exit_code == 5


def test_another_apps_model_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m", app="fraud")
    with pytest.raises(WrongModelError, match="'fraud'"):
        read_model(ModelSource(tmp_path / "m"))


@pytest.mark.parametrize(
    ("program", "side"), [(onnx_program(48), SIDE), (onnx_program(SIDE, channels=3), SIDE), (onnx_program(), 64)]
)
def test_a_program_that_does_not_fit_its_preprocessing_is_refused(tmp_path: Path, program: object, side: int) -> None:
    write_model(tmp_path / "m", program=program, side=side)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=rf"image: float32 \[N.*one float32 input \[N, 1, {side}, {side}\]"):
        read_model(ModelSource(tmp_path / "m"))


@pytest.mark.parametrize(
    ("sealed", "message"),
    [
        ({"preprocess.json": encode(Preprocess(side=SIDE))}, r"lacks decision\.json"),
        ({"preprocess.json": b"{}", "decision.json": b"{}"}, r"preprocess\.json: .*side"),
        ({"preprocess.json": encode(Preprocess(side=SIDE)), "decision.json": b"[1]"}, r"decision\.json"),
    ],
)
def test_sealed_files_that_lack_or_lie_are_refused(tmp_path: Path, sealed: Mapping[str, bytes], message: str) -> None:
    write_model(tmp_path / "m", sealed=sealed)
    with pytest.raises(ArtifactError, match=message):
        read_model(ModelSource(tmp_path / "m"))


def test_labels_must_be_two(tmp_path: Path) -> None:
    write_model(tmp_path / "m", labels=("one",))
    with pytest.raises(ArtifactError, match="two"):
        read_model(ModelSource(tmp_path / "m"))


def test_an_unknown_backend_is_named(model: Path) -> None:
    with pytest.raises(UsageError, match="'abacus'"):
        read_model(ModelSource(model, backend="abacus"))


def test_a_model_that_does_not_exist_is_a_wrong_path_and_not_a_broken_artifact(tmp_path: Path) -> None:
    with pytest.raises(WrongModelError, match="no such folder"):
        read_model(ModelSource(tmp_path / "typo"))


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model", labels=("same", "same"))
    with pytest.raises(ArtifactError, match="two that differ"):
        read_model(ModelSource(tmp_path / "model"))
