"""The two keyed stages of the stream, over batches of records: messages in, records out. It knows no Kafka client.

    transactions, labels (partition p: some customers)
      -> stage 1, customer histories of p  -> repartition (partition q: some terminals)
      -> stage 2, terminal histories of q, score -> decisions, alerts

Whoever has partition p of one topic has it of all (`Shard`). What stage 1 gives goes to stage 2 directly where this
process has the terminal's partition too, and through the repartition topic where it has not. Everything that one call
of `process` gives back belongs into one transaction, together with the offsets of what it was given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Literal, TypeVar, assert_never

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from apps.fraud.decoding import Decoder, Unread
from apps.fraud.features import CATALOGUE, CUSTOMER_FEATURES
from apps.fraud.plausible import AHEAD_MS, read_clock_ms, refuse_time
from apps.fraud.records import Record
from apps.fraud.scoring import Scorer
from apps.fraud.state import CONFLICT, DUPLICATE, LIMIT, NEW, CustomerHistories, TerminalHistories, agree, identify
from apps.fraud.transactions import Label, Transaction
from core.errors import WrongModelError
from core.terminal import counted

Rows = npt.NDArray[np.float32]
Value = TypeVar("Value")
Source = Literal["transactions", "labels", "repartition"]

MESSAGE_BYTES = 16_384
"""The longest transaction or label that is read."""
FORWARDED_AT_ONCE = 500
"""Transactions in one repartition record: even with the longest identifiers it stays below a broker's usual 1 MB."""
EXPIRE_EVERY = 200_000
"""Transactions between two searches for histories that no window reaches any more."""
SPLIT = len(CUSTOMER_FEATURES)
"""A row is the customer's features up to here, then the terminal's."""


@dataclass(frozen=True)
class Arrived:
    """What one partition of a topic has brought."""

    source: Source
    partition: int
    offsets: Sequence[int]
    values: Sequence[bytes | None]


@dataclass(frozen=True)
class Rejected:
    """A message that is none, for the dead-letter topic. reason never quotes the message."""

    source: Source
    partition: int
    offset: int
    reason: str


@dataclass
class Outgoing:
    """Records by partition. Decisions and alerts stand in the partition of the same number as their transactions."""

    decisions: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    alerts: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    repartition: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    customers: dict[int, Sequence[Record]] = field(default_factory=dict)
    terminals: dict[int, Sequence[Record]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    early_labels: int = 0
    """Labels that came before their transaction, and so changed nothing."""
    unknown_labels: int = 0
    """Labels of other transactions that the customer's history does not have."""
    label_conflicts: int = 0
    """Labels that are not as their transaction, see FeatureEngine.learn."""
    conflicts: int = 0
    """Transactions whose id is another one's."""
    late: int = 0
    """Decisions of transactions that came late, see Histories."""
    unread: Unread = field(default_factory=Unread)
    """Fields of transactions and labels that are not known."""


class Forwarded(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """A repartition record: what stage 1 has for one partition of terminals. source: the transactions' partition;
    rows: float32 [N, SPLIT], little-endian; seen: whether the customer's history had the transaction already;
    conflicts: places of those whose id is another one's there; late: of those that came late for it; learned: what it
    answered to the labels. Earlier versions tell none of the three."""

    version: Literal[1] = 1
    source: int
    labels: list[Label]
    transactions: list[Transaction]
    rows: bytes
    seen: list[bool]
    conflicts: list[int] = []
    late: list[int] = []
    learned: list[int] = []


class Shard:
    """The histories of one partition: its customers' and its terminals'."""

    def __init__(self, delay_days: float, limit: int = LIMIT) -> None:
        """limit: of customers, and of terminals. One that is forgotten beyond it leaves the changelog too."""
        self.customers = CustomerHistories(delay_days, limit)
        self.terminals = TerminalHistories(delay_days, limit)
        self.newest_ms = 0
        """Of the customers' transactions: those that came and are not ahead of the clock, and those of the histories
        that it was restored from."""


class Stream:
    """Used by one thread. partitions: how many every keyed topic has; shards: those that this process has now; now_ms:
    the clock that says which times are believed."""

    def __init__(self, partitions: int, now_ms: Callable[[], int] = read_clock_ms) -> None:
        self.shards: dict[int, Shard] = {}
        self._partitions = partitions
        self._now_ms = now_ms
        self._until_expiry = EXPIRE_EVERY

    def process(self, arrived: Sequence[Arrived], scorer: Scorer) -> Outgoing:
        """What was forwarded first, because it is older; labels last, because a label of a transaction that is not in
        the history is of no use, and both may come together.

        After an exception the histories are no longer those of the last batch: throw the shards away and restore."""
        out = Outgoing()
        ready = _Ready()
        for source in ("repartition", "transactions", "labels"):
            for batch in arrived:
                if batch.source == source:
                    self._advance(batch, out, ready)
        ready.decide(scorer, out)
        self._drain(out)
        return out

    @property
    def evicted(self) -> int:
        """Histories that the shards have forgotten because there were too many."""
        return sum(shard.customers.evicted + shard.terminals.evicted for shard in self.shards.values())

    def find_early(self, partition: int, labels: Sequence[bytes | None], now_ms: int) -> tuple[int, int] | None:
        """(place, time) of the first label whose transaction is younger than all that came in this partition: those are
        still to be read. None without one; times after `now_ms` are wrong and wait for nothing."""
        newest = self.shards[partition].newest_ms
        for place, content in enumerate(labels):
            try:
                label = _decode_label(content or b"", Unread())  # counted in its turn
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # a dead letter, in its turn
            if newest < label.time_ms <= now_ms:
                return place, label.time_ms
        return None

    def _advance(self, batch: Arrived, out: Outgoing, ready: _Ready) -> None:
        match batch.source:
            case "transactions":
                self._transact(batch, out, ready)
            case "labels":
                self._learn(batch, out, ready)
            case "repartition":
                for forwarded in decode_messages(batch, _decode_forwarded, out.rejected, limit=None):
                    self._finish(batch.partition, forwarded, ready)
            case _:
                assert_never(batch.source)

    def _transact(self, batch: Arrived, out: Outgoing, ready: _Ready) -> None:
        now_ms = self._now_ms()
        decode = partial(_decode_transaction, unread=out.unread)
        transactions = decode_messages(batch, decode, out.rejected, judge=_believing(now_ms))
        rows: Rows = np.zeros((len(transactions), SPLIT), np.float32)
        known: list[int] = []
        late: set[int] = set()
        routes: dict[int, list[int]] = defaultdict(list)
        shard = self.shards[batch.partition]
        times = [transaction.time_ms for transaction in transactions]
        shard.newest_ms = max([shard.newest_ms, *(time_ms for time_ms in times if time_ms <= now_ms)])
        advance = shard.customers.advance
        for index, transaction in enumerate(transactions):
            terminal = identify(transaction.terminal_id)
            identity = identify(transaction.transaction_id)
            routes[terminal % self._partitions].append(index)
            known.append(
                advance(
                    transaction.customer_id,
                    identity,
                    transaction.time_ms,
                    transaction.cents,
                    terminal,
                    rows[index],
                )
            )
            if shard.customers.late:
                late.add(index)
        for target, chosen in routes.items():
            for start in range(0, len(chosen), FORWARDED_AT_ONCE):
                part = chosen[start : start + FORWARDED_AT_ONCE]
                forwarded = Forwarded(
                    source=batch.partition,
                    labels=[],
                    transactions=[transactions[index] for index in part],
                    rows=rows[part].astype("<f4").tobytes(),
                    seen=[known[index] == DUPLICATE for index in part],
                    conflicts=[place for place, index in enumerate(part) if known[index] == CONFLICT],
                    late=[place for place, index in enumerate(part) if index in late] if late else [],
                )
                self._pass_on(target, forwarded, out, ready)

    def _learn(self, batch: Arrived, out: Outgoing, ready: _Ready) -> None:
        routes: dict[int, list[tuple[Label, int]]] = defaultdict(list)
        shard = self.shards[batch.partition]
        learn = shard.customers.learn
        decode = partial(_decode_label, unread=out.unread)
        for label in decode_messages(batch, decode, out.rejected, judge=_believing(self._now_ms())):
            known = learn(label.customer_id, identify(label.transaction_id), label.time_ms, label.is_fraud)
            if known == NEW:
                if label.time_ms > shard.newest_ms:
                    out.early_labels += 1
                else:
                    out.unknown_labels += 1
            routes[identify(label.terminal_id) % self._partitions].append((label, known))
        for target, labels in routes.items():
            for start in range(0, len(labels), FORWARDED_AT_ONCE):
                part, learned = zip(*labels[start : start + FORWARDED_AT_ONCE], strict=True)
                forwarded = Forwarded(
                    source=batch.partition, labels=list(part), transactions=[], rows=b"", seen=[], learned=list(learned)
                )
                self._pass_on(target, forwarded, out, ready)

    def _pass_on(self, target: int, forwarded: Forwarded, out: Outgoing, ready: _Ready) -> None:
        if target in self.shards:
            self._finish(target, forwarded, ready)
        else:
            out.repartition[target].append((None, msgspec.msgpack.encode(forwarded)))

    def _finish(self, partition: int, forwarded: Forwarded, ready: _Ready) -> None:
        """Stage 2, up to the score."""
        terminals = self.shards[partition].terminals
        for label, known in zip_longest(forwarded.labels, forwarded.learned):
            also = terminals.learn(label.terminal_id, identify(label.transaction_id), label.time_ms, label.is_fraud)
            ready.label_conflicts += known is not None and agree(known, also) == CONFLICT
        rows: Rows = np.zeros((len(forwarded.transactions), len(CATALOGUE)), np.float32)
        rows[:, :SPLIT] = np.frombuffer(forwarded.rows, "<f4").reshape(-1, SPLIT)
        conflicts, late = set(forwarded.conflicts), set(forwarded.late)
        for place, (transaction, row) in enumerate(zip(forwarded.transactions, rows[:, SPLIT:], strict=True)):
            known = terminals.advance(
                transaction.terminal_id,
                identify(transaction.transaction_id),
                transaction.time_ms,
                transaction.cents,
                identify(transaction.customer_id),
                row,
            )
            if known == CONFLICT:
                conflicts.add(place)
            if terminals.late:
                late.add(place)
        ready.add(forwarded, rows, conflicts, late)
        self._until_expiry -= len(rows)

    def _drain(self, out: Outgoing) -> None:
        if self._until_expiry <= 0:
            self._until_expiry = EXPIRE_EVERY
            for shard in self.shards.values():
                shard.customers.expire()
                shard.terminals.expire()
        for partition, shard in self.shards.items():
            out.customers[partition] = shard.customers.drain()
            out.terminals[partition] = shard.terminals.drain()


class _Ready:
    """Transactions whose features are complete, in the order in which they will be decided."""

    def __init__(self) -> None:
        self._transactions: list[Transaction] = []
        self._seen: list[bool] = []
        self._late: set[int] = set()
        self._sources: list[int] = []
        self._rows: list[Rows] = []
        self._conflicts = set[int]()
        self.label_conflicts = 0

    def add(self, forwarded: Forwarded, rows: Rows, conflicts: Iterable[int], late: Iterable[int]) -> None:
        self._conflicts.update(len(self._transactions) + place for place in conflicts)
        self._late.update(len(self._transactions) + place for place in late)
        self._transactions += forwarded.transactions
        self._seen += forwarded.seen
        self._sources += [forwarded.source] * len(rows)
        self._rows.append(rows)

    def decide(self, scorer: Scorer, out: Outgoing) -> None:
        out.label_conflicts += self.label_conflicts
        if not self._transactions:
            return
        rows = np.concatenate(self._rows)[:, scorer.columns]
        encode = msgspec.json.Encoder().encode
        decisions = scorer.decide_batch(self._transactions, rows, self._seen)
        out.conflicts += len(self._conflicts)
        out.late += len(self._late)
        for place in self._conflicts:
            decisions[place] = replace(decisions[place], duplicate=False, conflict=True)
        for place in self._late:
            decisions[place] = replace(decisions[place], late=True)
        for source, decision in zip(self._sources, decisions, strict=True):
            record = (decision.customer_id.encode(), encode(decision))
            out.decisions[source].append(record)
            if decision.outcome != "approve":
                out.alerts[source].append(record)


_decode_transaction = Decoder(Transaction).decode
_decode_label = Decoder(Label).decode
_forwarded = msgspec.msgpack.Decoder(Forwarded)


def _decode_forwarded(content: bytes) -> Forwarded:
    forwarded = _forwarded.decode(content)
    count = len(forwarded.transactions)
    sound = len(forwarded.seen) == count and len(forwarded.rows) == 4 * SPLIT * count and forwarded.source >= 0
    sound = sound and len(forwarded.learned) in (0, len(forwarded.labels))
    if not sound or not all(0 <= place < count for place in (*forwarded.conflicts, *forwarded.late)):
        raise msgspec.ValidationError(f"{counted(count, 'transactions')}, {len(forwarded.rows)} bytes of features")
    return forwarded


def decode_messages(
    batch: Arrived,
    decode: Callable[[bytes], Value],
    rejected: list[Rejected],
    *,
    limit: int | None = MESSAGE_BYTES,
    judge: Callable[[Value], str | None] = lambda value: None,
) -> list[Value]:
    """What can be decoded and is believed, in order; the rest goes to `rejected`. judge: why a value is refused."""
    values: list[Value] = []
    for offset, content in zip(batch.offsets, batch.values, strict=True):
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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
        rejected.append(Rejected(batch.source, batch.partition, offset, reason))
    return values


def _believing(now_ms: int) -> Callable[[Transaction | Label], str | None]:
    latest_ms = now_ms + AHEAD_MS
    return lambda event: refuse_time(event.time_ms, latest_ms)


def check_source(scorer: Scorer) -> None:
    """Raise WrongModelError for one whose features this app does not compute: a stream brings transactions only."""
    if scorer.schema.source != "histories":
        raise WrongModelError(
            f"{scorer.model}: features.json says that the caller brings the features (source "
            f"{scorer.schema.source!r}); a stream needs a model whose features are computed from histories"
        )
