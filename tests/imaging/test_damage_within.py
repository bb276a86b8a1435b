"""A missing middle, or a lost block of the disk, within a picture whose end is there: never decoded in silence."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import uid

from apps.imaging.frames import Frame, Rejected
from apps.imaging.readers import Item, read_frames
from apps.imaging.settings import Preprocess
from tests.imaging.dicoms import dataset_of, render_encapsulated

Damage = Callable[[bytes, int], bytes]
DAMAGES: dict[str, Damage] = {
    "a lost block of 512 bytes": lambda data, at: data[:at] + bytes(512) + data[at + 512 :],
    "a lost block of 4096 bytes": lambda data, at: data[:at] + bytes(4096) + data[at + 4096 :],
    "512 bytes cut out": lambda data, at: data[:at] + data[at + 512 :],
    "a third cut out": lambda data, at: data[:at] + data[at + len(data) // 3 :],
}


@pytest.fixture(scope="module")
def picture() -> npt.NDArray[np.uint8]:
    """Soft shapes and the noise of an X-ray."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:400, :480] / 60
    return np.asarray(110 + 60 * np.sin(x) * np.cos(y) + random.normal(0, 8, x.shape)).clip(0, 255).astype(np.uint8)


def read(path: Path, content: bytes) -> Frame | Rejected:
    path.write_bytes(content)
    (found,) = read_frames(Item("x", path), Preprocess(side=64))
    return found


def save(picture: npt.NDArray[np.uint8], form: str, mode: str = "", **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture)
    (Image.frombytes(mode, image.size, picture.tobytes()) if mode else image).save(file, form, **options)
    return file.getvalue()


def colours(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.stack([picture, picture[::-1], picture.T.reshape(picture.shape)], axis=-1)


FILES: dict[str, Callable[[npt.NDArray[np.uint8]], bytes]] = {
    "JPEG": lambda picture: save(picture, "JPEG", quality=92),
    "JPEG with its own tables": lambda picture: save(picture, "JPEG", quality=92, optimize=True),
    "progressive JPEG": lambda picture: save(picture, "JPEG", quality=92, progressive=True),
    "JPEG with restarts": lambda picture: save(picture, "JPEG", quality=92, restart_marker_rows=1),
    "JPEG in colour": lambda picture: save(colours(picture), "JPEG", quality=92),
    "JPEG in four colours": lambda picture: save(np.dstack([colours(picture), picture]), "JPEG", "CMYK", quality=92),
    "PNG": lambda picture: save(picture, "PNG"),
    "deflated TIFF": lambda picture: save(picture, "TIFF", compression="tiff_adobe_deflate"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", FILES)
def test_a_damaged_file_is_rejected(form: str, damage: str, picture: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    whole = FILES[form](picture)
    assert isinstance(read(tmp_path / "x", whole), Frame)
    for share in (0.2, 0.5):
        found = read(tmp_path / "x", DAMAGES[damage](whole, int(len(whole) * share)))
        assert isinstance(found, Rejected)
        assert found.reason == "corrupt"


def twelve(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    return picture.astype(np.uint16) * 16


CODESTREAMS: dict[str, tuple[uid.UID, int, Callable[[npt.NDArray[np.uint8]], bytes]]] = {
    "JPEG": (uid.JPEGBaseline8Bit, 8, lambda picture: imagecodecs.jpeg8_encode(picture, level=92)),
    "JPEG Extended": (
        uid.JPEGExtended12Bit,
        12,
        lambda picture: imagecodecs.jpeg8_encode(twelve(picture), level=92, bitspersample=12),
    ),
    "JPEG-LS": (uid.JPEGLSLossless, 12, lambda picture: imagecodecs.jpegls_encode(twelve(picture))),
    "JPEG 2000": (
        uid.JPEG2000Lossless,
        12,
        lambda picture: imagecodecs.jpeg2k_encode(
            twelve(picture), bitspersample=12, codecformat="j2k", reversible=True
        ),
    ),
    "JPEG 2000 with loss": (
        uid.JPEG2000,
        8,
        lambda picture: imagecodecs.jpeg2k_encode(picture, level=45, codecformat="j2k"),
    ),
}


@pytest.mark.parametrize("windowed", [False, True], ids=["in full", "reduced where it can be"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", CODESTREAMS)
def test_a_damaged_dicom_file_is_rejected(
    name: str, damage: str, windowed: bool, picture: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    syntax, bits, encode = CODESTREAMS[name]
    whole = encode(picture)
    window = {"WindowCenter": 1 << (bits - 1), "WindowWidth": 1 << bits} if windowed else {}

    def render(codestream: bytes) -> bytes:
        depth = {"BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits, "HighBit": bits - 1}
        return render_encapsulated(dataset_of(*picture.shape, syntax, **depth, **window), [codestream])

    assert isinstance(read(tmp_path / "x", render(whole)), Frame)
    for share in (0.3, 0.5):
        found = read(tmp_path / "x", render(DAMAGES[damage](whole, int(len(whole) * share))))
        assert isinstance(found, Rejected)
        assert found.reason == "corrupt"


def test_what_lacks_nothing_of_the_picture_is_read(picture: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """No end, zeros before the end, bytes after it, and a wrong checksum of data that are right."""
    jpeg, png = FILES["JPEG"](picture), bytearray(FILES["PNG"](picture))
    good = read(tmp_path / "x", jpeg)
    assert isinstance(good, Frame)
    for content in (jpeg[:-2], jpeg[:-2] + bytes(20) + jpeg[-2:], jpeg + bytes(700), jpeg[:20] + b"\0\0" + jpeg[20:]):
        found = read(tmp_path / "x", content)
        assert isinstance(found, Frame)
        assert np.array_equal(found.pixels, good.pixels)
    at = png.index(b"IDAT")
    (length,) = struct.unpack_from(">I", png, at - 4)
    png[at + 4 + length] ^= 1
    assert isinstance(read(tmp_path / "x", bytes(png)), Frame)


def test_zeros_that_a_coder_writes_are_no_hole(tmp_path: Path) -> None:
    """Black pictures, and many layers of empty packets."""
    black = np.zeros((900, 900), np.uint16)
    black[:20, :20] = 4095
    for options in ({}, {"level": 40, "reversible": False}):
        codestream = imagecodecs.jpeg2k_encode(black, bitspersample=12, codecformat="j2k", **options)
        syntax = uid.JPEG2000 if options else uid.JPEG2000Lossless
        assert isinstance(read(tmp_path / "x", render_encapsulated(dataset_of(900, 900, syntax), [codestream])), Frame)
    flat = save(np.full((2000, 2000), 3, np.uint8), "JPEG", optimize=True)
    assert bytes(64) in flat
    assert isinstance(read(tmp_path / "x", flat), Frame)


def test_a_lossless_jpeg_never_reaches_the_decoder_that_reduces(tmp_path: Path) -> None:
    """It would write beyond the end of a reduced picture: whatever stands before the frame header."""
    lossless = imagecodecs.jpeg8_encode(np.zeros((64, 64), np.uint8), lossless=True)
    for hidden in (b"", b"\xff\x01", b"\xff\xe0\x00\x0d\xff\xc0\x00\x0b\x08\x02\x00\x02\x00\x01\x01"):
        assert isinstance(read(tmp_path / "x", lossless[:2] + hidden + lossless[2:]), (Frame, Rejected))
