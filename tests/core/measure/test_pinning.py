"""Holding threads to cores, on this process's own threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.measure.pinning import choose_cores, describe_cores, pinned

holds = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or not Path("/proc/self/task").is_dir(),
    reason="this system cannot pin threads to cores",
)


@contextmanager
def waiting_thread(*, daemon: bool) -> Iterator[int]:
    """The native id of a thread that does nothing until the block ends."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=daemon)
    thread.start()
    assert thread.native_id is not None
    yield thread.native_id
    done.set()
    thread.join()


@holds
def test_threads_are_held_and_get_their_own_cores_back() -> None:
    mine = os.sched_getaffinity(0)
    with waiting_thread(daemon=False) as worker, waiting_thread(daemon=True) as bar:
        narrow = {max(mine)}
        os.sched_setaffinity(worker, narrow)
        with pinned(1) as cores, waiting_thread(daemon=False) as young:
            assert os.sched_getaffinity(0) == os.sched_getaffinity(worker) == os.sched_getaffinity(young) == set(cores)
            assert os.sched_getaffinity(bar) == mine
        assert len(cores) == 1
        assert (os.sched_getaffinity(0), os.sched_getaffinity(worker)) == (mine, narrow)


@holds
def test_a_thread_made_meanwhile_is_let_go_and_an_error_lets_all_go() -> None:
    mine = os.sched_getaffinity(0)
    done = threading.Event()
    young = threading.Thread(target=done.wait)
    with suppress(ZeroDivisionError), pinned(1):
        young.start()
        raise ZeroDivisionError
    assert young.native_id is not None
    assert os.sched_getaffinity(young.native_id) == os.sched_getaffinity(0) == mine
    done.set()
    young.join()


@holds
def test_more_threads_than_cores_use_all() -> None:
    with pinned(10_000) as cores:
        assert set(cores) == os.sched_getaffinity(0)


@given(st.dictionaries(st.integers(0, 200), st.integers(0, 20), min_size=1), st.integers(1, 250))
def test_hardware_threads_of_one_core_come_last(core_of: dict[int, int], count: int) -> None:
    found = choose_cores(core_of.keys(), {cpu: str(core) for cpu, core in core_of.items()}, count)
    assert set(found) <= core_of.keys()
    assert len(set(found)) == len(found) == min(count, len(core_of))
    whole = len(set(core_of.values()))
    assert len({core_of[cpu] for cpu in found}) == min(len(found), whole)


def test_the_first_are_taken_in_order() -> None:
    alone = {core: str(core) for core in range(8)}
    assert choose_cores({5, 3, 7, 4}, alone, 2) == (3, 4)
    assert choose_cores(range(4), {0: "0,1", 1: "0,1", 2: "2,3", 3: "2,3"}, 3) == (0, 1, 2)
    assert choose_cores(range(4), {0: "0,1", 1: "0,1", 2: "2,3", 3: "2,3"}, 2) == (0, 2)


def test_words() -> None:
    assert describe_cores((0,)) == "all threads pinned to the core 0"
    assert describe_cores((0, 2)) == "all threads pinned to the cores 0, 2"
    assert "not pinned" in describe_cores(())
