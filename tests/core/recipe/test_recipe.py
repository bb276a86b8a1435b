"""Recipes: round trip, every fault at once, the product of lists."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.backends.registry import NAMES
from featherweight.core.errors import RecipeError, UsageError
from featherweight.core.evidence.metrics import Limits
from featherweight.core.passes.steps import (
    STEPS,
    Choice,
    PruneChannelsStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
)
from featherweight.core.recipe import (
    FASTEST,
    SMALLEST,
    Choices,
    Measure,
    Objective,
    Recalibration,
    Recipe,
    Source,
    candidates,
    describe,
    parse_recipe,
    read_recipe,
    render_recipe,
)

HEAD = 'version = 1\nname = "x"\n[source]\ntask = "imaging"\n'
PRUNE = '[[step]]\nkind = "prune-channels"\nratio = 0.5\n'
RECOVER = '[[step]]\nkind = "recover"\nepochs = 2\n'
TREES = '[[step]]\nkind = "prune-trees"\nratio = 0.5\n'
QUANTIZE = '[[step]]\nkind = "quantize"\n'


def values_of(bound: Any) -> st.SearchStrategy[Any]:
    if isinstance(bound, Choice):
        return st.sampled_from(bound.options)
    if bound.whole:
        return st.integers(int(bound.low), min(int(bound.high), 10**6))
    return st.floats(bound.low, bound.high)


@st.composite
def some_choices(draw: st.DrawFn, kind: str) -> Choices:
    first, lists = {}, []
    for item in fields(STEPS[kind]):
        strategy = values_of(item.metadata["bound"])
        if not lists and draw(st.booleans()):
            several = tuple(draw(st.lists(strategy, min_size=1, max_size=3, unique=True)))
            lists.append((item.name, several))
            first[item.name] = several[0]
        else:
            first[item.name] = draw(strategy)
    return Choices(STEPS[kind](**first), tuple(lists))


settings = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
chains = st.sampled_from(
    [
        (),
        ("prune-channels",),
        ("quantize",),
        ("prune-channels", "prune-weights", "recover"),
        ("prune-weights", "quantize"),
        ("prune-trees", "prune-trees", "quantize"),
    ]
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    named = draw(st.dictionaries(st.text().filter(lambda name: name != "task"), settings, max_size=3))
    steps = tuple(draw(some_choices(kind)) for kind in draw(chains))
    backends = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True))
    threads = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=2, unique=True)))
    watts = sorted(draw(st.lists(st.floats(1, 99), min_size=3, max_size=3, unique=True)))
    ranged = {"watts_per_core": watts[1], "watts_per_core_range": (watts[0], watts[2])} if draw(st.booleans()) else {}
    counts = draw(st.integers(1, 9)), draw(st.integers(3, 99))
    measure = Measure(tuple(backends), threads, *counts, **ranged, price_per_hour=draw(st.none() | st.floats(0, 9)))
    losses = {name: draw(st.none() | st.floats(0, 1)) for name in ("auc_loss", "average_precision_loss")}
    limits = Limits(**losses, size_ratio_min=draw(st.none() | st.floats(0.1, 99)))
    source = Source(draw(st.text(min_size=1).filter(lambda text: text.strip())), tuple(sorted(named.items())))
    name, seed = draw(st.from_regex(r"\A[a-z0-9][a-z.-]{0,9}\Z")), draw(st.integers(0, 99))
    card = draw(st.just("") | st.text(min_size=1).filter(lambda text: text.strip()))
    return Recipe(name, source, steps, measure, limits, seed, card, Recalibration(draw(st.booleans())))


@given(recipes())
def test_what_is_rendered_parses_to_the_same_recipe(recipe: Recipe) -> None:
    again = parse_recipe(render_recipe(recipe))
    assert again == recipe
    assert again.sha256 == recipe.sha256


@given(st.text())
def test_any_text_gives_a_recipe_or_a_recipe_error(text: str) -> None:
    for whole in (text, HEAD + text):
        with contextlib.suppress(RecipeError):
            assert candidates(parse_recipe(whole))


def faults_of(text: str) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "my.toml")
    assert "my.toml" in str(caught.value)
    return {fault.key: fault.message for fault in caught.value.faults}


def test_five_mistakes_are_five_faults_with_their_keys() -> None:
    found = faults_of(
        """
version = 1
name = "x"
limts = 3
[source]
task = "imaging"
[[step]]
kind = "prune-channels"
ratio = [0.3, 0.5, 1.5]
round_to = 16.5
[[step]]
kind = "recover"
epochs = "many"
[measure]
repetitions = 0
"""
    )
    assert found.keys() == {"limts", "step[0].ratio[2]", "step[0].round_to", "step[1].epochs", "measure.repetitions"}
    assert 'did you mean "limits"' in found["limts"]
    assert found["step[0].ratio[2]"] == "found 1.5, expected a number from 0.01 to 0.95"
    assert "the text 'many'" in found["step[1].epochs"]


@pytest.mark.parametrize(
    ("steps", "key", "part"),
    [
        (QUANTIZE + PRUNE, "step[1].kind", "prune-channels after quantize"),
        (PRUNE + QUANTIZE + QUANTIZE, "step[2].kind", "a second quantize"),
        (RECOVER, "step[0].kind", "without a prune step"),
        (PRUNE + TREES, "step[1].kind", "prune-trees beside prune-channels; a model is a network or trees"),
        (TREES + RECOVER, "step[1].kind", "recover beside prune-trees"),
        (QUANTIZE + TREES, "step[1].kind", "prune-trees after quantize"),
        ('[[step]]\nkind = "prune-weights"\nsparsity = 0.5\n' + PRUNE, "step[1].kind", "after prune-weights"),
        ('[[step]]\nkind = "prune-channel"\nratio = 0.5\n', "step[0].kind", 'did you mean "prune-channels"'),
        ('[[step]]\nkind = "recover"\n' + PRUNE, "step[0].epochs", "missing"),
        (PRUNE.replace("0.5", "[]"), "step[0].ratio", "an empty list"),
        (PRUNE.replace("0.5", "[0.5, 0.5]"), "step[0].ratio", "twice"),
        (PRUNE.replace("0.5", "true"), "step[0].ratio", "found true or false"),
        (PRUNE.replace("0.5", "nan"), "step[0].ratio", "found nan"),
        (PRUNE.replace("0.5", "1979-05-27"), "step[0].ratio", "a date or time"),
        (PRUNE + "ratoi = 3\n", "step[0].ratoi", 'did you mean "ratio"'),
        (f"{PRUNE}{RECOVER}epochs = 3\n", "file", "not TOML"),
        (PRUNE.replace("0.5", str([i / 100 for i in range(5, 60)])), "step", "55 candidates"),
        ("[[step]]\nratio = 0.5\n", "step[0].kind", "missing; expected one of"),
        ("[[step]]\nkind = [1]\n", "step[0].kind", "found a list, expected one of"),
        (QUANTIZE + 'precision = "int9"\n', "step[0].precision", "found the text 'int9', expected one of \""),
        ("[measure]\nbackends = []\n", "measure.backends", "expected a list"),
        ("[measure]\nbackends = {}\n", "measure.backends", "found a table, expected a list"),
        ('[measure]\nbackends = ["torch", "openvin"]\n', "measure.backends[1]", 'did you mean "openvino"'),
        ('[measure]\nbackends = ["torch", "torch"]\n', "measure.backends", "twice"),
        ("[measure]\nthreads = []\n", "measure.threads", "an empty list"),
        ("[measure]\nthreads = [1, 0]\n", "measure.threads[1]", "from 1 to 1024"),
        ("[measure]\nthreads = [2, 2]\n", "measure.threads", "twice"),
        ("[measure]\nwatts_per_core = 9\nwatts_per_core_range = [1, 2]\n", "measure.watts_per_core_range", "between"),
        ("[measure]\nwatts_per_core_range = [1, 2]\n", "measure.watts_per_core_range", "state both"),
        ("[measure]\nprice_per_hour = -1\n", "measure.price_per_hour", "from 0"),
        ("[decision]\nrecalibrate = 1\n", "decision.recalibrate", "expected true or false"),
        ("[decision]\nrecalibrat = true\n", "decision.recalibrat", "did you mean"),
        ("[limits]\nauc_loss = 7\n", "limits.auc_loss", "from 0 to 1"),
        ('[limits]\nauc_loss = "none"\n', "limits.auc_loss", "expected a number"),
        ("[limits]\nacu_loss = 0.1\n", "limits.acu_loss", 'did you mean "auc_loss"'),
        ('[source.deep]\nx = "y"\n', "source.deep", "a table"),
    ],
)
def test_each_mistake_has_its_key(steps: str, key: str, part: str) -> None:
    assert part in faults_of(HEAD + steps)[key]


def test_head_mistakes() -> None:
    found = faults_of('version = 2\nname = "../up"\nseed = -1\nsource = 3\nstep = 4\n')
    assert found.keys() == {"version", "name", "seed", "source", "source.task", "step"}
    assert faults_of('name = "x"\n[source]\ntask = "t"\n')["version"] == "missing; expected version = 1"
    assert "version" in faults_of('version = true\nname = "x"\n[source]\ntask = "t"\n')


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ("[limits", 5),
        ("[limits\nauc_loss = 0.1\n", 5),
        ("[[step]\nkind = 'quantize'\n", 5),
        ("[measure]\nbackends = ['torch',\n", 6),
        ("[measure]\nbackends = ['torch'\n\n[limits]\nauc_loss = 0.1\n", 8),
        ("[source.deep]\nx = {a = 1,", 6),
        ('[source.deep]\nx = """a\n\nb\n', 6),
        ("[source.deep]\nx = 'a\n", 6),
    ],
)
def test_what_is_not_closed_is_told_with_its_line(end: str, line: int) -> None:
    """Where the parser only comes to the end of the text, where what it reads began."""
    told = faults_of(HEAD + end)["file"]
    assert told.startswith("not TOML: ")
    assert f"line {line}" in told


def test_nothing_hides_another_fault(tmp_path: Path) -> None:
    """Neither the runtimes, nor the app, nor the card, which were looked at one after the other."""
    path = tmp_path / "my.toml"
    path.write_text(
        'name = "x"\ncard = "nowhere.md"\n[source]\ntask = "imagin"\n[measure]\nbackends = ["abacus"]\nbatch = 0\n'
        "[limits]\nauc_loss = nan\n"
    )
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, tasks=("fraud", "imaging"))
    told = {fault.key: fault.message for fault in caught.value.faults}
    keys = {"version", "card", "source.task", "measure.backends[0]", "measure.batch", "limits.auc_loss"}
    assert told.keys() == keys
    assert "None" not in str(caught.value)
    assert told["source.task"] == "no app is called 'imagin'; installed: fraud, imaging; did you mean \"imaging\"?"
    assert told["card"] == "'nowhere.md': cannot be read (No such file or directory)"


def test_lists_are_tried_in_all_combinations_in_the_files_order() -> None:
    text = HEAD + PRUNE.replace("0.5", "[0.3, 0.6]") + RECOVER + QUANTIZE + 'method = ["minmax", "entropy"]\n'
    found = [candidate.name for candidate in candidates(parse_recipe(text))]
    assert found == [
        "prune channels 0.3 > recover 2 epochs > int8",
        "prune channels 0.3 > recover 2 epochs > int8 (method entropy)",
        "prune channels 0.6 > recover 2 epochs > int8",
        "prune channels 0.6 > recover 2 epochs > int8 (method entropy)",
    ]
    assert [candidate.name for candidate in candidates(parse_recipe(HEAD))] == ["as it is"]


def test_candidates_that_differ_have_names_that_differ() -> None:
    text = HEAD + PRUNE + "round_to = [8, 16]\n" + RECOVER + "learning_rate = [0.01, 0.001]\n" + QUANTIZE
    found = candidates(parse_recipe(text + "calibration_samples = [64, 128]\n"))
    assert len({candidate.name for candidate in found}) == len(found) == 8


def test_every_step_can_be_described() -> None:
    for step in (PruneChannelsStep(0.5, scope="network"), PruneWeightsStep(0.4), RecoverStep(3), QuantizeStep("bf16")):
        assert describe(step)


def test_threads_are_a_number_or_several() -> None:
    assert parse_recipe(HEAD + "[measure]\nthreads = 2\n").measure.threads == (2,)
    assert parse_recipe(HEAD + "[measure]\nthreads = [1, 2]\n").measure.threads == (1, 2)
    assert parse_recipe(HEAD).measure.threads == (1,)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml.*cannot be read"):
        read_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(RecipeError, match="UTF-8"):
        read_recipe(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * 16_001)
    with pytest.raises(UsageError, match="16,000 bytes"):
        read_recipe(tmp_path / "large.toml")
    for name, content in {"model.onnx": b"x" * 20_000, "model.json": b"{}", "runs.toml": b"PK\x03\x04\0\0"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name}: this is a model or another kind of file, not a recipe"):
            read_recipe(tmp_path / name)


def test_the_projects_own_recipes_parse() -> None:
    found = list(Path("apps").rglob("recipes/*.toml"))
    assert found
    for path in found:
        assert candidates(read_recipe(path))


def test_a_number_of_thousands_of_digits_is_a_fault_and_no_traceback() -> None:
    with pytest.raises(RecipeError, match="not TOML"):
        parse_recipe("seed = " + "9" * 5000)


@pytest.mark.parametrize(
    "text",
    [
        f"[measure]\nwatts_per_core = 1{'0' * 400}\n",
        f"[limits]\nauc_loss = 0x{'f' * 5000}\n",
        f"[measure]\nthreads = [1, 0x{'f' * 5000}]\n",
        f"[source.deep]\nx = -{2**63 + 1}\n",
    ],
)
def test_an_integer_that_toml_does_not_have_is_a_fault_and_no_traceback(text: str) -> None:
    assert "64 bits" in faults_of(HEAD + text)["file"]


def test_a_choice_that_is_a_list_is_a_fault_and_no_traceback() -> None:
    assert "expected one of" in faults_of(HEAD + QUANTIZE + 'precision = [["int8"]]\n')["step[0].precision[0]"]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "windows.toml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert read_recipe(tmp_path / "windows.toml") == parse_recipe(HEAD)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", FASTEST),
        ('objective = "fastest"', FASTEST),
        ('objective = "smallest"', SMALLEST),
        ("objective = {speed = 0.7, size = 0.3}", Objective(0.7, 0.3)),
        ("objective = {speed = 1}", FASTEST),
    ],
)
def test_an_objective_is_read_and_rendered_only_where_it_is_not_the_default(text: str, found: Objective) -> None:
    recipe = parse_recipe(f'version = 1\nname = "a"\n{text}\n[source]\ntask = "imaging"\n')
    assert recipe.objective == found
    assert parse_recipe(render_recipe(recipe)) == recipe
    assert ("objective" in render_recipe(recipe)) is (found != FASTEST)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('"cheapest"', 'objective: found the text \'cheapest\', expected "fastest", "smallest" or weights'),
        ("{speed = 0, size = 0}", "objective: found no weight above 0"),
        ("{speed = 2}", "objective.speed: found 2, expected a number from 0 to 1"),
        ("{quality = 1}", "objective.quality: unknown key"),
        ("3", "objective: found the number 3"),
    ],
)
def test_an_objective_that_is_none_of_these_is_refused(value: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f'version = 1\nname = "a"\nobjective = {value}\n[source]\ntask = "imaging"\n')
    assert told in str(caught.value)
