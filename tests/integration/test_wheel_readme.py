"""The wheel carries the README alone: it is read where no file stands beside it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from tests.integration.conftest import ROOT

LINK = re.compile(r"!?\[([^\]]*)\]\(([^)]*)\)")


def test_the_wheels_readme_has_no_link_to_a_file_that_is_not_there(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        head, _, readme = archive.read(name).decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert [target for _, target in LINK.findall(readme) if not target.startswith("https://")] == []
    source = (ROOT / "README.md").read_text()
    assert len(LINK.findall(source)) > 20
    # Only the links are gone, not what they say.
    plain = re.sub(r"!\[[^\]]*\]\([^)]*\)\n\n", "", source)
    assert readme.strip() == LINK.sub(lambda link: link[1], plain).strip()


def test_the_sources_readme_links_to_files_that_are_there() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for _, target in LINK.findall(path.read_text()):
            name = target.partition("#")[0]
            assert target.startswith("https://") or not name or (path.parent / name).exists(), f"{path}: {target}"
