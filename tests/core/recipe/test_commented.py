"""`recipe new` and the reference know every key that the parser knows, and what each means."""

import re
from pathlib import Path

import pytest

from featherweight.apps.fraud.training.task import RECIPE as FRAUD
from featherweight.apps.imaging.training.task import RECIPE as IMAGING
from featherweight.core.errors import RecipeError, UsageError
from featherweight.core.passes.steps import STEPS
from featherweight.core.recipe import keys, parse_recipe, read_recipe, render_recipe
from featherweight.core.recipe.commented import RecipeExample, render_commented
from featherweight.core.request import new_recipe

EXAMPLES = {"fraud": FRAUD, "imaging": IMAGING}
_SET_BY_HASH = re.compile(r"^#(\w+ = )", re.MULTILINE)


def known_to_the_parser(text: str, key: str) -> set[str]:
    """What the parser's message about an unknown key says that there is."""
    with pytest.raises(RecipeError) as found:
        parse_recipe(text)
    [message] = [fault.message for fault in found.value.faults if fault.key == key]
    return set(message.partition("known here: ")[2].split(", "))


HEAD = 'version = 1\nname = "a"\n'
SOURCE = '[source]\ntask = "imaging"\n'


def test_the_keys_are_those_of_the_parser() -> None:
    tables = {"source", "step", "measure", "limits", "decision", "cases", "reasons"}
    top = {key.name for key in keys.top_keys()} | tables
    assert known_to_the_parser(f"zzzzzz = 1\n{HEAD}{SOURCE}", "zzzzzz") == top
    for table, found in (
        ("measure", keys.measure_keys()),
        ("limits", keys.limit_keys()),
        ("decision", keys.decision_keys()),
        ("cases", keys.case_keys()),
        ("reasons", keys.reason_keys()),
    ):
        known = known_to_the_parser(f"{HEAD}{SOURCE}[{table}]\nzzzzzz = 1\n", f"{table}.zzzzzz")
        assert known == {key.name for key in found}
    for kind in STEPS:
        text = f'{HEAD}{SOURCE}[[step]]\nkind = "{kind}"\nzzzzzz = 1\n'
        names = {key.name for key in keys.step_keys(kind)}
        assert known_to_the_parser(text, "step[0].zzzzzz") == names | {"kind"}


def test_every_key_has_a_meaning() -> None:
    tables = [keys.top_keys(), keys.measure_keys(), keys.limit_keys(), keys.decision_keys(), keys.case_keys()]
    tables += [keys.step_keys(kind) for kind in STEPS]
    tables += [keys.source_keys(example.settings) for example in EXAMPLES.values()]
    found = [key for table in tables for key in table]
    assert len(found) > 40
    assert [key.name for key in found if not key.meaning.endswith(".") or not key.expected] == []


@pytest.mark.parametrize("app", EXAMPLES)
def test_a_new_recipe_is_its_example_with_comments(app: str) -> None:
    example = EXAMPLES[app]
    text = new_recipe(app)
    assert render_recipe(parse_recipe(text)) == render_recipe(read_recipe(example.path))
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("app", EXAMPLES)
def test_every_key_of_a_new_recipe_may_be_set_as_it_stands(app: str) -> None:
    """Those behind a #, all at once: their values are valid, and nothing but a default or a limit changes."""
    text = new_recipe(app)
    assert len(_SET_BY_HASH.findall(text)) > 15
    recipe = parse_recipe(_SET_BY_HASH.sub(r"\1", text))
    assert recipe.steps == parse_recipe(text).steps
    assert recipe.measure.watts_per_core_range == (3.0, 10.0)
    shown = set(re.findall(r"^#?([\w.]+) = ", text, re.MULTILINE))
    sections = [keys.top_keys(), keys.measure_keys(), keys.limit_keys(), keys.decision_keys(), keys.case_keys()]
    sections.append(keys.source_keys(EXAMPLES[app].settings))
    sections += [keys.step_keys(choices.step.kind) for choices in recipe.steps]
    assert {key.name for section in sections for key in section} <= shown


def test_an_app_without_an_example_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no app is called 'nobody'; installed: custom, fraud, imaging"):
        new_recipe("nobody")


def test_what_a_recipe_sets_stays_set(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        HEAD
        + 'card = "card.md"\n[source]\ntask = "imaging"\nnetwork = "n"\ndata = "d"\nreader = "folder"\n'
        + 'stages = [[112, 3]]\n[[step]]\nkind = "prune-weights"\nsparsity = 0.5\n'
        + "[measure]\nthreads = [1, 2]\nbatch = 8\n[decision]\nrecalibrate = false\n[limits]\nauc_loss = 0.125\n"
    )
    given = parse_recipe(path.read_text())
    assert parse_recipe(render_commented(given, RecipeExample(path, IMAGING.settings).settings)) == given
