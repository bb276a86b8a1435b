"""Programs as an artifact holds them: gzip, which every system opens. Integer weights and zeros take a half or less."""

from __future__ import annotations

import functools
import gzip
import zlib

from featherweight.core.errors import ArtifactError

_GZIP = 31
"""zlib's window bits for a gzip stream."""


@functools.lru_cache(maxsize=4)
def pack(content: bytes) -> bytes:
    """The same bytes for the same content, whenever and by whomever it is packed.

    The last few are kept: a program's size is asked for on each backend, and again when it is sealed, and packing a
    large one takes seconds.
    """
    return gzip.compress(content, compresslevel=9, mtime=0)


def unpack(packed: bytes, size: int) -> bytes:
    """What `pack` was given, when that was `size` bytes; never more than one byte beyond is unpacked.

    Raises ArtifactError for anything else.
    """
    stream = zlib.decompressobj(_GZIP)
    try:
        content = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise ArtifactError(f"is not a gzip file: {error}") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise ArtifactError(f"does not unpack to the {size} bytes that the manifest states")
    return content
