"""Files that are opened only where they are what they should be, and the one place that words the system's errors."""

from __future__ import annotations

import ast
import errno
import os
import socket
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from featherweight.core import files
from featherweight.core.errors import FeatherweightError, OutputError, UsageError


@pytest.mark.parametrize("nofollow", [files._NOFOLLOW, 0], ids=["as here", "a system without O_NOFOLLOW"])
def test_only_a_regular_file_is_opened(nofollow: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_NOFOLLOW", nofollow)
    (tmp_path / "file").write_bytes(b"content")
    with files.open_regular(tmp_path / "file") as opened:
        assert opened.read() == b"content"
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match=r"link|regular|symbolic"):
            files.open_regular(tmp_path / name)


HOLDER = """
import sys
from pathlib import Path
from featherweight.core.files import writing_alone

with writing_alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    """Also by another name for it; a lock that a killed process left is taken, and none stays behind."""
    out = tmp_path / "models" / "chest"
    (tmp_path / "link").symlink_to(tmp_path / "models")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    for name in (out, tmp_path / "link" / "chest"):
        with pytest.raises(UsageError, match="another process writes there"), files.writing_alone(name):
            pass
    with files.writing_alone(tmp_path / "models" / "other"):
        pass
    holder.kill()
    holder.communicate()
    with files.writing_alone(out):
        assert [path.name for path in out.parent.iterdir()] == [".chest.lock"]
    assert list(out.parent.iterdir()) == []


def test_folders_above_that_nothing_came_into_are_not_left(tmp_path: Path) -> None:
    with pytest.raises(UsageError), files.writing_alone(tmp_path / "a" / "b" / "out"):
        raise UsageError("no such recipe")
    assert list(tmp_path.iterdir()) == []
    with files.writing_alone(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "b" / "out").mkdir()
    assert list((tmp_path / "a" / "b").iterdir()) == [tmp_path / "a" / "b" / "out"]


def test_a_link_to_nowhere_is_locked_where_it_stands(tmp_path: Path) -> None:
    """`atomic_write` puts its file in the place of the link."""
    (tmp_path / "out.jsonl").symlink_to("/proc/1/nosuchdir/out.jsonl")
    with files.writing_alone(tmp_path / "out.jsonl"):
        assert (tmp_path / ".out.jsonl.lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "take_record_lock", refused)
    with files.writing_alone(tmp_path / "out"):
        assert list(tmp_path.iterdir()) == []


def test_the_root_of_all_folders_has_a_lock_of_its_own() -> None:
    with files.writing_alone(Path("/")):
        assert Path("/.lock").exists()
    assert not Path("/.lock").exists()


@pytest.mark.parametrize(
    ("block", "error", "told"),
    [
        (files.write_errors("out"), OSError(28, "No space left on device"), "out: cannot be written (No space left"),
        (files.read_errors("in", remedy="look again"), OSError(5, "Input/output error"), "in: cannot be read (Input/"),
        (files.read_errors("in"), OSError("without a number"), "in: cannot be read (without a number)"),
        (files.read_errors("in", also=(ValueError,)), ValueError("not a path"), "in: cannot be read (not a path)"),
        (
            files.read_errors("in", also=(ValueError,)),
            UnicodeDecodeError("utf-8", b"secret\xff", 6, 7, "invalid start byte"),
            "in: cannot be read (it is not UTF-8)",
        ),
    ],
)
def test_what_the_system_refuses_becomes_one_error(
    block: AbstractContextManager[None], error: Exception, told: str
) -> None:
    with pytest.raises(FeatherweightError) as caught, block:
        raise error
    assert told in str(caught.value)
    assert caught.value.__cause__ is error
    assert caught.value.exit_code == (6 if told.startswith("out") else 2)


def test_the_nearest_block_has_the_word_and_others_pass(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="inner"), files.write_errors("outer"), files.write_errors("inner"):
        raise OSError(28, "No space left on device")
    with pytest.raises(ValueError, match="ours"), files.write_errors("out"):
        raise ValueError("ours")
    with pytest.raises(BrokenPipeError), files.write_errors("standard output"):
        raise BrokenPipeError  # whoever read it has left, and nobody is to be told
    with pytest.raises(UsageError, match="busy"), files.lock_errors(tmp_path, "busy"):
        raise BlockingIOError


@pytest.mark.parametrize("made", [False, True])
def test_a_write_that_fails_is_told_with_the_path_and_leaves_nothing(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "folder" / "file"
    if made:
        path.mkdir(parents=True)  # what cannot be replaced by a file
    with pytest.raises(OutputError) as caught, files.atomic_write(path, "the file cannot be kept") as partial:
        partial.write_text("new")
    assert str(caught.value).startswith(f"{path}: the file cannot be kept (")
    assert "partial" not in str(caught.value)
    assert [found.name for found in tmp_path.rglob("*")] == (["folder", "file"] if made else [])


def test_a_write_makes_the_folder_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    with files.atomic_write(path, make_folder=True) as partial:
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_what_stands_at_a_path_has_a_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        names = {path.name: files.describe_kind(path.lstat().st_mode) for path in tmp_path.iterdir()}
    assert names == {"pipe": "a pipe", "link": "a link", "file": "a regular file", "socket": "a socket"}
    assert files.describe_kind(Path("/dev/null").stat().st_mode) == "a device"
    assert files.describe_kind(tmp_path.stat().st_mode) == "a folder"


ROOT = Path(__file__).parents[2]
SYSTEM = {"OSError", "IOError", "EnvironmentError"}
# Each says more than that a file cannot be read or written, and why.
WORDED_APART = {
    "core/parity/avx2.py": "a process that gives no answer",
    "core/compare/parquet.py": "what Arrow says of a table may quote a value of it",
    "core/measure/energy.py": "a counter, whose loss is a note of the measurement",
    "apps/fraud/http/server.py": "an address",
    "apps/imaging/batch/decode.py": "a process that does not start",
    "apps/imaging/readers/__init__.py": "a reason of its own for each cause: a row, no error of the job",
}


def _worded(source: str) -> bool:
    """Whether a handler of OSError raises an error of its own making."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
            raised = (found for inner in node.body for found in ast.walk(inner) if isinstance(found, ast.Raise))
            if caught & SYSTEM and any(one.exc is not None for one in raised):
                return True
    return False


def test_an_oserror_is_put_into_words_in_one_place() -> None:
    modules = [path for folder in ("core", "apps") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in modules if _worded(path.read_text("utf-8"))}
    assert found - WORDED_APART.keys() == set(), "use write_errors, read_errors or atomic_write of core.files"
    assert found <= WORDED_APART.keys()
    assert len(modules) > 200
