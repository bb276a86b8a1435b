"""Where histories live: in memory, per key, bounded; changes are drained for a changelog, the whole for a snapshot.

CONTRACT (under construction): signatures are fixed, bodies follow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]


def identify(text: str) -> int:
    """A stable 64-bit hash of an identifier, signed (int64): the same in every process and on every host."""
    raise NotImplementedError


class Histories:
    """The histories of one kind of key (customers, or terminals)."""

    def __init__(self, delay_days: float = 7.0) -> None:
        raise NotImplementedError

    def advance(self, key: str, identity: int, time_ms: int, cents: int, other: int, out: Row) -> bool:
        """Put the transaction into the key's history and write the features of it into `out` (float32, this kind's
        features in their order). identity, other: `identify` of the transaction and of the counterpart (the
        terminal for a customer, the customer for a terminal). Returns True when the transaction had been seen: it is
        answered again, not counted again."""
        raise NotImplementedError

    def learn(self, key: str, identity: int, is_fraud: bool) -> bool:
        """A label has come. Returns False when the transaction is not (or no longer) in the history."""
        raise NotImplementedError

    def drain(self) -> list[tuple[bytes, bytes | None]]:
        """(record key, record value) of everything that changed since the last call, for a compacted changelog; None is
        a tombstone. Restoring all records, in order, of which later ones replace earlier ones of the same key, gives
        the same histories."""
        raise NotImplementedError

    def restore(self, key: bytes, value: bytes | None) -> None:
        """One record of `drain`. Raises DataError for bytes that are no such record."""
        raise NotImplementedError

    def expire(self) -> int:
        """Forget keys whose last transaction is older than any window, by the stream's own time; returns how many.
        Their tombstones come with the next `drain`."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Keys held."""
        raise NotImplementedError

    @property
    def used_bytes(self) -> int:
        raise NotImplementedError

    def write_snapshot(self, path: Path) -> None:
        """Atomic. Raises OutputError."""
        raise NotImplementedError

    def read_snapshot(self, path: Path) -> None:
        """Replace everything by the snapshot. Raises DataError for a file that is not one or is damaged."""
        raise NotImplementedError


class CustomerHistories(Histories):
    """`out` is features.CUSTOMER_FEATURES."""


class TerminalHistories(Histories):
    """`out` is features.TERMINAL_FEATURES."""
