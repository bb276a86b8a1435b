"""153 real DICOM files: each decodes to what its manifest and pydicom say, or becomes a rejected row that says why."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEGBaseline8Bit

from featherweight.apps.imaging.frames import Frame, RejectedFrame
from featherweight.apps.imaging.pixels import render_reference
from featherweight.apps.imaging.readers import Item, Limits, dicom, read_frames
from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.apps.imaging.readers.codestreams import JPEG2000_MEAN_TOLERANCE
from featherweight.apps.imaging.readers.greyscale import read_greyscale
from featherweight.apps.imaging.readers.header import read_header
from featherweight.apps.imaging.sealed import Preprocess
from tests.datasets import local_copy

PREPROCESS = Preprocess(side=64)
VALUES = Path(__file__).with_name("dicom_values.csv")
READ_AFTER_ALL = (
    "pljdata__RG2_JPLY.dcm",
    "pyd__JPEG-lossy.dcm",
    "pyddata__OT-PAL-8-face.dcm",
    "pyddata__emri_small_jpeg_2k_lossless_too_short.dcm",
    "pyddata__liver_nonbyte_aligned_rle.dcm",
    "pyddata__liver_rle.dcm",
)

# pydicom says NotImplementedError, RuntimeError, ...; we say which of these it is.
REASONS = {
    "no_pixel_data": {"no-pixel-data"},
    "fail:NotImplementedError": {"unsupported-transfer-syntax"},
    "fail:AttributeError": {"unsupported-transfer-syntax", "bad-header"},
    "fail:ValueError": {"corrupt", "bad-header"},
    "fail:RuntimeError": {"corrupt", "too-large"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("conformance")
    with zipfile.ZipFile(local_copy("dicom_conformance")) as archive:
        archive.extractall(target)
    return target


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 153
    return found


def test_decodable_files_give_the_values_of_another_decoder(folder: Path, rows: list[dict[str, str]]) -> None:
    """Those of pydicom with libjpeg (of Thomas Richter), OpenJPEG and its own RLE, as digests; those with a lossy JPEG,
    where decoders may differ by a grey level (three in red, green or blue), by their range."""
    with VALUES.open(newline="") as file:
        digests = {row["file"]: row["sha256"] for row in csv.DictReader(file)}
    lossy, wrong = 0, []
    for row in (row for row in rows if row["decode"] == "ok"):
        found = dicom.read_pixel_array(folder / row["file"])
        same = ("x".join(map(str, found.shape)), str(found.dtype)) == (row["shape"], row["dtype"])
        if row["file"] in digests:
            little = found.astype(found.dtype.newbyteorder("<"))
            same &= hashlib.sha256(little.tobytes()).hexdigest().startswith(digests[row["file"]])
        else:
            lossy += 1
            off = max(abs(found.min() - float(row["min"])), abs(found.max() - float(row["max"])))
            same &= bool(off <= (3 if row["spp"] == "3" else 1))
        if not same:
            wrong.append(row["file"])
    assert not wrong
    assert (len(digests), lossy) == (110, 19)


def test_colour_of_lossy_jpeg_is_that_of_pillow(folder: Path, rows: list[dict[str, str]]) -> None:
    """Another program around the same library; it does not know DICOM, so it is told what the file says."""
    for row in rows:
        if row["decode"] != "ok" or row["ts_uid"] != JPEGBaseline8Bit or row["frames"] not in ("", "1"):
            continue
        found = dicom.read_pixel_array(folder / row["file"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(folder / row["file"])
            expected = get_decoder(JPEGBaseline8Bit).as_array(dataset, decoding_plugin="pillow")[0]
        np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=3, err_msg=row["file"])


def test_files_that_pydicom_gives_up_on_are_read(folder: Path) -> None:
    """JPEG Extended with 12 bits whose header says 10, packed bits in RLE, a file without its last bytes; each has a
    twin without the fault."""
    twins = {
        "pljdata__RG2_JPLY": "pljdata__RG2_JPLY_fixed",
        "pyd__JPEG-lossy": "pyd__JPGExtended",
        "pyddata__liver_rle": "pyddata__liver",
        "pyddata__liver_nonbyte_aligned_rle": "pyddata__liver_nonbyte_aligned",
        "pyddata__emri_small_jpeg_2k_lossless_too_short": "pyddata__emri_small",
    }
    for damaged, mended in twins.items():
        values = [dicom.read_pixel_array(folder / "files" / f"{name}.dcm") for name in (damaged, mended)]
        np.testing.assert_array_equal(*values)


def test_the_others_are_rejected_with_a_reason(folder: Path, rows: list[dict[str, str]]) -> None:
    others = [row for row in rows if row["decode"] != "ok" and not row["file"].endswith(READ_AFTER_ALL)]
    assert len(others) == 18
    for row in others:
        with pytest.raises(RefusedError):
            dicom.read_pixel_array(folder / row["file"])
        (found,) = read_frames(Item(row["file"], folder / row["file"]), PREPROCESS)
        assert isinstance(found, RejectedFrame), row["file"]
        assert found.reason in REASONS[row["decode"]], (row["file"], found)


def test_the_whole_pipeline_gives_grey_frames(folder: Path, rows: list[dict[str, str]]) -> None:
    for row in (row for row in rows if row["decode"] == "ok"):
        frames = list(read_frames(Item(row["file"], folder / row["file"]), PREPROCESS))
        assert len(frames) == int(row["frames"] or 1), row["file"]
        for index, frame in enumerate(frames):
            assert isinstance(frame, Frame), (row["file"], frame)
            assert frame.id.frame == index
            assert (frame.pixels.shape, frame.pixels.dtype) == ((64, 64), np.float32)
            assert np.isfinite(frame.pixels).all()
            assert frame.pixels.min() >= 0
            assert frame.pixels.max() <= 1
            assert frame.decode_ms > 0


def test_rescale_and_voi_are_pydicoms(folder: Path, rows: list[dict[str, str]]) -> None:
    """Against pydicom's own functions, on every file with one monochrome frame and a window or VOI LUT."""
    checked = 0
    for row in (row for row in rows if row["decode"] == "ok" and row["photometric"].startswith("MONOCHROME")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(folder / row["file"], force=True)
            if not {"WindowWidth", "VOILUTSequence"} & {e.keyword for e in dataset} or row["frames"] not in ("", "1"):
                continue
            grey = read_greyscale(dataset, read_header(dataset, Limits()), 0, [])
            stored = dicom.read_pixel_array(folder / row["file"])
            shown = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
        if grey.voi is None:  # a window that the standard forbids: pydicom refuses or ignores it as well
            continue
        # pydicom stretches a window over what the stored bits can hold after rescale; so every result is affine to
        # ours.
        ours = render_reference(stored, grey, max(stored.shape)).ravel()
        theirs = render_reference(shown, type(grey)(inverted=grey.inverted), max(stored.shape)).ravel()
        if np.ptp(ours) > 0:
            assert np.corrcoef(ours, theirs)[0, 1] > 0.9999, row["file"]
            checked += 1
    assert checked >= 20


def test_jpeg2000_at_half_size_stays_within_its_tolerance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyddata__RG3_J2KR.dcm", "pyddata__RG3_J2KI.dcm", "pyddata__RG1_J2KI.dcm"):
        item = Item(name, folder / "files" / name)
        (small,) = read_frames(item, Preprocess(side=224))
        with monkeypatch.context() as patch:
            patch.setattr(dicom, "decode_jpeg2000_reduced", lambda *_: None)
            (full,) = read_frames(item, Preprocess(side=224))
        assert isinstance(small, Frame)
        assert isinstance(full, Frame)
        difference = float(np.abs(small.pixels - full.pixels).mean())
        assert 0 < difference < JPEG2000_MEAN_TOLERANCE, (name, difference)


def test_a_window_is_applied_and_monochrome1_inverted(folder: Path) -> None:
    content = (folder / "files" / "pyd__6154.dcm").read_bytes()  # MONOCHROME1, slope 0.684, intercept 200
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = "1800", "1000", "LINEAR_EXACT"
    found = _pixels(dataset, 16)
    np.testing.assert_allclose(found, 1 - np.clip((dataset.pixel_array * 0.684 + 200 - 1300) / 1000, 0, 1), atol=1e-3)


def test_values_of_the_window_that_are_lists_empty_or_zero(folder: Path) -> None:
    dataset = pydicom.dcmread(folder / "files" / "pyd__CT_small.dcm")
    dataset.WindowCenter, dataset.WindowWidth = ["40", "999"], ["400", "1"]
    first = _pixels(dataset, 128)
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    np.testing.assert_array_equal(first, _pixels(dataset, 128))
    for nothing in ("", "0"):
        dataset.WindowWidth = nothing
        automatic = _pixels(dataset, 128)
        assert (automatic.min(), automatic.max()) == (0, 1)


def test_a_deflated_bomb_is_stopped(folder: Path, tmp_path: Path) -> None:
    content = (folder / "files" / "pyd__image_dfl.dcm").read_bytes()
    item = Item("bomb", tmp_path / "bomb.dcm")
    item.path.write_bytes(content)
    (found,) = read_frames(item, PREPROCESS, Limits(file_bytes=200_000))
    assert isinstance(found, RejectedFrame)
    assert found.reason == "too-large"


def test_messages_hold_no_patient(folder: Path, rows: list[dict[str, str]]) -> None:
    for row in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(folder / row["file"], force=True)
            names = {str(dataset.get(key) or "") for key in ("PatientName", "PatientID", "PatientBirthDate")}
        words = {word for name in names for word in re.split(r"[\s^]+", name) if len(word) > 2}
        for found in read_frames(Item("source", folder / row["file"]), PREPROCESS):
            if isinstance(found, RejectedFrame):
                assert not [word for word in words if word in found.message], row["file"]


def _pixels(dataset: pydicom.Dataset, side: int) -> np.ndarray:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    (found,) = dicom.decode_file(buffer.getvalue(), "made", Preprocess(side=side), Limits())
    assert not isinstance(found, RejectedFrame), found
    return found.pixels
