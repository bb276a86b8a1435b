"""How far a long command is: one way to tell it, and one bar that shows it, on standard error.

Standard output is for what a command gives. Where standard error is not a terminal nothing is drawn; a command whose
log should show that it lives asks for a line now and then. Rich obeys NO_COLOR.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from featherweight.core.terminal import counted, open_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, TaskID

NARROW: Final = 60
"""Columns of a terminal under which stage and count are all that is shown."""


class Progress(Protocol):
    """Hears how far a stage is. What stands before a colon in its name is the stage, and what follows tells more."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """The Progress that shows nothing."""


class ProgressBar(Protocol):
    """What `progress_bar` gives: a Progress that takes a few words more, and can print a line that stays."""

    def __call__(self, stage: str, done: int, total: int | None = None, detail: str = "") -> None: ...

    def say(self, line: str) -> None: ...


@contextmanager
def progress_bar(
    unit: str = "steps",
    *,
    times: bool = True,
    lines_every_s: float | None = None,
    transient: bool = True,
    console: Console | None = None,
) -> Iterator[ProgressBar]:
    """One bar a stage while the block runs.

    unit: a plural; of "bytes" the size and the rate are shown. times: show the time gone and left, which a caller that
    gives its own in `detail` does not want. lines_every_s: where there is no terminal, print a line that often.
    transient: leave nothing behind. console: another than one on standard error.
    """
    console = console or open_console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console, unit, lines_every_s)
        return
    from rich.progress import Progress as RichProgress

    columns = _columns(unit, narrow=console.width < NARROW, times=times)
    with RichProgress(*columns, console=console, transient=transient) as bars:
        yield _Bars(bars.add_task, bars.update, console, unit)


def _columns(unit: str, *, narrow: bool, times: bool) -> list[ProgressColumn]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn, TransferSpeedColumn

    stage = TextColumn("{task.description}", markup=False)
    count = TextColumn("{task.fields[count]}", markup=False)
    if narrow:
        return [stage, count]
    columns = [stage, BarColumn(bar_width=None), count, TextColumn("{task.fields[detail]}", markup=False)]
    if unit == "bytes":
        columns.append(TransferSpeedColumn())
    return [*columns, TimeElapsedColumn(), TimeRemainingColumn()] if times else columns


def _count(done: int, total: int | None, unit: str) -> str:
    """Such as "5/20", "1,234 transactions" where the total is not known, or "1.2 MB/3.4 MB"."""
    if unit == "bytes":
        from rich.filesize import decimal

        return decimal(done) if total is None else f"{decimal(done)}/{decimal(total)}"
    return counted(done, unit) if total is None else f"{done:,}/{total:,}"


class _Bars:
    def __init__(self, add: Callable[..., TaskID], update: Callable[..., None], console: Console, unit: str) -> None:
        self._add, self._update, self._console, self._unit = add, update, console, unit
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int | None = None, detail: str = "") -> None:
        name = stage.partition(": ")[0]
        shown = {"description": stage, "count": _count(done, total, self._unit), "detail": detail}
        if name not in self._tasks:
            self._tasks[name] = self._add(total=total, **shown)
        self._update(self._tasks[name], completed=done, total=total, **shown)

    def say(self, line: str) -> None:
        self._console.print(line)


class _Lines:
    """The first line at once (it tells that the work is under way), then one every so often; none without a time."""

    def __init__(self, console: Console, unit: str, every_s: float | None) -> None:
        self._console, self._unit, self._every_s = console, unit, every_s
        self._next = 0.0

    def __call__(self, stage: str, done: int, total: int | None = None, detail: str = "") -> None:
        if self._every_s is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every_s
        text = counted(done, self._unit) if total is None else f"{done:,} of {counted(total, self._unit)}"
        self.say(", ".join(filter(None, (text, detail))))

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False)
