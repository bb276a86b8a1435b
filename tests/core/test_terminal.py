"""What came from outside is shown on terminals, in logs and on pages, and obeyed by none."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.artifact import write_artifact
from featherweight.core.console import show_manifest
from featherweight.core.errors import ArtifactError
from featherweight.core.evidence.reports.templates_env import open_templates
from featherweight.core.terminal import PlainFormatter, open_console, printable, say
from tests.core.artifact.test_artifact import CONTENTS

HOSTILE = (
    "evil\x1b]0;pwned\x07\x1b[2J\r\nok      everything is fine\u202eabc\x9b31m[bold red]x[/bold red]\U000e0041\ud800"
)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not OBEYED.search(shown)
    assert "\n" not in shown
    shown.encode()
    assert printable(shown) == shown
    assert not OBEYED.search(printable(text, lines=True))


@given(st.text())
def test_json_stays_the_same_json(text: str) -> None:
    whole = text.encode("utf-8", "ignore").decode()
    assert json.loads(printable(json.dumps(whole, ensure_ascii=False), lines=True)) == whole


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"])))
def test_letters_of_all_languages_are_shown_as_they_are(text: str) -> None:
    ordinary = "".join(letter for letter in text if letter not in "\u202f\u2000")
    assert printable(ordinary) == ordinary


def test_the_artifact_is_shown_and_obeyed_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = HOSTILE.replace("\ud800", "")
    artifact = write_artifact(tmp_path / "a", replace(CONTENTS, name=hostile, notes=(hostile,), labels=(hostile, "b")))
    show_manifest(artifact.directory, artifact.sha256, artifact.manifest)
    shown = capsys.readouterr().out
    assert not OBEYED.search(shown)
    assert "[bold red]" in shown
    assert not [line for line in shown.splitlines() if line.startswith("ok ")]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_the_commands_show_it_too(tmp_path: Path, command: str) -> None:
    hostile = HOSTILE.replace("\ud800", "")
    write_artifact(tmp_path / "a", replace(CONTENTS, name=hostile, notes=(hostile,)))
    words = [
        sys.executable,
        "-c",
        "from featherweight.core.cli import main; main()",
        "artifact",
        command,
        str(tmp_path / "a"),
    ]
    for more in ([], ["--json"]):
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=120, check=True)
        assert not OBEYED.search(done.stdout + done.stderr)
        if more and command == "show":
            assert json.loads(done.stdout)["manifest"]["name"] == hostile


def test_an_error_that_quotes_what_came_from_outside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from featherweight.core import cli

    with pytest.raises(SystemExit) as ended:
        cli._fail(ArtifactError(HOSTILE))
    assert ended.value.code == 5
    assert not OBEYED.search(capsys.readouterr().err)


def test_a_line_of_the_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    formatter = PlainFormatter("%(levelname)s %(message)s")
    record = logging.makeLogRecord({"msg": "refused: %s", "args": (HOSTILE,), "levelname": "ERROR"})
    line = formatter.format(record)
    assert not OBEYED.search(line)
    assert "\n" not in line
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record.exc_info = sys.exc_info()
    assert not OBEYED.search(formatter.format(record))


def test_console_and_plain_print(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(HOSTILE, f"[link=x]{HOSTILE}[/link]")
    say(HOSTILE)
    assert not OBEYED.search(capsys.readouterr().out)


def test_pages_show_what_turns_letters_around() -> None:
    page = open_templates().from_string("{{ text }}{{ 3 }}{{ '<b>' | safe }}").render(text=HOSTILE)
    assert not OBEYED.search(page)
    assert "\\u202e" in page
    assert page.endswith("3<b>")


def test_a_reset_connection_of_kafka_is_a_line_and_a_fault_of_ours_a_traceback() -> None:
    formatter = PlainFormatter("%(message)s")
    try:
        raise ConnectionResetError("reset")
    except ConnectionResetError:
        trace = sys.exc_info()
    for name, traced in (("kafka.net.transport", False), ("kafkaesque", True), ("featherweight.fraud", True)):
        record = logging.LogRecord(name, logging.ERROR, "", 0, "gone", None, trace)
        assert ("Traceback" in formatter.format(record)) is traced
