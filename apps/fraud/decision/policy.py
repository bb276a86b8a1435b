"""From a probability to what happens to the transaction."""

from __future__ import annotations

from msgspec.structs import replace

from featherweight.apps.fraud.features.histories import CONFLICT, DUPLICATE, NEW
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


def mark(decision: Decision, known: int, *, late: bool) -> Decision:
    """Say what the histories knew of the transaction. known: as of FeatureEngine.advance."""
    if known == NEW and not late:
        return decision
    return replace(decision, conflict=known == CONFLICT, duplicate=known == DUPLICATE, late=late)
