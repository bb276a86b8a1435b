from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from featherweight.apps.imaging.batch.job import JobProgress
from featherweight.apps.imaging.batch.progress import LINE_EVERY_S, describe, format_duration, show_job
from featherweight.core.progress import progress_bar


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3661, "1:01:01"), (90000, "25:00:00")],
)
def test_durations(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_rate_and_time_left_count_only_this_run() -> None:
    progress = JobProgress(items=100, done=60, earlier=40, images=60, rejected=3, elapsed_s=10)
    assert describe(progress) == "2.0 files/s, 0:20 left, 3 rejected"


def test_no_rate_before_it_means_something() -> None:
    assert describe(JobProgress(items=100, done=1, earlier=0, images=1, rejected=0, elapsed_s=0.5)) == ""
    assert describe(JobProgress(items=9, done=9, earlier=9, images=0, rejected=0, elapsed_s=9)) == ""


def show(console: Console) -> None:
    with progress_bar("files", times=False, lines_every_s=LINE_EVERY_S, console=console) as bar:
        shown = show_job(bar)
        for done in range(1, 6):
            shown(JobProgress(items=5, done=done, earlier=0, images=done, rejected=0, elapsed_s=float(done)))


def test_a_log_file_gets_lines_now_and_then() -> None:
    out = io.StringIO()
    show(Console(file=out))
    assert out.getvalue() == "1 of 5 files\n"


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    show(Console(file=out, force_terminal=True, width=100))
    assert "5/5" in out.getvalue()
    assert "1.0 files/s, 0:00 left" in out.getvalue()


def test_help_is_quick_because_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys, featherweight.apps.imaging.cli\n"
        "heavy = {'numpy', 'onnxruntime', 'pyarrow', 'pydicom', 'PIL', 'jinja2', 'torch'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
