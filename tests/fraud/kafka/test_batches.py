"""Record batches that are compressed, bombs, damaged or not what their header says."""

from __future__ import annotations

import struct
from contextlib import suppress

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from featherweight.apps.fraud.kafka.batches import Fetched, Messages, Unreadable
from featherweight.apps.fraud.kafka.clients import _WholeBatches
from featherweight.apps.fraud.kafka.compression import GZIP, LZ4, SNAPPY, ZSTD, unpack
from featherweight.apps.fraud.kafka.dead_letters import KEY_BYTES, VALUE_BYTES, describe_batch, describe_message
from featherweight.apps.fraud.kafka.events import RejectedMessage, decode_messages
from featherweight.apps.fraud.kafka.records import RECORDS, encode_records
from featherweight.core.errors import DataError

WHERE = TopicPartition("transactions", 3)
PACK = {
    GZIP: cramjam.gzip.compress,
    SNAPPY: cramjam.snappy.compress_raw,
    LZ4: cramjam.lz4.compress,
    ZSTD: cramjam.zstd.compress,
}


def in_blocks(raw: bytes, size: int = 1000) -> bytes:
    """As Java's snappy writes it."""
    packed = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for start in range(0, len(raw), size):
        block = bytes(cramjam.snappy.compress_raw(raw[start : start + size]))
        packed += struct.pack(">i", len(block)) + block
    return packed


@given(st.binary(max_size=5000), st.sampled_from(sorted(PACK)))
def test_what_is_packed_is_unpacked(raw: bytes, codec: int) -> None:
    assert unpack(codec, bytes(PACK[codec](raw))) == raw
    assert unpack(SNAPPY, in_blocks(raw)) == raw


@pytest.mark.parametrize("codec", PACK)
def test_what_is_larger_than_the_limit_is_refused(codec: int) -> None:
    packed = bytes(PACK[codec](b"x" * 1001))
    assert len(unpack(codec, packed, 1001)) == 1001
    with pytest.raises(DataError, match="hold more than 1000"):
        unpack(codec, packed, 1000)
    with pytest.raises(DataError, match="hold more than 2500"):
        unpack(SNAPPY, in_blocks(b"x" * 3000), 2500)


@given(st.binary(max_size=300), st.sampled_from([*PACK, 5, 7]))
def test_what_is_damaged_is_refused_or_read(content: bytes, codec: int) -> None:
    for bytes_ in (content, in_blocks(content)[: 16 + len(content)], bytes(PACK[GZIP](content))[:-5]):
        with suppress(DataError):
            assert len(unpack(codec, bytes_, 10_000)) <= 10_000


def fetched(content: bytes, count: int, *, last: int | None = None, first: int = 0, fault: str = "") -> Fetched:
    return Fetched(*WHERE, 100, first, 100 + count - 1 if last is None else last, count, 0, content, fault)


def test_a_batch_that_is_not_what_its_header_says_is_unreadable() -> None:
    content = encode_records([(b"k", b"v")] * 5)
    found = fetched(content, 5, first=102).unpack()
    assert isinstance(found, Messages)
    assert found.offsets == [102, 103, 104]
    moved = bytearray(encode_records([(None, b"v")] * 2))
    moved[len(moved) // 2 + 3] = 200  # the second record's offset within the batch, a varint of two bytes
    wrong = [
        fetched(content, 4),
        fetched(content, 6),
        fetched(content, -1),
        fetched(content, 1 << 31),
        fetched(content, 5, last=103),
        fetched(encode_records([(None, b"")] * (RECORDS + 1)), RECORDS + 1),
        fetched(bytes(moved), 2),
        fetched(encode_records([(None, b"a")]) * 2, 2),
        fetched(content, 5, fault="its checksum is wrong"),
    ]
    for batch in wrong:
        refused = batch.unpack()
        assert isinstance(refused, Unreadable), batch
        assert (refused.first_offset, refused.last_offset) == (100, batch.last_offset)
    partly = fetched(content, 4, first=102).unpack()
    assert isinstance(partly, Unreadable)
    assert (partly.first_offset, partly.last_offset) == (102, 103)


def build(values: list[bytes], base: int) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    for index, value in enumerate(values):
        builder.append(index, 1_700_000_000_000, None, value, [])
    batch = bytearray(builder.build())
    batch[:8] = base.to_bytes(8, "big")
    return batch


def walk(content: bytes, suspects: set[tuple[TopicPartition, int]], start: int = 0) -> tuple[list[object], int]:
    records = _WholeBatches(suspects, start, WHERE, MemoryRecords(content))
    taken = [record.value.unpack() for record in records.take()]
    return taken, records.next_fetch_offset


@pytest.mark.parametrize(
    "place", [-1, 21, 23, 26, 57, 60], ids=["content", "attributes", "last", "time", "count", "more"]
)
def test_a_batch_with_a_wrong_checksum_is_fetched_again_and_then_a_dead_letter(place: int) -> None:
    bad = build([b"d", b"e", b"f"], 2)
    bad[place] ^= 0x41
    content = bytes(build([b"a", b"b"], 0) + bad + build([b"g"], 5))
    suspects: set[tuple[TopicPartition, int]] = set()
    (first,), following = walk(content, suspects)  # what stood before it is not lost
    assert (first.values, following) == ([b"a", b"b"], 2)  # type: ignore[attr-defined]
    found, following = walk(content, suspects, 2)
    assert [type(one) for one in found] == [Unreadable, Messages]
    assert (found[0].first_offset, found[1].offsets, following) == (2, [5], 6)  # type: ignore[attr-defined]
    assert 2 <= found[0].last_offset <= 4  # type: ignore[attr-defined]


def test_bytes_that_are_no_batches_are_an_error_once() -> None:
    """kafka-python asks records that failed again and again, without an end, if they are not drained."""
    records = _WholeBatches(set(), 0, WHERE, MemoryRecords(bytes(8) + (4).to_bytes(4, "big") + bytes(60)))
    with pytest.raises(CorruptRecordError):
        records.take()
    assert not records


def test_the_last_batch_with_an_impossible_header_is_taken_for_one_message() -> None:
    """Where it ends is not known then, and a position behind the end of the partition would begin it anew."""
    bad = build([b"d", b"e", b"f"], 2)
    bad[23:27] = (1 << 30).to_bytes(4, "big")
    suspects = {(WHERE, 2)}
    (found,), following = walk(bytes(bad), suspects, 2)
    assert (found.first_offset, found.last_offset, following) == (2, 2, 3)  # type: ignore[attr-defined]
    assert not DefaultRecordBatch(bytes(bad)).validate_crc()


@pytest.mark.parametrize("codec", [0, 1])
def test_messages_of_old_formats_are_read_unless_compressed(codec: int) -> None:
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 20)
    for index, value in enumerate((b"a", b"b")):
        builder.append(index, 1, b"k", value)
    content = bytearray(builder.build())
    if codec:
        content[7] = 1  # a broker writes the offset of the last message that is in it
    found, following = walk(bytes(content), set())
    if codec:
        (one,) = found
        assert isinstance(one, Unreadable)
        assert (one.first_offset, one.last_offset, following) == (0, 1, 2)
    else:
        assert [(one.offsets, one.keys, one.values) for one in found] == [  # type: ignore[attr-defined]
            ([0], [b"k"], [b"a"]),
            ([1], [b"k"], [b"b"]),
        ]


def test_a_fetcher_still_makes_its_records_as_ours_are_made() -> None:
    assert Fetcher.PartitionRecords in _WholeBatches.__mro__


def test_dead_letters_keep_key_and_place_and_fit_into_what_a_broker_takes() -> None:
    messages = Messages(*WHERE, [5, 7, 9], [b"a", b"k" * 500_000, None], [b"x", b"y" * 900_000, None])
    rejected: list[RejectedMessage] = []
    assert decode_messages(messages, bytes, rejected, limit=None, judge=lambda _: "why") == []
    letter, first, last = (describe_message("dead", one) for one in (rejected[1], rejected[0], rejected[2]))
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"k" * KEY_BYTES, b"y" * VALUE_BYTES)
    assert (headers["key_bytes"], headers["bytes"], headers["offset"]) == (b"500000", b"900000", b"7")
    assert (first.key, first.value, dict(first.headers)["offset"]) == (b"a", b"x", b"5")
    assert (last.key, last.value, dict(last.headers)["reason"]) == (None, b"", b"the message has no value")
    batch = describe_batch("dead", Unreadable(*WHERE, 5, 9, "a bomb", b"z" * 900_000, 5, 5, 0))
    headers = dict(batch.headers)
    assert (headers["offset"], headers["last_offset"], headers["reason"]) == (b"5", b"9", b"record batch: a bomb")
    assert np.frombuffer(batch.value, np.uint8).shape == (VALUE_BYTES,)


def test_the_dead_letter_of_a_batch_says_how_to_unpack_it() -> None:
    content = bytes(PACK[GZIP](encode_records([(b"k", b"v%d" % number) for number in range(5)])))
    refused = Fetched(*WHERE, 100, 102, 104, 5, GZIP, content, "its checksum is wrong").unpack()
    assert isinstance(refused, Unreadable)
    letter = describe_batch("dead", refused)
    headers = dict(letter.headers)
    codec, count, base = (int(headers[name]) for name in ("codec", "records", "base_offset"))
    again = Fetched(*WHERE, base, int(headers["offset"]), int(headers["last_offset"]), count, codec, letter.value)
    found = again.unpack()
    assert isinstance(found, Messages)
    assert (found.offsets, found.values) == ([102, 103, 104], [b"v2", b"v3", b"v4"])
