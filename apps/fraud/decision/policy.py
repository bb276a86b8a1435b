"""From a probability to what happens to the transaction."""

from __future__ import annotations

from featherweight.apps.fraud.sealed import DecisionRule
from featherweight.apps.fraud.transactions import Decision, Outcome, Transaction


def choose_outcome(probability: float, rule: DecisionRule) -> Outcome:
    """What the probability leads to by the rule's two thresholds."""
    if probability >= rule.decline_threshold:
        return "decline"
    return "review" if probability >= rule.review_threshold else "approve"


def fall_back(transaction: Transaction, rule: DecisionRule, model: str) -> Decision:
    """The decision when no score can be had in time: what the rule names for small amounts, a review for large ones."""
    return Decision(
        transaction_id=transaction.transaction_id,
        customer_id=transaction.customer_id,
        terminal_id=transaction.terminal_id,
        time_ms=transaction.time_ms,
        amount=transaction.amount,
        outcome=rule.fallback if transaction.amount <= rule.fallback_amount else "review",
        probability=None,
        model=model,
        fallback=True,
    )
