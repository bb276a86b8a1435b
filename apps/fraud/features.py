"""What the model sees of a transaction. Two halves, because two keys are needed: the customer's history gives the
first, the terminal's the second; in a stream they are computed in different places.

All windows end at the transaction's own time t and are (t - window, t], the transaction itself included, unless the
name says `delayed`: those end delay_days before t, (t - delay - window, t - delay], because the share of frauds is only
known of transactions that old (Fraud Detection Handbook, chapter 3).
"""

from __future__ import annotations

CUSTOMER_FEATURES: tuple[str, ...] = (
    "amount",
    "is_weekend",
    "is_night",
    "hour",
    "customer_count_1h",
    "customer_count_1d",
    "customer_count_7d",
    "customer_count_30d",
    "customer_mean_amount_1d",
    "customer_mean_amount_7d",
    "customer_mean_amount_30d",
    "customer_amount_ratio_30d",
    "customer_amount_z_30d",
    "customer_max_ratio_30d",
    "customer_sum_amount_1d",
    "customer_seconds_since_last",
    "customer_terminal_count_30d",
    "customer_frauds_30d_known",
)
"""The transaction's own and those of the customer's history: what stage one of the stream computes."""

TERMINAL_FEATURES: tuple[str, ...] = (
    "terminal_count_1d_delayed",
    "terminal_risk_1d_delayed",
    "terminal_count_7d_delayed",
    "terminal_risk_7d_delayed",
    "terminal_count_30d_delayed",
    "terminal_risk_30d_delayed",
    "terminal_count_1d",
    "terminal_count_7d",
    "terminal_mean_amount_7d",
    "terminal_amount_ratio_7d",
    "terminal_frauds_30d_known",
    "terminal_days_since_known_fraud",
)
"""Those of the terminal's history: stage two."""

CATALOGUE: tuple[str, ...] = CUSTOMER_FEATURES + TERMINAL_FEATURES

HANDBOOK: tuple[str, ...] = (
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
