"""The app's own types: a transaction comes in, a decision goes out, a label arrives days later."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
TimeMs = Annotated[
    int,
    msgspec.Meta(
        ge=0,
        le=1 << 61,
        description="Milliseconds since 1970-01-01 UTC; at most a day ahead of the clock.",
    ),
]
"""Milliseconds since 1970-01-01 UTC. Readers of rows from outside ask `plausible` which are believed: from the year
2000 on. More is decoded, so that the reason can say that a number looks like seconds or nanoseconds."""
Amount = Annotated[float, msgspec.Meta(ge=0, le=10_000_000_000_000)]
"""Up to ten trillions: so far hundredths are exact in float64, in the histories' events and in the sums over all that a
history keeps (`kernels.CENTS_BITS`)."""

Outcome = Literal["approve", "review", "decline"]


class Transaction(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """An authorization request. Readers of transactions from outside ignore and count unknown fields, by
    `decoding.Decoder`."""

    transaction_id: Identifier
    """Name of the transaction. One that comes again is answered again and not counted again."""
    customer_id: Identifier
    """Who pays: the card or the account, under any name that is always the same."""
    terminal_id: Identifier
    """Where it is paid."""
    time_ms: TimeMs
    """Time of the transaction in milliseconds since 1970-01-01 UTC."""
    amount: Amount
    """The amount in the currency's major unit, such as 57.16; histories keep it in hundredths."""

    @property
    def cents(self) -> int:
        """The amount in hundredths, a whole number."""
        return round(self.amount * 100)


class Label(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """What became known of a transaction: a chargeback, or the review's result. Of several labels of one transaction
    the last counts, so that one can be taken back: the last in the file, in the partition or of the requests."""

    transaction_id: Identifier
    """Name of the transaction that the label is for."""
    customer_id: Identifier
    """The transaction's customer."""
    terminal_id: Identifier
    """The transaction's terminal."""
    time_ms: TimeMs
    """The transaction's own time, not that of the label, in milliseconds since 1970-01-01 UTC."""
    is_fraud: bool
    """Whether the transaction was a fraud; false takes an earlier true back."""


class Reason(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A feature that moved the score."""

    feature: str
    """Name of the feature."""
    value: float | None
    """Its value; null where it is not known."""
    effect: float
    """By how much the log-odds would fall if the feature had its reference value, the median of legitimate ones."""


class Decision(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What was decided of a transaction."""

    transaction_id: str
    """The transaction's own, as the next four fields are."""
    customer_id: str
    """Who paid."""
    terminal_id: str
    """Where it was paid."""
    time_ms: int
    """When, in milliseconds since 1970-01-01 UTC."""
    amount: float
    """How much, in the currency's major unit."""
    outcome: Outcome
    """The decision. `review` and `decline` are alerts."""
    probability: float | None
    """Calibrated probability of fraud, 0 to 1; null where no model decided."""
    model: str
    """Name and digest of the artifact that decided."""
    reasons: tuple[Reason, ...] = ()
    """The features that moved the score most, the strongest first; only where the outcome is not `approve`."""
    duplicate: bool = False
    """The transaction had been seen and was not counted again."""
    conflict: bool = False
    """Another transaction has its id, with another amount, customer, terminal or time, and stays what is counted."""
    fallback: bool = False
    """No model decided, but the policy for when none can."""
    late: bool = False
    """It came more than a day after younger ones of its customer or terminal, so that a part of what its windows held
    may be forgotten."""
