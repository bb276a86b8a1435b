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
"""Milliseconds since 1970-01-01 UTC. Whoever takes rows from outside asks `plausible` which are believed: from the year
2000 on. More is decoded, so that the reason can say that a number looks like seconds or nanoseconds."""
Amount = Annotated[float, msgspec.Meta(ge=0, le=10_000_000_000_000)]
"""Up to ten trillions: so far hundredths are exact in float64, in the histories' events and in the sums over all that a
history keeps (`kernels.CENTS_BITS`)."""

Outcome = Literal["approve", "review", "decline"]


class Transaction(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """An authorization request. amount: in the currency's major unit; histories keep it in hundredths. Whoever reads
    one from outside ignores and counts unknown fields, by `decoding.Decoder`."""

    transaction_id: Identifier
    customer_id: Identifier
    terminal_id: Identifier
    time_ms: TimeMs
    amount: Amount

    @property
    def cents(self) -> int:
        """The amount in hundredths, a whole number."""
        return round(self.amount * 100)


class Label(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """What became known of a transaction: a chargeback, or the review's result. time_ms: the transaction's own time. Of
    several labels of one transaction the last counts, so that one can be taken back: the last in the file, in the
    partition or of the requests."""

    transaction_id: Identifier
    customer_id: Identifier
    terminal_id: Identifier
    time_ms: TimeMs
    is_fraud: bool


class Reason(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A feature that moved the score: its value (None: not known), and by how much the log-odds would fall were it
    typical."""

    feature: str
    value: float | None
    effect: float


class Decision(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """probability: calibrated, of fraud; model: name and digest of the artifact that decided; reasons: only where the
    outcome is not `approve`, the strongest first; duplicate: the transaction had been seen and was not counted again;
    conflict: another one has its id, with another amount, customer, terminal or time, and stays what is counted;
    fallback: no model decided, but the policy for when none can (probability is then None); late: it came more than a
    day after younger ones of its customer or terminal, so that a part of what its windows held may be forgotten."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    time_ms: int
    amount: float
    outcome: Outcome
    probability: float | None
    model: str
    reasons: tuple[Reason, ...] = ()
    duplicate: bool = False
    conflict: bool = False
    fallback: bool = False
    late: bool = False
