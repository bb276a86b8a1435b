"""JPEG, PNG, TIFF, and everything that is no image at all: each file gives frames or rejected rows, never an
exception."""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from featherweight.apps.imaging.frames import Frame, RejectedFrame
from featherweight.apps.imaging.readers import Item, Limits, read_frames
from featherweight.apps.imaging.readers.raster import REDUCED_MEAN_TOLERANCE, decode_image
from featherweight.apps.imaging.sealed import Preprocess
from tests.datasets import local_copy
from tests.imaging.dicoms import dataset_of, render_native

SIDE = 32
RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))  # dark left, light right
TOLERANCE = 0.01


def read(path: Path, limits: Limits | None = None) -> list[Frame | RejectedFrame]:
    return list(read_frames(Item("name", path), Preprocess(side=SIDE), limits or Limits()))


def read_bytes(folder: Path, content: bytes, limits: Limits | None = None) -> list[Frame | RejectedFrame]:
    path = folder / "file.bin"  # the name tells nothing
    path.write_bytes(content)
    return read(path, limits)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def pixels(found: list[Frame | RejectedFrame]) -> np.ndarray:
    (frame,) = found
    assert isinstance(frame, Frame), frame
    assert frame.pixels.dtype == np.float32
    assert frame.pixels.shape == (SIDE, SIDE)
    return frame.pixels


def reason(found: list[Frame | RejectedFrame]) -> str:
    (row,) = found
    assert isinstance(row, RejectedFrame), row
    assert row.id.source == "name"
    return row.reason


EXPECTED = RAMP.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) / 255


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16", "1"])
def test_every_mode_becomes_the_same_grey(tmp_path: Path, form: str, mode: str) -> None:
    if (mode, form) == ("LA", "TIFF"):
        mode = "CMYK"
    if mode == "I;16":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    elif mode == "CMYK":
        image = Image.merge("CMYK", [Image.fromarray(255 - RAMP)] * 3 + [Image.new("L", (64, 64))])
    elif mode == "1":
        found = pixels(read_bytes(tmp_path, encode(Image.fromarray(RAMP > 127), form)))
        np.testing.assert_allclose(found, np.tile(np.arange(SIDE) > 15, (SIDE, 1)), atol=TOLERANCE)
        return
    else:
        image = Image.fromarray(RAMP).convert(mode)
    np.testing.assert_allclose(pixels(read_bytes(tmp_path, encode(image, form))), EXPECTED, atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_modes(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(RAMP)
    image = Image.merge("CMYK", [grey] * 4).convert("CMYK") if mode == "CMYK" else grey.convert(mode)
    expected = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
    found = pixels(read_bytes(tmp_path, encode(image, "JPEG", quality=98)))
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, form: str, orientation: int) -> None:
    image = Image.fromarray(np.tril(RAMP))
    exif = Image.Exif()
    exif[0x0112] = orientation
    steps = [
        None,
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    ]
    step = steps[orientation - 1]
    upright = image if step is None else image.transpose(step)
    expected = np.asarray(upright, dtype=np.float64).reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) / 255
    found = pixels(read_bytes(tmp_path, encode(image, form, exif=exif)))
    assert np.abs(found - expected).mean() < TOLERANCE


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((20 + page, 30), page * 60, dtype=np.uint8)) for page in range(4)]
    content = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    frames = read_bytes(tmp_path, content)
    assert [frame.id.frame for frame in frames] == [0, 1, 2, 3]
    for page, frame in enumerate(frames):
        assert isinstance(frame, Frame)
        np.testing.assert_allclose(frame.pixels, page * 60 / 255, atol=1e-6)
    assert reason(read_bytes(tmp_path, content, Limits(frames=3))) == "too-large"
    assert reason(read_bytes(tmp_path, content, Limits(samples=700))) == "too-large"
    *_, last = read_bytes(tmp_path, content[:-300])
    assert isinstance(last, RejectedFrame)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_pages_after_a_damaged_one_are_read(tmp_path: Path, compression: str) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (40, 30), dtype=np.uint8)
    pages = [Image.fromarray(np.full((40, 30), level, dtype=np.uint8)) for level in (50, 100, 150, 200)]
    pages[2] = Image.fromarray(noise)
    content = bytearray(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression=compression))
    with Image.open(io.BytesIO(content)) as image:
        image.seek(2)
        (at,), (size,) = image.tag_v2[273], image.tag_v2[279]
    content[at : at + size] = bytes(size)
    found = read_bytes(tmp_path, bytes(content))
    assert [row.id.frame for row in found] == [0, 1, 2, 3]
    assert [isinstance(row, RejectedFrame) for row in found] == [False, False, True, False]
    levels = [round(float(row.pixels.mean()) * 255) for row in found if isinstance(row, Frame)]
    np.testing.assert_allclose(levels, [50, 100, 200], atol=1)


def plain_tiff(values: bytes, bits: int, *, sample_format: int = 1, photometric: int = 1) -> bytes:
    """64 x 64, one strip."""
    tags = [(256, 64), (257, 64), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 64)]
    tags += [(279, len(values)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_tiffs_of_odd_samples(tmp_path: Path) -> None:
    """A ramp from the smallest to the largest value, whatever the samples are."""
    twelve = RAMP.astype(np.uint16) * 16 + RAMP // 16
    pairs = twelve.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    wide = RAMP.astype(np.uint32) * 0x01010101
    for content in (
        plain_tiff(packed.astype(np.uint8).tobytes(), 12),
        plain_tiff((RAMP.astype(np.int16) - 128).astype(np.int8).tobytes(), 8, sample_format=2),
        plain_tiff((RAMP.astype(np.int32) * 257 - 32768).astype(np.int16).tobytes(), 16, sample_format=2),
        plain_tiff(wide.tobytes(), 32),
        plain_tiff((wide - 0x80000000).tobytes(), 32, sample_format=2),
        plain_tiff((-RAMP.astype(np.float32)).tobytes(), 32, sample_format=3, photometric=0),
    ):
        np.testing.assert_allclose(pixels(read_bytes(tmp_path, content)), EXPECTED, atol=TOLERANCE)


def test_pictures_that_are_not_read_are_noted(tmp_path: Path) -> None:
    pictures = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    several = {
        "PNG": encode(pictures[0], "PNG", save_all=True, append_images=pictures[1:], default_image=True),
        "MPO": encode(pictures[0], "MPO", save_all=True, append_images=pictures[1:]),
    }
    for content in several.values():
        (found,) = read_bytes(tmp_path, content)
        assert isinstance(found, Frame)
        np.testing.assert_allclose(found.pixels, EXPECTED, atol=0.03)
        assert re.fullmatch(r"the file holds \d pictures: the first is read", found.notes)


def test_a_jpeg_of_12_bits_is_told_as_one(tmp_path: Path) -> None:
    (found,) = read_bytes(tmp_path, bytes(imagecodecs.jpeg8_encode(RAMP.astype(np.uint16) * 16, bitspersample=12)))
    assert isinstance(found, RejectedFrame)
    assert found.message == "a JPEG of 12 bits; outside of DICOM those of 8 bits are read"


def test_kinds_that_are_not_read_are_not_called_truncated(tmp_path: Path) -> None:
    ten_bits = encode(Image.fromarray(RAMP.astype(np.uint16)), "TIFF").replace(
        struct.pack("<HHIH", 258, 3, 1, 16), struct.pack("<HHIH", 258, 3, 1, 10)
    )
    for content in (ten_bits, bytes(imagecodecs.jpegls_encode(RAMP))):
        (row,) = read_bytes(tmp_path, content)
        assert isinstance(row, RejectedFrame)
        assert "of a kind that is not read" in row.message
        assert "truncated" not in row.message


def test_white_is_zero_in_sixteen_bits(tmp_path: Path) -> None:
    image = Image.fromarray(65535 - RAMP.astype(np.uint16) * 257)
    found = pixels(read_bytes(tmp_path, encode(image, "TIFF", tiffinfo={262: 0})))
    np.testing.assert_allclose(found, EXPECTED, atol=TOLERANCE)


def test_float_images_are_stretched_and_nan_is_refused(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32) * 1000 - 7
    stretched = pixels(read_bytes(tmp_path, encode(Image.fromarray(values), "TIFF")))
    np.testing.assert_allclose(stretched, EXPECTED, atol=TOLERANCE)
    values[3, 3] = np.nan
    assert reason(read_bytes(tmp_path, encode(Image.fromarray(values), "TIFF"))) == "bad-values"


def test_reduced_jpeg_decoding_stays_within_its_tolerance() -> None:
    with zipfile.ZipFile(local_copy("chest_xray_fullsize_200")) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpeg"))[::20]
        worst = 0.0
        for name in names:
            content = archive.read(name)
            small = decode_image(Image.open(io.BytesIO(content)), 224)
            full = decode_image(Image.open(io.BytesIO(content)), 224, reduced=False)
            worst = max(worst, float(np.abs(small - full).mean()))
    assert 0 < worst < REDUCED_MEAN_TOLERANCE


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\0", "not-an-image"),
        (b"hello, I am a text file with more than 132 bytes. " * 9, "not-an-image"),
        (b"GIF89a" + bytes(200), "not-an-image"),
        (b"PK\3\4" + bytes(200), "not-an-image"),
        (b"\xff\xd8\xff\xe0" + bytes(200), "corrupt"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "corrupt"),
        (b"II*\0" + bytes(200), "corrupt"),
        (bytes(128) + b"DICM", "corrupt"),
        (bytes(128) + b"DICM" + b"\xff" * 300, "corrupt"),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, expected: str) -> None:
    assert reason(read_bytes(tmp_path, content)) == expected


def test_huge_headers_are_refused_before_decoding(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    assert reason(read_bytes(tmp_path, bomb)) == "too-large"
    small = encode(Image.fromarray(RAMP), "PNG")
    assert reason(read_bytes(tmp_path, small, Limits(samples=64 * 64 - 1))) == "too-large"
    assert reason(read_bytes(tmp_path, small, Limits(file_bytes=len(small) - 1))) == "too-large"
    assert pixels(read_bytes(tmp_path, small, Limits(samples=64 * 64, file_bytes=len(small)))).any()


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
        expected = {
            "pipe": "not-a-file",
            "socket": "not-a-file",
            ".": "not-a-file",
            "broken": "missing",
            "no": "missing",
        }
        for name, code in expected.items():
            assert reason(read(tmp_path / name)) == code
    assert reason(read(Path("/dev/zero"))) == "not-a-file"
    (tmp_path / "file").touch()
    assert reason(read(tmp_path / "file" / "below")) == "missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    assert reason(read(tmp_path / "secret")) == "unreadable"


def _dicom(name: str = "MR_small.dcm") -> pydicom.Dataset:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return pydicom.dcmread(path)


def _saved(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("Rows", 0, "bad-header"),
        ("Rows", 65535, "corrupt"),
        ("Columns", None, "bad-header"),
        ("NumberOfFrames", "0", "bad-header"),
        ("NumberOfFrames", "-3", "bad-header"),
        ("NumberOfFrames", "2000000000", "too-large"),
        ("BitsAllocated", 0, "bad-header"),
        ("BitsAllocated", 13, "bad-header"),
        ("BitsStored", 40, "bad-header"),
        ("SamplesPerPixel", 3, "unsupported-photometric"),
        ("SamplesPerPixel", 0, "bad-header"),
        ("PhotometricInterpretation", "RGB", "unsupported-photometric"),
        ("PhotometricInterpretation", "PALETTE COLOR", "bad-header"),
        ("PhotometricInterpretation", "SECRET", "unsupported-photometric"),
        ("PhotometricInterpretation", None, "unsupported-photometric"),
        ("RescaleSlope", "0", "bad-header"),
    ],
)
def test_wrong_headers(tmp_path: Path, keyword: str, value: object, expected: str) -> None:
    dataset = _dicom()
    setattr(dataset, keyword, value)
    assert reason(read_bytes(tmp_path, _saved(dataset))) == expected


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3.4.5", "1.2.840.10008.1.2.4.95"])
def test_unknown_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    content = _saved(_dicom()).replace(b"1.2.840.10008.1.2.1\0", syntax.encode()[:20].ljust(20, b"\0"))
    assert reason(read_bytes(tmp_path, content)) == "unsupported-transfer-syntax"


def test_uids_are_kept_and_names_are_not_taken_for_uids(tmp_path: Path) -> None:
    dataset = _dicom()
    (frame,) = read_bytes(tmp_path, _saved(dataset))
    assert frame.id.sop_instance_uid == dataset.SOPInstanceUID
    assert frame.id.study_instance_uid == dataset.StudyInstanceUID
    assert frame.id.series_instance_uid == dataset.SeriesInstanceUID
    content = _saved(dataset).replace(
        dataset.StudyInstanceUID.encode(), b"Doe^Jane".ljust(len(dataset.StudyInstanceUID))
    )
    (frame,) = read_bytes(tmp_path, content)
    assert frame.id.study_instance_uid == ""


SEEDS = {
    "raw DICOM": _saved(_dicom()),
    "JPEG-LS DICOM": _saved(_dicom("JPEGLSNearLossless_16.dcm")),
    "JPEG DICOM": _saved(_dicom("SC_rgb_small_odd_jpeg.dcm")),
    "JPEG 2000 DICOM": _saved(_dicom("MR_small_jp2klossless.dcm")),
    "RLE DICOM": _saved(_dicom("MR_small_RLE.dcm")),
    "deflated DICOM": _saved(_dicom("image_dfl.dcm")),
    "JPEG": encode(Image.fromarray(RAMP), "JPEG"),
    "PNG": encode(Image.fromarray(RAMP).convert("RGB"), "PNG"),
    "TIFF": encode(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
def test_damaged_files_give_frames_or_rejections(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    seed = SEEDS[name]
    content = bytearray(seed)
    # Headers are where it hurts: half of the changes fall into the first kilobytes.
    places = st.one_of(st.integers(0, min(len(seed), 3000) - 1), st.integers(0, len(seed) - 1))
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        content[at] = value
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    found = read(path, Limits(samples=1 << 22, file_bytes=1 << 22))
    assert found
    for row in found:
        if isinstance(row, Frame):
            assert row.pixels.shape == (SIDE, SIDE)
            assert row.pixels.min() >= 0
            assert row.pixels.max() <= 1


def notes_of(found: list[Frame | RejectedFrame]) -> str:
    (frame,) = found
    assert isinstance(frame, Frame), frame
    return frame.notes


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_picture_of_one_grey_is_noted(tmp_path: Path, level: int) -> None:
    """The network has an answer for it, and the bundled one is sure of it."""
    assert "of one grey" in notes_of(read_bytes(tmp_path, encode(Image.new("L", (64, 64), level), "PNG")))


def test_a_window_beside_all_values_is_noted(tmp_path: Path) -> None:
    values = RAMP.astype(np.uint16)
    for center, blank in ((128, False), (20_000, True)):
        dataset = dataset_of(64, 64, WindowCenter=center, WindowWidth=256)
        assert ("of one grey" in notes_of(read_bytes(tmp_path, render_native(dataset, values)))) is blank


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_twelve_bits_in_a_file_of_sixteen_are_noted(tmp_path: Path, form: str) -> None:
    for scale, dark in ((16, True), (17, False), (257, False)):
        image = Image.fromarray(RAMP.astype(np.uint16) * scale)
        notes = notes_of(read_bytes(tmp_path, encode(image, form)))
        assert notes == ("no value is above 4095 of 65535: read as dark; an image of 12 bits?" if dark else "")
