"""A count agrees with what is counted: no message and no page says `1 rows`."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from featherweight.core.evidence.reports.templates_env import open_templates
from featherweight.core.terminal import counted, plural_of

ROOT = Path(__file__).parents[2]
THINGS = (
    "alerts|candidates|cases|clusters|columns|comparisons|customers|decisions|epochs|faults|files|frauds|functions|groups|"
    "histories|images|labels|messages|pages|rows|runs|sessions|terminals|threads|transactions|trials|values"
)
NEVER_ONE = re.compile(
    r".*[A-Z]{3}.*"  # a constant
    r"|limit|limits\.\w+|alerts_per_day|len\(entries\)|width|groups|len\(value\)"  # more than some constant
    r"|(part\.)?split|kind|(self\.)?(counted|decided_on)|part|name|wanted"  # no whole numbers
    r"|.*backends.*|member\.instance|was|now|.*per_s"
)


@pytest.mark.parametrize(
    ("count", "things", "said"),
    [
        (0, "rows", "0 rows"),
        (1, "rows", "1 row"),
        (2000, "rows", "2,000 rows"),
        (1, "histories", "1 history"),
        (1, "SOP Instance UIDs", "1 SOP Instance UID"),
        (1, "test cases", "1 test case"),
        (1, "branches", "1 branch"),
        (1, "messages", "1 message"),
        (1, "others", "1 other"),
    ],
)
def test_a_count_agrees_with_what_is_counted(count: int, things: str, said: str) -> None:
    assert counted(count, things) == said
    assert open_templates().from_string("{{ n|counted(things) }}").render(n=count, things=things) == said


def find_plurals(source: str) -> Iterator[str]:
    for text in ast.walk(ast.parse(source)):
        for value, behind in itertools.pairwise(text.values if isinstance(text, ast.JoinedStr) else []):
            if not (isinstance(value, ast.FormattedValue) and isinstance(behind, ast.Constant)):
                continue
            word, counts = re.match(rf" ({THINGS})\b(?!/s)", str(behind.value)), ast.unparse(value.value)
            if word and not NEVER_ONE.fullmatch(counts):
                yield f"{{{counts}}} {word[1]}"


def test_no_message_puts_a_count_before_a_plural() -> None:
    """`core.terminal.counted` is for that."""
    assert list(find_plurals('f"{rejected} rows rejected, at most {LIMIT} rows"')) == ["{rejected} rows"]
    paths = [*ROOT.glob("core/**/*.py"), *ROOT.glob("apps/**/*.py")]
    assert len(paths) > 100
    found = {str(path.relative_to(ROOT)): list(find_plurals(path.read_text())) for path in paths}
    assert {path: plurals for path, plurals in found.items() if plurals} == {}


def test_no_page_puts_a_count_before_a_plural() -> None:
    pages = [*ROOT.glob("core/**/*.j2"), *ROOT.glob("apps/**/*.html")]
    assert len(pages) > 3
    plural = re.compile(rf"\}}\}} ({THINGS})\b")
    found = [
        (path.name, line[0]) for path in pages for line in re.finditer(r"\{\{[^{}]*" + plural.pattern, path.read_text())
    ]
    assert [one for one in found if "split" not in one[1] and "shown" not in one[1]] == []


@pytest.mark.parametrize(
    ("column", "one", "two"),
    [
        ("patient", "1 patient", "2 patients"),
        ("patient_id", "1 patient", "2 patients"),
        ("PatientID", "1 patient", "2 patients"),
        ("Card Number", "1 card", "2 cards"),
        ("credit_card", "1 credit card", "2 credit cards"),
        ("study", "1 study", "2 studies"),
        ("box", "1 box", "2 boxes"),
        ("cases", "1 case", "2 cases"),
        ("p7", "1 p7 cluster", "2 p7 clusters"),
        ("id", "1 id", "2 ids"),
        ("a" * 61, f"1 {'a' * 61} cluster", f"2 {'a' * 61} clusters"),
    ],
)
def test_what_a_column_names_is_called_by_its_name(column: str, one: str, two: str) -> None:
    assert counted(1, plural_of(column)) == one
    assert counted(2, plural_of(column)) == two
