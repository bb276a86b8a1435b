"""What the imaging task provides to the optimizer: each part its own cases, and what the recipe says of the
recovery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, decode_decision
from featherweight.apps.imaging.training import task as tasks
from featherweight.apps.imaging.training.cases import Cases, Split
from featherweight.apps.imaging.training.fit import Epoch, calibration_views
from featherweight.apps.imaging.training.network import build
from featherweight.apps.imaging.training.task import ImagingTask, open_task
from featherweight.apps.imaging.training.trained import Description, Trained
from featherweight.core.task import HeldOutName
from featherweight.core.tensors import Tensors

SIDE = 16


def _cases(name: str, seed: int) -> Cases:
    images = np.random.default_rng(seed).integers(0, 256, (12, SIDE, SIDE), dtype=np.uint8)
    ids = tuple(f"{name}{index}" for index in range(12))
    return Cases(images, np.tile([0, 1], 6), ids, ids, {"part": np.array([name] * 12)})


@pytest.fixture
def split() -> Split:
    return Split(_cases("train", 0), _cases("validation", 1), _cases("test", 2))


@pytest.fixture
def trained() -> Trained:
    name = "resnet18-small-images"
    description = Description(network=name, side=SIDE, mean=0.5, std=0.2, labels=("normal", "sick"), source="made up")
    decision = DecisionRule(slope=1.5, intercept=0.2, threshold=0.3, prevalence=0.1)
    return Trained(build(name, mean=0.5, std=0.2), description, Preprocess(side=SIDE), decision)


def _pixels(tensors: Tensors) -> np.ndarray:
    return np.asarray(np.rint(tensors["image"][:, 0] * 255), np.uint8)


def test_every_part_has_its_own_cases(trained: Trained, split: Split) -> None:
    task = ImagingTask(trained, split)
    for held_out, cases in ((task.validation_cases(), split.validation), (task.test_cases(), split.test)):
        assert held_out.ids == cases.ids
        assert held_out.tensors["image"].dtype == np.float32
        np.testing.assert_array_equal(held_out.tensors["image"], cases.images[:, None].astype(np.float32) / 255)
    views = calibration_views(split.validation)
    assert task.calibration_cases().ids == views.ids
    assert np.array_equal(_pixels(task.calibration_cases().tensors), views.images)
    parts: tuple[tuple[HeldOutName, Cases], ...] = (("validation", split.validation), ("test", split.test))
    for part, cases in parts:
        (shown,) = task.show(part, [3])
        assert shown.image is not None
        assert np.array_equal(shown.image, cases.images[3])
        assert shown.columns == {"part": part}


def test_quantization_is_calibrated_on_so_many_training_cases(trained: Trained, split: Split) -> None:
    given = np.concatenate([_pixels(batch) for batch in ImagingTask(trained, split).calibration_batches(9, seed=0)])
    known = {image.tobytes() for image in split.train.images}
    assert len(given) == len({image.tobytes() for image in given}) == 9
    assert all(image.tobytes() in known for image in given)


def test_the_stages_are_sides_of_whole_epochs_and_what_follows_is_of_full_size(trained: Trained, split: Split) -> None:
    task = ImagingTask(trained, split, batch=4, stages=((8, 2), (12, 1)))
    epochs = [task.training_batches(epoch, seed=5) for epoch in range(4)]
    assert epochs == [
        Epoch(split.train, epoch, batch=4, side=side, seed=5) for epoch, side in enumerate((8, 8, 12, SIDE))
    ]


def test_the_recipe_decides_on_seed_batch_and_stages(
    trained: Trained, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def read(data: str, reader: str, **how: object) -> Split:
        asked.update(how, data=data, reader=reader)
        return split

    def describe(path: Path, **advice: str) -> tuple[object, ...]:
        asked.update(advice, network=path)
        return trained.description, trained.preprocess, trained.decision

    monkeypatch.setattr(tasks, "read_description", describe)
    monkeypatch.setattr("featherweight.apps.imaging.training.trained.read_trained", lambda path: trained)
    monkeypatch.setattr(tasks, "read_split", read)
    source = {"network": "n", "data": "d", "reader": "folder", "seed": 7, "batch": 3, "stages": [[8, 1]]}
    epochs = [open_task(source).training_batches(epoch, seed=0) for epoch in (0, 1)]
    assert asked == {"network": Path("n"), "data": "d", "reader": "folder", "side": SIDE, "seed": 7}
    assert epochs == [Epoch(split.train, epoch, batch=3, side=side, seed=0) for epoch, side in ((0, 8), (1, SIDE))]


def test_the_baselines_probabilities_and_prevalence_are_kept(trained: Trained, split: Split) -> None:
    task = ImagingTask(trained, split)
    logits = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(task.baseline_probability(logits), 1 / (1 + np.exp(-(1.5 * logits + 0.2))))
    sealed, _ = task.seal(np.array([-1.0, 2.0, 3.0, 0.0]), np.array([0, 1, 1, 0]))
    assert decode_decision(sealed.files["decision.json"]).prevalence == 0.1
