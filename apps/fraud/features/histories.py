"""Where histories live: in memory, per key, bounded; changes are drained for a changelog, the whole for a snapshot.

The meaning of late, duplicate and out-of-order events: the features of a transaction of time t are those of the events
up to t that have arrived, in whatever order they came. A transaction whose id is in the history is answered, not
counted again; where the id is another amount's, time's or counterpart's there, that is told (CONFLICT). A late one is
put where it belongs; one that is older by more than a day than three others of its key is marked as late, because what
its windows held may be forgotten in part. When one of time t arrives, the events are forgotten to which three up to t
are newer by the longest window (and, of terminals, the delay) and a day; 1024 are kept at most. Of more keys than the
limit, the one whose last transaction came the longest ago is forgotten: that follows from the order of the transactions
alone, and snapshots keep it.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
from xxhash import xxh3_64_intdigest

from featherweight.apps.fraud.features import kernels
from featherweight.apps.fraud.features.encoding import MAGIC, check_block, encode_block, join_blocks, parse_snapshot
from featherweight.core.arrays import FeatureRow, Words
from featherweight.core.errors import DataError
from featherweight.core.files import atomic_write, open_regular, read_errors

Record = tuple[bytes, bytes | None]

_BLOCK_BYTES, _LAST_BLOCK = 8, 1 << 48
_GROW_PAGES = 1 << 18
"""Memory grows by a quarter, but not by more than this at once (52 MB): a longer pause would be felt."""


NEW, DUPLICATE, CONFLICT = 0, kernels.SEEN, kernels.SEEN | kernels.OTHER
"""What a history knows of a transaction that comes: nothing; the same one; another one with its id."""
_LATE, _ATTEND = kernels.LATE, kernels.QUEUE | kernels.FULL

LIMIT = 1_000_000
"""Keys of a kind that are held, if not told otherwise."""
_OLDEST = 32
"""A search for the keys that were used the longest ago finds one in so many of them."""


def identify(text: str) -> int:
    """A stable 64-bit hash of an identifier (XXH3), signed (int64): the same in every process and on every host."""
    digest = xxh3_64_intdigest(text.encode())
    return digest if digest < 1 << 63 else digest - (1 << 64)


def agree(customer: int, terminal: int) -> int:
    """What both histories together say of a transaction's label: the same, or CONFLICT."""
    return customer if customer == terminal else CONFLICT


class Histories:
    """The histories of one kind of key (customers, or terminals). Used by one thread at a time."""

    kind: ClassVar[bytes]
    _advance: ClassVar[Callable[..., int]]
    delayed: ClassVar[bool]

    def __init__(self, delay_days: float = 7.0, limit: int = LIMIT) -> None:
        """limit: of keys, see `evicted`."""
        self._delay_ms = round(delay_days * kernels.DAY) if self.delayed else 0
        self._horizon_ms = kernels.LONGEST + self._delay_ms
        self._limit = limit
        self.evicted = 0
        """Keys that were forgotten because there were too many."""
        self.late = False
        """Whether the last transaction came so late that its features may lack what is forgotten already."""
        self._tombstones: list[Record] = []
        self._clear()

    def _clear(self) -> None:
        self._pages = np.zeros((64, kernels.WORDS), np.int64)
        self._pages[0, 1] = 1
        self._table = np.zeros((16, kernels.COLUMNS), np.int64)
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []  # of the slots; "" is a free one
        self._free: list[int] = []
        self._queued: list[int] = []
        self._staged: dict[str, dict[int, bytes]] = {}
        self._key_bytes = 0
        self._oldest: deque[tuple[int, int]] = deque()
        """(slot, its last use) of those to forget next, unless they have been used since."""

    def advance(self, key: str, identity: int, time_ms: int, cents: int, other: int, out: FeatureRow) -> int:
        """Put the transaction into the key's history and write the features of it into `out`, float32 [F]: this kind's
        features in the catalogue's order. identity, other: `identify` of the transaction and of the counterpart (the
        terminal for a customer, the customer for a terminal). Returns NEW, or what else was there already: then it is
        answered, not counted."""
        if self._staged:
            self.settle()
        slot = self._slots.get(key)
        if slot is None:
            slot = self._open(key)
            if len(self._slots) > self._limit:
                self._evict()
        answer = self._advance(self._pages, self._table, slot, identity, time_ms, cents, other, self._delay_ms, out)
        self.late = answer & _LATE != 0
        if answer & _ATTEND:
            self._attend(slot, answer)
        return answer & CONFLICT

    def apply_label(self, key: str, identity: int, time_ms: int, is_fraud: bool) -> int:
        """A label has come; the last one counts. Returns NEW when the transaction is not (or no longer) in the history,
        CONFLICT when it is there with another time."""
        if self._staged:
            self.settle()
        slot = self._slots.get(key)
        if slot is None:
            return NEW
        answer = kernels.apply_label(self._pages, self._table, slot, identity, time_ms, int(is_fraud))
        if answer & kernels.QUEUE:
            self._attend(slot, answer)
        return answer & CONFLICT

    def drain(self) -> list[Record]:
        """(record key, record value) of everything that changed since the last call, for a compacted changelog; None is
        a tombstone. Restoring all records, in order, of which later ones replace earlier ones of the same key, gives
        the same histories. A record is a block of up to 8 events of a key."""
        if self._staged:
            self.settle()
        records, self._tombstones = self._tombstones, []
        queued, self._queued = self._queued, []
        if queued:
            heads, words = kernels.collect(self._pages, self._table, np.array(queued, np.int64), False)
            for (slot, block, start, count, past), row in zip(heads.tolist(), words, strict=True):
                value = encode_block(start, past, row[: 3 * count]) if count else None
                records.append((self._record_key(self._keys[slot], block), value))
        return records

    def restore(self, key: bytes, value: bytes | None) -> None:
        """One record of `drain`. Raises DataError for bytes that are no such record."""
        name, block = self._parse_key(key)
        if name in self._slots:
            self._staged[name] = self._take_out(name)
        blocks = self._staged.pop(name, {})
        if value is not None:
            check_block(value)
            blocks[block] = value
        else:
            blocks.pop(block, None)
        if blocks:
            self._staged[name] = blocks  # behind those that changed earlier

    def settle(self) -> None:
        """Build the histories from the records restored so far; the first use does it too. Raises DataError when they
        do not fit together."""
        staged, self._staged = self._staged, {}
        slots, counts, parts = [], [], []
        for name, blocks in staged.items():
            order = sorted(blocks)
            first, count, events = join_blocks(order, [blocks[block] for block in order])
            slot = self._open(name)
            self._table[slot, [kernels.FIRST, kernels.SENT_FROM, kernels.SENT_TO]] = first, order[0], order[-1] + 1
            slots.append(slot)
            counts.append(count)
            parts.append(events)
        words = np.frombuffer(b"".join(parts), "<i8").reshape(-1, 3)
        self._fill(slots, counts, words, "the changelog")
        kernels.mark_sent(self._pages, self._table, np.array(slots, np.int64))
        self._evict()

    def expire(self) -> int:
        """Forget keys whose last transaction is older than any window, by the stream's own time; returns how many.
        Their tombstones come with the next `drain`.

        The stream's time is the one that a hundredth of the keys, three at least, have reached: a few timestamps in
        the far future expire nothing (and such a key stays until the stream gets there)."""
        if self._staged:
            self.settle()
        used = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        ahead = max(kernels.WITNESSES, len(used) // 100)
        if len(used) < ahead:
            return 0
        times = kernels.newest_times(self._pages, self._table, used)
        limit = np.partition(times, -ahead)[-ahead] - self._horizon_ms - kernels.LATENESS
        expired = used[times <= limit].tolist()
        for slot in expired:
            self._write_tombstones(slot)
            self._close(slot)
        self._shorten_queue()
        return len(expired)

    def find_newest_ms(self) -> int:
        """The time of the newest transaction of all keys; 0 without any."""
        if self._staged:
            self.settle()
        used = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        return int(kernels.newest_times(self._pages, self._table, used).max(initial=0))

    def _shorten_queue(self) -> None:
        """Where nobody drains, slots that are used again would be queued again and again."""
        self._queued = [slot for slot in dict.fromkeys(self._queued) if self._table[slot, kernels.CHANGED]]

    def _evict(self) -> None:
        """Forget the least recently used keys beyond the limit. Their tombstones come with the next `drain`."""
        while len(self._slots) > self._limit:
            if not self._oldest:
                self._oldest = self._find_oldest()
            slot, used = self._oldest.popleft()
            if self._table[slot, kernels.USED] == used:
                self._write_tombstones(slot)
                self._close(slot)
                self.evicted += 1
        if len(self._queued) > 2 * len(self._keys):
            self._shorten_queue()

    def _find_oldest(self) -> deque[tuple[int, int]]:
        """Those used the longest ago, in that order: whatever is used later comes behind all of them, so that one
        search serves for many."""
        used = self._table[: len(self._keys), kernels.USED]
        count = len(self._slots) // _OLDEST + 1
        places = np.where(used > 0, used, np.iinfo(np.int64).max)  # free slots, and one that is being opened
        oldest = np.argpartition(places, count - 1)[:count]
        oldest = oldest[np.argsort(places[oldest])]
        return deque(zip(oldest.tolist(), used[oldest].tolist(), strict=True))

    def __len__(self) -> int:
        """Keys held."""
        return len(self._slots) + len(self._staged)

    @property
    def used_bytes(self) -> int:
        """What the histories take, keys and index included; memory that was reserved and never touched is not."""
        pages, slots = int(self._pages[0, 1]), len(self._keys)
        index = sys.getsizeof(self._slots) + sys.getsizeof(self._keys) + self._key_bytes
        staged = sum(sys.getsizeof(value) for blocks in self._staged.values() for value in blocks.values())
        return 8 * (pages * kernels.WORDS + slots * kernels.COLUMNS) + index + staged

    def write_snapshot(self, path: Path) -> None:
        """Atomic. Raises OutputError."""
        if self._staged:
            self.settle()
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        slots = slots[np.argsort(self._table[slots, kernels.USED])]
        counts, events = kernels.dump(self._pages, self._table, slots)
        head = msgspec.msgpack.encode((self.kind, [self._keys[slot] for slot in slots.tolist()], len(events)))
        parts = (
            MAGIC,
            len(head).to_bytes(8, "little"),
            head,
            counts.astype("<i8").data,
            events.astype("<i8", copy=False).data,
        )
        digest = hashlib.sha256()
        remedy = "free space or choose another place; an earlier snapshot there is as it was"
        with (
            atomic_write(path, "the snapshot could not be written", remedy) as partial,
            partial.open("wb") as file,
        ):
            for part in parts:
                digest.update(part)
                file.write(part)
            file.write(digest.digest())

    def read_snapshot(self, path: Path) -> None:
        """Replace everything by the snapshot. Raises DataError for a file that is not one or is damaged."""
        try:
            with read_errors(path, remedy="use an earlier one or start without"), open_regular(path) as file:
                content = file.read(len(MAGIC))
                if content == MAGIC:
                    content += file.read()
        except MemoryError as error:
            raise DataError(f"{path}: larger than this host's memory") from error
        names, counts, events = parse_snapshot(content, self.kind, path)
        for slot in self._slots.values():
            self._write_tombstones(slot)
        self._clear()
        slots = [self._open(name) for name in names]
        self._fill(slots, counts, events, str(path))
        self._queued = slots
        self._evict()

    def _open(self, key: str) -> int:
        """A slot for a new key."""
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            if slot == len(self._table):
                self._table.resize((2 * slot, kernels.COLUMNS), refcheck=False)
        self._slots[key] = slot
        self._key_bytes += sys.getsizeof(key) + sys.getsizeof(slot)
        return slot

    def _close(self, slot: int) -> None:
        key = self._keys[slot]
        kernels.release(self._pages, self._table, slot)
        del self._slots[key]
        self._keys[slot] = ""
        self._free.append(slot)
        self._key_bytes -= sys.getsizeof(key) + sys.getsizeof(slot)

    def _attend(self, slot: int, answer: int) -> None:
        if answer & kernels.QUEUE:
            self._queued.append(slot)
        if answer & kernels.FULL:
            self._reserve(1)

    def _reserve(self, count: int) -> None:
        """Room for so many more pages."""
        pages = len(self._pages)
        more = max(count, min(pages // 4, _GROW_PAGES))
        self._pages.resize((pages + more, kernels.WORDS), refcheck=False)

    def _write_tombstones(self, slot: int) -> None:
        """Tombstones of what the changelog has of a key."""
        end = int(self._table[slot, kernels.SENT_TO])
        if not end:
            return  # nothing: nobody has drained it
        first = int(self._table[slot, kernels.SENT_FROM])
        self._tombstones += ((self._record_key(self._keys[slot], block), None) for block in range(first, end))

    def _fill(self, slots: list[int], counts: Sequence[int], events: Words, where: str) -> None:
        self._reserve(sum(count // kernels.EVENTS + 2 for count in counts))
        arrays = np.array(slots, np.int64), np.array(counts, np.int64), events.astype(np.int64)
        if kernels.fill(self._pages, self._table, *arrays) >= 0:
            raise DataError(
                f"{where}: events of a history are out of order; it is damaged, or not made by Featherweight"
            )

    def _take_out(self, key: str) -> dict[int, bytes]:
        """The blocks of a key, which leaves the histories."""
        slot = self._slots[key]
        heads, words = kernels.collect(self._pages, self._table, np.array([slot], np.int64), True)
        self._close(slot)
        return {
            block: encode_block(start, past, row[: 3 * count])
            for (_, block, start, count, past), row in zip(heads.tolist(), words, strict=True)
            if count
        }

    def _record_key(self, key: str, block: int) -> bytes:
        return self.kind + block.to_bytes(_BLOCK_BYTES, "big") + key.encode()

    def _parse_key(self, key: bytes) -> tuple[str, int]:
        head = len(self.kind) + _BLOCK_BYTES
        try:
            block = int.from_bytes(key[len(self.kind) : head], "big")
            if key[: len(self.kind)] != self.kind or len(key) < head or block > _LAST_BLOCK:
                raise DataError(f"a record key of {len(key)} bytes is not valid for {type(self).__name__}")
            return key[head:].decode(), block
        except UnicodeDecodeError as error:
            raise DataError("a record key's identifier is not UTF-8; the changelog is damaged") from error


class CustomerHistories(Histories):
    """`out` is float32 [len(CUSTOMER)], the catalogue's features of a customer."""

    kind = b"c"
    delayed = False
    _advance = staticmethod(kernels.advance_customer)


class TerminalHistories(Histories):
    """`out` is float32 [len(TERMINAL)], the catalogue's features of a terminal."""

    kind = b"t"
    delayed = True
    _advance = staticmethod(kernels.advance_terminal)
