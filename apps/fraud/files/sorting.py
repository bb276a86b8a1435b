"""Rows put in another order, in bounded memory: sorted runs, which are merged.

A file that is not in the order of time is sorted by it first, and its decisions are sorted back. What does not fit into
memory goes into files without a name, so that nothing is left behind however the process ends."""

from __future__ import annotations

import contextlib
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import IO, Final

from featherweight.core.files import write_errors

Item = tuple[int, bytes]
"""What to sort by, and what is sorted."""

RUN_BYTES: Final = 64 << 20
"""What is held in memory before it becomes a run."""
RUNS: Final = 128
"""Each is an open file; so many become one."""
_ITEM_BYTES: Final = 160
"""What Python takes for an item beside its content."""
_BUFFER_BYTES: Final = 1 << 16
_HEAD: Final = Struct("<qI")
_REMEDY: Final = "it needs as much space as the rows take, twice; or sort them by time_ms before"
_key = itemgetter(0)


def sort_items(items: Iterable[Item], folder: Path) -> Iterator[Item]:
    """By the first value of each, those of the same in the order in which they came. Runs are written into `folder`.
    Raises OutputError."""
    with contextlib.ExitStack() as opened:
        runs: list[IO[bytes]] = []
        held: list[Item] = []
        held_bytes = 0
        for item in items:
            held.append(item)
            held_bytes += len(item[1]) + _ITEM_BYTES
            if held_bytes >= RUN_BYTES:
                held.sort(key=_key)
                runs.append(_write_run(held, folder, opened))
                held.clear()
                held_bytes = 0
                if len(runs) == RUNS:
                    runs = [_write_run(_merge(runs), folder, opened)]
        held.sort(key=_key)
        yield from heapq.merge(_merge(runs), held, key=_key) if runs else held


def _merge(runs: list[IO[bytes]]) -> Iterator[Item]:
    """Items of all runs in order. Of items with the same key, those of an earlier run come first. Each run is closed at
    its end."""
    return heapq.merge(*map(_read_run, runs), key=_key)


def _write_run(items: Iterable[Item], folder: Path, opened: contextlib.ExitStack) -> IO[bytes]:
    with write_errors(folder, "rows cannot be put in the order of time here", _REMEDY):
        run: IO[bytes] = tempfile.TemporaryFile(buffering=_BUFFER_BYTES, dir=folder)  # noqa: SIM115  (see the next line)
        opened.callback(_close, run)
        for key, content in items:
            run.write(_HEAD.pack(key, len(content)))
            run.write(content)
        run.seek(0)
    return run


def _close(run: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk has been reported already
        run.close()


def _read_run(run: IO[bytes]) -> Iterator[Item]:
    with run:
        while head := run.read(_HEAD.size):
            key, size = _HEAD.unpack(head)
            yield key, run.read(size)
