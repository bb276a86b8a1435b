"""Files that deviate from the standard and have one reading are read, and say so; others name the element at fault."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
)

from featherweight.apps.imaging.frames import Frame, RejectedFrame
from featherweight.apps.imaging.readers import Item, read_frames
from featherweight.apps.imaging.sealed import Preprocess
from tests.imaging.dicoms import (
    COMPRESSED,
    NATIVE,
    SYNTAXES,
    dataset_of,
    encode_codestream,
    render_encapsulated,
    render_native,
)

SIDE = 16
RAMP = np.tile(np.arange(SIDE, dtype=np.uint16) * 256 + 100, (SIDE, 1))
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
GREY = RAMP / 4095
TAG = re.compile(r"\([0-9A-F]{4},[0-9A-F]{4}\)")


def read(folder: Path, content: bytes) -> Frame | RejectedFrame:
    path = folder / "file.dcm"
    path.write_bytes(content)
    (found,) = read_frames(Item("name", path), Preprocess(side=SIDE))
    assert "Secret" not in (found.message if isinstance(found, RejectedFrame) else found.notes)
    return found


def frame(folder: Path, content: bytes) -> Frame:
    found = read(folder, content)
    assert isinstance(found, Frame), found
    return found


def made(syntax: object = ExplicitVRLittleEndian, **elements: object) -> Dataset:
    return dataset_of(SIDE, SIDE, syntax, **{**WINDOW, **elements})  # type: ignore[arg-type]


def check(folder: Path, content: bytes, expected: np.ndarray, notes: str) -> None:
    found = frame(folder, content)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-3)
    assert found.notes == notes


def replaced(content: bytes, before: bytes, after: bytes) -> bytes:
    assert content.count(before) == 1
    assert len(before) == len(after)
    return content.replace(before, after)


def test_an_ordinary_file_has_no_notes(tmp_path: Path) -> None:
    check(tmp_path, render_native(made(), RAMP), GREY, "")


@pytest.mark.parametrize("syntax", NATIVE.values(), ids=NATIVE)
def test_without_pixel_representation_pixels_are_unsigned(tmp_path: Path, syntax: object) -> None:
    content = render_native(made(syntax, PixelRepresentation=None), RAMP)
    check(tmp_path, content, GREY, "PixelRepresentation is missing: read as 0, unsigned")


def test_without_pixel_representation_tables_and_padding_are_read_too(tmp_path: Path) -> None:
    """In implicit VR nothing but PixelRepresentation tells how their elements are typed."""
    dataset = made(ImplicitVRLittleEndian, WindowCenter=None, WindowWidth=None, PixelPaddingValue=100)
    dataset.VOILUTSequence = Items([table(0, np.arange(4096), 12)])
    del dataset.PixelRepresentation
    check(tmp_path, render_native(dataset, RAMP), GREY, "PixelRepresentation is missing: read as 0, unsigned")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("has_meta", [False, True])
def test_without_a_transfer_syntax(tmp_path: Path, syntax: object, has_meta: bool) -> None:
    content = render_native(made(syntax), RAMP)
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    meta = b""
    if has_meta:  # (0002,0001) alone
        element = b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\0\x01"
        meta = bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0" + len(element).to_bytes(4, "little") + element
    found = frame(tmp_path, meta + content[start:])
    np.testing.assert_allclose(found.pixels, GREY, atol=1e-3)
    assert found.notes == f"the file names no transfer syntax: read as {syntax.name}"  # type: ignore[attr-defined]


def test_compressed_pixels_without_a_transfer_syntax_or_with_a_native_one_are_refused(tmp_path: Path) -> None:
    content = render_encapsulated(made(JPEGLosslessSV1), [encode_codestream(RAMP, JPEGLosslessSV1, 16)])
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    found = read(tmp_path, content[start:])
    assert isinstance(found, RejectedFrame)
    assert found.reason == "unsupported-transfer-syntax"
    native = replaced(
        content, b"UI\x16\x00" + JPEGLosslessSV1.encode(), b"UI\x16\x00" + b"1.2.840.10008.1.2.1".ljust(22, b"\0")
    )
    found = read(tmp_path, native)
    assert isinstance(found, RejectedFrame)
    assert (found.reason, "compressed" in found.message) == ("bad-header", True)


@pytest.mark.parametrize(
    ("keyword", "value", "text", "number"),
    [
        ("WindowCenter", "20485", "2048,5", 2048.5),
        ("WindowWidth", "40960", "4096,0", 4096.0),
        ("RescaleSlope", "1000", "1,00", 1.0),
        ("RescaleIntercept", "-10245", "-1024,", None),
        ("WindowWidth", "40960", "4,096 ", None),
        ("WindowWidth", "400000", "4.096,", None),
        ("WindowCenter", "200000", "Secret", None),
        ("WindowCenter", "200000", "1e9999", None),
        ("RescaleSlope", "1000", "nan ", None),
    ],
)
def test_texts_of_numbers(tmp_path: Path, keyword: str, value: str, text: str, number: float | None) -> None:
    elements = {"RescaleSlope": 1, "RescaleIntercept": 0, keyword: value}
    content = render_native(made(**elements), RAMP)
    size = len(text) + len(text) % 2
    head = b"DS" + size.to_bytes(2, "little")
    content = replaced(content, head + value.ljust(size).encode(), head + text.ljust(size).encode())
    found = read(tmp_path, content)
    if number is None:
        assert isinstance(found, RejectedFrame)
        assert found.reason == "bad-header"
        assert found.message.startswith(f"{keyword} (")
        assert TAG.search(found.message)
    else:
        assert isinstance(found, Frame), found
        assert found.notes == f"{keyword} has a decimal comma"
        np.testing.assert_allclose(found.pixels, GREY, atol=2e-3)


@pytest.mark.parametrize("representation", ["LO", "SH", "CS", "ST"])
@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope"])
def test_a_number_in_a_text_of_another_representation_is_that_number(
    tmp_path: Path, keyword: str, representation: str
) -> None:
    """And not its first digit."""
    content = render_native(
        made(RescaleSlope="16", RescaleIntercept="-80", WindowCenter="200", WindowWidth="32000"), RAMP
    )
    expected = frame(tmp_path, content)
    assert expected.pixels.std() > 0.1
    tag = {"WindowCenter": 0x1050, "WindowWidth": 0x1051, "RescaleIntercept": 0x1052, "RescaleSlope": 0x1053}[keyword]
    head = b"\x28\0" + tag.to_bytes(2, "little")
    found = frame(tmp_path, replaced(content, head + b"DS", head + representation.encode()))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.notes == f"{keyword} is of the representation {representation}: read as a number"


@pytest.mark.parametrize(("tag", "value"), [(0x0010, SIDE), (0x0011, SIDE), (0x0100, 16), (0x0101, 12), (0x0102, 11)])
def test_a_whole_number_in_a_text_is_that_number(tmp_path: Path, tag: int, value: int) -> None:
    head = b"\x28\0" + tag.to_bytes(2, "little")
    before, after = b"US\x02\0" + value.to_bytes(2, "little"), b"LO\x02\0" + str(value).encode()
    content = replaced(render_native(made(), RAMP), head + before, head + after)
    np.testing.assert_allclose(frame(tmp_path, content).pixels, GREY, atol=1e-3)


def test_a_whole_number_in_bytes_is_a_word(tmp_path: Path) -> None:
    """And not its first byte."""
    tall = np.tile(RAMP[:1], (300, 1))
    content = render_native(dataset_of(300, SIDE, **WINDOW), tall)
    word = (300).to_bytes(2, "little")
    assert content.count(b"\x28\0\x10\0US\x02\0" + word) == 1
    content = content.replace(b"\x28\0\x10\0US\x02\0" + word, b"\x28\0\x10\0OW\0\0\x02\0\0\0" + word)
    np.testing.assert_allclose(frame(tmp_path, content).pixels, GREY, atol=1e-3)


@pytest.mark.parametrize("text", ["\t200", "200\n", "200\\", "200\\x"])
def test_the_first_number_counts_without_its_blanks(tmp_path: Path, text: str) -> None:
    content = render_native(made(WindowCenter="200"), RAMP)
    expected = frame(tmp_path, content).pixels
    head, padded = b"\x28\0\x50\x10DS", text.ljust(len(text) + len(text) % 2).encode()
    before, after = head + b"\x04\x00200 ", head + len(padded).to_bytes(2, "little") + padded
    assert content.count(before) == 1
    np.testing.assert_array_equal(frame(tmp_path, content.replace(before, after)).pixels, expected)


def test_padding_in_a_text_is_that_number(tmp_path: Path) -> None:
    content = render_native(made(WindowCenter=None, WindowWidth=None, PixelPaddingValue=100), RAMP)
    expected = frame(tmp_path, content).pixels
    head = b"\x28\0\x20\x01"
    before = head + b"US\x02\0" + (100).to_bytes(2, "little")
    assert content.count(before) == 1
    content = content.replace(before, head + b"IS\x04\x00100 ")
    np.testing.assert_array_equal(frame(tmp_path, content).pixels, expected)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_RCT"])
def test_colours_have_no_sign(tmp_path: Path, photometric: str) -> None:
    """As PS3.3 C.7.6.3 has it: read as signed numbers, the light half of an image would be black."""
    grey = np.tile(np.arange(SIDE, dtype=np.uint8) * 16, (SIDE, 1))
    neutral = np.uint8(128) if photometric == "YBR_FULL" else grey
    cells = np.stack(np.broadcast_arrays(grey, neutral, neutral), axis=-1)
    syntax = JPEG2000Lossless if photometric == "YBR_RCT" else ExplicitVRLittleEndian
    elements = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": photometric}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 1}
    dataset = dataset_of(SIDE, SIDE, syntax, **elements, **bits)
    if photometric == "YBR_RCT":
        content = render_encapsulated(dataset, [encode_codestream(cells, syntax, 8)])
    else:
        content = render_native(dataset, cells)
    said = f"PixelRepresentation is 1 with {photometric}, whose values have no sign: read as 0, unsigned"
    check(tmp_path, content, grey / 255, said)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", "the DICOM file holds no image: it is of Encapsulated PDF Storage"),
        (
            "1.2.840.10008.5.1.4.1.1.1",
            "the file is of Computed Radiography Image Storage and has no pixel data; is it cut off?",
        ),
        ("1.2.3.4", "the DICOM file holds no image"),
    ],
)
def test_a_file_without_pixels_says_what_it_is(tmp_path: Path, kind: str, said: str) -> None:
    dataset = made(SOPClassUID=kind, Rows=None, Columns=None)
    found = read(tmp_path, render_native(dataset, np.empty(0, np.uint16)).split(b"\xe0\x7f\x10\0OW")[0])
    assert isinstance(found, RejectedFrame)
    assert (found.reason, found.message) == ("no-pixel-data", said)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_bits_above_the_value_are_noted(tmp_path: Path, syntax: UID) -> None:
    """They may be overlays, and BitsStored may be wrong."""
    for bits, note in ((12, ""), (10, "bits above the 10 of BitsStored are set: not read, as if they were overlays")):
        dataset = made(syntax, BitsStored=bits, HighBit=bits - 1)
        if syntax in COMPRESSED.values():
            content = render_encapsulated(dataset, [encode_codestream(RAMP, syntax, 16)])
        else:
            content = render_native(dataset, RAMP)
        assert frame(tmp_path, content).notes == note


def table(first: int, entries: np.ndarray, bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries) % 65536, first % 65536, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return item


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("items", [[], [Dataset()]], ids=["no item", "an empty item"])
def test_a_table_that_says_nothing_is_not_valid(tmp_path: Path, keyword: str, items: list[Dataset]) -> None:
    dataset = made(RescaleSlope=2, RescaleIntercept=0, WindowCenter=4096, WindowWidth=8192)
    setattr(dataset, keyword, Items(items))
    found = frame(tmp_path, render_native(dataset, RAMP))
    np.testing.assert_allclose(found.pixels, GREY, atol=1e-3)


def test_an_empty_group_of_a_frame_leaves_what_the_data_set_says(tmp_path: Path) -> None:
    dataset, item = made(), Dataset()
    item.FrameVOILUTSequence, item.PixelValueTransformationSequence = Items([Dataset()]), Items([Dataset()])
    dataset.PerFrameFunctionalGroupsSequence = Items([item])
    check(tmp_path, render_native(dataset, RAMP), GREY, "")


@pytest.mark.parametrize("holds", [8, 12, 15, 16])
@pytest.mark.parametrize("said", [8, 12, 16])
def test_a_voi_table_is_as_light_as_its_entries_can_be(tmp_path: Path, said: int, holds: int) -> None:
    entries = np.linspace(0, (1 << holds) - 1, 4096).round()
    dataset = made(WindowCenter=None, WindowWidth=None)
    dataset.VOILUTSequence = Items([table(0, entries, said)])
    note = "" if said == holds else f"the VOI LUT is said to have {said} bits and holds {holds}: read as {holds}"
    found = frame(tmp_path, render_native(dataset, RAMP))
    np.testing.assert_allclose(found.pixels, GREY, atol=3e-3)
    assert found.notes == note


def test_a_voi_table_of_negative_inputs_in_unsigned_words(tmp_path: Path) -> None:
    dataset = made(WindowCenter=None, WindowWidth=None, RescaleSlope=1, RescaleIntercept=-1024)
    dataset.VOILUTSequence = Items([table(-1024, np.arange(4096), 12)])
    check(tmp_path, render_native(dataset, RAMP), GREY, "")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"BitsAllocated": 13}, r"BitsAllocated \(0028,0100\) is 13"),
        ({"BitsStored": 40}, r"BitsStored \(0028,0101\) is 40"),
        ({"PixelRepresentation": 7}, r"PixelRepresentation \(0028,0103\) is 7"),
        ({"Rows": None}, r"Rows \(0028,0010\) is missing"),
        ({"RescaleSlope": 0}, r"RescaleSlope \(0028,1053\) is 0"),
    ],
)
def test_a_refusal_names_the_element_and_what_was_found(
    tmp_path: Path, elements: dict[str, object], message: str
) -> None:
    found = read(tmp_path, render_native(made(**elements), RAMP))
    assert isinstance(found, RejectedFrame)
    assert found.reason == "bad-header"
    assert re.match(message, found.message), found.message


def test_a_table_without_its_data_names_them(tmp_path: Path) -> None:
    item = table(0, np.arange(4096), 12)
    item.LUTData = np.arange(20).astype("<u2").tobytes()
    dataset = made()
    dataset.VOILUTSequence = Items([item])
    found = read(tmp_path, render_native(dataset, RAMP))
    assert isinstance(found, RejectedFrame)
    assert found.message == "LUTData (0028,3006) has 20 entries; LUTDescriptor (0028,3002) says 4096 of 12 bits"


NO_WINDOW = {"WindowCenter": None, "WindowWidth": None}


@pytest.mark.parametrize(
    ("padding", "limit", "signed", "typed"),
    [
        (-2000, None, True, "US"),  # 63536
        (-2000, None, True, "SS"),
        (-2048, None, True, "12 bits"),  # 2048
        (10, 0, False, "US"),  # 0 counts
        (0, 10, False, "US"),
        (0, None, False, "SS"),
    ],
)
def test_padding_does_not_stretch_the_grey_scale(
    tmp_path: Path, padding: int, limit: int | None, signed: bool, typed: str
) -> None:
    stored = RAMP.astype(np.int64) - (1900 if signed else -11)
    stored[:2], stored[2:4] = padding, padding if limit is None else limit
    dataset = dataset_of(SIDE, SIDE, **{**NO_WINDOW, "PixelRepresentation": int(signed)})
    if typed == "12 bits":
        padding &= 0xFFF
    for tag, value in ((0x00280120, padding), (0x00280121, limit)):
        if value is not None:
            dataset.add_new(tag, "SS" if typed == "SS" else "US", value if typed == "SS" else value % 65536)
    found = frame(tmp_path, render_native(dataset, stored.astype(np.int16).view(np.uint16)))
    np.testing.assert_allclose(found.pixels[8], np.arange(SIDE) / (SIDE - 1), atol=1e-3)


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        (
            {"PresentationLUTShape": "INVERSE"},
            "PresentationLUTShape is INVERSE with MONOCHROME2: read as MONOCHROME2 says",
        ),
        ({"PresentationLUTShape": "IDENTITY"}, ""),
        ({"ShutterShape": "RECTANGULAR"}, "a display shutter (0018,1600) is not applied"),
        ({"VOILUTFunction": "LOG"}, "VOILUTFunction (0028,1056) is not a known one: read as LINEAR"),
        ({"HighBit": 3}, "HighBit is 3, which 12 bits in 16 cannot have: read as 11"),
        ({"HighBit": None}, ""),
        ({"SamplesPerPixel": None}, "SamplesPerPixel is missing: read as 1, by MONOCHROME2"),
        ({"WindowCenter": [2048, 5], "WindowWidth": [4096, 10]}, ""),
        ({"RescaleIntercept": 0}, ""),
    ],
)
def test_notes_of_what_is_not_applied_or_has_one_reading(
    tmp_path: Path, elements: dict[str, object], note: str
) -> None:
    check(tmp_path, render_native(made(**elements), RAMP), GREY, note)


def test_monochrome1_is_inverted_and_a_contradiction_is_noted(tmp_path: Path) -> None:
    inverse = made(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    check(tmp_path, render_native(inverse, RAMP), 1 - GREY, "")
    identity = made(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    note = "PresentationLUTShape is IDENTITY with MONOCHROME1: read as MONOCHROME1 says"
    check(tmp_path, render_native(identity, RAMP), 1 - GREY, note)


def test_a_rescale_of_an_intercept_alone_moves_the_window(tmp_path: Path) -> None:
    dataset = made(RescaleIntercept=-1000, WindowCenter=1048)
    check(tmp_path, render_native(dataset, RAMP), GREY, "")


def test_a_window_that_is_not_allowed_is_noted(tmp_path: Path) -> None:
    found = frame(tmp_path, render_native(made(WindowWidth=0), RAMP))
    assert found.notes == "a window of width 0 is not allowed: stretched from the darkest to the lightest pixel"


@pytest.mark.parametrize(("said", "holds"), [(8, 8), (16, 16), (16, 8), (8, 16)])
def test_palettes_are_as_light_as_their_entries_can_be(tmp_path: Path, said: int, holds: int) -> None:
    dataset = made(PhotometricInterpretation="PALETTE COLOR", **NO_WINDOW)
    levels = np.linspace(0, (1 << holds) - 1, 4096).astype("<u2")
    for colour, number in (("Red", 0x1101), ("Green", 0x1102), ("Blue", 0x1103)):
        dataset.add_new(0x00280000 | number, "US", [4096, 0, said])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", levels.tobytes())
    check(tmp_path, render_native(dataset, RAMP), GREY, "") if holds == 16 else np.testing.assert_allclose(
        frame(tmp_path, render_native(dataset, RAMP)).pixels, GREY, atol=5e-3
    )


def test_colour_data_that_are_not_subsampled(tmp_path: Path) -> None:
    rows = np.stack([RAMP // 16, np.full_like(RAMP, 128), np.full_like(RAMP, 128)], -1).astype(np.uint8)
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PlanarConfiguration": 0}
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", **NO_WINDOW}
    dataset = made(**{**bits, **colour})
    found = frame(tmp_path, render_native(dataset, rows))
    np.testing.assert_allclose(found.pixels, (RAMP // 16) / 255, atol=1e-3)
    assert "YBR_FULL" in found.notes
