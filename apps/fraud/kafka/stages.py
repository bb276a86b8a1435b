"""The two keyed stages of the stream, over batches of records: messages in, records out. It knows no Kafka client.

    transactions, labels (partition p: some customers)
      -> stage 1, customer histories of p  -> repartition (partition q: some terminals)
      -> stage 2, terminal histories of q, score -> decisions, alerts

The member that has partition p of one topic has it of all (`Shard`). The result of stage 1 goes to stage 2 directly
where this process has the terminal's partition too, and through the repartition topic where it has not. Everything that
one call of `process` returns belongs in one transaction, together with the offsets of its input.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

import msgspec
import numpy as np

from featherweight.apps.fraud.decision.policy import mark
from featherweight.apps.fraud.decision.scorer import Scorer
from featherweight.apps.fraud.decoding import Unread
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import KeyedHistories, unpack
from featherweight.apps.fraud.features.histories import CONFLICT, LIMIT, NEW, agree, identify
from featherweight.apps.fraud.kafka import forwarding
from featherweight.apps.fraud.kafka.batches import Messages
from featherweight.apps.fraud.kafka.events import (
    RejectedMessage,
    believing,
    decode_label,
    decode_messages,
    decode_transaction,
)
from featherweight.apps.fraud.kafka.forwarding import SPLIT, Handover, decode_handover, encode_handover
from featherweight.apps.fraud.kafka.records import Record
from featherweight.apps.fraud.kafka.topic_names import Topics
from featherweight.apps.fraud.plausible import read_clock_ms
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.arrays import FeatureRows
from featherweight.core.errors import WrongModelError

EXPIRE_EVERY = 200_000
"""Transactions between two searches for histories that no window reaches any more."""


@dataclass
class Outgoing:
    """Records by partition: decisions and alerts that of their transactions, repartition records the terminal's,
    changelogs the shard's. `commits.py` takes the number modulo the topic's own count; keys decide nothing."""

    decisions: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    alerts: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    repartition: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    customers: dict[int, Sequence[Record]] = field(default_factory=dict)
    terminals: dict[int, Sequence[Record]] = field(default_factory=dict)
    rejected: list[RejectedMessage] = field(default_factory=list)
    early_labels: int = 0
    """Labels that came before their transaction, and so changed nothing."""
    unknown_labels: int = 0
    """Labels of other transactions that the customer's history does not have."""
    label_conflicts: int = 0
    """Labels that are not as their transaction, see FeatureEngine.apply_label."""
    conflicts: int = 0
    """Transactions whose id is another one's."""
    late: int = 0
    """Decisions of transactions that came late, see Histories."""
    unread: Unread = field(default_factory=Unread)
    """Fields of transactions and labels that are not known."""


class Shard(KeyedHistories):
    """The histories of one partition: its customers' and its terminals'. One that is forgotten beyond the limit leaves
    the changelog too."""

    def __init__(self, delay_days: float, limit: int = LIMIT) -> None:
        super().__init__(delay_days, limit)
        self.newest_ms = 0
        """Newest time of the customers' transactions: of those that came and are not ahead of the clock, and of those
        in the histories that it was restored from."""


class Stream:
    """Used by one thread. topics: the names by which messages are told apart; partitions: how many every keyed topic
    has; shards: those that this process has now; now_ms: the clock that says which times are believed."""

    def __init__(self, topics: Topics, partitions: int, now_ms: Callable[[], int] = read_clock_ms) -> None:
        self.shards: dict[int, Shard] = {}
        self._topics = topics
        self._partitions = partitions
        self._now_ms = now_ms
        self._until_expiry = EXPIRE_EVERY

    def process(self, arrived: Sequence[Messages], scorer: Scorer) -> Outgoing:
        """What was forwarded first, because it is older; labels last, because a label of a transaction that is not in
        the history is of no use, and both may come together.

        After an exception the histories are no longer those of the last batch: throw the shards away and restore."""
        out = Outgoing()
        ready = _Ready()
        ways = {
            self._topics.repartition: self._finish_handovers,
            self._topics.transactions: self._transact,
            self._topics.labels: self._apply_labels,
        }
        for topic, way in ways.items():
            for found in arrived:
                if found.topic == topic:
                    way(found, out, ready)
        ready.decide(scorer, out)
        self._drain(out)
        return out

    @property
    def evicted(self) -> int:
        """Histories that the shards have forgotten because there were too many."""
        return sum(shard.evicted for shard in self.shards.values())

    def newest_ms(self, partition: int) -> int:
        """The time of the newest transaction of the partition's customers."""
        return self.shards[partition].newest_ms

    def _finish_handovers(self, found: Messages, out: Outgoing, ready: _Ready) -> None:
        for handed in decode_messages(found, decode_handover, out.rejected, limit=None):
            self._finish(found.partition, handed, ready)

    def _transact(self, found: Messages, out: Outgoing, ready: _Ready) -> None:
        """Stage 1 of transactions."""
        now_ms = self._now_ms()
        decode = partial(decode_transaction, unread=out.unread)
        transactions = decode_messages(found, decode, out.rejected, judge=believing(now_ms))
        unpacked = [unpack(transaction) for transaction in transactions]
        rows: FeatureRows = np.zeros((len(transactions), SPLIT), np.float32)
        shard = self.shards[found.partition]
        times = [transaction.time_ms for transaction in transactions]
        shard.newest_ms = max([shard.newest_ms, *(time_ms for time_ms in times if time_ms <= now_ms)])
        known: list[int] = []
        late: list[bool] = []
        routes: dict[int, list[int]] = defaultdict(list)
        for index, (transaction, keys, row) in enumerate(zip(transactions, unpacked, rows, strict=True)):
            known.append(shard.advance_customer(transaction, keys, row))
            late.append(shard.customers.late)
            _, _, _, terminal = keys
            routes[terminal % self._partitions].append(index)
        for target, part in _split_routes(routes):
            handed = Handover(
                found.partition,
                [transactions[index] for index in part],
                [unpacked[index] for index in part],
                rows[part],
                [known[index] for index in part],
                [late[index] for index in part],
            )
            self._pass_on(target, handed, out, ready)

    def _apply_labels(self, found: Messages, out: Outgoing, ready: _Ready) -> None:
        """Stage 1 of labels."""
        shard = self.shards[found.partition]
        decode = partial(decode_label, unread=out.unread)
        labels = decode_messages(found, decode, out.rejected, judge=believing(self._now_ms()))
        identities = [identify(label.transaction_id) for label in labels]
        answers: list[int] = []
        routes: dict[int, list[int]] = defaultdict(list)
        for index, (label, identity) in enumerate(zip(labels, identities, strict=True)):
            answers.append(shard.apply_customer_label(label, identity))
            routes[identify(label.terminal_id) % self._partitions].append(index)
            if answers[-1] == NEW:
                if label.time_ms > shard.newest_ms:
                    out.early_labels += 1
                else:
                    out.unknown_labels += 1
        for target, part in _split_routes(routes):
            handed = Handover(
                found.partition,
                labels=[labels[index] for index in part],
                identities=[identities[index] for index in part],
                learned=[answers[index] for index in part],
            )
            self._pass_on(target, handed, out, ready)

    def _pass_on(self, target: int, handed: Handover, out: Outgoing, ready: _Ready) -> None:
        if target in self.shards:
            self._finish(target, handed, ready)
        else:
            out.repartition[target].append((None, encode_handover(handed)))

    def _finish(self, partition: int, handed: Handover, ready: _Ready) -> None:
        """Stage 2, up to the score."""
        shard = self.shards[partition]
        for label, identity, answer in zip_longest(handed.labels, handed.identities, handed.learned):
            also = shard.apply_terminal_label(label, identity)
            ready.label_conflicts += answer is not None and agree(answer, also) == CONFLICT
        rows: FeatureRows = np.zeros((len(handed.transactions), len(CATALOGUE)), np.float32)
        rows[:, :SPLIT] = handed.rows
        known, late = list(handed.known), list(handed.late)
        for place, (transaction, keys, row) in enumerate(
            zip(handed.transactions, handed.unpacked, rows[:, SPLIT:], strict=True)
        ):
            if shard.advance_terminal(transaction, keys, row) == CONFLICT:
                known[place] = CONFLICT
            if shard.terminals.late:
                late[place] = True
        ready.add(handed, rows, known, late)
        self._until_expiry -= len(rows)

    def _drain(self, out: Outgoing) -> None:
        if self._until_expiry <= 0:
            self._until_expiry = EXPIRE_EVERY
            for shard in self.shards.values():
                shard.expire()
        for partition, shard in self.shards.items():
            out.customers[partition] = shard.customers.drain()
            out.terminals[partition] = shard.terminals.drain()


def _split_routes(routes: dict[int, list[int]]) -> list[tuple[int, list[int]]]:
    """(partition of terminals, places of what goes there), so many places at a time as one record takes."""
    size = forwarding.FORWARDED_AT_ONCE
    return [
        (target, places[start : start + size])
        for target, places in routes.items()
        for start in range(0, len(places), size)
    ]


class _Ready:
    """Transactions whose features are complete, in the order in which they will be decided."""

    def __init__(self) -> None:
        self._transactions: list[Transaction] = []
        self._known: list[int] = []
        self._late: list[bool] = []
        self._sources: list[int] = []
        self._rows: list[FeatureRows] = []
        self.label_conflicts = 0

    def add(self, handed: Handover, rows: FeatureRows, known: Sequence[int], late: Sequence[bool]) -> None:
        """rows: float32 [N, CATALOGUE]; known, late: of both stages together."""
        self._transactions += handed.transactions
        self._known += known
        self._late += late
        self._sources += [handed.source] * len(rows)
        self._rows.append(rows)

    def decide(self, scorer: Scorer, out: Outgoing) -> None:
        out.label_conflicts += self.label_conflicts
        if not self._transactions:
            return
        rows = np.concatenate(self._rows)[:, scorer.columns]
        encode = msgspec.json.Encoder().encode
        decisions = scorer.decide_batch(self._transactions, rows, [False] * len(rows))
        out.conflicts += self._known.count(CONFLICT)
        out.late += sum(self._late)
        for source, known, late, decided in zip(self._sources, self._known, self._late, decisions, strict=True):
            decision = mark(decided, known, late=late)
            record = (decision.customer_id.encode(), encode(decision))
            out.decisions[source].append(record)
            if decision.outcome != "approve":
                out.alerts[source].append(record)


def check_source(scorer: Scorer) -> None:
    """Raise WrongModelError for one whose features this app does not compute: a stream brings transactions only."""
    if scorer.schema.source != "histories":
        raise WrongModelError(
            f"{scorer.model}: features.json says that the caller brings the features (source "
            f"{scorer.schema.source!r}); a stream needs a model whose features are computed from histories"
        )
