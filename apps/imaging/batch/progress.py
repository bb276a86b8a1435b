"""What a person sees while the batch job runs: the rate, the time left and how many images were rejected."""

from __future__ import annotations

from collections.abc import Callable

from featherweight.apps.imaging.batch.job import JobProgress
from featherweight.core.progress import ProgressBar

LINE_EVERY_S = 10.0
SETTLED_S = 3.0


def show_job(bar: ProgressBar) -> Callable[[JobProgress], None]:
    """The function that shows a JobProgress on the bar."""
    return lambda progress: bar("classifying", progress.done, progress.items, describe(progress))


def describe(progress: JobProgress) -> str:
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
