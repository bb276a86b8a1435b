from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featherweight.apps.imaging.training.cases import Cases
from featherweight.apps.imaging.training.public_sets import parse_patient, read_kermany, read_medmnist, split_by_patient
from featherweight.core.errors import DataError


def cases_of(patients: list[tuple[int, int]]) -> Cases:
    count = len(patients)
    labels = np.array([label for _, label in patients], dtype=np.int64)
    names = tuple(f"p{patient}-{label}" for patient, label in patients)
    return Cases(np.zeros((count, 2, 2), np.uint8), labels, tuple(map(str, range(count))), names)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1000_bacteria_2931.jpeg", "person1000"),
        ("person1_virus_6.jpeg", "person1"),
        ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("NORMAL2-IM-0115-0001.jpeg", "NORMAL2-IM-0115"),
    ],
)
def test_patient_is_read_from_the_file_name(name: str, patient: str) -> None:
    assert parse_patient(name) == patient


def test_a_name_without_a_patient_is_an_error() -> None:
    with pytest.raises(DataError, match=r"scan\.jpeg.*person<N>"):
        parse_patient("scan.jpeg")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=120), st.integers(0, 9))
def test_no_patient_is_on_both_sides_and_no_image_is_lost(patients: list[tuple[int, int]], seed: int) -> None:
    cases = cases_of(patients)
    train, validation = split_by_patient(cases, 0.3, seed)
    assert not set(train.patients) & set(validation.patients)
    assert sorted(train.ids + validation.ids) == sorted(cases.ids)


def test_the_split_takes_its_share_of_each_class() -> None:
    cases = cases_of([(p, int(p < 100)) for p in range(400)])
    _, validation = split_by_patient(cases, 0.1, 0)
    assert int(validation.labels.sum()) == 10
    assert len(validation) == 40


def write_kermany_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "test"):
            for label, pattern in (("NORMAL", "IM-{:04d}-0001.jpeg"), ("PNEUMONIA", "person{}_virus_1.jpeg")):
                for patient in range(10):
                    content = io.BytesIO()
                    Image.new("RGB", (30, 20), (patient * 20,) * 3).save(content, "JPEG")
                    archive.writestr(f"chest_xray/{part}/{label}/{pattern.format(patient)}", content.getvalue())


def test_kermany_reads_the_same_from_a_zip_and_a_folder(tmp_path: Path) -> None:
    write_kermany_zip(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        archive.extractall(tmp_path / "x")
    packed, loose = read_kermany(tmp_path / "x.zip", side=16), read_kermany(tmp_path / "x", side=16)
    assert packed.train.images.shape == (18, 16, 16)
    assert len(packed.validation) == 2
    assert packed.test.labels.tolist() == [0] * 10 + [1] * 10
    np.testing.assert_array_equal(packed.train.images, loose.train.images)
    assert packed.train.ids == loose.train.ids


def test_a_zip_of_something_else_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="no chest x-rays found"):
        read_kermany(tmp_path / "x.zip")


def test_medmnist_of_another_size_is_an_error(tmp_path: Path) -> None:
    arrays = {f"{part}_images": np.zeros((4, 28, 28), np.uint8) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": np.zeros((4, 1), np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "m.npz", **arrays)
    assert len(read_medmnist(tmp_path / "m.npz").test) == 4
    with pytest.raises(DataError, match=r"expected \[N, 64, 64\]"):
        read_medmnist(tmp_path / "m.npz", side=64)
