"""Every precision of a step goes the way from a recipe to an artifact, and costs are guessed for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from featherweight.core.artifact import read_artifact
from featherweight.core.errors import UsageError
from featherweight.core.optimize import optimize
from featherweight.core.passes.quantize_trees import check_precision
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.recipe import candidates, parse_recipe
from featherweight.core.search.candidates import CandidateBuilder
from tests.core.recipes import recipe_head
from tests.fakes import SquaresTask

STEP = '[[step]]\nkind = "quantize"\nprecision = ["int8", "int8-dynamic", "int8-weights", "fp16-weights"]\n'
RECIPE = 'objective = "smallest"\n' + recipe_head("squares", "flip_ratio_max = 0.2") + STEP


def test_each_precision_is_a_candidate_that_is_judged_and_the_smallest_is_sealed(tmp_path: Path) -> None:
    outcome = optimize(parse_recipe(RECIPE), SquaresTask(200), tmp_path / "a", work=tmp_path / "work")
    tried = {one.description: one for one in outcome.evidence.candidates}
    assert len(tried) >= 4
    for precision in ("int8", "int8-dynamic", "int8-weights", "fp16-weights"):
        assert any(precision in description.split() for description in tried), tried.keys()
    assert read_artifact(tmp_path / "a").precisions == ("int8",)
    sizes = [one.size_bytes for one in tried.values() if one.size_bytes]
    assert min(sizes) < max(sizes) / 1.5


def test_costs_are_guessed_for_each(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE)
    builder = CandidateBuilder(SquaresTask(60), recipe, tmp_path)
    static, dynamic, weights, halves = (builder.cost(candidate) for candidate in candidates(recipe))
    assert static == dynamic
    assert (weights.work, weights.bytes) == (4 * static.work, static.bytes)
    assert (halves.work, halves.bytes) == (weights.work, 2 * weights.bytes)


def test_trees_have_int8_alone() -> None:
    check_precision(QuantizeStep("int8"))
    with pytest.raises(UsageError, match="trees have no int8-weights, only int8"):
        check_precision(QuantizeStep("int8-weights"))
