"""The compiled features against the naive computation, whatever comes in whatever order."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.fraud.features.catalogue import (
    CATALOGUE,
    CUSTOMER_FEATURES,
    HANDBOOK,
    MEANINGS,
    TERMINAL_FEATURES,
)
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import CustomerHistories, Histories, TerminalHistories, identify
from featherweight.apps.fraud.features.kernels import BOUND, CENTS_BITS
from featherweight.apps.fraud.transactions import Label, Transaction
from tests.fraud.naive import NaiveEngine
from tests.fraud.streams import DAY, START, Event, long_stream, streams, transaction


def compare(engine: FeatureEngine, naive: NaiveEngine, events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, Label):
            assert engine.apply_label(event) == naive.apply_label(event)
            continue
        seen, row = naive.advance(event)
        assert engine.advance(event) == seen
        expected = np.array([row[name] for name in CATALOGUE], np.float64)
        np.testing.assert_allclose(engine.row, expected, rtol=1e-5, atol=1e-6, err_msg=str(CATALOGUE))


@settings(max_examples=100)
@given(streams(), st.sampled_from([7.0, 7.0, 0.0, 1.5]))
def test_features_equal_the_naive_computation(events: list[Event], delay_days: float) -> None:
    compare(FeatureEngine(delay_days), NaiveEngine(delay_days, identify), events)


@pytest.mark.parametrize("seed", range(2))
def test_features_equal_the_naive_computation_over_many_pages(seed: int) -> None:
    compare(FeatureEngine(), NaiveEngine(7.0, identify), long_stream(seed, 1000))


def test_a_hot_key_keeps_the_newest_events() -> None:
    """1,300 transactions of one customer at one terminal within a week, some late: the oldest are forgotten."""
    generator = random.Random(3)
    engine, naive = FeatureEngine(), NaiveEngine(7.0, identify)
    moments = sorted(generator.sample(range(7 * DAY), 1300), key=lambda moment: moment + generator.uniform(0, DAY))
    for number, moment in enumerate(moments):
        event = transaction(f"h{number}", START + moment)
        if number % 100 == 99:
            compare(engine, naive, [event, event])
        else:
            assert engine.advance(event) == naive.absorb(event)
    last = transaction("last", START + 7 * DAY)
    compare(engine, naive, [last, transaction("too late", START), transaction("h0", START + moments[0])])
    assert len(naive.customers["anna"].events) == 1024


@settings(max_examples=60)
@given(streams(), st.randoms(use_true_random=False))
def test_histories_do_not_depend_on_the_order_of_arrival(events: list[Event], generator: random.Random) -> None:
    made = {event.transaction_id: event for event in events if isinstance(event, Transaction)}
    shuffled = list(made.values())
    generator.shuffle(shuffled)
    rows = []
    for order in (made.values(), shuffled):
        engine = FeatureEngine()
        for event in order:
            engine.advance(event)
        engine.advance(transaction("last", max(event.time_ms for event in made.values()))) if made else None
        rows.append(engine.row.copy())
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize(
    "amounts",
    [
        [1e13, 1e13, 1e13],
        [9_999_999_999_999.99, 1e13, 0.01],
        [21_474_836.47, 21_474_836.48, 42_949_672.96],
        [0.0, 0.0, 0.0],
        [0.01] * 30,
    ],
)
def test_extreme_amounts_keep_their_precision(amounts: list[float]) -> None:
    events = [transaction(f"a{n}", START + n, amount=amount) for n, amount in enumerate(amounts)]
    compare(FeatureEngine(), NaiveEngine(7.0, identify), events)


def test_no_sum_of_the_largest_amounts_overflows() -> None:
    engine, naive = FeatureEngine(), NaiveEngine(7.0, identify)
    for number in range(BOUND):
        event = transaction(f"a{number}", START + number, amount=1e13 if number % 5 else 0.01)
        assert engine.advance(event) == naive.absorb(event)
    compare(engine, naive, [transaction("last", START + BOUND, amount=1e13)])
    assert transaction("a", START, amount=1e13).cents < 1 << CENTS_BITS
    assert 5 * BOUND * (1 << CENTS_BITS) < 1 << 63


def test_two_wrong_clocks_wipe_out_nothing() -> None:
    engine, calm = FeatureEngine(), FeatureEngine()
    far = START + 3000 * DAY
    for number in range(40):
        for each in (engine, calm):
            each.advance(transaction(f"w{number}", START + number * DAY // 4))
        if number in (3, 17):
            engine.advance(transaction(f"far{number}", far + number))
    for each in (engine, calm):
        each.advance(transaction("now", START + 10 * DAY))
    np.testing.assert_array_equal(engine.row, calm.row)
    assert calm.row[CATALOGUE.index("customer_count_30d")] == 41


def test_after_a_wrong_clock_the_history_goes_on() -> None:
    """Many timestamps in the far future forget what came before them, and nothing of what comes then."""
    engine, naive = FeatureEngine(), NaiveEngine(7.0, identify)
    events = [transaction(f"w{number}", START + number * DAY // 2) for number in range(60)]
    far = [transaction(f"f{number}", START + 3000 * DAY + number) for number in range(10)]
    compare(engine, naive, events[:30] + far + events[30:])
    assert engine.row[CATALOGUE.index("customer_count_30d")] == 30


def test_every_feature_has_a_meaning() -> None:
    assert set(MEANINGS) == set(CATALOGUE)
    assert len(CATALOGUE) == len(set(CATALOGUE)) == len(CUSTOMER_FEATURES) + len(TERMINAL_FEATURES)
    assert set(HANDBOOK) <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("kind", "names"), [(CustomerHistories, CUSTOMER_FEATURES), (TerminalHistories, TERMINAL_FEATURES)]
)
def test_a_kernel_fills_exactly_its_features(kind: type[Histories], names: Sequence[str]) -> None:
    out = np.full(len(names) + 1, -5.0, np.float32)
    kind().advance("key", 1, START, 100, 2, out[:-1])
    assert -5.0 not in out[:-1]
    assert out[-1] == -5.0


def test_where_no_cache_can_be_written_it_is_compiled_anew() -> None:
    """Read-only containers: numba finds no folder for what it compiles."""
    code = (
        "import numba.core.caching as caching; caching.CacheImpl._locator_classes = []\n"
        "import numpy, featherweight.apps.fraud.features.kernels as kernels\n"
        "assert kernels.begin(numpy.array([[2, 0, 0], [8, 0, 0]]), 3) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
