"""From a transaction to its features, by the histories of its customer and its terminal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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

Row = npt.NDArray[np.float32]


class FeatureEngine:
    """A transaction in, all CATALOGUE features out; labels go in as they become known. limit: of customers, and of
    terminals, whose histories are kept."""

    def __init__(self, delay_days: float = 7.0, limit: int = LIMIT) -> None:
        self.customers = CustomerHistories(delay_days, limit)
        self.terminals = TerminalHistories(delay_days, limit)
        self.row: Row = np.zeros(len(CATALOGUE), np.float32)
        """The features of the last transaction; the next call writes over them."""
        self.late = False
        """Whether the last transaction came late, see Histories."""
        self._first, self._second = self.row[: len(CUSTOMER_FEATURES)], self.row[len(CUSTOMER_FEATURES) :]

    def advance(self, transaction: Transaction) -> int:
        """Fill `row`; NEW, or what the histories know of the transaction's id: DUPLICATE or CONFLICT. The terminal's
        sees the same id of another customer."""
        identity, cents = identify(transaction.transaction_id), transaction.cents
        customer, terminal = transaction.customer_id, transaction.terminal_id
        known = self.customers.advance(customer, identity, transaction.time_ms, cents, identify(terminal), self._first)
        also = self.terminals.advance(terminal, identity, transaction.time_ms, cents, identify(customer), self._second)
        self.late = self.customers.late or self.terminals.late
        return CONFLICT if also == CONFLICT else known

    @property
    def evicted(self) -> int:
        """Histories forgotten because there were too many."""
        return self.customers.evicted + self.terminals.evicted

    def learn(self, label: Label) -> int:
        """NEW when the transaction is not in the histories; CONFLICT when it is in one of the two only (the label has
        another customer or terminal than it, or it is forgotten there), or has another time than the label says."""
        identity, time_ms = identify(label.transaction_id), label.time_ms
        known = self.customers.learn(label.customer_id, identity, time_ms, label.is_fraud)
        also = self.terminals.learn(label.terminal_id, identity, time_ms, label.is_fraud)
        return agree(known, also)


def warm_up(delay_days: float) -> None:
    """Let everything that is compiled at its first use be compiled now, on histories that are thrown away."""
    engine = FeatureEngine(delay_days)
    engine.advance(Transaction(transaction_id="warm", customer_id="warm", terminal_id="warm", time_ms=0, amount=1.0))
    engine.learn(Label(transaction_id="warm", customer_id="warm", terminal_id="warm", time_ms=0, is_fraud=True))
    for histories in (engine.customers, engine.terminals):
        histories.find_newest_ms()  # as `expire` does where there are more keys: a service stood still for it, later
        histories.drain()
