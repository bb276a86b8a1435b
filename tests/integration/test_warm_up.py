"""The first use on a host: what is compiled is told, can be compiled beforehand, and comes after slips are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fraud.files.test_job import write_lines
from tests.fraud.serving import COMMAND, make_transactions

TOLD = "compiling for this processor, which takes up to a minute"


def featherweight(*words: str, cache: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(COMMAND, *words, cache=cache, cwd=cwd)


def run(program: str, *words: str, cache: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_what_is_compiled_is_told_once_and_kept(tmp_path: Path) -> None:
    module = "featherweight.apps.fraud.kafka.records"
    program = f"from {module} import encode_records; encode_records([(b'k', b'v')]); print('done')"
    first, second = (run(program, cache=tmp_path, cwd=tmp_path) for _ in range(2))
    assert first.stdout == second.stdout == "done\n"
    assert f"{TOLD} and is kept in {tmp_path / 'featherweight' / 'numba'}" in first.stderr
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""


def test_warming_up_again_compiles_nothing() -> None:
    """In the cache of whoever runs the tests; the first time it is for all of them."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "warm-up"], capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("all was compiled already: ")
    assert done.stderr == ""


@pytest.mark.slow
def test_what_is_warmed_up_is_never_compiled_again(tmp_path: Path) -> None:
    """Score with labels and a kept state, twice, and serve: all that is compiled at some time of theirs."""
    cache = tmp_path / "cache"
    warmed = featherweight("warm-up", cache=cache, cwd=tmp_path)
    assert warmed.returncode == 0, warmed.stderr
    assert f"{TOLD} and is kept in {cache / 'featherweight' / 'numba'}" in warmed.stderr
    assert warmed.stderr.count("\n") == 1
    assert "functions compiled in" in warmed.stdout
    assert str(cache / "featherweight" / "numba") in warmed.stdout
    again = featherweight("warm-up", cache=cache, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("all was compiled already: ")
    write_lines(tmp_path / "in.jsonl", make_transactions(50))
    score = ["fraud", "score", "--input", "in.jsonl", "--output", "out.jsonl", "--state-dir", "histories"]
    for _ in range(2):
        scored = featherweight(*score, "--max-histories", "5", cache=cache, cwd=tmp_path)
        assert scored.returncode == 0, scored.stderr
        assert "compiling" not in scored.stderr


SLIPS = {
    "input": ["score", "--input", "nowhere.jsonl", "--output", "out"],
    "labels": ["score", "--input", "in.jsonl", "--labels", "nowhere.jsonl", "--output", "out"],
    "folder as input": ["score", "--input", ".", "--output", "out"],
    "output": ["score", "--input", "in.jsonl", "--output", "nowhere/out"],
    "output is a folder": ["score", "--input", "in.jsonl", "--output", "folder"],
    "output is the input": ["score", "--input", "in.jsonl", "--output", "in.jsonl"],
    "state": ["score", "--input", "in.jsonl", "--output", "out", "--state-dir", "in.jsonl/histories"],
    "model": ["score", "--input", "in.jsonl", "--output", "out", "--model", "nowhere"],
    "state of a service": ["serve", "--state-dir", "in.jsonl"],
    "model of a service": ["serve", "--model", "nowhere", "--port", "0"],
    "keys": ["serve", "--api-keys", "nowhere"],
    "security": ["stream", "--bootstrap-servers", "127.0.0.1:9", "--client-config", "nowhere"],
    "model of a stream": ["stream", "--bootstrap-servers", "127.0.0.1:9", "--model", "nowhere"],
    "data": ["train", "--data", "nowhere", "--out", "model"],
    "out": ["train", "--data", ".", "--out", "in.jsonl/model"],
}


EACH = """
import contextlib, io, json, sys
from featherweight.core.cli import main
for words in json.loads(sys.stdin.read()):
    sys.argv = ["featherweight", "fraud", *words]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try: main()
        except SystemExit as end: code = end.code
    print(json.dumps([code, said.getvalue()]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Name of a slip -> exit code and message, in one process with an empty cache."""
    folder = tmp_path_factory.mktemp("slips")
    write_lines(folder / "in.jsonl", make_transactions(3))
    (folder / "folder").mkdir()
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        input=json.dumps(list(SLIPS.values())),
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(folder.rglob("*")) == before
    return dict(zip(SLIPS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_told_before_anything_is_compiled(name: str, told: dict[str, tuple[int, str]]) -> None:
    code, said = told[name]
    assert code in (2, 5, 6)
    assert said.startswith("error: ")
    assert "compiling" not in said


def test_where_nothing_can_be_kept_warming_up_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = featherweight("warm-up", cache=tmp_path / "file", cwd=tmp_path)
    assert told.returncode == 6
    assert "cannot be written" in told.stderr
    assert "compiling" not in told.stderr
