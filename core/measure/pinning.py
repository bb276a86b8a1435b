"""Threads pinned to as many cores as there are threads, so that what is timed does not move about.

The system's own scheduler moves threads between cores, and each move costs warm caches; a session of one thread beside
others gets more of the machine than a server that runs one such session a core. Linux alone can pin threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

_TASKS = Path("/proc/self/task")
_CPUS = Path("/sys/devices/system/cpu")


@contextlib.contextmanager
def pinned(count: int) -> Iterator[tuple[int, ...]]:
    """Hold all threads of this process to the first `count` of the cores that the caller may use, and give each its own
    back afterwards; yields the cores, or () where the system cannot hold threads.

    Threads of runtimes' pools are pinned too, whenever they were made. Daemon threads of Python (a progress bar's) are
    left alone, and so find other cores. Runtimes size their pools by the cores that they see when they first run: open
    and warm sessions before.
    """
    if not (hasattr(os, "sched_setaffinity") and _TASKS.is_dir()):
        yield ()
        return
    usable = os.sched_getaffinity(0)
    cores = choose_cores(usable, {core: _siblings(core) for core in usable}, count)
    before = _affinities()
    _pin(dict.fromkeys(before, cores))
    try:
        yield cores
    finally:
        _pin({thread: before.get(thread, usable) for thread in _affinities()})


def choose_cores(usable: Collection[int], siblings: Mapping[int, str], count: int) -> tuple[int, ...]:
    """The first `count` of the usable cores, or all where there are fewer; a second hardware thread of a core comes
    after all first ones. siblings: the same text for all hardware threads of one core."""
    seen: dict[str, int] = {}
    rank = {}
    for core in sorted(usable):
        rank[core] = seen.get(siblings[core], 0)
        seen[siblings[core]] = rank[core] + 1
    return tuple(sorted(sorted(usable, key=lambda core: (rank[core], core))[:count]))


def describe_cores(cores: tuple[int, ...]) -> str:
    """For the notes of a measurement."""
    if not cores:
        return "threads not pinned to cores, which this system cannot"
    return f"all threads pinned to the core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def _siblings(core: int) -> str:
    try:
        return (_CPUS / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(core)


def _affinities() -> dict[int, set[int]]:
    me = threading.get_native_id()
    left_alone = {one.native_id for one in threading.enumerate() if one.daemon and one.native_id != me}
    found = {}
    for thread in {int(task.name) for task in _TASKS.iterdir()} - left_alone:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found[thread] = os.sched_getaffinity(thread)
    return found


def _pin(cores: Mapping[int, Collection[int]]) -> None:
    for thread, allowed in cores.items():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, allowed)
