"""From a transaction to its features, by the histories of its customer and its terminal.

Two stages, each keyed by one of the two: the customer's history first, the terminal's second. In one process they
follow each other (`FeatureEngine`); on Kafka a topic may lie between them (`apps.fraud.kafka.stages`). What either
stage does with one transaction and with one label is written once, in `KeyedHistories`.
"""

from __future__ import annotations

import numpy as np

from featherweight.apps.fraud.features.catalogue import CATALOGUE, CUSTOMER_FEATURES
from featherweight.apps.fraud.features.histories import (
    CONFLICT,
    LIMIT,
    CustomerHistories,
    TerminalHistories,
    agree,
    identify,
)
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.arrays import FeatureRow

Unpacked = tuple[int, int, int, int]
"""What both stages ask of a transaction, worked out once: its amount in hundredths, and `identify` of its own id, its
customer and its terminal. A plain tuple: anything with names costs more than what is saved by unpacking once."""


def unpack(transaction: Transaction) -> Unpacked:
    return (
        transaction.cents,
        identify(transaction.transaction_id),
        identify(transaction.customer_id),
        identify(transaction.terminal_id),
    )


class KeyedHistories:
    """The histories of customers and of terminals, of a whole process or of one partition of a stream, and what stage 1
    (the customer's) and stage 2 (the terminal's) do with them. limit: of customers, and of terminals, that are kept."""

    def __init__(self, delay_days: float = 7.0, limit: int = LIMIT) -> None:
        self.customers = CustomerHistories(delay_days, limit)
        self.terminals = TerminalHistories(delay_days, limit)
        # Looked up once: this is done for every transaction.
        self._advance_customer, self._advance_terminal = self.customers.advance, self.terminals.advance

    def advance_customer(self, transaction: Transaction, unpacked: Unpacked, out: FeatureRow) -> int:
        """Stage 1. out: float32 [CUSTOMER_FEATURES], written. NEW, or what the customer's history knows of the
        transaction's id: DUPLICATE or CONFLICT."""
        cents, identity, _, terminal = unpacked
        return self._advance_customer(transaction.customer_id, identity, transaction.time_ms, cents, terminal, out)

    def advance_terminal(self, transaction: Transaction, unpacked: Unpacked, out: FeatureRow) -> int:
        """Stage 2. out: float32 [TERMINAL_FEATURES], written. As `advance_customer`, of the terminal's history."""
        cents, identity, customer, _ = unpacked
        return self._advance_terminal(transaction.terminal_id, identity, transaction.time_ms, cents, customer, out)

    def apply_customer_label(self, label: Label, identity: int) -> int:
        """Stage 1. identity: of the transaction. NEW when the customer's history does not have it, CONFLICT when it has
        another time there than the label says."""
        return self.customers.apply_label(label.customer_id, identity, label.time_ms, label.is_fraud)

    def apply_terminal_label(self, label: Label, identity: int) -> int:
        """Stage 2. As `apply_customer_label`, of the terminal's history; `agree` says what both mean together."""
        return self.terminals.apply_label(label.terminal_id, identity, label.time_ms, label.is_fraud)

    def expire(self) -> None:
        """Forget customers and terminals that no window reaches any more."""
        self.customers.expire()
        self.terminals.expire()

    @property
    def evicted(self) -> int:
        """Histories forgotten because there were too many."""
        return self.customers.evicted + self.terminals.evicted

    @property
    def used_bytes(self) -> int:
        return self.customers.used_bytes + self.terminals.used_bytes


class FeatureEngine(KeyedHistories):
    """Both stages in one process: a transaction in, all CATALOGUE features out; labels go in as they become known."""

    def __init__(self, delay_days: float = 7.0, limit: int = LIMIT) -> None:
        super().__init__(delay_days, limit)
        self.row: FeatureRow = np.zeros(len(CATALOGUE), np.float32)
        """The features of the last transaction; the next call writes over them."""
        self.late = False
        """Whether the last transaction came late, see Histories."""
        self.unpacked: Unpacked = (0, 0, 0, 0)
        """Of the last transaction."""
        self._first, self._second = self.row[: len(CUSTOMER_FEATURES)], self.row[len(CUSTOMER_FEATURES) :]

    def advance(self, transaction: Transaction) -> int:
        """Fill `row`; NEW, or what the histories know of the transaction's id: DUPLICATE or CONFLICT. The terminal's
        sees the same id of another customer."""
        self.unpacked = unpacked = unpack(transaction)
        known = self.advance_customer(transaction, unpacked, self._first)
        also = self.advance_terminal(transaction, unpacked, self._second)
        self.late = self.customers.late or self.terminals.late
        return CONFLICT if also == CONFLICT else known

    def apply_label(self, label: Label) -> int:
        """NEW when the transaction is not in the histories; CONFLICT when it is in one of the two only (the label has
        another customer or terminal than it, or it is forgotten there), or has another time than the label says."""
        identity = identify(label.transaction_id)
        return agree(self.apply_customer_label(label, identity), self.apply_terminal_label(label, identity))


def warm_up(delay_days: float) -> None:
    """Let everything that is compiled at its first use be compiled now, on histories that are thrown away."""
    engine = FeatureEngine(delay_days)
    engine.advance(Transaction(transaction_id="warm", customer_id="warm", terminal_id="warm", time_ms=0, amount=1.0))
    engine.apply_label(Label(transaction_id="warm", customer_id="warm", terminal_id="warm", time_ms=0, is_fraud=True))
    for histories in (engine.customers, engine.terminals):
        histories.find_newest_ms()  # as `expire` does where there are more keys: a service stood still for it, later
        histories.drain()
