"""The handbook's protocol against its published counts and against plain loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.training import protocol
from featherweight.apps.fraud.training.protocol import PREQUENTIAL, SINGLE, VALIDATION, Fold, evaluate, held_out_rows
from featherweight.core.statistics.card_precision import card_precision
from tests.datasets import local_copy

Ints = npt.NDArray[np.int64]
Columns = tuple[Ints, Ints, Ints]


@pytest.fixture(scope="module")
def handbook() -> Columns:
    """(days, customers, labels) of the handbook's transactions."""
    table = parquet.read_table(local_copy("fraud_handbook"), columns=["TX_TIME_DAYS", "CUSTOMER_ID", "TX_FRAUD"])
    days, customers, labels = (column.to_numpy().astype(np.int64) for column in table.columns)
    return days + protocol.day_number(2018, 4, 1), customers, labels


def test_the_single_split_has_the_published_counts(handbook: Columns) -> None:
    days, customers, labels = handbook
    train, test = protocol.train_rows(days, SINGLE), protocol.test_rows(days, customers, labels, SINGLE)
    assert (len(train), labels[train].sum()) == (67_240, 598)
    assert (len(test), labels[test].sum()) == (58_264, 385)
    perfect = evaluate(labels[test].astype(float), days[test], customers[test], labels[test])
    assert perfect.card_precision == pytest.approx(0.397, abs=0.0005)
    assert (perfect.roc_auc, perfect.average_precision) == (1.0, 1.0)


def test_no_validation_day_is_a_test_day() -> None:
    assert PREQUENTIAL[0] == SINGLE
    last = max(fold.test_from + fold.test_days for fold in VALIDATION)
    assert last <= min(fold.test_from for fold in PREQUENTIAL)


rows = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 1), st.integers(0, 30)), min_size=1, max_size=80
)


@given(rows, st.integers(0, 3), st.integers(1, 3), st.integers(0, 3))
def test_cards_that_are_known_leave_the_test(
    found: list[tuple[int, int, int, int]], start: int, train: int, delay: int
) -> None:
    days, customers, labels, _ = (np.array(column, np.int64) for column in zip(*found, strict=True))
    fold = Fold(start, train, delay, 2)
    expected = [
        index
        for day in (fold.test_from, fold.test_from + 1)
        for index, (other, customer, _, _) in enumerate(found)
        if other == day
        and not any(c == customer and fraud and start <= d <= day - delay - 1 for d, c, fraud, _ in found)
    ]
    assert protocol.test_rows(days, customers, labels, fold).tolist() == expected


@given(rows, st.integers(1, 4))
def test_card_precision_is_that_of_a_plain_loop(found: list[tuple[int, int, int, int]], top: int) -> None:
    days, customers, labels, _ = (np.array(column, np.int64) for column in zip(*found, strict=True))
    scores = np.array([score + index / 1000 for index, (*_, score) in enumerate(found)])  # no ties
    caught: set[int] = set()
    shares = []
    for day in sorted(set(days.tolist())):
        best: dict[int, tuple[float, bool]] = {}
        for row in np.flatnonzero(days == day):
            card = int(customers[row])
            if card not in caught:
                score, fraud = best.get(card, (-1.0, False))
                best[card] = (max(score, scores[row]), fraud or labels[row] == 1)
        ranked = sorted(best.items(), key=lambda item: -item[1][0])[:top]
        hits = [card for card, (_, fraud) in ranked if fraud]
        shares.append(len(hits) / top)
        caught.update(hits)
    everywhere = np.ones(len(found), bool)
    alone = card_precision(scores, labels, customers, days=days, eligible=everywhere, per_day=top)
    assert alone == pytest.approx(np.mean(shares))
    if 0 < labels.sum() < len(labels):
        figures = evaluate(scores, days, customers, labels, top)
        assert figures.card_precision == pytest.approx(np.mean(shares))


def test_a_fraud_within_the_delay_is_not_known() -> None:
    days, customers = np.array([0, 4, 10], np.int64), np.array([1, 2, 1], np.int64)
    kept = [
        held_out_rows(
            days, customers, np.array([fraud, 0, 0], np.int64), first=10, count=1, known_from=known_from, delay_days=9
        ).tolist()
        for fraud, known_from in ((0, 0), (1, 0), (1, 1))
    ]
    assert kept == [[2], [], [2]]
