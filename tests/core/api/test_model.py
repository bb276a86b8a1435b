"""An artifact opened by a program: arrays in, predictions out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import featherweight
from featherweight.core.artifact import Artifact, Contents, ReferenceCases, write_artifact
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.fraud.artifacts import write_fraud_model
from tests.imaging.tiny import SIDE, write_model
from tests.small_programs import identity_file


@pytest.fixture(scope="module")
def imaging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("imaging") / "model").directory


@pytest.fixture(scope="module")
def pictures() -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 30), (64, 64), (17, 90))]


def test_images_of_any_size_are_classified(imaging: Path, pictures: list[npt.NDArray[np.uint8]]) -> None:
    with featherweight.open_model(imaging) as model:
        found = model.predict(pictures)
        assert len(found) == 3
        assert found.positive == "suspicious"
        assert set(found.decisions) <= {"normal", "suspicious"}
        assert found.notes == ("", "", "")
        # One array of images says the same as a list of them, and so does each image alone.
        stack = np.stack([pictures[1]] * 3)
        assert np.array_equal(model.predict(stack).scores, found.scores[[1, 1, 1]])
        alone = [model.predict([picture]).scores[0] for picture in pictures]
        assert np.allclose(alone, found.scores, rtol=0, atol=1e-6)


def test_many_images_take_many_runs(imaging: Path, pictures: list[npt.NDArray[np.uint8]]) -> None:
    many = [pictures[place % 3] for place in range(150)]
    with featherweight.open_model(imaging) as model:
        few, found = model.predict(pictures), model.predict(many)
        assert np.allclose(found.scores, few.scores[np.arange(150) % 3], rtol=0, atol=1e-6)
        # The place in a message is the place in what was given, not in the run.
        many_floats = [np.full((SIDE, SIDE), 0.5)] * 100 + [np.full((SIDE, SIDE), 2.0)]
        with pytest.raises(featherweight.TensorError, match="first in case 100; expected 0 to 1"):
            model.predict(many_floats)


def test_bits_and_floats_of_one_image_agree(imaging: Path, pictures: list[npt.NDArray[np.uint8]]) -> None:
    image = pictures[0]
    with featherweight.open_model(imaging) as model:
        found = model.predict([image, image.astype(np.uint16) * 257, image / 255, (image / 255).astype(np.float32)])
        assert np.allclose(found.probabilities, found.probabilities[0], rtol=0, atol=1e-4)
        dark = model.predict([image.astype(np.uint16), image.astype(np.uint16) * 257])
        assert dark.notes == ("no value is above 4095 of 65535: read as dark; an image of 12 bits?", "")
        assert "an image of 12 bits?" in dark._repr_html_()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((30, 30), np.uint8), r"found one array \[30, 30\], expected \[N, H, W\]"),
        (np.zeros((0, 30, 30), np.uint8), "found none, expected at least one"),
        ([], "found none"),
        (np.zeros((2, 30, 30, 3), np.uint8), r"images\[0\]: found shape \[30, 30, 3\].*image.convert\('L'\)"),
        (np.zeros((2, 30, 0), np.uint8), r"found shape \[30, 0\]"),
        (np.zeros((1, 1, 40000), np.uint8), "at most 32,768 pixels a side"),
        (np.zeros((2, 30, 30), np.int64), r"images\[0\]: found int64, whose white is not known"),
        (np.zeros((2, 30, 30), bool), "found bool"),
        ([np.zeros((30, 30), np.uint8), [[1, 2]]], r"images\[1\]: found list, expected a numpy array"),
        (np.full((1, 30, 30), 255.0), r"from 255 to 255.*expected 0 to 1 \(grey level.*Divide them by 255"),
        (np.full((1, 30, 30), -0.5, np.float32), "found values from -0.5 to -0.5"),
        (np.full((1, 30, 30), np.nan), "that are not finite"),
        (np.full((1, 30, 30), 1 + 1j), "found complex128"),
    ],
)
def test_what_is_no_image_is_refused(imaging: Path, given: object, said: str) -> None:
    with featherweight.open_model(imaging) as model, pytest.raises(featherweight.TensorError, match=said):
        model.predict(given)


def test_the_program_alone_is_run_in_its_range(imaging: Path) -> None:
    levels = np.random.default_rng(0).random((4, 1, SIDE, SIDE), np.float32)
    with featherweight.open_model(imaging) as model:
        named, plain = model.run({"image": levels}), model.run(levels)
        assert named["logit"].shape == (4, 1)
        assert np.array_equal(named["logit"], plain["logit"])
        # The same as predict, which stretches nothing here.
        assert np.allclose(model.predict(levels[:, 0]).scores, plain["logit"][:, 0], rtol=0, atol=1e-5)
        for wrong, said in (
            (levels * 255, "Divide them by 255"),
            (levels[:, 0], r"found shape \[4, 32, 32\]"),
            (levels.astype(np.float64), "found float64, expected float32"),
            ({"picture": levels}, "found tensors"),
            (3, "found int, expected a numpy array"),
        ):
            with pytest.raises(featherweight.TensorError, match=said):
                model.run(wrong)  # type: ignore[arg-type]


def test_rows_are_taken_by_place_and_by_name(tmp_path: Path) -> None:
    names = ("amount", "hour", "terminal_risk_7d_delayed", "customer_amount_z_30d")
    folder = write_fraud_model(tmp_path / "model", names=names, review_threshold=0.5).directory
    rows = np.array([[10, 3, 0.1, -2], [900, np.nan, 0.9, 4], [0, 23.5, 0, np.nan]])
    with featherweight.open_model(folder) as model:
        by_place = model.predict(rows)
        shuffled = {name: rows[:, names.index(name)] for name in sorted(names)}
        assert np.array_equal(model.predict(shuffled).scores, by_place.scores)
        one = model.predict({name: float(value) for name, value in zip(names, rows[0], strict=True)})
        assert one.scores.tolist() == by_place.scores[:1].tolist()
        assert set(by_place.decisions) <= {"approve", "review", "decline"}
        assert by_place.positive == "fraud"
        assert [one.name for one in model.describe().ranges] == list(names)
        assert "rows: " not in str(model.describe())
        for wrong, said in (
            (rows[:, :3], r"found shape \[3, 3\], expected an array \[N, 4\] with the columns amount, hour"),
            (rows[0], r"found shape \[4\]"),
            (rows[:0], "found none"),
            (rows.astype(str), "expected numbers"),
            ([[1, 2, 3, 4]], "found list"),
            ({"amount": 1.0}, "missing hour, terminal_risk_7d_delayed, customer_amount_z_30d; expected the 4 columns"),
            ({**shuffled, "colour": [1, 2, 3]}, "unknown colour"),
            ({**shuffled, "hour": [1.0]}, "the columns have the shapes"),
            ({**shuffled, "hour": ["a", "b", "c"]}, "hour holds no numbers"),
            (rows * [1, 1, 100, 1], "'terminal_risk_7d_delayed': found values from 0 to 90.*expected 0 to 1"),
            (rows * [1, 10, 1, 1], "'hour': found values from 30 to 235, first in case 0; expected 0 to 24"),
            (rows - [11, 0, 0, 0], "'amount': found values from -11 to 889"),
            (rows - [-1e39, 0, 0, 0], "'amount': found no finite value"),
        ):
            with pytest.raises(featherweight.TensorError, match=said):
                model.predict(wrong)


def test_a_model_of_an_app_that_is_not_here_is_run_without_it(tmp_path: Path) -> None:
    inputs, outputs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)
    contents = Contents(
        name="theirs",
        app="nobody",
        labels=("a", "b"),
        programs=(Program(identity_file(), "fp32", inputs, outputs),),
        sealed={"x.json": b"{}"},
        evidence={},
        weights_source="none",
        versions={},
    )
    folder = write_artifact(tmp_path / "model", contents).directory
    with featherweight.open_model(folder) as model:
        rows = np.array([[1, 2, 300, -4]], np.float32)
        assert np.array_equal(model.run(rows)["y"], rows)
        assert "input range: not stated" in str(model.describe())
        with pytest.raises(featherweight.UsageError, match="no installed app is called 'nobody'"):
            model.predict(rows)
        with pytest.raises(featherweight.ArtifactError, match=r"no evidence\.json is sealed"):
            model.evidence  # noqa: B018


def test_what_an_app_did_not_seal_is_refused(tmp_path: Path) -> None:
    artifact = write_model(tmp_path / "model")
    for changes in ({"sealed": {}}, {"app": "fraud"}, {"labels": ("a",)}):
        contents = Contents(
            **{
                "name": "changed",
                "app": "imaging",
                "labels": artifact.manifest.labels,
                "programs": artifact.programs,
                "sealed": artifact.sealed,
                "evidence": {},
                "weights_source": "none",
                "versions": {},
                **changes,
            }
        )
        folder = write_artifact(tmp_path / "changed", contents).directory
        with pytest.raises(featherweight.ArtifactError, match=r"changed: the (artifact|program) "):
            featherweight.open_model(folder)


def test_a_score_that_is_no_number_is_an_error(imaging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((3, SIDE, SIDE), np.uint8)
    with featherweight.open_model(imaging) as model:
        outputs = {"logit": np.array([[1.0], [np.nan], [np.inf]], np.float32)}
        monkeypatch.setattr(model._session, "run", lambda tensors: outputs)  # no program that opens gives such numbers
        with pytest.raises(featherweight.BackendError, match=r"no finite number for 2 of 3 cases \(1, 2\)"):
            model.predict(images)


def with_reference_cases(artifact: Artifact, folder: Path, shift: float) -> Path:
    """The artifact again, with reference outputs that are off by so much."""
    inputs = {"image": np.random.default_rng(1).random((8, 1, SIDE, SIDE), np.float32)}
    with featherweight.open_model(artifact.directory, backend="onnxruntime") as model:
        outputs = {"logit": model.run(inputs)["logit"] + np.float32(shift)}
    reference = ReferenceCases(inputs, outputs, "onnxruntime", "fp32", {"logit": 0.01}, None)
    contents = Contents(
        name="with-reference",
        app="imaging",
        labels=artifact.manifest.labels,
        programs=artifact.programs,
        sealed=artifact.sealed,
        evidence={},
        weights_source="none",
        versions={},
        reference_cases=reference,
    )
    return write_artifact(folder, contents).directory


def test_a_host_that_disagrees_is_refused_where_that_is_asked(tmp_path: Path) -> None:
    artifact = write_model(tmp_path / "model")
    good, bad = (
        with_reference_cases(artifact, tmp_path / "good", 0.0),
        with_reference_cases(artifact, tmp_path / "bad", 1.0),
    )
    featherweight.open_model(good, verify=True).close()
    featherweight.open_model(bad).close()
    with pytest.raises(featherweight.ArtifactError, match="does not reproduce the artifact's reference decisions"):
        featherweight.open_model(bad, verify=True)


def test_what_is_asked_wrongly_is_told(imaging: Path, tmp_path: Path) -> None:
    with pytest.raises(featherweight.UsageError, match="threads = 0"):
        featherweight.open_model(imaging, threads=0)
    with pytest.raises(featherweight.UsageError, match="cuda"):
        featherweight.open_model(imaging, backend="cuda")
    with pytest.raises(featherweight.WrongModelError, match="there is no such folder"):
        featherweight.open_model(tmp_path / "none")
    with pytest.raises(featherweight.WrongModelError, match="there is no such folder"):
        featherweight.read_evidence(str(tmp_path / "none"))
    with featherweight.open_model(str(imaging), backend="onnxruntime", threads=2) as model:
        assert (model.describe().backend, model.describe().threads) == ("onnxruntime", 2)
        assert repr(model) == "<OpenModel tiny (imaging) on onnxruntime fp32>"
    with pytest.raises(featherweight.BackendError, match="closed"):
        model.run(np.zeros((1, 1, SIDE, SIDE), np.float32))


def evidence_of(folder: Path, content: bytes) -> featherweight.SealedEvidence:
    """Read from an artifact that has this evidence.json."""
    inputs, outputs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)
    contents = Contents(
        name="<b>bold</b>",
        app="nobody",
        labels=("a", "b"),
        programs=(Program(identity_file(), "fp32", inputs, outputs),),
        sealed={"x.json": b"{}"},
        evidence={"evidence.json": content},
        weights_source="none",
        versions={},
    )
    write_artifact(folder, contents)
    return featherweight.read_evidence(folder)


BUNDLED = Path(__file__).resolve().parents[3] / "data" / "models"


@pytest.mark.parametrize("name", ["chest-xray", "card-fraud"])
def test_the_bundled_evidence_says_what_its_page_says(name: str) -> None:
    evidence = featherweight.read_evidence(BUNDLED / name)
    assert evidence.document == json.loads((BUNDLED / name / "evidence.json").read_bytes())
    assert evidence.page == (BUNDLED / name / "evidence.html").read_text()
    html = evidence._repr_html_()
    for limit in evidence.limits:
        assert limit.name in html
    found = evidence.candidate["auc"]
    assert found is not None
    assert f"{found.estimate:.4f}" in html
    assert f"{found.estimate:.4f}" in evidence.page


def test_evidence_of_another_kind_is_refused_and_nothing_of_it_is_obeyed(tmp_path: Path) -> None:
    document = json.loads((BUNDLED / "chest-xray" / "evidence.json").read_bytes())
    hostile = "<script>alert(1)</script>\x1b[2J"
    found = evidence_of(
        tmp_path / "hostile", json.dumps({**document, "title": hostile, "warnings": [hostile]}).encode()
    )
    html = found._repr_html_()
    assert "<script>" not in html
    assert "<b>bold" not in html
    assert "\x1b" not in html
    assert repr(found).startswith("<SealedEvidence ")
    for content, said in (
        (b"not json", "not an evidence document"),
        (b"[1]", "has the schema None"),
        (b"[" * 100_000, "not an evidence document"),
        (json.dumps({**document, "schema": "featherweight-evidence/9"}).encode(), "this version reads"),
        (json.dumps({**document, "title": 3}).encode(), "not an evidence document"),
        (json.dumps({**document, "test": {"cases": "many"}}).encode(), "not an evidence document"),
    ):
        with pytest.raises(featherweight.ArtifactError, match=said):
            evidence_of(tmp_path / hashlib.sha256(content).hexdigest(), content)
