"""The pages in a browser: axe-core finds nothing, nothing is wider than a phone, and the keyboard shows where it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.core.evidence.reports.changed_cases import write_cases
from featherweight.core.evidence.reports.html import render_html
from tests.core import evidence_cases as made
from tests.core.evidence.reports.test_changed_cases import Shows

ROOT = Path(__file__).parents[4]
TOOLS = ROOT / ".tools" / "browser"
CHROMIUM, NODE = shutil.which("chromium"), shutil.which("node")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or NODE is None or not (TOOLS / ".complete").is_file(),
    reason="needs Chromium, node, axe-core and playwright-core: make test-tools",
)


def check(page: Path) -> list[dict[str, Any]]:
    assert NODE is not None
    assert CHROMIUM is not None
    script = ROOT / "tests" / "tools" / "browser" / "check_page.mjs"
    done = subprocess.run([NODE, script, TOOLS, CHROMIUM, page], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert [(one["width"], one["scheme"]) for one in found] == [
        (400, "light"), (400, "dark"), (1280, "light"), (1280, "dark"),
    ]  # fmt: skip
    return found


def written(folder: Path, kind: str) -> Path:
    evidence = made.full_evidence()
    if kind == "evidence":
        page = folder / "evidence.html"
        page.write_text(render_html(evidence))
        return page
    if kind == "cases with images":
        picture = (np.arange(64 * 64).reshape(64, 64) % 255).astype(np.uint8)
        found = write_cases(folder / "model", evidence, Shows(picture))  # type: ignore[arg-type]
    else:
        columns = {f"feature {place}": "1" for place in range(12)}
        found = write_cases(folder / "model", evidence, Shows(None, columns))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["evidence", "cases with images", "cases in a table"])
def test_a_page_is_usable_on_a_phone_and_by_keyboard(tmp_path: Path, kind: str) -> None:
    found = check(written(tmp_path, kind))
    assert [one["violations"] for one in found] == [[]] * 4
    assert max(one["overflow"] for one in found) <= 0
    assert [one["hidden"] for one in found] == [[]] * 4
    assert found[0]["stops"] > 0 or kind == "cases with images"


def test_the_check_finds_what_it_is_there_for(tmp_path: Path) -> None:
    page = written(tmp_path, "evidence")
    text = page.read_text()
    text = text.replace('<html lang="en">', "<html>").replace(
        ":focus-visible { outline: 3px", ":focus-visible { outline: 0"
    )
    text = text.replace('<p class="eyebrow">', '<p style="width: 900px; color: #999">').replace('tabindex="0"', "")
    page.write_text(text.replace(":root {", "* { outline: none !important; } :root {", 1))
    narrow = check(page)[0]
    assert {one["id"] for one in narrow["violations"]} >= {
        "html-has-lang",
        "scrollable-region-focusable",
        "color-contrast",
    }
    assert narrow["overflow"] > 0
    assert narrow["hidden"] != []
