"""Which times are believed, live and in files."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.fraud import kernels
from apps.fraud.plausible import (
    AHEAD_MS,
    BACKWARDS_MS,
    CONTINUED,
    EARLIEST_MS,
    ONCE,
    Bound,
    Times,
    judge_pipe,
    refuse_live,
)
from core.errors import DataError
from tests.fraud.streams import DAY, START

NOW = 1_790_000_000_000  # 2026-09-21
YEAR = 366 * DAY


def bound_of(times: Iterable[int], now_ms: int = NOW) -> Bound:
    found = Times()
    found.add(list(times))
    return found.find_bound("file", now_ms)


def test_the_windows_are_whole_for_what_is_believed() -> None:
    assert AHEAD_MS <= kernels.LATENESS
    assert BACKWARDS_MS <= kernels.LATENESS


@pytest.mark.parametrize(
    ("time_ms", "reason"),
    [
        (START, None),
        (EARLIEST_MS, None),
        (NOW + DAY, None),
        (EARLIEST_MS - 1, "before the year 2000"),
        (0, "before the year 2000"),
        (NOW + DAY + 1, "more than a day ahead of the clock"),
        (4_000_000_000_000, "more than a day ahead of the clock"),
        (START // 1000, "are these seconds?"),
        (NOW // 1000, "are these seconds?"),
        (START * 1000, "are these microseconds?"),
        (START * 1_000_000, "are these nanoseconds?"),
        (1 << 61, "are these nanoseconds?"),
    ],
)
def test_what_is_believed_live(time_ms: int, reason: str | None) -> None:
    found = refuse_live(time_ms, NOW)
    assert (found is None) == (reason is None)
    assert reason is None or reason in (found or "")
    assert str(time_ms) not in (found or "") or not time_ms, "a reason never quotes the time"


def test_a_few_rows_far_beyond_the_others_are_refused() -> None:
    days = [START + number * DAY // 3 for number in range(61)]
    for wrong in ([4_000_000_000_000] * 3, [START + 3 * YEAR], [START + 2 * YEAR + n for n in range(6)]):
        found = bound_of([*days, *wrong])
        assert {found.refuse(time_ms) for time_ms in days} == {None}
        assert {found.refuse(time_ms) for time_ms in wrong} == {"time_ms lies far beyond the times of the other rows"}


def test_what_lies_ahead_of_the_clock_is_refused_unless_the_bulk_does() -> None:
    today = [NOW - number * DAY for number in range(20)]
    assert bound_of([*today, NOW + 40 * DAY]).refuse(NOW + 40 * DAY) == (
        "time_ms lies more than a day ahead of the clock"
    )
    simulated = [NOW + 400 * DAY + number * DAY for number in range(30)]
    assert bound_of(simulated).refuse(simulated[-1]) is None
    assert bound_of([*simulated, NOW + 4000 * DAY]).refuse(NOW + 4000 * DAY) is not None


def test_rows_ahead_of_the_clock_do_not_speak_for_each_other_unless_they_are_most() -> None:
    old = [START + number * DAY for number in range(8)]
    for count in range(1, 8):
        wrong = [NOW + 50 * YEAR + number for number in range(count)]
        found = bound_of([*old, *wrong])
        assert {found.refuse(time_ms) for time_ms in wrong} == {"time_ms lies more than a day ahead of the clock"}
        assert {found.refuse(time_ms) for time_ms in old} == {None}


def test_a_few_rows_say_nothing_of_each_other() -> None:
    found = bound_of([START, START + 5 * YEAR, NOW])
    assert found.refuse(START + 5 * YEAR) is None
    assert found.refuse(4_000_000_000_000) is not None
    assert bound_of([]).refuse(START) is None
    for ahead in ([NOW + 2 * DAY], [START, NOW + 50 * YEAR], [START + n for n in range(4)] + [NOW + 2 * DAY]):
        assert bound_of(ahead).refuse(ahead[-1]) == "time_ms lies more than a day ahead of the clock"


def test_of_a_file_whose_histories_go_on_less_is_believed() -> None:
    """Three rows of a customer, weeks ahead, would make all late that comes up to then."""
    day = [START + number * DAY // 100 for number in range(100)]
    for ahead, alone in ((20 * DAY, True), (40 * DAY, True), (300 * DAY, True), (2 * YEAR, False)):
        wrong = [START + ahead + number for number in range(3)]
        found = Times()
        found.add([*day, *wrong])
        for margin, believed in ((ONCE, alone), (CONTINUED, ahead < 31 * DAY)):
            bound = found.find_bound("file", NOW, margin)
            assert [bound.refuse(time_ms) is None for time_ms in wrong] == [believed] * 3
            assert {bound.refuse(time_ms) for time_ms in day} == {None}


@given(st.integers(EARLIEST_MS, NOW - 6 * YEAR), st.integers(0, 5 * YEAR), st.integers(1, 300))
def test_even_old_data_pass_where_the_histories_go_on(first: int, span: int, count: int) -> None:
    times = [first + span * number // count for number in range(count)]
    found = Times()
    found.add(times)
    bound = found.find_bound("file", NOW, CONTINUED)
    assert {bound.refuse(time_ms) for time_ms in times} == {None}


@given(
    st.integers(EARLIEST_MS, NOW - 1), st.integers(0, 20 * YEAR), st.integers(1, 300), st.sampled_from([0.3, 1.0, 3.0])
)
def test_data_that_are_all_old_pass_however_long_they_last(first: int, span: int, count: int, skew: float) -> None:
    """Evenly over the time, or most of them at its beginning or its end."""
    times = [min(first + int(span * (number / count) ** skew), NOW) for number in range(count)]
    found = bound_of(times)
    assert {found.refuse(time_ms) for time_ms in times} == {None}


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds"), (1e6, "nanoseconds")])
def test_a_file_in_another_unit_is_refused_as_a_whole(factor: float, unit: str) -> None:
    times = [int((START + number * DAY) * factor) for number in range(20)]
    with pytest.raises(DataError, match=f"file: time_ms of 20 of 25 rows .* are these {unit}"):
        bound_of([*times, *(START + number for number in range(5))])
    bound_of([*times[:5], *(START + number for number in range(20))])


@given(st.lists(st.integers(EARLIEST_MS, EARLIEST_MS + 5), max_size=12), st.integers(1, 4))
def test_order_is_seen_across_batches(times: list[int], batch: int) -> None:
    found = Times()
    for start in range(0, len(times), batch):
        found.add(times[start : start + batch])
    assert found.ordered == (times == sorted(times))


def test_a_pipe_may_run_backwards_by_a_day() -> None:
    judge = judge_pipe("standard input", lambda: NOW)
    assert judge(START, 1) is None
    assert judge(START - DAY, 2) is None
    assert judge(START + DAY, 3) is None
    assert judge(0, 4) is not None, "what is refused sets no time"
    assert judge(NOW + 2 * DAY, 5) is not None
    with pytest.raises(DataError, match=r"standard input:6: runs backwards: .* 1\.0 days before that of line 3"):
        judge(START - 1, 6)
