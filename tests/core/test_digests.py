from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.digests import DIGESTS, check_digests, write_digests
from core.errors import DataError

NAMES = ("a.bin", "b.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    write_digests(tmp_path, NAMES)
    return tmp_path


def test_what_was_written_together_is_taken(folder: Path) -> None:
    check_digests(folder, NAMES)
    check_digests(folder, NAMES[:1])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_writing_is_not(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"newer")
    with pytest.raises(DataError, match=f"{name} is not the file that was written with the others"):
        check_digests(folder, NAMES)


def test_a_file_that_was_not_written_with_them_is_not_one_of_them(folder: Path) -> None:
    (folder / "c.json").touch()
    with pytest.raises(DataError, match=r"c\.json is not the file"):
        check_digests(folder, ("c.json",))


def test_a_folder_of_a_version_without_digests_is_asked_for_its_files_only(folder: Path) -> None:
    (folder / DIGESTS).unlink()
    check_digests(folder, NAMES)
    (folder / "a.bin").unlink()
    with pytest.raises(DataError, match="found no regular file"):
        check_digests(folder, NAMES)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"x" * 100_000])
def test_digests_that_are_not_are_no_digests(folder: Path, content: bytes) -> None:
    (folder / DIGESTS).write_bytes(content)
    with pytest.raises(DataError):
        check_digests(folder, NAMES)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    for name in ("a.bin", DIGESTS):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(DataError):
            check_digests(folder, NAMES)
