"""Decoding in worker processes, which may crash, hang or be killed without ending the job.

Image codecs are C code that reads hostile bytes; here they die alone. One thread a worker hands it an item, waits for
its frames, and replaces it when it dies:

    killed or crashed          the item is tried once more in a fresh worker: somebody may have killed it by chance
    crashed again              RejectedFrame "decoder-crashed"
    no answer in `timeout_s`   RejectedFrame "timeout", the worker is killed

Each worker has a pipe of its own. The standard library's process pools share one between all workers, and a worker
killed while it writes a result there (200 kB a frame, so that is likely) leaves half a message and a locked pipe to the
others.

Workers come from a fork server, which has imported the codecs and nothing else: a new one starts in milliseconds, and
the threads of an inference engine in the main process are never forked. As ever with multiprocessing, a script that
uses this needs `if __name__ == "__main__":`.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import TracebackType

from featherweight.apps.imaging.frames import Decoded, FrameId, RejectedFrame
from featherweight.apps.imaging.readers import DEFAULT_LIMITS, Item, Limits, read_frames
from featherweight.apps.imaging.sealed import Preprocess
from featherweight.core.errors import FeatherweightError
from featherweight.core.processes import safe_path

_PRELOAD = [
    "__main__",
    "psutil",
    "featherweight.apps.imaging.readers.dicom",
    "featherweight.apps.imaging.readers.raster",
]
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_ATTEMPTS = 2
_STARTS = 3
_LOOK_AHEAD = 4
"""Items per worker that are decoded before anybody asks for them; bounds the memory of a slow consumer."""


WORKER_BYTES = 1408 << 20
"""With two workers, their code and the main process this stays below the 4 GiB of docs/operations.md."""


class DecodePool:
    """A context manager: `with DecodePool(preprocess, workers=2) as pool: for frames in pool.decode(items): ...`.

    memory_bytes: what decoding may add to a worker's address space. The readers refuse what would need more
    (`Limits.memory_bytes`); this holds what they did not foresee, so that it fails alone.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        workers: int,
        timeout_s: float = 60,
        memory_bytes: int = WORKER_BYTES,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._settings = (preprocess, limits, memory_bytes)
        self._timeout_s = timeout_s
        self._count = workers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        with safe_path(), _one_thread_each():
            forkserver.ensure_running()
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._workers: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._workers.put(None)

    def __enter__(self) -> DecodePool:
        """Start the workers; returns at once, while they import."""
        for _ in range(self._count):
            self._threads.submit(self._warm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for _ in range(self._count):
            if worker := self._workers.get():
                worker.kill()

    def decode(self, items: Iterable[Item]) -> Iterator[list[Decoded]]:
        """What each item gave, in the order of `items`; `items` is taken from as room becomes free, never all at
        once."""
        source = iter(items)
        running: deque[Future[list[Decoded]]] = deque()
        try:
            while True:
                room = self._count * _LOOK_AHEAD - len(running)
                running.extend(self._threads.submit(self._decode_item, item) for item in islice(source, room))
                if not running:
                    return
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def _warm(self) -> None:
        worker = self._workers.get()
        try:
            worker = worker or self._start()
        finally:
            self._workers.put(worker)

    def _start(self) -> _Worker:
        for attempt in range(_STARTS):
            try:
                return _Worker(self._context, self._settings)
            except (OSError, EOFError) as error:
                cause = f"{type(error).__name__}: {error}"
                # A fork server that was killed is found dead, and replaced, only when it is asked again.
                self._closing.wait(0.1 * (attempt + 1))
        raise FeatherweightError(f"cannot start a decoding process ({cause}); is the machine short of memory?")

    def _decode_item(self, item: Item) -> list[Decoded]:
        worker = self._workers.get()
        try:
            for _ in range(_ATTEMPTS):
                if worker is None or not worker.alive:
                    worker = self._start()
                try:
                    return worker.ask(item, self._timeout_s, self._closing)
                except TimeoutError:
                    worker.kill()
                    message = f"no result within {self._timeout_s:g} s; the worker was killed"
                    return [RejectedFrame(FrameId(item.source, 0), "timeout", message)]
                except (EOFError, OSError):
                    ended = worker.kill()
            message = f"the decoding process ended unexpectedly {_ATTEMPTS} times ({_ending(ended)})"
            return [RejectedFrame(FrameId(item.source, 0), "decoder-crashed", message)]
        finally:
            self._workers.put(worker)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """A fork server that is started within the block has numpy's matrix products done by one thread: there is a worker
    for every core."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_BLAS_THREADS]
        else:
            os.environ[_BLAS_THREADS] = before


class _Worker:
    """A process and the pipe to it."""

    _starting = threading.Lock()  # multiprocessing's book of children is not meant for several threads

    def __init__(
        self, context: multiprocessing.context.ForkServerContext, settings: tuple[Preprocess, Limits, int]
    ) -> None:
        with self._starting:
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, *settings), name="decode", daemon=True)
            self._process.start()
            theirs.close()  # else the end of the worker would not end the pipe
        self.alive = True

    def ask(self, item: Item, timeout_s: float, closing: threading.Event) -> list[Decoded]:
        """Raises TimeoutError, or EOFError or OSError when the worker has ended."""
        self._pipe.send(item)
        waited, step = 0.0, min(timeout_s, 0.5)
        while not self._pipe.poll(step):
            waited += step
            if waited >= timeout_s or closing.is_set():
                raise TimeoutError
        decoded: list[Decoded] = self._pipe.recv()
        return decoded

    def kill(self) -> int | None:
        """End the process; returns its exit code, negative for a signal."""
        self.alive = False
        self._pipe.close()
        self._process.join(0.1)  # one that ended by itself keeps its own exit code
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return self._process.exitcode


def _ending(code: int | None) -> str:
    """The fork server reports signals as negative codes."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(pipe: Connection[list[Decoded], Item], preprocess: Preprocess, limits: Limits, memory_bytes: int) -> None:
    """A worker's life: items in, frames out, until the pipe closes (the main process has ended or let it go)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides what an interrupt means
    # Codecs complain to standard error on their own, between the lines of a progress bar; the results say what matters.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import psutil  # the fork server has it; the main process may do without

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + memory_bytes
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    # glibc hands large blocks back when they are freed, and every image would fault its pages in anew (a sixth of the
    # time of a JPEG). It keeps blocks as large as the largest that it saw freed, up to 32 MiB.
    bytearray(31 << 20)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(list(read_frames(item, preprocess, limits)))
