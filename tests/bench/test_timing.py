"""What every benchmark's figures pass through."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from bench.timing import command, interleave, median, record


def test_every_action_is_timed_in_every_round() -> None:
    calls: list[str] = []
    found = interleave({name: partial(calls.append, name) for name in ("a", "b")}, rounds=20)
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 20, "b": 20}
    assert all(one >= 0 for seconds in found.values() for one in seconds)
    assert [set(calls[at : at + 2]) for at in range(0, 40, 2)] == [{"a", "b"}] * 20
    assert {tuple(calls[at : at + 2]) for at in range(0, 40, 2)} == {("a", "b"), ("b", "a")}
    assert median([5.0, 1.0, 2.0]) == 2.0


def test_a_command_that_fails_is_told_with_its_output() -> None:
    fails = (sys.executable, "-c", "import sys; print('why'); sys.exit(3)")
    command(sys.executable, "-c", "")
    command(*fails, accept=(3,))
    with pytest.raises(SystemExit, match="exit 3\nwhy"):
        command(*fails)


def test_the_record_names_every_cell_by_its_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "bench.x", "--fast"])
    record(tmp_path / "runs" / "x.json", {"T": (("program", "ms"), [("int8", "2.1")])})
    found = json.loads((tmp_path / "runs" / "x.json").read_text())
    assert found["tables"] == {"T": [{"program": "int8", "ms": "2.1"}]}
    assert found["command"] == "python -m bench.x --fast"
    assert "onnxruntime" in found["versions"]
