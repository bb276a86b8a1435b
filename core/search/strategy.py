"""What to try next: a pure strategy over candidates whose cost is known and of which some have been tried.

Speed and size hardly depend on trained weights, so a candidate's cost is known before its training, and only what it
loses is in question. First a bisection for the cheapest that is good enough: one that is not rules out those that are
cheaper in every way, one that is makes the dearer ones needless for sealing, which are slower. Then new values between
the cheapest good one and the next that was not. Then, while the budget lasts, the rest: the dearer ones, which may lose
less, and last those that were ruled out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from featherweight.core.passes.steps import Number, Step
from featherweight.core.recipe import FASTEST, Candidate, Objective, Recipe

REFINEMENTS = 16
"""Values between two of a list lie no closer than this part of the whole list's range."""


@dataclass(frozen=True)
class Cost:
    """work: multiply-accumulates of one case (an int8 one counts a quarter), or nodes of trees; bytes: of the weights;
    effort: epochs of training, which make a candidate better and cost it nothing later."""

    work: float
    bytes: float
    effort: float = 0.0

    @property
    def rank(self) -> tuple[float, float, float]:
        """What sorts costs: less work first, then fewer bytes, then more effort spent."""
        return self.rank_by(FASTEST)

    def rank_by(self, objective: Objective) -> tuple[float, float, float]:
        """The same where the recipe asks for something else than speed: its objective first."""
        if objective == FASTEST:
            return self.work, self.bytes, -self.effort
        return objective.cost(max(self.work, 1.0), max(self.bytes, 1.0)), self.work, -self.effort

    def less_in_every_way(self, other: Cost) -> bool:
        """What loses too much at `other` does so at this one: no more weights and training, and less of something."""
        pairs = ((self.work, other.work), (self.bytes, other.bytes), (self.effort, other.effort))
        return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


Tried = Mapping[Candidate, bool | None]
"""Candidate -> whether it is good enough: it kept all limits but those on speed and size, for which a cheaper one is
the better choice anyway. None: it could not be made, which tells nothing of others."""
Costs = Callable[[Candidate], Cost]


def next_listed(listed: Sequence[Candidate], tried: Tried) -> Candidate | None:
    """Without a budget: all that the recipe lists, in its order."""
    return next((candidate for candidate in listed if candidate not in tried), None)


def next_promising(recipe: Recipe, listed: Sequence[Candidate], tried: Tried, cost: Costs) -> Candidate | None:
    """The most promising candidate that was not tried yet; None when nothing is left.

    The same arguments give the same answer. Where being good enough is monotone in cost, the cheapest of `listed` that
    is so is found before anything that is needless is tried. Numeric lists of the recipe are taken as ranges.
    """
    goal = recipe.objective
    ranked = sorted(listed, key=lambda candidate: cost(candidate).rank_by(goal))
    best = _cheapest_good(tried, cost, goal)
    failed = [cost(candidate) for candidate, enough in tried.items() if enough is False]
    ruled_out = {one for one in ranked if any(cost(one).less_in_every_way(other) for other in failed)}
    left = [one for one in ranked if one not in tried]
    least = None if best is None else cost(best).rank_by(goal)
    live = [one for one in left if one not in ruled_out and (least is None or cost(one).rank_by(goal) < least)]
    if live:
        return live[len(live) // 2]
    between = None if best is None else _refined(recipe, best, tried, cost)
    if between is not None:
        return between
    dearer = [one for one in left if one not in ruled_out]
    cheaper = [one for one in reversed(left) if one in ruled_out]
    return next(iter([*dearer, *cheaper]), None)


def _cheapest_good(tried: Tried, cost: Costs, goal: Objective) -> Candidate | None:
    good = [candidate for candidate, enough in tried.items() if enough]
    return min(good, key=lambda candidate: cost(candidate).rank_by(goal), default=None)


def _refined(recipe: Recipe, best: Candidate, tried: Tried, cost: Costs) -> Candidate | None:
    """`best` with one number moved half-way towards the nearest failure that differs in it alone and is cheaper."""
    for place, choices in enumerate(recipe.steps):
        for name, values in choices.lists:
            bound = next(item.metadata["bound"] for item in fields(choices.step) if item.name == name)
            if not isinstance(bound, Number):
                continue
            numbers = [float(value) for value in values]
            least = max((max(numbers) - min(numbers)) / REFINEMENTS, 2.0 if bound.whole else 0.0)
            middle = _between(best, place, name, bound, least, tried, cost, recipe.objective)
            if middle is not None and middle not in tried:
                return middle
    return None


def _between(
    best: Candidate, place: int, name: str, bound: Number, least: float, tried: Tried, cost: Costs, goal: Objective
) -> Candidate | None:
    here = float(getattr(best.steps[place], name))
    failures = [
        float(getattr(candidate.steps[place], name))
        for candidate, enough in tried.items()
        if enough is False
        and cost(candidate).rank_by(goal)[:2] < cost(best).rank_by(goal)[:2]
        and _with(candidate, place, name, getattr(best.steps[place], name)) == best
    ]
    nearest = min(failures, key=lambda value: abs(value - here), default=None)
    if nearest is None or abs(nearest - here) < least:
        return None
    middle = (here + nearest) / 2
    return _with(best, place, name, int(middle) if bound.whole else float(f"{middle:.4g}"))


def _with(candidate: Candidate, place: int, name: str, value: float) -> Candidate | None:
    """The candidate with another number at this place; None for one that has no such number there."""
    if place >= len(candidate.steps) or not hasattr(candidate.steps[place], name):
        return None
    settings: dict[str, Any] = {name: value}
    changed: Step = replace(candidate.steps[place], **settings)
    return Candidate((*candidate.steps[:place], changed, *candidate.steps[place + 1 :]))
