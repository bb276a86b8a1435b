"""Kafka's record batches (message format v2), whole batches at a time.

kafka-python packs and unpacks record by record in Python, about 30 microseconds for each that is sent and 10 for each
that is read. Here a batch is one call into compiled code. Only the records are done here: the batch's header, its
checksum and what transactions need stay kafka-python's (apps.fraud.kafka.clients); compression.py unpacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from featherweight.core.arrays import Integers, Octets
from featherweight.core.compiled import compiled
from featherweight.core.errors import DataError

Record = tuple[bytes | None, bytes | None]
"""Key and value."""

OVERHEAD = 24
"""The most bytes that a record needs beside its key and value: six varints and the attributes."""
MIN_BYTES = 7
"""The fewest bytes of a record: six varints and the attributes."""
RECORDS = 1 << 17
"""The most records that a batch may have: each becomes three objects here, however small it is."""


def encode_records(records: Sequence[Record]) -> bytes:
    """The records of a batch, without its header: no headers of their own, all of the batch's first timestamp."""
    parts = [part for record in records for part in record]
    lengths = np.array([-1 if part is None else len(part) for part in parts], np.int64)
    payload = np.frombuffer(b"".join([part for part in parts if part]), np.uint8)
    room = np.empty(len(payload) + OVERHEAD * len(records), np.uint8)
    return room[: _write_records(payload, lengths, room)].tobytes()


def split_records(records: Sequence[Record], limit_bytes: int) -> Iterator[Sequence[Record]]:
    """Runs of at least one record that stay within `limit_bytes` where one record alone does."""
    start = size = 0
    for index, (key, value) in enumerate(records):
        needed = OVERHEAD + len(key or b"") + len(value or b"")
        if size + needed > limit_bytes and index > start:
            yield records[start:index]
            start, size = index, 0
        size += needed
    if start < len(records):
        yield records[start:]


def decode_records(content: bytes, count: int) -> tuple[Integers, list[bytes | None], list[bytes | None]]:
    """The `count` records of a batch whose uncompressed records are `content`: (offsets within the batch [count], keys,
    values). Raises DataError for bytes that are no such records."""
    if not 0 <= count <= min(RECORDS, len(content) // MIN_BYTES):
        raise DataError(
            f"its {len(content)} bytes cannot be {count} records ({RECORDS} are read at most): it is damaged"
        )
    bounds = np.empty((count, 5), np.int64)
    if not _read_records(np.frombuffer(content, np.uint8), bounds):
        raise DataError(f"its {count} records in {len(content)} bytes cannot be read: it is damaged")
    offsets, *edges = bounds.T
    keys, values = (
        [None if start < 0 else content[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        for starts, ends in (edges[:2], edges[2:])
    )
    return offsets, keys, values


# Varints are zig-zag encoded (Kafka protocol guide, "Record"), seven bits a byte, the lowest first.


@compiled()
def _put_varint(out: Octets, at: int, value: int) -> int:
    left = (value << 1) ^ (value >> 63)
    while left > 0x7F:
        out[at] = 0x80 | (left & 0x7F)
        left >>= 7
        at += 1
    out[at] = left
    return at + 1


@compiled()
def _varint_size(value: int) -> int:
    left, size = (value << 1) ^ (value >> 63), 1
    while left > 0x7F:
        left >>= 7
        size += 1
    return size


@compiled()
def _write_records(payload: Octets, lengths: Integers, out: Octets) -> int:
    at = taken = 0
    for index in range(len(lengths) // 2):
        key, value = lengths[2 * index], lengths[2 * index + 1]
        body = 3 + _varint_size(index) + _varint_size(key) + _varint_size(value) + max(key, 0) + max(value, 0)
        at = _put_varint(out, at, body)
        out[at] = 0  # attributes
        out[at + 1] = 0  # milliseconds since the batch's first timestamp
        at = _put_varint(out, at + 2, index)
        for length in (key, value):
            at = _put_varint(out, at, length)
            if length > 0:
                out[at : at + length] = payload[taken : taken + length]
                at += length
                taken += length
        out[at] = 0  # number of headers
        at += 1
    return at


@compiled()
def _take_varint(content: Octets, at: int) -> tuple[int, int]:
    """(value, where it ends); the end is -1 where the bytes end first or the number does not fit 64 bits."""
    value = shift = 0
    while 0 <= at < len(content) and shift < 64:
        byte = int(content[at])
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    return 0, -1


@compiled()
def _read_records(content: Octets, bounds: Integers) -> bool:
    at = 0
    for index in range(len(bounds)):
        length, at = _take_varint(content, at)
        end = at + length
        if at < 0 or length < 0 or end > len(content):
            return False
        _, at = _take_varint(content, at + 1)  # behind the attributes: the timestamp
        bounds[index, 0], at = _take_varint(content, at)
        for column in (1, 3):
            length, at = _take_varint(content, at)
            if at < 0 or at + length > end:
                return False
            bounds[index, column] = at if length >= 0 else -1
            at += max(length, 0)
            bounds[index, column + 1] = at
        at = end  # nobody here reads headers
    return at == len(content)
