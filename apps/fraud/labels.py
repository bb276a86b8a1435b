"""When labels come: days after their transactions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from featherweight.apps.fraud.transactions import Label, Transaction

DAY_MS = 86_400_000


def label_later(labelled: Iterable[tuple[Transaction, bool]], delay_days: float = 7.0) -> Iterator[Transaction | Label]:
    """Transactions in their order with, `delay_days` after each, its label; the last labels come after the last
    transaction. A label that is due comes before a transaction of the same time. Holds the labels that are not due."""
    delay_ms = round(delay_days * DAY_MS)
    waiting: deque[tuple[Transaction, bool]] = deque()
    for transaction, is_fraud in labelled:
        while waiting and waiting[0][0].time_ms + delay_ms <= transaction.time_ms:
            yield label_of(*waiting.popleft())
        yield transaction
        waiting.append((transaction, is_fraud))
    for late in waiting:
        yield label_of(*late)


def label_of(transaction: Transaction, is_fraud: bool) -> Label:
    """The label that says of this transaction whether it was a fraud."""
    return Label(
        transaction_id=transaction.transaction_id,
        customer_id=transaction.customer_id,
        terminal_id=transaction.terminal_id,
        time_ms=transaction.time_ms,
        is_fraud=is_fraud,
    )
