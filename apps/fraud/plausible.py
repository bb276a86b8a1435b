"""Which times are believed. A time in another unit or of a wrong clock would be wrong in silence: it moves the windows
that features are computed from, and decides when labels count and which days a model is tested on.

No time before the year 2000 is believed. Live (REST, Kafka, a pipe), the clock says which are too late; in a file the
rest of the file does, so that old data pass and a few rows far beyond the others do not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from featherweight.apps.fraud.labels import DAY_MS
from featherweight.core.errors import DataError
from featherweight.core.terminal import counted

EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01 UTC."""
END_MS: Final = 4_102_444_800_000
"""2100-01-01 UTC: no bound is later."""
AHEAD_MS: Final = DAY_MS
"""So far ahead of the clock a time may lie: clocks and time zones differ. The histories keep their windows whole for so
much (kernels.LATENESS), so no row that is believed takes anything from the windows of the others."""
BACKWARDS_MS: Final = DAY_MS
"""So far a pipe may run backwards: for so much the windows are whole."""

_UNITS: Final = {"seconds": 1000.0, "microseconds": 1e-3, "nanoseconds": 1e-6}
_AHEAD: Final = "lies more than a day ahead of the clock"
_BEYOND: Final = "lies far beyond the times of the other rows"

_MIN_ROWS: Final = 10
"""Fewer say nothing of each other."""
_BULK_TENTHS: Final = 9
"""So much of a file says what is plausible for the rest."""

_FIRST_DAY: Final = EARLIEST_MS // DAY_MS
_DAYS: Final = END_MS // DAY_MS - _FIRST_DAY + 1


def read_clock_ms() -> int:
    """Milliseconds since 1970, now."""
    return time.time_ns() // 1_000_000


def refuse_time(time_ms: int, latest_ms: int, beyond: str = _AHEAD) -> str | None:
    """Why a time is not believed, or None when it is. beyond: what to say of one after `latest_ms`. The reason never
    quotes the time."""
    if EARLIEST_MS <= time_ms <= latest_ms:
        return None
    unit = guess_unit(time_ms)
    if unit:
        return f"time_ms is not in milliseconds since 1970; are these {unit}?"
    if time_ms < EARLIEST_MS:
        return "time_ms lies before the year 2000"
    return f"time_ms {beyond}"


def refuse_live(time_ms: int, now_ms: int) -> str | None:
    """As `refuse_time`, of what comes just now."""
    return refuse_time(time_ms, now_ms + AHEAD_MS)


def guess_unit(time_ms: int) -> str | None:
    """The unit in which a number that is not a plausible count of milliseconds is a moment of this century."""
    if EARLIEST_MS <= time_ms <= END_MS:
        return None
    return next((unit for unit, factor in _UNITS.items() if EARLIEST_MS <= time_ms * factor <= END_MS), None)


@dataclass(frozen=True)
class Margin:
    """How far behind nine tenths of a file a row may lie: `least_ms`, or, where it is more, `spans` times the time that
    these nine tenths span, without their first ninth."""

    least_ms: int
    spans: int


ONCE: Final = Margin(366 * DAY_MS, 2)
"""Margin for a file by itself: its rows are in the order of time, and what comes last moves no other's windows."""
CONTINUED: Final = Margin(31 * DAY_MS, 1)
"""Margin for a file whose histories the next one continues: three rows of a customer far beyond the others would make
all that comes up to then late, so that its windows are lost."""


@dataclass(frozen=True)
class Bound:
    """The latest time that is believed of a file, and what is said of a later one."""

    latest_ms: int
    beyond: str

    def refuse(self, time_ms: int) -> str | None:
        """What is wrong with a time; None where it is believed."""
        return refuse_time(time_ms, self.latest_ms, self.beyond)


class Times:
    """What one look at a file's times finds. Memory is bounded, whatever the rows: they are counted by day."""

    def __init__(self) -> None:
        self.ordered = True
        """Whether no time is less than one before it, of those between the years 2000 and 2100."""
        self._rows, self._newest_ms = 0, 0
        self._days = np.zeros(_DAYS, np.int64)
        self._units: Counter[str] = Counter()

    def add(self, times: Sequence[int]) -> None:
        """Those of the next rows."""
        found = np.array(times, np.int64)
        self._rows += len(found)
        sound = (found >= EARLIEST_MS) & (found <= END_MS)
        for strange in found[~sound].tolist():
            self._units[guess_unit(strange) or "unknown"] += 1
        found = found[sound]
        if len(found):
            self.ordered &= bool(found[0] >= self._newest_ms and (found[1:] >= found[:-1]).all())
            self._newest_ms = int(found[-1])
            self._days += np.bincount(found // DAY_MS - _FIRST_DAY, minlength=_DAYS)

    def find_bound(self, source: str, now_ms: int, margin: Margin = ONCE) -> Bound:
        """What is plausible by the bulk of the rows: what lies within the margin; and not ahead of the clock, unless
        most rows are. Of a few rows the clock alone decides.

        Raises DataError when most rows are in another unit: then all of the file is."""
        for unit in _UNITS:
            if 2 * self._units[unit] > self._rows:
                raise DataError(
                    f"{source}: time_ms of {self._units[unit]:,} of {counted(self._rows, 'rows')} is not in "
                    f"milliseconds since 1970; are these {unit}? convert them to milliseconds"
                )
        first, last = self._find_day(10 - _BULK_TENTHS), self._find_day(_BULK_TENTHS)
        beyond = Bound(END_MS, _BEYOND)
        are_few = self._days.sum() < _MIN_ROWS
        if not are_few:
            end_ms = (_FIRST_DAY + last + 1) * DAY_MS
            beyond = Bound(min(end_ms + max(margin.least_ms, margin.spans * (last - first) * DAY_MS), END_MS), _BEYOND)
        ahead = Bound(now_ms + AHEAD_MS, _AHEAD)
        # By the middle row: a tenth and more may be wrong together, and would speak for each other.
        is_ahead = not are_few and (_FIRST_DAY + self._find_day(5)) * DAY_MS > ahead.latest_ms
        return ahead if ahead.latest_ms < beyond.latest_ms and not is_ahead else beyond

    def _find_day(self, tenths: int) -> int:
        """The first of the days by which so much of the rows has come."""
        total = np.cumsum(self._days)
        return int(np.searchsorted(total, max(-(-total[-1] * tenths // 10), 1)))


def judge_in_order(
    source: str, bound: Callable[[], Bound], backwards_ms: int, advice: str
) -> Callable[[int, int], str | None]:
    """For a source that is read in its own order, what says of a row's (time, line) why it is refused, or None. It
    raises DataError when the times run backwards.

    bound: as of now, never earlier than before; backwards_ms: how much less than the newest one a time may be; advice:
    what to do where it is less still."""
    newest_ms, newest_line, latest_ms = EARLIEST_MS, 0, bound().latest_ms

    def judge(time_ms: int, line: int) -> str | None:
        nonlocal newest_ms, newest_line, latest_ms
        if newest_ms <= time_ms <= latest_ms:  # nearly always
            newest_ms, newest_line = time_ms, line
            return None
        now = bound()
        latest_ms = now.latest_ms
        reason = now.refuse(time_ms)
        if reason is not None:
            return reason
        if time_ms < newest_ms - backwards_ms:
            raise DataError(
                f"{source}:{line}: runs backwards: its time lies {(newest_ms - time_ms) / DAY_MS:,.1f} days before "
                f"that of line {newest_line}; {advice}"
            )
        if time_ms >= newest_ms:
            newest_ms, newest_line = time_ms, line
        return None

    return judge


def judge_pipe(source: str, now_ms: Callable[[], int]) -> Callable[[int, int], str | None]:
    """Rows of a pipe are decided as they come."""
    return judge_in_order(
        source,
        lambda: Bound(now_ms() + AHEAD_MS, _AHEAD),
        BACKWARDS_MS,
        "a pipe is decided as it comes and may run backwards by a day at most: see which of the two is wrong, or "
        "write the rows into a file and name it with --input: files are put in the order of time first",
    )


def judge_ordered(source: str, bound: Bound) -> Callable[[int, int], str | None]:
    """Rows of a file that one look has found in the order of time."""
    return judge_in_order(
        source, lambda: bound, 0, "the file has changed while it was read; run again when it is whole"
    )
