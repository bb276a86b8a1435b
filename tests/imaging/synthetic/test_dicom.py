"""The drawn radiographs: repeatable, honest labels, real DICOM."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.imaging.readers.dicom import read_pixel_array
from featherweight.apps.imaging.synthetic.dicom import (
    COLUMNS,
    TRANSFER_SYNTAXES,
    render_dicom,
    synthetic_cases,
    write_synthetic,
)
from featherweight.apps.imaging.synthetic.radiographs import LEVELS, SyntheticCase, anatomy_layers, draw_radiograph
from featherweight.apps.imaging.training.folder import read_labelled
from featherweight.core.errors import OutputError

SIDE = 64
COUNT = 60


@pytest.fixture(scope="module")
def cases() -> list[SyntheticCase]:
    return list(synthetic_cases(COUNT, 3, side=SIDE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("synthetic"), COUNT, 3, side=SIDE).parent


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_same_seed_draws_the_same_and_another_seed_another(cases: list[SyntheticCase]) -> None:
    for case, again, other in zip(
        cases[:6], synthetic_cases(6, 3, side=SIDE), synthetic_cases(6, 4, side=SIDE), strict=True
    ):
        assert np.array_equal(case.pixels, again.pixels)
        assert (case.label, case.patient, case.split) == (again.label, again.patient, again.split)
        assert not np.array_equal(case.pixels, other.pixels)


def test_a_longer_set_begins_with_the_shorter_one(cases: list[SyntheticCase]) -> None:
    assert [c.pixels.tobytes() for c in synthetic_cases(5, 3, side=SIDE)] == [c.pixels.tobytes() for c in cases[:5]]


def test_every_part_has_both_classes_and_no_patient_is_in_two(cases: list[SyntheticCase]) -> None:
    assert {(case.split, case.label) for case in cases} == {
        (s, i) for s in ("train", "validation", "test") for i in (0, 1)
    }
    patients: dict[str, set[str]] = {}
    for case in cases:
        patients.setdefault(case.patient, set()).add(case.split)
    assert all(len(splits) == 1 for splits in patients.values())
    assert len(patients) < len(cases)
    assert all((case.visibility > 0) == (case.label == 1) for case in cases)


def test_the_values_are_12_bits_and_use_them(cases: list[SyntheticCase]) -> None:
    for case in cases:
        assert case.pixels.dtype == np.uint16
        assert case.pixels.shape == (SIDE, SIDE)
        assert case.pixels.max() < LEVELS
        assert np.ptp(case.pixels) > LEVELS // 2


@given(st.integers(0, 10_000))
def test_an_opacity_brightens_the_lungs_and_nothing_else(seed: int) -> None:
    layers = anatomy_layers(SIDE, np.random.default_rng(seed))
    plain, ill = (draw_radiograph(layers, v, np.random.default_rng([seed, 1]), still=True) for v in (0.0, 1.0))
    added, lungs = ill - plain, np.maximum(layers.left, layers.right)
    assert added.min() >= -1e-6
    assert added.max() > 0.1
    assert added[lungs < 0.01].max() < 0.01


def test_what_is_written_is_what_was_drawn(cases: list[SyntheticCase], folder: Path) -> None:
    seen = set()
    for case, row in zip(cases, rows(folder), strict=True):
        file = pydicom.dcmread(folder / row["path"])
        values = read_pixel_array(folder / row["path"])
        inverted = file.PhotometricInterpretation == "MONOCHROME1"
        assert np.array_equal(LEVELS - 1 - values if inverted else values, case.pixels)
        assert (int(row["label"]), row["patient"], row["split"]) == (case.label, case.patient, case.split)
        assert file.PatientID == case.patient
        seen.add((file.file_meta.TransferSyntaxUID, file.PhotometricInterpretation, file.Modality))
    assert {syntax for syntax, _, _ in seen} == set(TRANSFER_SYNTAXES)
    assert {photometric for _, photometric, _ in seen} == {"MONOCHROME1", "MONOCHROME2"}
    assert {modality for _, _, modality in seen} == {"CR", "DX"}
    assert tuple(rows(folder)[0]) == COLUMNS


def test_uids_are_valid_and_unique_and_follow_the_seed(cases: list[SyntheticCase]) -> None:
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    uids = [render_dicom(case, 3)[name].value for case in cases for name in names]
    assert len(set(uids)) == len(uids)
    assert all(uid.is_valid and len(uid) <= 64 for uid in uids)
    assert render_dicom(cases[0], 3).SOPInstanceUID == uids[0]
    assert render_dicom(cases[0], 4).SOPInstanceUID != uids[0]


def test_two_runs_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path, 10, 3, side=SIDE)
    for row in rows(tmp_path):
        assert (tmp_path / row["path"]).read_bytes() == (folder / row["path"]).read_bytes()


def test_dciodvfy_finds_no_error(folder: Path) -> None:
    for row in rows(folder)[:12]:
        try:
            found = subprocess.run(["dciodvfy", str(folder / row["path"])], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs dciodvfy (Debian: dicom3tools)")
        assert "Error" not in found.stderr + found.stdout
        assert found.returncode == 0


def test_progress_is_told_and_a_bad_folder_refused(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    write_synthetic(tmp_path / "a", 3, side=SIDE, on_case=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_synthetic(tmp_path / "file" / "b", 1, side=SIDE)


def test_labels_are_there_when_all_images_are(tmp_path: Path) -> None:
    """Half a set, or images of one seed with the labels of another, would be learnt from."""
    write_synthetic(tmp_path, 3, side=64)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path, 3, 1, side=64, on_case=stop)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_the_folder_reads_as_labelled_images(cases: list[SyntheticCase], folder: Path) -> None:
    split = read_labelled(folder, side=32)
    for part, name in ((split.train, "train"), (split.validation, "validation"), (split.test, "test")):
        wanted = [case for case in cases if case.split == name]
        assert part.labels.tolist() == [case.label for case in wanted]
        assert part.patients == tuple(case.patient for case in wanted)
        for image, case in zip(part.images, wanted, strict=True):
            small = case.pixels.reshape(32, SIDE // 32, 32, SIDE // 32).mean(axis=(1, 3)) / (LEVELS - 1) * 255
            assert np.abs(image - small).max() < 2
