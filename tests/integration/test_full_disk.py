"""The output's disk fills up at every stage of the job; with room again, the same command ends it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imaging.running import read_rows, run
from tests.imaging.tiny import write_images

COUNT = 150
DISK_BYTES = 2_000_000


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected")
    assert run(images, out, model).returncode == 0
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(point)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("room", [0, 8_000, 50_000, 120_000, 250_000, 400_000])
def test_full_at_any_point_and_resumed(room: int, disk: Path, images: Path, model: Path, expected: Path) -> None:
    """With growing room it fails when the folder is made, in the journal, in the tables, in the page."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * max(0, free_bytes(disk) - room))
    full = run(images, disk / "out", model)
    assert full.returncode == 6, full.stdout + full.stderr
    assert "Traceback" not in full.stderr
    assert "same command" in " ".join(full.stderr.split()) or room == 0
    assert not (disk / "out" / "summary.json").exists()
    assert not list(disk.glob("out/*partial*"))
    filler.unlink()
    ended = run(images, disk / "out", model)
    assert ended.returncode == 0, ended.stderr
    assert read_rows(disk / "out") == read_rows(expected)


def test_a_folder_that_may_not_be_made(images: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(images, tmp_path / "file" / "out", model)
    assert ended.returncode == 6
    assert "choose another --out" in " ".join(ended.stderr.split())
