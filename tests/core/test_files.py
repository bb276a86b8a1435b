"""Files that are opened only where they are what they should be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import files
from core.errors import UsageError


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
from core.files import writing_alone

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
