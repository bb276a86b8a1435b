"""Record batches as apps.fraud.kafka.records writes and reads them, against kafka-python's own writer and reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from featherweight.apps.fraud.kafka.records import OVERHEAD, Record, decode_records, encode_records, split_records
from featherweight.core.errors import DataError

HEADER = DefaultRecordBatchBuilder.header_size_in_bytes()
parts = st.one_of(st.none(), st.binary(max_size=40), st.integers(120, 20_000).map(lambda size: b"x" * size))
batches = st.lists(st.tuples(parts, parts), min_size=1, max_size=150)


def build(records: list[Record], headers: list[tuple[str, bytes]] | None = None) -> bytes:
    """A batch by kafka-python."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    for index, (key, value) in enumerate(records):
        builder.append(index, 1_700_000_000_000 + 90 * index, key, value, headers or [])
    return bytes(builder.build())


def behind_header(records: list[Record], content: bytes) -> bytes:
    """`content` behind the header of a batch of as many records, all of one time."""
    whole = build([(None, b"")] * len(records))
    return whole[:HEADER] + content


@given(batches)
def test_kafka_reads_what_is_written(records: list[Record]) -> None:
    batch = DefaultRecordBatch(behind_header(records, encode_records(records)))
    read = list(batch)
    assert [(record.key, record.value) for record in read] == records
    assert [record.offset for record in read] == list(range(len(records)))
    assert {record.timestamp for record in read} == {1_700_000_000_000}


@given(batches, st.booleans())
def test_what_kafka_writes_is_read(records: list[Record], with_headers: bool) -> None:
    content = build(records, [("reason", b"why"), ("é", b"")] if with_headers else None)[HEADER:]
    offsets, keys, values = decode_records(content, len(records))
    assert list(zip(keys, values, strict=True)) == records
    assert offsets.tolist() == list(range(len(records)))


@given(batches, st.data())
def test_damaged_records_are_refused_or_read_and_never_read_beyond_their_end(
    records: list[Record], data: st.DataObject
) -> None:
    content = bytearray(encode_records(records))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        _, keys, values = decode_records(damaged, len(records))
    except DataError:
        return
    assert sum(len(part or b"") for part in keys + values) <= len(damaged)


@pytest.mark.parametrize("content", [b"", b"\x02", b"\xff" * 12, b"\x01" * 12, encode_records([(b"k", b"v")]) + b"\0"])
def test_bytes_that_are_no_records_are_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="damaged"):
        decode_records(content, 1)


@given(batches, st.integers(1, 5000))
def test_splits_keep_order_and_limit(records: list[Record], limit: int) -> None:
    runs = [list(run) for run in split_records(records, limit)]
    assert [record for run in runs for record in run] == records
    for run in runs:
        assert len(run) == 1 or sum(OVERHEAD + len(key or b"") + len(value or b"") for key, value in run) <= limit
        assert len(encode_records(run)) <= sum(OVERHEAD + len(key or b"") + len(value or b"") for key, value in run)
