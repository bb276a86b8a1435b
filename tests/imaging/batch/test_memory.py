"""Small files that would become large: a worker refuses them at once, and never holds more than it may."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import rle.utils
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from featherweight.apps.imaging.batch.decode import WORKER_BYTES, DecodePool
from featherweight.apps.imaging.frames import Frame, RejectedFrame
from featherweight.apps.imaging.readers import DEFAULT_LIMITS, Item, Limits
from featherweight.apps.imaging.sealed import Preprocess
from tests.imaging.batch.test_decode import workers

PREPROCESS = Preprocess(side=224)
MIB = 1 << 20
BASE_BYTES = 160 * MIB
"""A worker that has decoded nothing yet, its code included."""
QUICK_S = 20
"""Generous: the machine may be busy. What is refused here took minutes, or all memory."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, *, extra: bytes = b"", colour: int = 0, rows: int | None = None) -> bytes:
    """All black. rows: so many are there, for what is refused by its header."""
    samples = 3 if colour == 2 else 1
    row, packer = bytes(1 + (width * bits * samples + 7) // 8), zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(pages: int, *, entries: int = 9, big: bool = False) -> bytes:
    """Pages of 8 x 8 that share their pixels."""
    word = "<Q" if big else "<I"
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 8), (279, 64)]
    tags += [(65000 + index % 500, 1) for index in range(entries - len(tags))]
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    entry = "<HHQQ" if big else "<HHII"
    size = (8 if big else 2) + len(tags) * struct.calcsize(entry) + struct.calcsize(word)
    pixels = len(head) + pages * size
    content = bytearray(head)
    for page in range(pages):
        content += struct.pack("<Q" if big else "<H", len(tags))
        content += b"".join(struct.pack(entry, tag, 4, 1, pixels if tag == 273 else value) for tag, value in tags)
        content += struct.pack(word, len(head) + (page + 1) * size if page < pages - 1 else 0)
    return bytes(content) + bytes(64)


def dicom(pixels: bytes, rows: int, columns: int, syntax: UID = ExplicitVRLittleEndian, **elements: object) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB" if syntax.is_compressed else "OW"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def run_lengths(rows: int, columns: int) -> bytes:
    segment = b"\x81\0" * (rows * columns // 128)
    return encapsulate([struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + 2 * segment])


def jpeg2000(rows: int, columns: int) -> bytes:
    size = struct.pack(">HHIIIIIIIIH", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1) + b"\x0b\x01\x01"
    style = b"\xff\x52\0\x0c\0\0\0\x01\0\x05\x04\x04\0\0\xff\x5c\0\x05\x40\x40\x40"
    return b"\xff\x4f\xff\x51" + size + style + b"\xff\x90\0\x0a\0\0\0\0\0\0\0\x01\xff\x93" + bytes(64) + b"\xff\xd9"


SMALL = dicom(bytes(2 * 64 * 64), 64, 64)
BEFORE_PIXELS = SMALL[: SMALL.find(b"\xe0\x7f\x10\x00")]


def deflated_zeros() -> bytes:
    content = dicom(b"", 64, 64, DeflatedExplicitVRLittleEndian)
    head = 132 + 12 + struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"".join(packer.compress(bytes(MIB)) for _ in range(80))
    return content[:head] + zeros + packer.flush()


def items_of_a_sequence() -> bytes:
    """A sequence of known length, which pydicom parses at its first use."""
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    return b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", len(item) * 3_000_000) + item * 3_000_000


ELEMENTS = b"".join(struct.pack("<HH", 0x0009, 0x1000 + index % 0xE000) + b"LO\x02\0ab" for index in range(300_000))
WINDOW = b"\x28\x00\x50\x10UN\0\0" + struct.pack("<I", 4 * MIB) + b"1\\" * (2 * MIB)
NESTED = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 100_000
WIDE = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 700_000

HOSTILE = {
    "PNG, one row too long": (lambda: png(70_000, 3, 8), "too-large"),
    "PNG, RGB": (lambda: png(12_900, 12_900, 8, colour=2, rows=1), "too-large"),
    "PNG, text that unpacks to 60 MB": (
        lambda: png(300, 300, 8, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(60 * MIB), 9))),
        "corrupt",
    ),
    "PNG, a colour profile of 200 MB": (
        lambda: png(300, 300, 8, extra=chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(200 * MIB), 9))),
        "corrupt",
    ),
    "TIFF of 60,000 pages": (lambda: tiff(60_000), "too-large"),
    "BigTIFF of 5,000 pages": (lambda: tiff(5_000, big=True), "too-large"),
    "TIFF with many entries": (lambda: tiff(300, entries=1_000), "too-large"),
    "TIFF with more pages than are handed over": (lambda: tiff(400), "too-large"),
    "DICOM, RLE": (lambda: dicom(run_lengths(16_384, 16_384), 16_384, 16_384, RLELossless), "too-large"),
    "DICOM, JPEG 2000": (
        lambda: dicom(encapsulate([jpeg2000(11_000, 11_000)]), 11_000, 11_000, JPEG2000Lossless),
        "too-large",
    ),
    "DICOM, a larger codestream": (
        lambda: dicom(encapsulate([jpeg2000(16_000, 16_000)]), 64, 64, JPEG2000Lossless),
        "too-large",
    ),
    "DICOM, frames": (lambda: dicom(bytes(2 * 64 * 64), 64, 64, NumberOfFrames="2147483647"), "too-large"),
    "DICOM, more frames than are handed over": (lambda: dicom(bytes(800), 1, 1, NumberOfFrames="400"), "too-large"),
    "DICOM, deflated": (deflated_zeros, "too-large"),
    "DICOM, elements": (lambda: BEFORE_PIXELS[: SMALL.find(b"\x08\x00\x18\x00")] + ELEMENTS, "too-large"),
    "DICOM, items": (lambda: BEFORE_PIXELS[: SMALL.find(b"\x08\x00\x18\x00")] + WIDE, "too-large"),
    "DICOM, nested sequences": (lambda: BEFORE_PIXELS[: SMALL.find(b"\x08\x00\x18\x00")] + NESTED, "corrupt"),
    "DICOM, a sequence to parse later": (
        lambda: BEFORE_PIXELS + items_of_a_sequence() + SMALL[len(BEFORE_PIXELS) :],
        "too-large",
    ),
    "DICOM, two million windows": (lambda: BEFORE_PIXELS + WINDOW + SMALL[len(BEFORE_PIXELS) :], "too-large"),
}


def decode(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[list[Frame | RejectedFrame], int]:
    """What a new worker makes of it, and the most memory that it had."""
    with DecodePool(PREPROCESS, workers=1, limits=limits) as pool:
        (found,) = pool.decode([Item(path.name, path)])
        (worker,) = workers()
        return found, peak_bytes(worker)


def peak_bytes(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_is_refused_soon_and_cheaply(tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    path = tmp_path / "file"
    path.write_bytes(make())
    start = time.monotonic()
    (found,), peak = decode(path, Limits(file_bytes=64 * MIB))
    assert time.monotonic() - start < QUICK_S
    assert isinstance(found, RejectedFrame)
    assert found.reason == reason, found
    assert peak < BASE_BYTES + 4 * path.stat().st_size + 100 * MIB


def encoded_rle(pixels: np.ndarray) -> bytes:
    size = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": 1, "bits_allocated": 16}
    frame = rle.utils.encode_pixel_data(pixels.tobytes(), byteorder="<", **size)
    return dicom(encapsulate([frame]), *pixels.shape, RLELossless)


# How often the pixels may be in memory at the worst moment; what is not compressed is in the file as well. A copy in
# floating point would be twice as much again.
LEGITIMATE = {
    "DICOM": (lambda pixels: dicom(pixels.tobytes(), *pixels.shape), 2),
    "DICOM, RLE": (encoded_rle, 3),
    "PNG": (lambda pixels: encoded(pixels, "PNG", compress_level=1), 1),
    "TIFF": (lambda pixels: encoded(pixels, "TIFF"), 2),
}


def encoded(pixels: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_large_radiograph_is_read_without_more_copies_than_it_needs(tmp_path: Path, name: str) -> None:
    make, copies = LEGITIMATE[name]
    pixels = np.add.outer(np.arange(8000) // 4, np.arange(6000) // 4).astype(np.uint16)
    path, small = tmp_path / "large", tmp_path / "small"
    path.write_bytes(make(pixels))
    small.write_bytes(make(pixels[:64, :64].copy()))
    ((before,), idle), ((found,), peak) = decode(small), decode(path)
    assert isinstance(before, Frame), before
    assert isinstance(found, Frame), found
    assert peak - idle < (copies + 0.6) * pixels.nbytes


def test_what_the_readers_allow_fits_a_worker_and_the_workers_the_unit() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    unit = int(re.search(r"^MemoryMax=(\d+)G$", manual, re.MULTILINE)[1]) << 30
    assert DEFAULT_LIMITS.memory_bytes + 200 * MIB < WORKER_BYTES
    assert 2 * DEFAULT_LIMITS.file_bytes < WORKER_BYTES
    # The main process, with what two workers that are four files ahead have handed over, and one on its way.
    assert unit >= 2 * (WORKER_BYTES + BASE_BYTES) + 300 * MIB + 9 * DEFAULT_LIMITS.result_bytes
