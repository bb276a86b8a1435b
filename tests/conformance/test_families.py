"""What docs/families.md says of each family of networks is what the passes do."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the passes need torch")

from tests.conformance.families import COLUMNS, FAMILIES, WORKS, table, try_family

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def cells_of(page: str) -> dict[str, list[str]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    return {name: cells for name, *cells in rows[1:]}


def test_the_page_has_every_family() -> None:
    rows = cells_of(PAGE.read_text())
    assert list(rows) == list(FAMILIES)
    assert all(len(cells) == len(COLUMNS) for cells in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_pass_works_or_says_why_not(name: str) -> None:
    page = PAGE.read_text()
    found = try_family(name)
    assert [cell == WORKS for cell in cells_of(page)[name]] == [found[column] == WORKS for column in COLUMNS]
    for reason in found.values():
        assert reason == WORKS or reason in page, f"not on the page, nor in\n{table({name: found})}"
