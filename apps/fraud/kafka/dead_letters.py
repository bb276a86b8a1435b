"""What goes to the dead-letter topic: messages and record batches that cannot be read, with where they stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kafka.structs import TopicPartition

from featherweight.apps.fraud.kafka.batches import Unreadable
from featherweight.apps.fraud.kafka.events import RejectedMessage

VALUE_BYTES = 450_000
"""What is kept of a message. The headers come on top: one as large as the broker takes would not fit again."""
KEY_BYTES = 100_000
"""What is kept of its key."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that cannot be processed, on its way to the dead-letter topic."""

    partition: TopicPartition
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def describe_message(dead_letters: str, rejected: RejectedMessage) -> DeadLetter:
    """dead_letters: the topic that it goes to."""
    key, content = rejected.key, rejected.value or b""
    numbers = {"offset": rejected.offset, "bytes": len(content)}
    if key is not None and len(key) > KEY_BYTES:
        numbers["key_bytes"] = len(key)
        key = key[:KEY_BYTES]
    return _write(dead_letters, rejected.topic, rejected.partition, rejected.reason, key, content, numbers)


def describe_batch(dead_letters: str, batch: Unreadable) -> DeadLetter:
    """All messages of a batch as one: its value is the packed records, and the headers say how to unpack them."""
    numbers = {
        "offset": batch.first_offset,
        "last_offset": batch.last_offset,
        "base_offset": batch.base_offset,
        "records": batch.count,
        "codec": batch.codec,
        "bytes": len(batch.content),
    }
    return _write(
        dead_letters, batch.topic, batch.partition, f"record batch: {batch.reason}", None, batch.content, numbers
    )


def _write(
    dead_letters: str,
    topic: str,
    partition: int,
    reason: str,
    key: bytes | None,
    content: bytes,
    numbers: Mapping[str, int],
) -> DeadLetter:
    headers = {"reason": reason, "topic": topic, "partition": partition, **numbers}
    return DeadLetter(
        TopicPartition(dead_letters, partition),
        key,
        content[:VALUE_BYTES],
        [(name, str(text).encode()) for name, text in headers.items()],
    )
