"""Deflated data sets: the same bytes, in time that grows as they do, and never more of them than is allowed."""

from __future__ import annotations

import random
import time
import tracemalloc
import zlib

import pytest

from featherweight.apps.imaging.readers.base import DEFAULT_LIMITS, Limits, RefusedError
from featherweight.apps.imaging.readers.bounded import inflate

MIB = 1 << 20


def deflate(content: bytes, level: int = 1) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


CONTENTS = {
    "nothing": b"",
    "one byte": b"x",
    "zeros, whole pieces": bytes(3 * MIB),
    "zeros, packed to a few bytes beyond a slice": bytes(80 * MIB),
    "noise, whole slices": noise(128 << 10),
    "noise, one byte more than a piece": noise(MIB + 1),
    "both": noise(70_000) + bytes(5 * MIB) + noise(70_000),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("level", [0, 9])
def test_what_was_deflated_comes_back(kind: str, level: int) -> None:
    content = CONTENTS[kind]
    deflated = deflate(content, level)
    # DICOM fills up to an even length, so that a byte may follow.
    for stored in (deflated, deflated + b"\0", memoryview(deflated)):
        assert inflate(stored, DEFAULT_LIMITS).getvalue() == content
    assert inflate(deflated, Limits(file_bytes=len(content))).tell() == 0
    if content:
        with pytest.raises(RefusedError, match="grows beyond"):
            inflate(deflated, Limits(file_bytes=len(content) - 1))
    with pytest.raises(RefusedError, match="ends too early"):
        inflate(deflated[:-1], DEFAULT_LIMITS)


def test_the_time_grows_with_the_size_and_not_with_its_square() -> None:
    small, large = (deflate(noise(size * MIB), level=0) for size in (6, 48))
    spent: dict[int, list[float]] = {len(small): [], len(large): []}
    for _ in range(3):
        for content in (small, large):
            start = time.process_time()
            inflate(content, DEFAULT_LIMITS)
            spent[len(content)].append(time.process_time() - start)
    # Eight times as much: 64 times as long when every piece copies what is left of the input. 25 times was seen beside
    # other work, where only the small one stays in the processor's cache.
    assert min(spent[len(large)]) < 40 * min(spent[len(small)])


def test_what_is_held_is_the_result_and_little_else() -> None:
    size = 32 * MIB
    content = deflate(noise(size), level=0)
    tracemalloc.start()
    try:
        inflate(content, DEFAULT_LIMITS)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1.2 * size + 4 * MIB
