"""What a person sees while the batch job runs, on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from apps.imaging.batch import Progress
from core.terminal import counted

LINE_EVERY_S = 10.0
SETTLED_S = 3.0


@contextmanager
def showing_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Give the function that shows a Progress."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    columns = (
        TextColumn("classifying"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("classify", total=None, text="starting")

        def show(progress: Progress) -> None:
            bar.update(task, total=progress.items, completed=progress.done, text=describe(progress))

        yield show


def describe(progress: Progress) -> str:
    """The rate, the time left and how many images were rejected, in words; a rate of the start alone would mislead."""
    parts = []
    if progress.elapsed_s >= SETTLED_S and progress.left_s is not None:
        parts += [f"{progress.items_per_s:.1f} files/s", f"{format_duration(progress.left_s)} left"]
    if progress.rejected:
        parts.append(f"{progress.rejected} rejected")
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        """The first one at once (it tells that the job is under way), then every ten seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_EVERY_S
            text = f"{progress.done:,} of {counted(progress.items, 'files')}"
            self._console.print(", ".join(filter(None, (text, describe(progress)))), highlight=False)
