"""Training, validation and test cases are different cases, or nothing is judged."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherweight.core.errors import DataError
from featherweight.core.evidence.reports.copies import write_copies
from featherweight.core.record.pictures import NearCopies, find_near, hash_pictures, picture_input
from featherweight.core.record.splits import (
    MAX_LISTED,
    SplitsFound,
    check_apart,
    compare_splits,
    mark_known,
    split_notes,
    without_copies,
)
from featherweight.core.task import Alerts, HeldOut, SplitName
from featherweight.core.tensors import Tensors, TensorSpec
from tests.datasets import local_copy
from tests.fakes import SIDE, SquaresTask, TreesTask, images


class Known(SquaresTask):
    """A task that gives its training inputs and patients."""

    patients: dict[SplitName, list[str]]

    def __init__(self, cases: int = 60) -> None:
        super().__init__(cases)
        self.train = images(80, seed=1)[0]
        self.patients = {
            "training": [f"a{number}" for number in range(80)],
            "validation": [f"b{number}" for number in range(cases)],
            "test": [f"c{number // 2}" for number in range(cases)],
        }

    def training_inputs(self) -> Iterator[Tensors]:
        yield {"image": self.train[:50]}
        yield {"image": self.train[50:]}

    def split_clusters(self, split: SplitName) -> Sequence[str]:
        return self.patients[split]


def compare(task: SquaresTask | TreesTask) -> SplitsFound:
    return compare_splits(task, task.validation_cases(), task.test_cases())


def test_cases_of_different_splits_are_found_different() -> None:
    found = check_apart(compare(Known()), 0, 0, "")
    assert not any(found.copies.values())
    assert found.clusters is not None
    assert not any(found.clusters.values())
    assert not any(found.near.values())
    assert (found.pairs, split_notes(found), found.sampled) == ((), (), False)
    assert found.sets["training"].cases == 80


def test_a_training_input_among_the_test_cases_is_refused() -> None:
    task = Known()
    task.train[77] = task.test_cases().tensors["image"][5]
    task.train[3] = task.test_cases().tensors["image"][9]
    found = compare(task)
    assert found.copies == {("training", "validation"): 0, ("training", "test"): 2, ("validation", "test"): 0}
    assert {(pair.first, pair.second) for pair in found.pairs} == {
        (("training", 77), ("test", 5)),
        (("training", 3), ("test", 9)),
    }
    with pytest.raises(DataError, match=r"2 inputs are in two splits .2 in training and test.; .*known_copies = 2"):
        check_apart(found, 0, 0, "")
    with pytest.raises(DataError, match="the recipe states 1: known_copies = 2"):
        check_apart(found, 1, 0, "")
    assert "Inputs that are in two splits (2 in training and test)" in split_notes(check_apart(found, 2, 0, ""))[0]


def test_a_task_that_gives_no_training_inputs_is_compared_by_a_sample_of_them() -> None:
    class Leaking(TreesTask):
        def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
            yield self.test_cases().tensors

    found = compare(Leaking(50))
    assert found.sampled
    assert found.copies["training", "test"] == 50
    assert found.clusters is None


def test_validation_cases_among_the_test_cases_are_refused() -> None:
    class Same(TreesTask):
        def test_cases(self) -> HeldOut:
            return self.validation_cases()

    with pytest.raises(DataError, match="30 in validation and test"):
        check_apart(compare(Same(30)), 0, 0, "")


def test_a_patient_in_two_splits_is_refused_unless_it_is_known() -> None:
    task = Known()
    task.patients["test"][4:6] = ["a9", "a9"]
    task.patients["test"][8] = "b1"
    found = compare(task)
    assert found.clusters == {("training", "validation"): 0, ("training", "test"): 1, ("validation", "test"): 1}
    with pytest.raises(DataError, match=r"2 patients .* are in two splits \(1 in training and test, 1 in validation"):
        check_apart(found, 0, 0, "")
    [note] = split_notes(check_apart(found, 0, 2, ""))
    assert "may be too good" in note


def jpeg(picture: np.ndarray, quality: int, size: int | None = None) -> np.ndarray:
    """As another program would have kept it."""
    grey, content = Image.fromarray(np.rint(picture * 255).astype(np.uint8)), io.BytesIO()
    side = grey.size
    if size is not None:
        grey = grey.resize((size, size), Image.Resampling.BICUBIC)
    grey.save(content, "JPEG", quality=quality)
    with Image.open(content) as found:
        return np.asarray(found.resize(side), np.float32) / 255


def test_a_picture_that_was_compressed_anew_is_a_near_copy() -> None:
    task = Known()
    task.train[10] = jpeg(task.test_cases().tensors["image"][7, 0], 95)
    found = compare(task)
    assert not any(found.copies.values())
    assert found.near["training", "test"] == 1
    assert [(pair.first, pair.second, pair.near) for pair in found.pairs] == [(("training", 10), ("test", 7), True)]
    assert "look the same" in split_notes(check_apart(found, 0, 0, ""))[0]


def test_on_real_x_rays_near_copies_are_the_same_picture_and_no_others_are() -> None:
    """Of other patients' x-rays not one is near; the same at another size and quality is."""
    from featherweight.apps.imaging.training.public_sets import read_kermany

    split = read_kermany(local_copy("chest_xray_224"))
    train, test = (hash_pictures(part.images.astype(np.float32) / 255) for part in (split.train, split.test))
    assert find_near(train, test, 10) == NearCopies(0, ())
    some = split.test.images[::10].astype(np.float32) / 255
    again = np.stack([jpeg(picture, 60, 150) for picture in some])
    found = find_near(hash_pictures(some), hash_pictures(again), len(some))
    assert found.count >= 0.95 * len(some)
    assert sum(one == other for one, other in found.pairs) >= 0.9 * found.count
    for otherwise in (some[:, :, ::-1], 1 - some, np.rot90(some, 1, (1, 2))):  # what the docs say is not found
        assert find_near(hash_pictures(some), hash_pictures(np.ascontiguousarray(otherwise)), 10).count == 0


def test_flat_pictures_are_near_to_nothing() -> None:
    flat = hash_pictures(np.zeros((3, 40, 40), np.float32))
    assert find_near(flat, flat, 10) == NearCopies(0, ())


def alike(count: int, seed: int) -> np.ndarray:
    """One picture with a little noise, as pictures of a phantom are."""
    at = np.arange(SIDE)
    base = np.add.outer(np.sin(at / 3), np.cos(at / 2)).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.002, (count, 1, SIDE, SIDE))
    return (base + noise).astype(np.float32)


def test_pictures_that_all_look_the_same_are_counted_and_few_of_them_listed() -> None:
    """Of 700 and 600 there are 420,000 pairs."""
    task = Known(600)
    task.train = alike(700, 0)
    test = replace(task.test_cases(), tensors={"image": alike(600, 1)})
    test.tensors["image"][:5] = task.train[7]  # copies, and near copies of the others
    validation = task.validation_cases()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = compare_splits(task, validation, test)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert found.near["training", "test"] == 600
    assert found.copies["training", "test"] == 1
    listed = [pair for pair in found.pairs if pair.first[0] == "training" and pair.second[0] == "test"]
    assert sum(pair.near for pair in listed) == MAX_LISTED
    assert [(pair.first[1], pair.second[1]) for pair in listed if not pair.near] == [(7, place) for place in range(5)]
    assert all(pair.first[1] != 7 or pair.second[1] >= 5 for pair in listed if pair.near)


def test_what_is_not_stated_as_known_is_not_said_to_be(tmp_path: Path) -> None:
    task = Known()
    task.train[77] = task.test_cases().tensors["image"][5]
    task.patients["test"][8] = "b1"
    found = compare(task)
    validation, test = task.validation_cases(), task.test_cases()
    for copies, clusters in ((0, 0), (1, 0), (0, 1), (1, 1), (9, 0)):
        marked = mark_known(found, copies, clusters)
        page = write_copies(tmp_path, "squares", marked, task, validation, test)
        assert page is not None
        of_copies, of_patients = split_notes(marked)
        for note, is_known in ((of_copies, copies >= 1), (of_patients, clusters >= 1)):
            assert ("the recipe states that this is known" in note) == is_known
            assert ("more than the recipe states as known" in note) != is_known
            assert note in page.read_text()


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((None, 1, 224, 224), "x"),
        ((None, 224, 224, 3), "x"),
        ((None, 3, None, None), "x"),
        ((None, 19), ""),
        ((None, 5, 224, 224), ""),
        ((None, 1, 8, 8), ""),
    ],
)
def test_which_inputs_are_pictures(shape: tuple[int | None, ...], name: str) -> None:
    assert picture_input((TensorSpec("x", "float32", shape),)) == name


def test_copies_among_the_test_cases_count_once() -> None:
    cases = TreesTask(100).test_cases()
    places = np.r_[0:100, [3, 3, 40]]
    alerts = cases.alerts
    assert alerts is not None
    assert cases.clusters is not None
    repeated = HeldOut(
        tuple(f"c{place}" for place in range(103)),
        {"features": cases.tensors["features"][places]},
        cases.labels[places],
        {"first feature": cases.groups["first feature"][places]},
        cases.clusters[places],
        Alerts(alerts.days[places], alerts.eligible[places], alerts.per_day),
        np.arange(103),
    )
    found, kept = without_copies(repeated, TreesTask(100))
    assert kept.tolist() == list(range(100))
    assert found.ids == repeated.ids[:100]
    np.testing.assert_array_equal(found.labels, cases.labels)
    np.testing.assert_array_equal(found.tensors["features"], cases.tensors["features"])
    assert found.alerts is not None
    assert len(found.alerts.days) == len(found.alerts.eligible) == 100
    assert without_copies(cases, TreesTask(100))[0] is cases
    flipped = repeated.labels.copy()
    flipped[102] = 1 - flipped[102]
    assert len(without_copies(replace(repeated, labels=flipped), TreesTask(100))[0].labels) == 101


def test_equal_rows_of_a_table_are_copies_within_one_cluster_alone() -> None:
    """Of columns with few values many rows are equal by chance: 5,000 of four bits are not 16 cases."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 2, (5000, 4)).astype(np.float32)
    table = HeldOut(
        tuple(map(str, range(5000))), {"features": rows}, draw.integers(0, 2, 5000), clusters=np.arange(5000)
    )
    task = TreesTask(100)
    assert without_copies(table, task)[0] is table
    assert without_copies(replace(table, clusters=None), task)[0].clusters is None
    assert len(without_copies(replace(table, clusters=None), task)[0].labels) == 5000
    one = replace(table, clusters=np.zeros(5000, np.int64), cluster_noun="cards")
    assert len(without_copies(one, task)[0].labels) == 32
    assert without_copies(one, task)[0].cluster_noun == "cards"


def test_ten_thousand_pictures_take_seconds() -> None:
    """2 GB of inputs; bounded loosely, because others may work on the host."""
    pictures = np.random.default_rng(0).random((500, 1, 224, 224), np.float32)

    class Many(Known):
        def __init__(self) -> None:
            super().__init__()
            self.baseline = replace(self.baseline, inputs=(TensorSpec("image", "float32", (None, 1, 224, 224)),))

        def training_inputs(self) -> Iterator[Tensors]:
            for number in range(18):
                yield {"image": pictures + np.float32(number)}

    cases = HeldOut(tuple(map(str, range(500))), {"image": pictures}, np.arange(500) % 2)
    held_out = [replace(cases, tensors={"image": pictures + np.float32(number)}) for number in (20, 21)]
    begun = time.process_time()
    found = compare_splits(Many(), *held_out)
    assert sum(one.cases for one in found.sets.values()) == 10_000
    assert time.process_time() - begun < 60
