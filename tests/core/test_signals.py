"""Asked to end at any moment, also while it still imports, a command ends with the code that it ends with later."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featherweight.core import cli

# As the installed script; and tells when the handlers are there, before anything slow is imported.
EARLY = """
import sys
sys.argv = ["featherweight", *sys.argv[1:]]
import featherweight.core.signals as signals
install = signals.end_as_later
def told(*given):
    install(*given)
    print("listening", flush=True)
    {pause}
signals.end_as_later = told
from featherweight.core.cli import main
main()
"""
PAUSE = "import time; time.sleep(30)"


def run(words: list[str], number: signal.Signals, folder: Path, *, pause: str = PAUSE) -> tuple[int, str]:
    """(exit code, standard error) of a command that gets the signal as soon as it can hear it."""
    process = subprocess.Popen(
        [sys.executable, "-c", EARLY.format(pause=pause), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("words", "code"), cli._LISTENING.items())
def test_while_it_imports_it_ends_as_later(
    words: tuple[str, str], code: int, number: signal.Signals, tmp_path: Path
) -> None:
    assert run([*words, "--help"], number, tmp_path) == (code, "")


@pytest.mark.parametrize("words", [["hardware"], ["fraud", "score", "--help"], []])
def test_other_commands_are_interrupted_without_a_traceback(words: list[str], tmp_path: Path) -> None:
    assert run(words, signal.SIGINT, tmp_path) == (130, "")
    assert run(words, signal.SIGTERM, tmp_path) == (-signal.SIGTERM, "")


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_its_first_half_second_a_service_ends_well(number: signal.Signals, delay_s: float, tmp_path: Path) -> None:
    pause = f"import os, threading; threading.Timer({delay_s}, os.kill, (os.getpid(), {int(number)})).start()"
    process = subprocess.Popen(
        [sys.executable, "-c", EARLY.format(pause=pause), "fraud", "serve", "--port", "0", "--state-dir", "histories"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_what_somebody_ignores_stays_ignored(tmp_path: Path) -> None:
    """As under nohup, or a shell's job in the background."""
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + EARLY.format(
        pause="import os, signal; os.kill(os.getpid(), signal.SIGINT); print('goes on', flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "hardware", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_the_model_is_read_it_says_that_the_command_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.argv = ["featherweight", "imaging", "classify", {str(tmp_path)!r}, "--out", {str(tmp_path / "out")!r}]
from featherweight.core.cli import main
import featherweight.apps.imaging.classify
featherweight.apps.imaging.classify.read_model = lambda *given, **more: os.kill(os.getpid(), {int(number)})
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr == "interrupted; what is classified is kept, and the same command goes on\n"


def test_a_second_signal_has_its_usual_effect(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from featherweight.core.signals import end_as_later, stopping_on_signals
end_as_later(["fraud", "stream"], {("fraud", "stream"): 0})
with stopping_on_signals() as stopping:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopping()
    print("asked", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "asked\n"), done.stderr


def test_a_signal_that_somebody_has_swallowed_is_not_lost(tmp_path: Path) -> None:
    program = """
import os, signal
from featherweight.core.signals import end_as_later, stopping_on_signals
end_as_later(["fraud", "stream"], {("fraud", "stream"): 0})
try:
    os.kill(os.getpid(), signal.SIGTERM)
except SystemExit:
    pass
with stopping_on_signals() as stopping:
    print(stopping())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
