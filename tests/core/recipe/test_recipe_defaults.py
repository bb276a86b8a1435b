"""What a recipe means where it says nothing: the documented defaults, so that none changes unseen."""

from __future__ import annotations

from featherweight.core.evidence.metrics import Limits
from featherweight.core.recipe import Measure, Recalibration, Recipe, Source, parse_recipe, render_recipe

SHORTEST = 'version = 1\nname = "x"\n[source]\ntask = "imaging"\n'


def test_the_shortest_recipe_has_the_documented_defaults() -> None:
    found = parse_recipe(SHORTEST)
    assert found == Recipe("x", Source("imaging"), ())
    assert (found.seed, found.card, found.steps, found.limits) == (0, "", (), Limits())
    assert found.decision == Recalibration(recalibrate=True)
    assert found.measure == Measure(backends=("onnxruntime",), threads=(1,), batch=1, repetitions=100)
    told = render_recipe(found).splitlines()
    assert {"seed = 0", "recalibrate = true"} <= set(told)


def test_empty_tables_say_no_more_than_missing_ones() -> None:
    assert parse_recipe(SHORTEST + "[measure]\n[limits]\n[decision]\n") == parse_recipe(SHORTEST)
