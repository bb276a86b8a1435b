"""A recipe's [source] and the data set that it names: mistakes are told in words."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, decode_decision
from featherweight.apps.imaging.training.cases import Cases, Split
from featherweight.apps.imaging.training.layouts import LAYOUTS, read_split
from featherweight.apps.imaging.training.network import build
from featherweight.apps.imaging.training.task import REFERENCES, ImagingTask, open_task
from featherweight.apps.imaging.training.trained import Description, Trained
from featherweight.core.errors import DataError, UsageError
from featherweight.core.task import StatesData

SOURCE = {"network": "nowhere", "data": "nothing", "reader": "folder"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"readr": "folder"}, "unknown field `readr`"),
        ({"network": 5}, r"Expected `str`, got `int` - at `\$.network`"),
        ({"seed": [1]}, r"at `\$.seed`"),
        ({"batch": 0}, r"`int` >= 1 - at `\$.batch`"),
        ({"stages": [[112]]}, r"length 2, got 1 - at `\$.stages\[0\]`"),
    ],
)
def test_mistakes_in_source_name_the_key(change: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_task({**SOURCE, **change})
    with pytest.raises(UsageError, match="missing required field `data`; its keys are network, data, reader, seed"):
        open_task({"network": "nowhere", "reader": "folder"})
    with pytest.raises(DataError, match="no weights"):
        open_task(SOURCE)


def test_the_advice_where_nothing_is_trained_yet_is_a_whole_command(tmp_path: Path) -> None:
    out = str(tmp_path / "a folder")
    with pytest.raises(DataError) as caught:
        open_task({"network": out, "data": "chest_xray_224", "reader": "kermany"})
    command = shlex.split(str(caught.value).partition("make it with: ")[2])
    assert command[:3] == ["featherweight", "imaging", "train"]
    assert command[3:] == ["--data", "chest_xray_224", "--format", "kermany", "--out", out]


def test_a_damaged_data_set_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "set"
    for content in (b"", b"PK\x03\x04 and then nothing", bytes(1000)):
        path.write_bytes(content)
        for reader in ("kermany", "medmnist"):
            with pytest.raises(DataError, match=f"cannot be read as {reader}"):
                read_split(str(path), reader, side=28, seed=0)
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(DataError, match="cannot be read as medmnist"):
        read_split(str(tmp_path / "other.npz"), "medmnist", side=28, seed=0)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot be read as medmnist"):
        read_split(str(tmp_path / "array.npy"), "medmnist", side=28, seed=0)
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train/NORMAL/IM-0001-0001", "test/PNEUMONIA/person1_virus_6"):
            archive.writestr(f"chest_xray/{part}.jpeg", b"not a JPEG")
    with pytest.raises(DataError, match="cannot be read as kermany"):
        read_split(str(path), "kermany", side=28, seed=0)


def test_reference_inputs_are_of_nobody_the_same_each_time_and_small(tmp_path: Path) -> None:
    task = ImagingTask(_trained(side=96), _split(side=96))
    reference = task.reference_inputs(32, seed=0)["image"]
    assert reference.shape == (32, 1, 96, 96)
    assert reference.dtype == np.float32
    assert np.array_equal(reference, task.reference_inputs(32, seed=0)["image"])
    assert not np.array_equal(reference, task.reference_inputs(32, seed=1)["image"])
    assert 0 <= reference.min() < 0.1
    assert 0.9 < reference.max() <= 1
    assert np.array_equal(reference[:, :, :6, :6], np.broadcast_to(reference[:, :, :1, :1], (32, 1, 6, 6))), "no block"
    np.savez_compressed(tmp_path / "probes.npz", image=reference)
    assert (tmp_path / "probes.npz").stat().st_size < 60_000


def test_cases_carry_patients_groups_and_views() -> None:
    task = ImagingTask(_trained(side=28), _split(side=28))
    held_out = task.validation_cases()
    assert held_out.clusters is not None
    assert held_out.clusters.tolist() == [0, 0, 1, 2]
    assert held_out.groups["site"].tolist() == ["north", "south", "south", "north"]
    first, last = task.show("test", [1, 3])
    assert (first.columns, last.columns) == ({"site": "south"}, {"site": "north"})
    assert np.array_equal(first.image, task.split.test.images[1])


def test_it_states_what_it_is_for_who_set_the_labels_and_what_it_was_trained_on() -> None:
    task = ImagingTask(_trained(side=28), _split(side=28), reference=REFERENCES["kermany"])
    assert isinstance(task, StatesData)
    stated = task.data_statement()
    negative, positive = task.trained.description.labels
    assert stated.purpose == f"tells {positive} from {negative} on a grey medical image"
    assert "two expert physicians" in stated.reference_standard
    assert "Cell 172" in stated.reference_source
    assert stated.training is not None
    assert (stated.training.cases, stated.training.positives, stated.training.clusters) == (4, 2, 3)
    assert stated.training.groups == {"site": {"north": 2, "south": 2}}
    assert task.test_cases().cluster_noun == "patients"
    assert set(REFERENCES) == set(LAYOUTS)


def test_files_with_the_baselines_own_calibration() -> None:
    task = ImagingTask(_trained(side=28), _split(side=28))
    kept, (fitted, threshold) = (
        task.seal_unchanged(),
        task.seal(np.array([-1.0, 2.0, 3.0, 0.0]), np.array([0, 1, 1, 0])),
    )
    assert decode_decision(kept.files["decision.json"]) == task.trained.decision
    assert decode_decision(fitted.files["decision.json"]) != task.trained.decision
    assert threshold != task.positive_threshold


def _split(side: int) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (4, side, side), dtype=np.uint8)
    groups = {"site": np.array(["north", "south", "south", "north"])}
    cases = Cases(images, np.array([0, 1, 1, 0]), ("a", "b", "c", "d"), ("p", "p", "q", "r"), groups)
    return Split(cases, cases, cases)


def _trained(side: int) -> Trained:
    name = "resnet18-small-images"
    description = Description(
        network=name, side=side, mean=0.5, std=0.2, labels=("normal", "sick"), source="made up for tests"
    )
    decision = DecisionRule(slope=1.0, intercept=0.0, threshold=0.5)
    return Trained(build(name, mean=0.5, std=0.2), description, Preprocess(side=side), decision)
