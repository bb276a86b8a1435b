"""What stage 1 hands to stage 2, and how it is written into the repartition topic where another process has that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
import numpy as np

from featherweight.apps.fraud.features.catalogue import CUSTOMER_FEATURES
from featherweight.apps.fraud.features.engine import Unpacked, unpack
from featherweight.apps.fraud.features.histories import CONFLICT, DUPLICATE, NEW, identify
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.arrays import FeatureRows
from featherweight.core.terminal import counted

FORWARDED_AT_ONCE: Final = 500
"""Transactions in one repartition record: even with the longest identifiers it stays below a broker's usual 1 MB."""
SPLIT: Final = len(CUSTOMER_FEATURES)
"""A row is the customer's features up to here, then the terminal's."""


@dataclass(frozen=True)
class Handover:
    """What stage 1 has for one partition of terminals. source: the partition that it comes from."""

    source: int
    transactions: Sequence[Transaction] = ()
    unpacked: Sequence[Unpacked] = ()
    rows: FeatureRows = field(default_factory=lambda: np.zeros((0, SPLIT), np.float32))
    """float32 [N, SPLIT]: the customers' features."""
    known: Sequence[int] = ()
    """What the customers' histories knew of the transactions: NEW, DUPLICATE or CONFLICT."""
    late: Sequence[bool] = ()
    labels: Sequence[Label] = ()
    identities: Sequence[int] = ()
    """Identities of the labels' transactions."""
    learned: Sequence[int] = ()
    """The results of the labels in the customers' histories; empty from earlier versions, which did not tell."""


class Forwarded(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """A repartition record. source: the transactions' partition; rows: float32 [N, SPLIT], little-endian; seen: whether
    the customer's history had the transaction already; conflicts: places of those whose id is another one's there;
    late: of those that came late for it; learned: the results of the labels there. Earlier versions send none of
    the three."""

    version: Literal[1] = 1
    source: int
    labels: list[Label]
    transactions: list[Transaction]
    rows: bytes
    seen: list[bool]
    conflicts: list[int] = []
    late: list[int] = []
    learned: list[int] = []


_decoder = msgspec.msgpack.Decoder(Forwarded)


def encode_handover(handed: Handover) -> bytes:
    return msgspec.msgpack.encode(
        Forwarded(
            source=handed.source,
            labels=list(handed.labels),
            transactions=list(handed.transactions),
            rows=handed.rows.astype("<f4", copy=False).tobytes(),
            seen=[known == DUPLICATE for known in handed.known],
            conflicts=[place for place, known in enumerate(handed.known) if known == CONFLICT],
            late=[place for place, late in enumerate(handed.late) if late],
            learned=list(handed.learned),
        )
    )


def decode_handover(content: bytes) -> Handover:
    """Raises msgspec.DecodeError."""
    found = _decoder.decode(content)
    count = len(found.transactions)
    sound = len(found.seen) == count and len(found.rows) == 4 * SPLIT * count and found.source >= 0
    sound = sound and len(found.learned) in (0, len(found.labels))
    if not sound or not all(0 <= place < count for place in (*found.conflicts, *found.late)):
        raise msgspec.ValidationError(f"{counted(count, 'transactions')}, {len(found.rows)} bytes of features")
    known = [DUPLICATE if seen else NEW for seen in found.seen]
    for place in found.conflicts:
        known[place] = CONFLICT
    late = set(found.late)
    return Handover(
        found.source,
        found.transactions,
        [unpack(transaction) for transaction in found.transactions],
        np.frombuffer(found.rows, "<f4").reshape(-1, SPLIT),
        known,
        [place in late for place in range(count)],
        found.labels,
        [identify(label.transaction_id) for label in found.labels],
        found.learned,
    )
