"""docs/evidence.md quotes what `bench/levels.py` recorded, and no bound that is called valid passes too often."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TABLES: dict[str, list[dict[str, str]]] = json.loads((ROOT / "bench/results/levels.json").read_text())["tables"]
DOCS = " ".join((ROOT / "docs/evidence.md").read_text().split())


def rows(title: str) -> list[dict[str, str]]:
    (found,) = [rows for name, rows in TABLES.items() if name.startswith(title)]
    return found


def largest(title: str, *columns: str) -> float:
    return max(float(row[column].rstrip("%")) for row in rows(title) for column in columns)


@pytest.mark.parametrize(
    ("title", "columns", "quoted"),
    [
        ("floors", ("AUC reached",), r"Floors.* in at most ([\d.]+)% of 500 studies \(AUC\)"),
        ("floors", ("AP reached",), r"Floors.*\(AUC\) and ([\d.]+)% \(average precision\)"),
        (
            "calibration limits",
            ("in the large", "slope .8", "slope 1.2"),
            r"Calibration limits\*\* are kept .*? in at most ([\d.]+)%",
        ),
        ("predictive values", ("passed",), r"Predictive values\*\* pass at the margin in at most ([\d.]+)%"),
        ("changed decisions in clusters", ("passed",), r"whole patients, pass in at most ([\d.]+)%"),
        ("changed decisions of cards", ("passed",), r"terminals both in at most ([\d.]+)%"),
        ("groups", ("sensitivity passed", "AUC passed"), r"\"not worse\" in at most ([\d.]+)% of 100 studies"),
        ("groups", ("sensitivity called worse", "AUC called worse"), r"called worse in at most ([\d.]+)%"),
    ],
)
def test_the_largest_share_that_passed_is_quoted_and_small(title: str, columns: tuple[str, ...], quoted: str) -> None:
    found = re.search(quoted, DOCS)
    assert found is not None
    assert float(found[1]) == largest(title, *columns)
    assert float(found[1]) <= 6


def test_the_brier_loss_is_quoted_setting_by_setting() -> None:
    recorded = rows("Brier score")
    assert largest("Brier score", "lost") <= 6
    assert max(float(row["as seen"].rstrip("%")) for row in recorded if row["change"] == "slight, all") <= 6
    lines = [line for line in (ROOT / "docs/evidence.md").read_text().splitlines() if line.startswith("|")]
    for change in ("slight, all", "2% turned", "1% turned", ".3% turned"):
        of_cases = [row for row in recorded if row["change"] == change and "clusters" not in row["cases"]]
        assert any(_cells(line) == _three(of_cases) for line in lines), change
    for cases in ("425 clusters", "60 clusters"):
        assert any(
            _cells(line) == _three([row for row in recorded if row["cases"].startswith(cases)]) for line in lines
        )


def test_card_precision_is_quoted_change_by_change() -> None:
    recorded = rows("card precision")
    assert largest("card precision", "lost") <= 6
    for row in recorded:  # beyond what a candidate without any change in these cases explains
        assert float(row["as seen"].rstrip("%")) - float(row["no change seen"].rstrip("%")) <= 6
    lines = [line for line in (ROOT / "docs/evidence.md").read_text().splitlines() if line.startswith("|")]
    for change in {row["change"] for row in recorded}:
        mine = [row for row in recorded if row["change"] == change]
        quoted = ["; ".join(row[column] for row in mine) for column in ("lost", "as seen", "no change seen")]
        assert any(_cells(line) == quoted and line.startswith(f"| {change}") for line in lines), change


def _three(found: list[dict[str, str]]) -> list[str]:
    return ["; ".join(row[column] for row in found) for column in ("lost", "as seen", "normal")]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_levels_of_several_classes_are_quoted() -> None:
    found = rows("several classes")
    names = [column for column in found[0] if column.endswith("_loss")]

    def most(bound: str, *columns: str, strong: bool = True) -> str:
        asked = [row for row in found if row["bound"] == bound and (strong or row["change"] != "2% strongly")]
        return f"{max(float(row[column].rstrip('%')) for row in asked for column in columns)}%"

    text = DOCS[DOCS.index("**Several classes** (four") :].partition("**Floors**")[0]
    for quoted in (
        f"at most {most('lost', *names)} with `lost`",
        f"at most {most('as-seen', *names, strong=False)} where all changed slightly",
        f"macro AUC passes in up to {most('as-seen', 'macro_auc_loss')}",
        f"macro average precision in up to {most('as-seen', 'macro_average_precision_loss')}",
    ):
        assert quoted in text
    others = [name for name in names if name not in ("macro_auc_loss", "macro_average_precision_loss")]
    assert float(most("as-seen", *others).rstrip("%")) <= 6
