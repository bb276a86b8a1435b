"""What docs/families.md says of each family of networks is what the passes do."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the passes need torch")

from tests.conformance.families import COLUMNS, FAMILIES, WORKS, model_of, table, try_family
from tests.conformance.road import seal_family

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


@pytest.mark.parametrize("name", ["image and table", "regnet"])
def test_two_families_go_the_whole_road_to_an_artifact(name: str, tmp_path: Path) -> None:
    """Two inputs, and layers that are left whole; the slow test below has all."""
    assert seal_family(model_of(name), tmp_path) == ""
    (recipe,) = tmp_path.glob("road.toml")
    assert '"prune-channels"' in recipe.read_text()
    assert (tmp_path / "artifact" / "programs" / "int8.onnx.gz").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_pass_works_or_says_why_not(name: str) -> None:
    page = PAGE.read_text()
    found = try_family(name)
    assert [cell == WORKS for cell in cells_of(page)[name]] == [found[column] == WORKS for column in COLUMNS]
    for reason in found.values():
        assert reason == WORKS or reason in page, f"not on the page, nor in\n{table({name: found})}"
