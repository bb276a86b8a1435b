"""One bar for every command that takes long, on standard error, and nothing of it where nobody looks."""

from __future__ import annotations

import ast
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from featherweight.core.progress import progress_bar, silent


def show(console: Console, unit: str = "steps", **options: bool | float) -> None:
    with progress_bar(unit, console=console, **options) as bar:  # type: ignore[arg-type]
        bar("search: [fp32] begins", 0, 2000)
        bar("search: [int8]", 2000, 2000, "3 left")
        bar("reading", 1234)
        bar.say("epoch [1]")


def terminal(width: int = 120) -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    return out, Console(file=out, force_terminal=True, width=width, no_color=True)


def test_a_terminal_gets_a_bar_for_each_stage() -> None:
    out, console = terminal()
    show(console)
    shown = out.getvalue()
    last = shown[shown.rindex("search") :]
    for text in ("[int8]", "2,000/2,000", "3 left", "reading", "1,234 steps"):
        assert text in last
    assert last.count("search") == 1  # what comes after a colon is the same stage
    assert "epoch" in shown


def test_bytes_are_shown_with_their_unit() -> None:
    out, console = terminal()
    with progress_bar("bytes", console=console) as bar:
        bar("file.npz", 1_500_000, 4_000_000)
    assert "1.5 MB/4.0 MB" in out.getvalue()


@pytest.mark.parametrize("width", [20, 40, 59])
def test_a_narrow_terminal_keeps_stage_and_count_on_one_line(width: int) -> None:
    out, console = terminal(width)
    with progress_bar(console=console) as bar:
        bar("measuring", 7, 9, "a detail that has no room")
    lines = out.getvalue().replace("\r", "\n").split("\n")
    assert any("measuring" in line and "7/9" in line for line in lines)
    assert "detail" not in out.getvalue()


@pytest.mark.parametrize("every_s", [None, 60.0])
def test_without_a_terminal_there_are_lines_or_nothing(every_s: float | None) -> None:
    out = io.StringIO()
    with progress_bar("files", lines_every_s=every_s, console=Console(file=out)) as bar:
        bar("classifying", 1, 5, "2 rejected")
        bar("classifying", 2, 5)
    assert out.getvalue() == ("" if every_s is None else "1 of 5 files, 2 rejected\n")


def test_what_is_said_stays_also_without_a_terminal() -> None:
    out = io.StringIO()
    show(Console(file=out))
    assert out.getvalue() == "epoch [1]\n"
    silent("reading", 1, 2)


CODE = """
from featherweight.core.progress import progress_bar
with progress_bar() as bar:
    bar("working", 1, 2)
print("result")
"""


@pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, None)])
def test_only_standard_error_has_the_bar_and_no_color_is_obeyed(
    settings: dict[str, str], coloured: bool | None
) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    ended = subprocess.run(
        [sys.executable, "-c", CODE],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color", **settings},
        check=True,
        timeout=60,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # how Linux ends a terminal that nobody else has open
        pass
    os.close(ours)
    assert ended.stdout == b"result\n"
    assert (b"working" in shown) == (coloured is not None)
    assert (b"\x1b[38;5" in shown or b"\x1b[3" in shown) == bool(coloured)


def test_nobody_else_draws_a_bar() -> None:
    root = Path(__file__).parents[2]
    drawing = set()
    for path in (path for folder in ("core", "apps") for path in (root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if any(isinstance(node, ast.ImportFrom) and node.module == "rich.progress" for node in ast.walk(tree)):
            drawing.add(path.relative_to(root).as_posix())
    assert drawing == {"core/progress.py"}
