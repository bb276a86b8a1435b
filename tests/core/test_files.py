"""Files that are opened only where they are what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featherweight.core import files


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
