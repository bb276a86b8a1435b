"""The Fraud Detection Handbook's protocol (Le Borgne et al., 2022, chapters 4 and 5): which days train, which days
test, which cards leave the test because they are known to be compromised, and the three figures.

Days are whole numbers (since 1970-01-01, UTC). A label is known `delay_days` after its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import msgspec
import numpy as np

from featherweight.core.arrays import AnyFloats, Clusters, Integers, Labels
from featherweight.core.statistics.card_precision import card_precision

TOP_K = 100


@dataclass(frozen=True)
class Fold:
    """`train_days` days from `train_from` on, `delay_days` without labels, then `test_days`."""

    train_from: int
    train_days: int = 7
    delay_days: int = 7
    test_days: int = 7

    @property
    def test_from(self) -> int:
        """The first day of the test."""
        return self.train_from + self.train_days + self.delay_days


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """roc_auc and average_precision over transactions; card_precision: mean over the days."""

    transactions: int
    frauds: int
    roc_auc: float
    average_precision: float
    card_precision: float


def day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01."""
    return (date(year, month, day) - date(1970, 1, 1)).days


SINGLE = Fold(day_number(2018, 7, 25))
PREQUENTIAL = tuple(Fold(SINGLE.train_from + 7 * week) for week in range(4))
VALIDATION = tuple(Fold(SINGLE.train_from - 35 + 7 * week) for week in range(4))
"""The handbook's folds: figures are of SINGLE and PREQUENTIAL, everything is chosen on VALIDATION."""


def train_rows(days: Integers, fold: Fold) -> Integers:
    """Numbers of the rows that a model may be fitted on. days: [N]."""
    return np.flatnonzero((days >= fold.train_from) & (days < fold.train_from + fold.train_days))


def held_out_rows(
    days: Integers, customers: Clusters, labels: Labels, *, first: int, count: int, known_from: int, delay_days: int
) -> Integers:
    """Numbers of the rows of the `count` days from `first` on, without the transactions of known cards: on each day,
    those of customers with a fraud from day `known_from` up to `delay_days` + 1 days before it. All arrays [N]."""
    fraud_days, fraud_customers = days[labels == 1], customers[labels == 1]
    kept = []
    for day in range(first, first + count):
        known = fraud_customers[(fraud_days >= known_from) & (fraud_days < day - delay_days)]
        rows = np.flatnonzero(days == day)
        kept.append(rows[~np.isin(customers[rows], known)])
    return np.concatenate(kept)


def test_rows(days: Integers, customers: Clusters, labels: Labels, fold: Fold) -> Integers:
    """The fold's test, as the handbook's `get_train_test_set` has it. days, customers, labels: int64 [N]; gives places,
    int64 [M]."""
    return held_out_rows(
        days,
        customers,
        labels,
        first=fold.test_from,
        count=fold.test_days,
        known_from=fold.train_from,
        delay_days=fold.delay_days,
    )


def evaluate(scores: AnyFloats, days: Integers, customers: Clusters, labels: Labels, top_k: int = TOP_K) -> Figures:
    """The protocol's figures of held-out rows [N]. Both classes must be there."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return Figures(
        transactions=len(labels),
        frauds=int(labels.sum()),
        roc_auc=float(roc_auc_score(labels, scores)),
        average_precision=float(average_precision_score(labels, scores)),
        card_precision=card_precision(
            scores.astype(np.float64),
            labels,
            customers,
            days=days,
            eligible=np.ones(len(labels), bool),
            per_day=top_k,
        ),
    )
