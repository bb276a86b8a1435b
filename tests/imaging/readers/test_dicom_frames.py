"""Every declared frame ends in exactly one place, with its own number, whatever became of the frames before it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from featherweight.apps.imaging.frames import Frame, RejectedFrame
from featherweight.apps.imaging.readers import BLANK, Item, Limits, read_frames
from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.apps.imaging.readers.fragments import find_frames
from featherweight.apps.imaging.sealed import Preprocess
from tests.imaging.dicoms import COMPRESSED, dataset_of, encode_codestream, render, render_encapsulated, render_native
from tests.imaging.running import read_rows, run
from tests.imaging.tiny import write_model

SIDE = 16
LEVELS = (600, 1500, 2400, 3300)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def plain(level: int) -> np.ndarray:
    return np.full((SIDE, SIDE), level, np.uint16)


def read(folder: Path, content: bytes, limits: Limits | None = None) -> list[Frame | RejectedFrame]:
    path = folder / "file.dcm"
    path.write_bytes(content)
    return list(read_frames(Item("name", path), Preprocess(side=SIDE), limits or Limits()))


def outcomes(found: Sequence[Frame | RejectedFrame]) -> list[int | str]:
    """A frame's level, or why it was rejected; each under its own number."""
    assert [row.id.frame for row in found] == list(range(len(found)))
    return [
        round(float(row.pixels.mean()) * 4095, -1) if isinstance(row, Frame) else row.reason  # type: ignore[misc]
        for row in found
    ]


def multi_frame(count: int, syntax: object = ExplicitVRLittleEndian) -> Dataset:
    return dataset_of(SIDE, SIDE, syntax, NumberOfFrames=count, **WINDOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("syntax", COMPRESSED.values(), ids=COMPRESSED)
@pytest.mark.parametrize("damage", ["cut short", "zeros", "another size"])
def test_frames_after_a_damaged_one_are_read(tmp_path: Path, syntax: object, damage: str) -> None:
    streams = [encode_codestream(plain(level), syntax, 16) for level in LEVELS]  # type: ignore[arg-type]
    noise = np.random.default_rng(1).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    whole = encode_codestream(noise, syntax, 16)  # type: ignore[arg-type]
    streams[1] = {
        "cut short": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "another size": encode_codestream(plain(1)[:5, :7].copy(), syntax, 16),  # type: ignore[arg-type]
    }[damage]
    found = read(tmp_path, render_encapsulated(multi_frame(4, syntax), streams))
    assert outcomes(found) == [600, "corrupt", 2400, 3300]


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, RLELossless])
def test_frames_that_are_declared_and_lack(tmp_path: Path, syntax: object, has_table: bool) -> None:
    streams = [encode_codestream(plain(level), syntax, 16) for level in LEVELS[:2]]  # type: ignore[arg-type]
    found = read(tmp_path, render_encapsulated(multi_frame(4, syntax), streams, has_table=has_table))
    assert outcomes(found) == [600, 1500, "corrupt", "corrupt"]
    assert isinstance(found[2], RejectedFrame)
    assert "NumberOfFrames (0028,0008) is 4, the pixel data hold 2" in found[2].message


def test_native_frames_that_lack_and_that_nobody_declared(tmp_path: Path) -> None:
    both = np.stack([plain(level) for level in LEVELS[:2]])
    assert outcomes(read(tmp_path, render_native(multi_frame(3), both))) == [600, 1500, "corrupt"]
    assert outcomes(read(tmp_path, render_native(multi_frame(2), both.ravel()[:-1]))) == [600, "corrupt"]
    (only,) = read(tmp_path, render_native(multi_frame(1), both))
    assert isinstance(only, Frame)
    assert only.notes == f"the file holds more frames than NumberOfFrames says: read are 1; {BLANK}"
    (none,) = read(tmp_path, render_native(multi_frame(1), both.ravel()[:100]))
    assert isinstance(none, RejectedFrame)
    assert none.message == "the pixel data have 200 bytes, too few for the 256 samples; is the file cut off?"


def test_more_frames_than_can_be_stay_bounded(tmp_path: Path) -> None:
    content = render_native(multi_frame(2_000_000_000), plain(600))
    assert outcomes(read(tmp_path, content)) == ["too-large"]
    assert outcomes(read(tmp_path, render_native(multi_frame(50), plain(600)))) == [600, *["corrupt"] * 49]


def in_pieces(streams: Sequence[bytes], pieces: int) -> list[bytes]:
    """Each codestream in so many fragments."""
    step = [2 * -(-len(stream) // (2 * pieces)) for stream in streams]
    return [s[at : at + n] for s, n in zip(streams, step, strict=True) for at in range(0, len(s), n)]


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_frames_in_several_fragments(tmp_path: Path, syntax: object) -> None:
    streams = [encode_codestream(plain(level), syntax, 16) for level in LEVELS]  # type: ignore[arg-type]
    fragments = in_pieces(streams, 3)
    assert len(fragments) == 12
    found = read(tmp_path, render_encapsulated(multi_frame(4, syntax), fragments, has_table=False))
    assert outcomes(found) == list(LEVELS)
    offsets = np.cumsum([0, *(len(fragment) + 8 for fragment in fragments)])[[0, 3, 6, 9]]
    table = struct.pack("<4I", *offsets)
    dataset = multi_frame(4, syntax)
    body = encapsulate(fragments, has_bot=False)[8:]
    dataset.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table + body
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    assert outcomes(read(tmp_path, render(dataset))) == list(LEVELS)


def test_an_extended_offset_table_and_one_that_is_wrong(tmp_path: Path) -> None:
    streams = [encode_codestream(plain(level), JPEGLosslessSV1, 16) for level in LEVELS]
    for damage in (0, 2):
        dataset = multi_frame(4, JPEGLosslessSV1)
        value, table, lengths = encapsulate_extended(streams)
        offsets = np.frombuffer(table, "<u8") + damage * np.arange(4)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets.astype("<u8").tobytes(), lengths
        dataset.PixelData = value
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        assert outcomes(read(tmp_path, render(dataset))) == list(LEVELS)


@pytest.mark.parametrize("has_table", [True, False])
def test_a_compressed_file_that_was_cut_off_gives_the_frames_that_are_there(tmp_path: Path, has_table: bool) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    images = [plain(600), plain(1500), noise, noise]
    streams = [encode_codestream(image, JPEG2000Lossless, 16) for image in images]
    content = render_encapsulated(multi_frame(4, JPEG2000Lossless), streams, has_table=has_table)
    cut = content[: -len(streams[3]) - 8 - len(streams[2]) // 2]
    assert outcomes(read(tmp_path, cut)) == [600, 1500, "corrupt", "corrupt"]


def test_a_wish_for_too_many_fragments_is_refused() -> None:
    with pytest.raises(RefusedError, match="more than 100 fragments"):
        find_frames(b"\xfe\xff\x00\xe0\0\0\0\0" * 200, 1, None, Limits(elements=100))


def test_each_frame_has_its_own_functional_groups(tmp_path: Path) -> None:
    """The window of the frame, then that of all frames, then the data set's own; also after a frame that is damaged."""
    dataset = multi_frame(4, JPEGLosslessSV1)
    items = []
    for frame in range(4):
        item = Dataset()
        if frame != 1:
            window = Dataset()
            window.WindowCenter, window.WindowWidth = LEVELS[frame], 2 * (frame + 1)
            window.VOILUTFunction = "LINEAR_EXACT"
            item.FrameVOILUTSequence = Items([window if frame < 3 else Dataset()])
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = Items(items)
    streams = [encode_codestream(plain(level), JPEGLosslessSV1, 16) for level in LEVELS]
    streams[0] = bytes(20)
    found = read(tmp_path, render_encapsulated(dataset, streams))
    # Half grey is the middle of a frame's own window; 1500 and 3300 of 4095 where the data set's window counts.
    assert outcomes(found) == ["corrupt", 1500, 2050, 3300]


def test_the_job_ends_with_3_and_both_frames_are_in_its_tables(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(render_native(multi_frame(2), plain(600)))
    dataset = dataset_of(SIDE, SIDE, PixelRepresentation=None, SOPInstanceUID="1.2.3.4", **WINDOW)
    (tmp_path / "in" / "b.dcm").write_bytes(render_native(dataset, plain(600)))
    write_model(tmp_path / "model")
    done = run(tmp_path / "in", tmp_path / "out", tmp_path / "model")
    assert done.returncode == 3, done.stderr
    rows = read_rows(tmp_path / "out")
    assert [(row["source"], row["frame"]) for row in rows] == [("a.dcm", 0), ("b.dcm", 0)]
    assert [row["notes"] for row in rows] == [
        BLANK,
        f"PixelRepresentation is missing: read as 0, unsigned; {BLANK}",
    ]
    assert "a.dcm,1,corrupt," in (tmp_path / "out" / "rejected.csv").read_text()
    assert "PixelRepresentation is missing" in (tmp_path / "out" / "index.html").read_text()


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    dataset, items = multi_frame(2), []
    for slope in (1, 2):
        item, values = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, 0
        item.PixelValueTransformationSequence = Items([values])
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = Items(items)
    found = read(tmp_path, render_native(dataset, np.stack([plain(600)] * 2)))
    assert outcomes(found) == [600, 1200]
