"""What late means: marked where, and only where, something that its windows held can be forgotten."""

from __future__ import annotations

import random

import numpy as np
import pytest

from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import identify
from featherweight.apps.fraud.transactions import Transaction
from tests.fraud.naive import History, NaiveEngine
from tests.fraud.streams import CUSTOMERS, DAY, START, TERMINALS, transaction


def draw(seed: int, count: int = 900) -> list[Transaction]:
    """Some months of few keys; of each tenth transaction the arrival is late by up to eighty days."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        time_ms = START + int(chance.uniform(0, 200 * DAY))
        late = chance.random() < 0.1
        event = Transaction(
            transaction_id=f"{seed}-{number}",
            customer_id=chance.choice(CUSTOMERS),
            terminal_id=chance.choice(TERMINALS),
            time_ms=time_ms,
            amount=round(chance.gammavariate(1, 50), 2),
        )
        made.append((time_ms + late * chance.uniform(0, 80 * DAY), event))
    return [event for _, event in sorted(made, key=lambda pair: pair[0])]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_marked_as_late_sees_whole_windows(seed: int) -> None:
    """The features of every transaction without the mark are those of histories that never forget."""
    engine, whole = FeatureEngine(), NaiveEngine(7.0, identify)
    whole.customers = {name: History(10**15, bound=10**9) for name in CUSTOMERS}
    whole.terminals = {name: History(10**15, bound=10**9) for name in TERMINALS}
    marked = wrong = 0
    for event in draw(seed):
        _, row = whole.advance(event)
        assert not engine.advance(event)
        expected = np.array([row[name] for name in CATALOGUE], np.float64)
        same = np.allclose(engine.row, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert same or engine.late
        marked += engine.late
        wrong += not same
    assert 10 <= wrong <= marked <= 100, (wrong, marked)


@pytest.mark.parametrize(
    ("days", "newer", "late"), [(0.5, 5, False), (1, 5, False), (1.01, 5, True), (40, 3, True), (40, 2, False)]
)
def test_late_is_more_than_a_day_after_three_others(days: float, newer: int, late: bool) -> None:
    """One or two wrong clocks in the future make nobody late."""
    engine = FeatureEngine()
    for number in range(newer):
        engine.advance(transaction(f"n{number}", START + number))
        assert not engine.late
    old = transaction("old", START + newer - 3 - round(days * DAY))
    engine.advance(old)
    assert engine.late == late
    assert engine.advance(old), "sent again it is late again"
    assert engine.late == late
    engine.advance(transaction("next", START + DAY))
    assert not engine.late


def test_before_the_oldest_of_a_full_history_there_is_no_room() -> None:
    engine = FeatureEngine()
    for number in range(1024):
        engine.advance(transaction(f"n{number}", START + number))
    engine.advance(transaction("old", START - 1))
    assert engine.late
    engine.advance(transaction("within", START + 1))
    assert not engine.late


def test_the_customers_lateness_is_the_transactions() -> None:
    engine = FeatureEngine()
    for number in range(3):
        engine.advance(transaction(f"n{number}", START + 3 * DAY + number))
    for customer, terminal, late in (
        ("anna", "another", True),
        ("another", "kiosk", True),
        ("third", "third", False),
    ):
        engine.advance(
            Transaction(
                transaction_id=f"{customer}-{terminal}",
                customer_id=customer,
                terminal_id=terminal,
                time_ms=START,
                amount=1.0,
            )
        )
        assert engine.late == late
