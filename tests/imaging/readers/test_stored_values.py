"""Every codec gives the stored values that were written, however many bits they have, wherever in their cell they are,
signed or not, and whatever stands beside them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from featherweight.apps.imaging.frames import Frame
from featherweight.apps.imaging.readers import Item, read_frames
from featherweight.apps.imaging.readers.dicom import read_pixel_array
from featherweight.apps.imaging.readers.stored import Cell, stored_values, wrap
from featherweight.apps.imaging.sealed import Preprocess
from tests.imaging.dicoms import (
    COMPRESSED,
    NATIVE,
    SYNTAXES,
    dataset_of,
    encode_codestream,
    render,
    render_encapsulated,
    render_native,
)

ROWS, COLUMNS = 24, 37


def values(bits: int, *, signed: bool, seed: int = 5) -> np.ndarray:
    """Smooth, as codecs expect, and with both ends of what the bits can hold."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    ramp = np.add.outer(np.linspace(low, high, ROWS), np.random.default_rng(seed).integers(-1, 2, COLUMNS))
    return np.clip(ramp.round(), low, high).astype(np.int64)


def cells(stored: np.ndarray, bits: int, high_bit: int, allocated: int, *, seed: int | None) -> np.ndarray:
    """seed: of what stands in the bits beside the values; None: nothing."""
    below = high_bit + 1 - bits
    found = (stored & ((1 << bits) - 1)) << below
    if seed is not None:
        mask = ((1 << bits) - 1) << below
        found |= np.random.default_rng(seed).integers(0, 1 << allocated, stored.shape) & ~mask
    return found.astype(f"u{allocated // 8}")


def describe(bits: int, high_bit: int, allocated: int, *, signed: bool) -> dict[str, object]:
    return {
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": high_bit,
        "PixelRepresentation": int(signed),
    }


def read(folder: Path, content: bytes) -> np.ndarray:
    path = folder / "file.dcm"
    path.write_bytes(content)
    return read_pixel_array(path)


def can_judge(syntax: UID) -> bool:
    """Whether pydicom decodes it here. Of lossless JPEG only GPL code does, and gdcm, which ends the process."""
    return not syntax.is_compressed or get_decoder(syntax).is_available


def pydicoms(content: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(content)).pixel_array


LAYOUTS = {
    "8 in 8": (8, 7, 8, None),
    "5 in 8, overlay above": (5, 4, 8, 1),
    "10 in 16": (10, 9, 16, None),
    "12 in 16": (12, 11, 16, None),
    "12 in 16, overlay above": (12, 11, 16, 1),
    "12 in 16, at the upper end": (12, 15, 16, None),
    "12 in 16, at the upper end, overlay below": (12, 15, 16, 1),
    "12 in 16, in the middle, overlays around": (12, 13, 16, 1),
    "16 in 16": (16, 15, 16, None),
}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", SYNTAXES)
def test_whole_cells_give_their_values(tmp_path: Path, codec: str, layout: str, signed: bool) -> None:
    """As encoders make them that take the cell as it is (dcmcjpls does)."""
    bits, high_bit, allocated, seed = LAYOUTS[layout]
    syntax, expected = SYNTAXES[codec], values(bits, signed=signed)
    dataset = dataset_of(ROWS, COLUMNS, syntax, **describe(bits, high_bit, allocated, signed=signed))
    stored = cells(expected, bits, high_bit, allocated, seed=seed)
    if codec in COMPRESSED:
        content = render_encapsulated(dataset, [encode_codestream(stored, syntax, allocated)])
    else:
        content = render_native(dataset, stored)
    found = read(tmp_path, content)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype.kind == ("i" if signed else "u")
    # pydicom knows no HighBit, and masks nothing after JPEG-LS and JPEG 2000.
    masked = syntax not in (JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless) or bits == allocated
    if high_bit == bits - 1 and masked and can_judge(syntax):
        np.testing.assert_array_equal(pydicoms(content), expected)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless], ids=["JPEG lossless", "JPEG 2000"])
def test_codestreams_of_the_values_own_bits(tmp_path: Path, syntax: pydicom.uid.UID, bits: int, signed: bool) -> None:
    expected, allocated = values(bits, signed=signed), 8 if bits == 8 else 16
    dataset = dataset_of(ROWS, COLUMNS, syntax, **describe(bits, bits - 1, allocated, signed=signed))
    stored = cells(expected, bits, bits - 1, allocated, seed=None)
    content = render_encapsulated(dataset, [encode_codestream(stored, syntax, bits)])
    np.testing.assert_array_equal(read(tmp_path, content), expected)
    if can_judge(syntax):
        np.testing.assert_array_equal(pydicoms(content), expected)
    # A header that puts values elsewhere in the cell says nothing of a codestream that holds values alone.
    dataset.HighBit = allocated - 1
    content = render_encapsulated(dataset, [encode_codestream(stored, syntax, bits)])
    np.testing.assert_array_equal(read(tmp_path, content), expected)


@pytest.mark.parametrize("signed_header", [False, True])
def test_jpeg2000_with_a_sign_of_its_own(tmp_path: Path, signed_header: bool) -> None:
    expected = values(12, signed=True)
    codestream = bytes(imagecodecs.jpeg2k_encode(expected.astype(np.int16), bitspersample=12, codecformat="j2k"))
    dataset = dataset_of(ROWS, COLUMNS, JPEG2000Lossless, **describe(12, 11, 16, signed=signed_header))
    content = render_encapsulated(dataset, [codestream])
    np.testing.assert_array_equal(read(tmp_path, content), expected if signed_header else expected & 0xFFF)


def test_what_a_lossy_codec_gives_beyond_the_bits_is_not_cut_to_black(tmp_path: Path) -> None:
    """A JPEG of 12 bits may hold 10, and its light pixels come out a little lighter than they can be."""
    steep = np.where(np.add.outer(np.arange(64), np.arange(64)) % 16 < 8, 0, 1023).astype(np.uint16)
    codestream = bytes(imagecodecs.jpeg8_encode(steep, level=60, bitspersample=12))
    dataset = dataset_of(64, 64, JPEGExtended12Bit, **describe(10, 9, 16, signed=False))
    found = read(tmp_path, render_encapsulated(dataset, [codestream])).astype(int)
    assert found.max() > 1023
    assert np.abs(found - steep).mean() < 60
    assert found[steep == 1023].min() > 700
    # Some encoders say that the scan ends with its first coefficient, and mean the last.
    at = codestream.rfind(b"\xff\xda") + 8
    assert codestream[at : at + 2] == b"\x3f\0"
    other = codestream[:at] + b"\0" + codestream[at + 1 :]
    np.testing.assert_array_equal(read(tmp_path, render_encapsulated(dataset, [other])), found)


@pytest.mark.parametrize("signed", [False, True])
def test_near_lossless_jpegls_of_whole_cells(tmp_path: Path, signed: bool) -> None:
    expected = np.clip(values(12, signed=signed), -2000 if signed else 50, 2000 if signed else 4000)
    stored = cells(expected, 12, 11, 16, seed=None)
    if signed:  # sign-extended, as most writers fill the cell
        stored = expected.astype(np.int16).view(np.uint16)
    codestream = bytes(imagecodecs.jpegls_encode(stored, level=2))
    dataset = dataset_of(ROWS, COLUMNS, JPEGLSNearLossless, **describe(12, 11, 16, signed=signed))
    found = read(tmp_path, render_encapsulated(dataset, [codestream]))
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_overlay_bits_in_reversible_jpeg2000_of_the_syntax_that_may_be_lossy(tmp_path: Path) -> None:
    expected = values(12, signed=False)
    stored = cells(expected, 12, 11, 16, seed=3)
    dataset = dataset_of(ROWS, COLUMNS, JPEG2000, **describe(12, 11, 16, signed=False))
    content = render_encapsulated(dataset, [encode_codestream(stored, JPEG2000Lossless, 16)])
    np.testing.assert_array_equal(read(tmp_path, content), expected)


@pytest.mark.parametrize("syntax", [SYNTAXES["explicit"], RLELossless], ids=["native", "RLE"])
def test_32_bits(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    expected = values(24, signed=True)
    dataset = dataset_of(ROWS, COLUMNS, syntax, **describe(24, 23, 32, signed=True))
    stored = cells(expected, 24, 23, 32, seed=4)
    content = (
        render_encapsulated(dataset, [encode_codestream(stored, syntax, 32)])
        if syntax == RLELossless
        else render_native(dataset, stored)
    )
    np.testing.assert_array_equal(read(tmp_path, content), expected)


@given(st.integers(1, 16), st.integers(0, 15), st.booleans(), st.integers(0, 0xFFFF), st.sampled_from("<>"))
def test_a_value_is_its_bits(bits: int, below: int, signed: bool, word: int, order: str) -> None:
    high = min(15, bits - 1 + below)
    expected = (word >> (high + 1 - bits)) & ((1 << bits) - 1)
    expected -= (1 << bits) if signed and expected >> (bits - 1) else 0
    samples = np.full((2, 3), word, f"{order}u2")
    found = stored_values(samples, Cell(bits, high, signed))
    assert (found == expected).all()
    assert found.dtype == np.dtype(f"{order}{'i' if signed else 'u'}2")
    assert (samples == word).all()


def test_padding_is_read_as_the_pixels_are() -> None:
    assert wrap(63536, Cell(16, 15, signed=True)) == -2000
    assert wrap(63488, Cell(12, 11, signed=True)) == -2048
    assert wrap(2048, Cell(12, 11, signed=True)) == -2048
    assert wrap(4095, Cell(12, 11, signed=False)) == 4095
    assert wrap(63536, Cell(24, 23, signed=True)) == -2000
    assert wrap(0, Cell(12, 11, signed=False)) == 0


def test_a_high_bit_that_the_values_contradict_is_not_followed(tmp_path: Path) -> None:
    expected = values(12, signed=False)
    dataset = dataset_of(ROWS, COLUMNS, **describe(12, 15, 16, signed=False))
    content = render_native(dataset, cells(expected, 12, 11, 16, seed=None))
    np.testing.assert_array_equal(read(tmp_path, content), expected)
    (found,) = read_frames(Item("name", tmp_path / "file.dcm"), Preprocess(side=16))
    assert isinstance(found, Frame)
    assert found.notes == "HighBit is 15, but the values are in the lower 12 bits: read as these"


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("syntax", [*NATIVE.values(), RLELossless], ids=[*NATIVE, "RLE"])
def test_packed_bits_that_end_within_a_byte(tmp_path: Path, syntax: UID, frames: int) -> None:
    expected = np.random.default_rng(2).integers(0, 2, (frames, 5, 7)).astype(np.uint8)
    elements = {**describe(1, 0, 1, signed=False), "NumberOfFrames": frames}
    dataset = dataset_of(5, 7, syntax, **{**elements, "BitsAllocated": 1})
    if syntax == RLELossless:
        packed = [np.packbits(frame, bitorder="little") for frame in expected]
        streams = [encode_codestream(frame[None], syntax, 8) for frame in packed]
        content = render_encapsulated(dataset, streams)
    else:
        content = render_native(dataset, np.packbits(expected, bitorder="little"))
    np.testing.assert_array_equal(read(tmp_path, content), expected.squeeze())


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("words", [False, True], ids=["OB", "OW"])
@pytest.mark.parametrize("syntax", NATIVE.values(), ids=NATIVE)
def test_frames_of_an_odd_number_of_bytes(tmp_path: Path, syntax: UID, words: bool, frames: int) -> None:
    expected = np.random.default_rng(2).integers(0, 256, (frames, 5, 7)).astype(np.uint8)
    dataset = dataset_of(5, 7, syntax, **{**describe(8, 7, 8, signed=False), "NumberOfFrames": frames})
    content = expected.tobytes() + b"\0" * (expected.size % 2)
    swapped = words and not syntax.is_little_endian
    dataset.PixelData = np.frombuffer(content, np.uint16).byteswap().tobytes() if swapped else content
    dataset["PixelData"].VR = "OW" if words else "OB"
    np.testing.assert_array_equal(read(tmp_path, render(dataset)), expected.squeeze())


STEPS = np.arange(0, 256, 4, dtype=np.uint8)
COLOURS = np.stack([*np.meshgrid(STEPS, STEPS), np.full((64, 64), 90, np.uint8)], -1)
LUMA = COLOURS @ np.array([0.299, 0.587, 0.114]) / 255


def coded(colours: str, marker: str) -> bytes:
    """A JPEG whose samples are `colours`; marker: what in it says so."""
    if marker == "JFIF":
        buffer = io.BytesIO()
        Image.fromarray(COLOURS).save(buffer, "JPEG", quality=98, subsampling=0)
        return buffer.getvalue()
    return bytes(imagecodecs.jpeg8_encode(COLOURS, level=98, outcolorspace=colours, subsampling="444"))


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize(("colours", "marker"), [("YCBCR", "JFIF"), ("RGB", "Adobe")])
def test_a_jpeg_says_what_its_colours_are(tmp_path: Path, colours: str, marker: str, said: str) -> None:
    codestream = coded(colours, marker)
    assert marker.encode() in codestream[:40]
    elements = {**describe(8, 7, 8, signed=False), "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    dataset = dataset_of(64, 64, JPEGBaseline8Bit, **elements, PhotometricInterpretation=said)
    path = tmp_path / "file.dcm"
    path.write_bytes(render_encapsulated(dataset, [codestream]))
    (found,) = read_frames(Item("name", path), Preprocess(side=64))
    assert isinstance(found, Frame), found
    np.testing.assert_allclose(found.pixels, LUMA, atol=0.03)
