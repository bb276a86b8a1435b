"""Record batches as they were fetched, and what is in them, unpacked one after the other so that little is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featherweight.apps.fraud.kafka.compression import unpack
from featherweight.apps.fraud.kafka.records import decode_records
from featherweight.core.errors import DataError

HELD_BYTES = 16 << 20
"""A transaction takes no further batch when those that it has hold so much, unpacked."""


@dataclass(frozen=True)
class Messages:
    """Records of one partition, in order: offsets [N], keys [N], values [N]. size: the bytes of all of them."""

    topic: str
    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    size: int = 0

    @property
    def last_offset(self) -> int:
        """The offset of the last message."""
        return self.offsets[-1]


@dataclass(frozen=True)
class Unreadable:
    """A record batch that cannot be read, or must not be: the messages from first_offset to last_offset. content: its
    records as they came; reason never quotes them. base_offset, count, codec: as its header says, which may be what is
    damaged; without them the records cannot be unpacked by hand."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    reason: str
    content: bytes
    base_offset: int
    count: int
    codec: int


@dataclass(frozen=True)
class Fetched:
    """A record batch of one partition, its records as they came: packed. first_offset: where the fetch began, and a
    batch may begin before it; fault: why its header cannot be trusted."""

    topic: str
    partition: int
    base_offset: int
    first_offset: int
    last_offset: int
    count: int
    codec: int
    content: bytes
    fault: str = ""

    def __len__(self) -> int:
        return len(self.content)

    def unpack(self) -> Messages | Unreadable:
        """The messages of the batch, or what is known of one that cannot be read."""
        try:
            return self._unpack()
        except DataError as error:
            first = max(self.base_offset, self.first_offset)
            return Unreadable(
                self.topic,
                self.partition,
                first,
                self.last_offset,
                str(error),
                self.content,
                self.base_offset,
                self.count,
                self.codec,
            )

    def _unpack(self) -> Messages:
        if self.fault:
            raise DataError(self.fault)
        content = unpack(self.codec, self.content)
        inner, keys, values = decode_records(content, self.count)
        if self.count and (
            inner[0] < 0 or inner[-1] > self.last_offset - self.base_offset or (inner[1:] <= inner[:-1]).any()
        ):
            raise DataError("the offsets of its records are not its own: it is damaged")
        offsets = (inner + self.base_offset).tolist()
        first = next((index for index, offset in enumerate(offsets) if offset >= self.first_offset), len(offsets))
        return Messages(self.topic, self.partition, offsets[first:], keys[first:], values[first:], len(content))


def cut_messages(found: Messages, start: int, end: int) -> Messages:
    """Those from `start` on, before `end`."""
    part = slice(start, end)
    return Messages(found.topic, found.partition, found.offsets[part], found.keys[part], found.values[part])


def slice_batches(batches: Sequence[Fetched], limit: int) -> Iterator[list[Messages | Unreadable]]:
    """What they hold, in the same order, at most `limit` messages at a time. One batch after the other is unpacked, so
    that not much more than HELD_BYTES and one batch are held."""
    part: list[Messages | Unreadable] = []
    room, held = limit, 0
    for batch in batches:
        found = batch.unpack()
        if isinstance(found, Unreadable):
            part.append(found)
            continue
        start = 0
        while start < len(found.offsets):
            end = min(start + room, len(found.offsets))
            part.append(cut_messages(found, start, end))
            room -= end - start
            start = end
            if not room:
                yield part
                part, room, held = [], limit, 0
        held += found.size
        if held > HELD_BYTES and part:
            yield part
            part, room, held = [], limit, 0
    if part:
        yield part
