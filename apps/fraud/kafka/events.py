"""Messages, one by one: the transaction, label or repartition record that a message is, or why it is rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from featherweight.apps.fraud.decoding import Decoder
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.plausible import AHEAD_MS, refuse_time
from featherweight.apps.fraud.transactions import Label, Transaction

Value = TypeVar("Value")

MESSAGE_BYTES: Final = 16_384
"""The longest transaction or label that is read."""
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are not what it decodes."""

decode_transaction = Decoder(Transaction).decode
decode_label = Decoder(Label).decode


@dataclass(frozen=True)
class RejectedMessage:
    """A message that is not a valid one, as it came, for the dead-letter topic. reason never quotes it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str


def decode_messages(
    found: Messages,
    decode: Callable[[bytes], Value],
    rejected: list[RejectedMessage],
    *,
    limit: int | None = MESSAGE_BYTES,
    judge: Callable[[Value], str | None] = lambda value: None,
) -> list[Value]:
    """What can be decoded and is believed, in order; the rest goes to `rejected`. judge: why a value is refused."""
    values: list[Value] = []
    for place, content in enumerate(found.values):
        try:
            if content is None:
                reason = "the message has no value"
            elif limit is not None and len(content) > limit:
                reason = f"{len(content)} bytes; at most {limit} are read"
            else:
                value = decode(content)
                doubt = judge(value)
                if doubt is None:
                    values.append(value)
                    continue
                reason = doubt
        except UNDECODABLE as error:
            reason = f"{type(error).__name__}: {error}"
        offset, key = found.offsets[place], found.keys[place]
        rejected.append(RejectedMessage(found.topic, found.partition, offset, key, content, reason))
    return values


def believing(now_ms: int) -> Callable[[Transaction | Label], str | None]:
    """What says why an event's time is not believed by this clock, or None."""
    latest_ms = now_ms + AHEAD_MS
    return lambda event: refuse_time(event.time_ms, latest_ms)
