"""The pool with real processes: killed, stopped, starved of memory, orphaned. Only the guilty item is rejected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from featherweight.apps.imaging.batch.decode import DecodePool
from featherweight.apps.imaging.frames import Frame, RejectedFrame
from featherweight.apps.imaging.readers import Item, read_frames
from featherweight.apps.imaging.sealed import Preprocess

PREPROCESS = Preprocess(side=32)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    found = []
    for index in range(40):
        path = tmp_path / f"{index:02d}.png"
        Image.fromarray(np.full((64, 64), index, dtype=np.uint8)).save(path)
        found.append(Item(path.name, path))
    return found


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Item:
    """Half a second of work and 64 MB: a large PNG."""
    path = tmp_path_factory.mktemp("slow") / "slow.png"
    tile = np.random.default_rng(0).integers(0, 256, (1000, 1000), dtype=np.uint8)
    Image.fromarray(np.tile(tile, (8, 8))).save(path, compress_level=1)
    return Item(path.name, path)


def workers() -> list[psutil.Process]:
    """Children of the fork server, this process' child."""
    found = []
    for server in psutil.Process().children():
        if any("forkserver" in part for part in server.cmdline()):
            found += [child for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]
    return found


def wait_for_workers(count: int) -> list[psutil.Process]:
    for _ in range(500):
        if len(found := workers()) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"found {len(workers())} workers, expected {count}")


def test_gives_in_order_what_reading_here_gives(items: list[Item]) -> None:
    (items[7].path).write_bytes(b"no image")
    items[9].path.unlink()
    with DecodePool(PREPROCESS, workers=2) as pool:
        for item, decoded in zip(items, pool.decode(items), strict=True):
            (found,), (expected,) = decoded, read_frames(item, PREPROCESS)
            assert found.id == expected.id
            if isinstance(expected, Frame):
                assert isinstance(found, Frame)
                np.testing.assert_array_equal(found.pixels, expected.pixels)
            else:
                assert found == expected
    assert not workers()


def test_takes_no_more_items_than_it_has_room_for(items: list[Item]) -> None:
    taken = 0

    def counted() -> Iterator[Item]:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    with DecodePool(PREPROCESS, workers=2) as pool:
        decoded = pool.decode(counted())
        next(decoded)
        time.sleep(0.3)
        assert taken <= 8
        assert len(list(decoded)) == len(items) - 1
    assert taken == len(items)


def test_workers_killed_at_any_moment_lose_nothing(items: list[Item]) -> None:
    done = threading.Event()

    def reap() -> None:
        # Far enough apart that the second try of an item is over, however busy the machine is.
        while not done.wait(0.8):
            for worker in workers()[:1]:
                worker.kill()

    with DecodePool(PREPROCESS, workers=2) as pool:
        decoded = pool.decode(items * 30)
        next(decoded)
        killer = threading.Thread(target=reap)
        killer.start()
        try:
            found = list(decoded)
        finally:
            done.set()
            killer.join()
    assert len(found) == len(items) * 30 - 1
    assert not [row for (row,) in found if isinstance(row, RejectedFrame)]


def test_an_item_that_kills_twice_is_rejected_and_the_next_is_not(slow: Item, items: list[Item]) -> None:
    with DecodePool(PREPROCESS, workers=1) as pool:
        decoded = pool.decode([slow, *items[:3]])
        killed = []

        def kill_twice() -> None:
            for _ in range(2):
                worker = next(w for w in iter_new(killed))
                time.sleep(0.2)  # it has begun
                worker.kill()
                killed.append(worker.pid)

        def iter_new(old: list[int]) -> Iterator[psutil.Process]:
            while True:
                yield from (w for w in wait_for_workers(1) if w.pid not in old)

        killer = threading.Thread(target=kill_twice)
        killer.start()
        (rejected,) = next(decoded)
        killer.join()
        assert isinstance(rejected, RejectedFrame)
        assert rejected.reason == "decoder-crashed"
        assert "SIGKILL" in rejected.message
        assert rejected.id.source == slow.source
        assert all(isinstance(frame, Frame) for (frame,) in decoded)


def test_a_worker_that_does_not_answer_is_given_up(items: list[Item]) -> None:
    with DecodePool(PREPROCESS, workers=1, timeout_s=3) as pool:
        decoded = pool.decode(items[:1] * 50 + items[1:3])
        next(decoded)
        for worker in workers():
            worker.send_signal(signal.SIGSTOP)
        found = [row for (row,) in decoded]
        stopped = [row for row in found if isinstance(row, RejectedFrame)]
        assert [row.reason for row in stopped] == ["timeout"]
        assert isinstance(found[-1], Frame)


def test_a_file_beyond_the_memory_limit_fails_alone(slow: Item, items: list[Item]) -> None:
    with DecodePool(PREPROCESS, workers=1, memory_bytes=50 << 20) as pool:
        found = [row for (row,) in pool.decode([items[0], slow, items[1]])]
    assert isinstance(found[0], Frame)
    assert isinstance(found[1], RejectedFrame)
    assert found[1].reason in ("out-of-memory", "decoder-crashed")
    assert isinstance(found[2], Frame)


def test_the_fork_server_itself_killed(items: list[Item]) -> None:
    with DecodePool(PREPROCESS, workers=2) as pool:
        decoded = pool.decode(items * 3)
        next(decoded)
        for server in psutil.Process().children():
            if any("forkserver" in part for part in server.cmdline()):
                for worker in server.children():
                    worker.kill()
                server.kill()
        assert all(isinstance(frame, Frame) for (frame,) in decoded)


def test_leaving_early_ends_the_workers(slow: Item) -> None:
    def interrupted() -> None:
        with DecodePool(PREPROCESS, workers=2) as pool:
            next(pool.decode([slow] * 100))
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - start < 20
    assert not workers()


SCRIPT = """
import sys, time
from pathlib import Path
from featherweight.apps.imaging.batch.decode import DecodePool
from featherweight.apps.imaging.readers import Item
from featherweight.apps.imaging.sealed import Preprocess

if __name__ == "__main__":
    with DecodePool(Preprocess(side=32), workers=2) as pool:
        for decoded in pool.decode([Item("x", Path(sys.argv[1]))] * 8):
            print("decoded", flush=True)
        time.sleep(60)
"""


def test_workers_do_not_outlive_a_killed_main_process(items: list[Item], tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script, items[0].path], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"decoded\n"
        family = psutil.Process(job.pid).children(recursive=True)
        assert len(family) >= 3  # the fork server (with its resource tracker) and two workers
        # An interrupt at the terminal reaches all of them; the workers leave it to the main process.
        for process in family:
            process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert sum(process.is_running() for process in family) >= 3
        os.kill(job.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
