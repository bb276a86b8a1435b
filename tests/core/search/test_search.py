"""The strategy: it never repeats, always ends, and finds the fastest candidate that is good enough."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.passes.steps import PruneChannelsStep, QuantizeStep, RecoverStep
from featherweight.core.recipe import Candidate, Recipe, candidates, parse_recipe
from featherweight.core.search.strategy import REFINEMENTS, Cost, Tried, next_listed, next_promising

HEAD = 'version = 1\nname = "x"\n[source]\ntask = "t"\n'
ratios = st.lists(st.integers(1, 95).map(lambda share: share / 100), min_size=1, max_size=6, unique=True)
epochs = st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True)


def recipe_of(ratio: list[float], epoch: list[int] | None = None, precisions: str = '"int8"') -> Recipe:
    recover = f'[[step]]\nkind = "recover"\nepochs = {epoch}\n' if epoch else ""
    prune = f'[[step]]\nkind = "prune-channels"\nratio = {ratio}\n'
    return parse_recipe(HEAD + prune + recover + f'[[step]]\nkind = "quantize"\nprecision = [{precisions}]\n')


def cost(candidate: Candidate) -> Cost:
    share, effort = 1.0, 0
    for step in candidate.steps:
        match step:
            case PruneChannelsStep():
                share = 1 - step.ratio
            case RecoverStep():
                effort = step.epochs
            case QuantizeStep():
                work = 1000 * share**2 / (4 if step.precision == "int8" else 2)
                return Cost(work, 400 * share / (4 if step.precision == "int8" else 1), effort)
            case _:
                raise AssertionError(step)
    raise AssertionError(candidate)


def search(recipe: Recipe, judge: Callable[[Candidate], bool | None], limit: int = 500) -> list[Candidate]:
    """The candidates in the order in which they were tried, to the end."""
    listed, order = candidates(recipe), list[Candidate]()
    tried: dict[Candidate, bool | None] = {}
    while (found := next_promising(recipe, listed, tried, cost)) is not None:
        assert found not in tried
        order.append(found)
        tried[found] = judge(found)
        assert len(order) < limit
    return order


@given(ratios, epochs, st.data())
def test_it_ends_repeats_nothing_and_tries_all_that_is_listed(
    ratio: list[float], epoch: list[int], data: st.DataObject
) -> None:
    recipe = recipe_of(ratio, epoch, '"int8", "bf16"')
    verdicts: dict[Candidate, bool | None] = {}

    def judge(candidate: Candidate) -> bool | None:
        return verdicts.setdefault(candidate, data.draw(st.sampled_from([True, False, None])))

    order = search(recipe, judge)
    assert set(candidates(recipe)) <= set(order)
    assert search(recipe, judge) == order


@given(ratios, st.floats(0, 1000))
def test_the_cheapest_good_one_is_found_by_bisection(ratio: list[float], needed: float) -> None:
    recipe = recipe_of(ratio)
    listed = sorted(candidates(recipe), key=lambda one: cost(one).rank)
    good = [one for one in listed if cost(one).work >= needed]
    order = search(recipe, lambda one: cost(one).work >= needed)
    within = len(listed).bit_length()
    assert order[0] == listed[len(listed) // 2]
    assert not good or good[0] in order[:within]


@given(ratios, epochs, st.floats(0, 1000))
def test_nothing_needless_comes_before_the_cheapest_good_one(
    ratio: list[float], epoch: list[int], needed: float
) -> None:
    """Good enough means enough work, and more training makes up for less of it: monotone in all of the cost."""
    recipe = recipe_of(ratio, epoch)

    def judge(one: Candidate) -> bool:
        return cost(one).work + 10 * cost(one).effort >= needed

    order = search(recipe, judge)
    good = [one for one in candidates(recipe) if judge(one)]
    if good:
        cheapest = min(good, key=lambda one: cost(one).rank)
        before = order[: order.index(cheapest) + 1]
        ranks = [cost(one).rank for one in before if judge(one)]
        assert set(before) <= set(candidates(recipe))
        assert ranks == sorted(set(ranks), reverse=True)


@given(st.lists(st.integers(1, 95), min_size=2, max_size=5, unique=True), st.floats(0.02, 0.94))
def test_values_between_two_of_the_list_are_tried(shares: list[int], edge: float) -> None:
    ratio = [share / 100 for share in shares]
    recipe = recipe_of(ratio)
    found = [step.ratio for one in search(recipe, lambda one: ratio_of(one) <= edge) if (step := prune_of(one))]
    good, bad = [value for value in found if value <= edge], [value for value in found if value > edge]
    assert min(ratio) <= min(found)
    assert max(found) <= max(ratio)
    if any(value <= edge for value in ratio) and any(value > edge for value in ratio):
        assert min(bad) - max(good) < (max(ratio) - min(ratio)) / REFINEMENTS + 1e-3


def prune_of(candidate: Candidate) -> PruneChannelsStep:
    step = candidate.steps[0]
    assert isinstance(step, PruneChannelsStep)
    return step


def ratio_of(candidate: Candidate) -> float:
    return prune_of(candidate).ratio


def test_the_order_of_one_search() -> None:
    recipe = recipe_of([0.3, 0.5, 0.7, 0.9])
    assert [ratio_of(one) for one in search(recipe, lambda one: ratio_of(one) <= 0.55)] == [
        *(0.5, 0.7),  # the middle is good; the next is not, which rules out 0.9
        *(0.6, 0.55, 0.575),  # between them, until it no longer matters
        *(0.3, 0.9),  # what may lose less, and what was ruled out
    ]


def test_more_training_is_never_ruled_out_by_less() -> None:
    recipe = recipe_of([0.5], [2, 10])
    order = search(recipe, lambda one: one.steps[1] == RecoverStep(10))
    assert [step.epochs for one in order if isinstance(step := one.steps[1], RecoverStep)] == [2, 10]
    assert Cost(1, 1, 2).less_in_every_way(Cost(1, 1, 10))
    assert not Cost(1, 1, 10).less_in_every_way(Cost(1, 1, 2))
    assert not Cost(0.5, 0.5, 10).less_in_every_way(Cost(1, 1, 2))
    assert not Cost(1, 1, 1).less_in_every_way(Cost(1, 1, 1))


def test_one_that_could_not_be_made_rules_nothing_out() -> None:
    order = search(recipe_of([0.3, 0.5, 0.7]), lambda one: None)
    assert len(order) == 3


def test_without_a_budget_the_recipes_order_stands() -> None:
    listed = candidates(recipe_of([0.7, 0.3], [4]))
    tried: Tried = {listed[0]: False}
    assert next_listed(listed, {}) == listed[0]
    assert next_listed(listed, tried) == listed[1]
    assert next_listed(listed, dict.fromkeys(itertools.chain(listed))) is None
