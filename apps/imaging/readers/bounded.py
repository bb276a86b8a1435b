"""What pydicom may read of a file: so many elements, so many bytes of each, so much of what was deflated."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from featherweight.apps.imaging.readers.base import Limits, RefusedError

_MAX_BYTES = {
    "SQ": 16 << 20,
    **dict.fromkeys(("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "PN", "SH", "SL"), 1 << 20),
    **dict.fromkeys(("SS", "SV", "TM", "UI", "UL", "US", "UV"), 1 << 20),
}
"""Maximum size of one element, by its value representation; others (pixels, tables, texts) are kept as bytes."""

_SLICE_BYTES = 64 << 10
_PIECE_BYTES = 1 << 20


class BoundedReader(io.BytesIO):
    """The bytes of a file for pydicom, which reads each element in one to three pieces, also those in sequences: a
    file of nothing but elements would otherwise take minutes and a thousand times its size."""

    def __init__(self, content: bytes, limits: Limits) -> None:
        super().__init__(content)
        self._limits, self._left = limits, 3 * limits.elements

    def read(self, size: int | None = -1, /) -> bytes:
        """As BytesIO's, so many times; then EOFError, which ends a decoder that reads for ever."""
        self._left -= 1
        if self._left < 0:
            raise EOFError
        return super().read(size)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What pydicom makes of the end, in a sequence or outside, becomes the refusal that it is."""
        try:
            yield
        finally:
            if self._left < 0:
                raise RefusedError("too-large", f"found more than about {self._limits.elements} elements")


def inflate(content: bytes | memoryview, limits: Limits) -> BoundedReader:
    """What a deflated data set holds; what stands after its end is not looked at. Raises RefusedError for one that
    grows beyond `limits.file_bytes` or ends too early."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, size = BoundedReader(b"", limits), 0
    for start in range(0, len(content), _SLICE_BYTES):
        # zlib copies the input that it did not come to, each time: it is given little at once.
        rest, piece = bytes(content[start : start + _SLICE_BYTES]), b""
        while not stream.eof and (rest or len(piece) == _PIECE_BYTES):
            piece = stream.decompress(rest, _PIECE_BYTES)
            rest = stream.unconsumed_tail
            size += inflated.write(piece)
            if size > limits.file_bytes:
                raise RefusedError("too-large", f"the deflated data set grows beyond {limits.file_bytes} bytes")
        if stream.eof:
            inflated.seek(0)
            return inflated
    raise RefusedError("corrupt", "the deflated data set ends too early")


def check_elements(dataset: Dataset) -> Dataset:
    """Raise RefusedError for a value that would be large when it is parsed, which pydicom does at its first use."""
    for tag in dataset.keys():  # noqa: SIM118  # a data set iterates over parsed elements
        element: Any = dataset.get_item(tag)
        if not isinstance(element, RawDataElement) or not dictionary_has_tag(tag):
            continue  # what is private is never parsed
        most = _MAX_BYTES.get(dictionary_VR(tag)[:2])
        if most is not None and element.value and len(element.value) > most:
            raise RefusedError("too-large", f"element {tag} has {element.length} bytes, at most {most} are read")
    return dataset
