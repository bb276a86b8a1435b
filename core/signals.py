"""Long jobs that listen: they end in order, or look again, when a signal asks for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130
_USUAL: Mapping[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class _EndAtOnce:
    """What is done at a signal while a command that will listen is still being imported and opened."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.came = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        self.came = True
        raise SystemExit(self.code)


def end_as_later(words: Sequence[str], listening: Mapping[tuple[str, ...], int]) -> None:
    """Let SIGINT and SIGTERM end the process now with the exit code that they give once the command listens, without a
    traceback. words: of the command line; listening: commands that listen -> that exit code. Of any other command only
    SIGINT is looked after, until `interrupt_as_usual`."""
    if "multiprocessing.spawn" in sys.modules:
        return  # a worker of ours imports the main program again, and is to die when it is told to
    code = listening.get(tuple(words[:2]))
    end = _EndAtOnce(INTERRUPTED if code is None else code)
    for number in _USUAL if code is not None else (signal.SIGINT,):
        if signal.getsignal(number) is _USUAL[number]:  # else the program that started us may want it ignored
            signal.signal(number, end)


def interrupt_as_usual() -> None:
    """From here on SIGINT raises KeyboardInterrupt, unless it ends a command that will listen."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and isinstance(signal.getsignal(signal.SIGINT), _EndAtOnce):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def came_early() -> bool:
    """Whether a signal has asked the process to end and somebody's code has swallowed what that raised."""
    return any(isinstance(found, _EndAtOnce) and found.came for found in map(signal.getsignal, _USUAL))


@contextmanager
def stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether SIGINT or SIGTERM came. The first one only asks; the next has its usual
    effect, which everything that runs here survives too."""
    came: list[int] = [0] if came_early() else []
    before = {number: signal.getsignal(number) for number in _USUAL}

    def ask(number: int, _: FrameType | None) -> None:
        came.append(number)
        for signal_number, handler in before.items():
            usual = _USUAL[signal_number] if isinstance(handler, _EndAtOnce) else handler
            signal.signal(signal_number, usual)

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def telling_how_to_go_on(text: str) -> Iterator[None]:
    """Ctrl-C within the block says `text` on standard error and ends the command with code 130; so does a signal that
    `end_as_later` takes while the command does not listen yet, with that command's code."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not came_early():
            raise
        from featherweight.core.terminal import say

        say(text, err=True)
        if isinstance(error, SystemExit):
            raise
        import typer

        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def asking_on_hangup(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` at SIGHUP, where the system has it."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda number, frame: ask())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
