"""Long jobs that listen: they end in order, or look again, when a signal asks for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether SIGINT or SIGTERM came. The first one only asks; the next has its usual
    effect, which everything that runs here survives too."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        came.append(number)
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def telling_how_to_go_on(text: str) -> Iterator[None]:
    """Ctrl-C within the block says `text` on standard error and ends the command with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        import typer

        from core.terminal import say

        say(text, err=True)
        raise typer.Exit(130) from None


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
