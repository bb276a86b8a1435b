"""What the model sees of a transaction. Two halves, because two keys are needed: the customer's history gives the
first, the terminal's the second; in a stream they are computed in different places. `kernels.py` computes them and
writes each by its name. The order here is the only place that says where a feature stands.

All windows end at the transaction's own time t and are (t - window, t], the transaction itself included, unless the
name says `delayed`: those end delay_days before t, (t - delay - window, t - delay], because the share of frauds is only
known of transactions that old (Fraud Detection Handbook, chapter 3). What counts is what has arrived by then: an event
that comes later never changes features that were given. Times are UTC; amounts are in the currency's major unit. A
feature is missing (NaN) where there is nothing to compute it from, or the divisor is 0.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable
from typing import Any, Final

CUSTOMER_MEANINGS: Final[dict[str, str]] = {
    "amount": "The amount.",
    "is_weekend": "1 on Saturday and Sunday, else 0.",
    "is_night": "1 from 0:00 to 6:59, else 0.",
    "hour": "Hour of the day with its fraction, 0 to 24.",
    "customer_count_10m": "Transactions of the customer in 10 minutes.",
    "customer_count_1h": "Transactions of the customer in 1 hour.",
    "customer_count_1d": "Transactions of the customer in 1 day.",
    "customer_count_7d": "Transactions of the customer in 7 days.",
    "customer_count_30d": "Transactions of the customer in 30 days.",
    "customer_mean_amount_1d": "Mean amount of the customer in 1 day.",
    "customer_mean_amount_7d": "Mean amount of the customer in 7 days.",
    "customer_mean_amount_30d": "Mean amount of the customer in 30 days.",
    "customer_sum_amount_1d": "Sum of the customer's amounts in 1 day.",
    "customer_seconds_since_last": "Seconds since the customer's latest other transaction in 30 days.",
    "customer_terminal_count_30d": "Different terminals of the customer in 30 days.",
    "customer_frauds_30d_known": "Other transactions of the customer in 30 days that are known to be frauds.",
    "customer_amount_ratio_30d": "The amount over the mean of the customer's other amounts in 30 days.",
    "customer_amount_z_30d": "Standard deviations by which the amount lies above that mean; a deviation below 1 counts "
    "as 1; missing with fewer than 2 others.",
    "customer_max_ratio_30d": "The amount over the largest other amount of the customer in 30 days.",
    "customer_usual_amount_30d": "The customer's usual amount: the mean of the other amounts in 30 days that are at "
    "most 2.5 times the mean of them all.",
    "customer_usual_ratio_30d": "The amount over the usual amount.",
    "customer_high_count_14d": "Other transactions of the customer in 14 days above 2.5 times the usual amount.",
    "customer_high_ratio_14d": "The customer's largest other amount in 14 days over the usual amount; 0 with no other.",
    "customer_days_since_first_high_14d": "Days since the oldest of those high ones in 14 days.",
}
"""The transaction's own and those of the customer's history, with what they mean: stage one of the stream."""

TERMINAL_MEANINGS: Final[dict[str, str]] = {
    "terminal_count_1d_delayed": "Transactions of the terminal in the delayed window of 1 day.",
    "terminal_risk_1d_delayed": "Share of known frauds among terminal_count_1d_delayed; 0 where that is 0.",
    "terminal_count_7d_delayed": "Transactions of the terminal in the delayed window of 7 days.",
    "terminal_risk_7d_delayed": "Share of known frauds among terminal_count_7d_delayed; 0 where that is 0.",
    "terminal_count_30d_delayed": "Transactions of the terminal in the delayed window of 30 days.",
    "terminal_risk_30d_delayed": "Share of known frauds among terminal_count_30d_delayed; 0 where that is 0.",
    "terminal_count_1d": "Transactions at the terminal in 1 day.",
    "terminal_count_7d": "Transactions at the terminal in 7 days.",
    "terminal_mean_amount_7d": "Mean amount at the terminal in 7 days.",
    "terminal_amount_ratio_7d": "The amount over terminal_mean_amount_7d.",
    "terminal_frauds_30d_known": "Other transactions at the terminal in 30 days that are known to be frauds.",
    "terminal_days_since_known_fraud": "Days since the latest other transaction at the terminal that is known to be a "
    "fraud, within 30 days and the delay.",
    "terminal_fraud_streak": "Known frauds in a row at the end of the delayed window of 30 days.",
    "terminal_fraud_streak_days": "Days since the oldest of that streak.",
    "terminal_fraud_streak_mean_amount": "Mean amount of that streak.",
    "terminal_days_since_known_legitimate": "Days since the latest in the delayed window of 30 days that is not known "
    "to be a fraud.",
}
"""Those of the terminal's history, with what they mean: stage two."""


def number(kind: str, names: Iterable[str]) -> Any:
    """A named tuple of the places, which numba takes as constants: `number("T", ("a", "b")).b` is 1."""
    places = namedtuple(kind, names)  # type: ignore[misc]  # mypy wants the names spelled out
    return places(*range(len(places._fields)))


CUSTOMER: Final = number("Customer", CUSTOMER_MEANINGS)
"""`CUSTOMER.amount` is the place of the amount among the customer's features, and so on."""
TERMINAL: Final = number("Terminal", TERMINAL_MEANINGS)
"""The same of the terminal's features."""

CUSTOMER_FEATURES: Final[tuple[str, ...]] = tuple(CUSTOMER_MEANINGS)
TERMINAL_FEATURES: Final[tuple[str, ...]] = tuple(TERMINAL_MEANINGS)
CATALOGUE: Final[tuple[str, ...]] = CUSTOMER_FEATURES + TERMINAL_FEATURES
MEANINGS: Final[dict[str, str]] = CUSTOMER_MEANINGS | TERMINAL_MEANINGS

HANDBOOK: Final[tuple[str, ...]] = (
    "amount",
    "is_weekend",
    "is_night",
    "customer_count_1d",
    "customer_mean_amount_1d",
    "customer_count_7d",
    "customer_mean_amount_7d",
    "customer_count_30d",
    "customer_mean_amount_30d",
    "terminal_count_1d_delayed",
    "terminal_risk_1d_delayed",
    "terminal_count_7d_delayed",
    "terminal_risk_7d_delayed",
    "terminal_count_30d_delayed",
    "terminal_risk_30d_delayed",
)
"""The Fraud Detection Handbook's 15, in its order."""
