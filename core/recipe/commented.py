"""A recipe written for somebody who edits it: every key that it may have, each below a comment that says what it means.

Keys that the recipe sets stand as they are; all others stand behind a `#` with their default, or with an example where
their absence is the default. Comments come from `keys`, as the reference does.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from featherweight.core.evidence.judge import Limits
from featherweight.core.fields import summary_line
from featherweight.core.passes.steps import STEPS
from featherweight.core.recipe import keys
from featherweight.core.recipe.objective import FASTEST
from featherweight.core.recipe.types import (
    VERSION,
    CaseRules,
    Choices,
    Measure,
    Recipe,
    Setting,
    render_key,
    render_value,
)

_WIDTH = 118


@dataclass(frozen=True)
class RecipeExample:
    """What an app gives for `featherweight recipe new`: the module of its task has one by the name RECIPE."""

    path: Path
    """A recipe of the app that works once its [source] names a model and data."""
    settings: type[msgspec.Struct]
    """The app's own keys of [source]."""


def render_commented(recipe: Recipe, settings: type[msgspec.Struct]) -> str:
    """TOML that parses to the same recipe, with a comment for each key, and all keys that could be added."""
    return "\n".join(_lines(recipe, settings)) + "\n"


def _lines(recipe: Recipe, settings: type[msgspec.Struct]) -> Iterator[str]:
    task = recipe.source.task
    yield from _comment(
        f"A recipe for the app {task}. Name your model and data in [source], then run: featherweight optimize "
        f"recipe.toml --out models/{recipe.name}. A key behind a # has the value that is shown, its default or an "
        "example; take the # away to set it."
    )
    top: dict[str, Setting | dict[str, float]] = {"version": VERSION, "name": recipe.name, "seed": recipe.seed}
    optional = {"card": recipe.card, "previous": recipe.previous}
    top |= {name: text for name, text in optional.items() if text}
    top |= {"objective": recipe.objective.setting} if recipe.objective != FASTEST else {}
    yield from _keys(keys.top_keys(), top)
    yield from ("", "[source]")
    yield from _keys(keys.source_keys(settings), {"task": task, **dict(recipe.source.settings)})
    yield ""
    yield from _comment(
        "Steps are done in this order. A list of values, such as ratio = [0.3, 0.5], means that each is tried; lists "
        "of several keys are tried in all combinations."
    )
    for choices in recipe.steps:
        yield from _step(choices)
    yield from _further_steps({choices.step.kind for choices in recipe.steps})
    yield from ("", "[measure]")
    yield from _keys(keys.measure_keys(), _changed(asdict(recipe.measure), asdict(Measure())))
    yield from ("", *_comment(summary_line(Limits)), "[limits]")
    yield from _keys(keys.limit_keys(), recipe.limits.settings())
    yield from ("", "[decision]")
    yield from _keys(keys.decision_keys(), {} if recipe.decision.recalibrate else {"recalibrate": False})
    yield from ("", "[cases]")
    yield from _keys(keys.case_keys(), _changed(asdict(recipe.cases), asdict(CaseRules())))
    yield ""
    yield from _comment(
        "Why each margin is what it is: `featherweight evidence plan` asks for it. A key for each limit that is set."
    )
    yield "[reasons]"
    reasons = dict(recipe.reasons)
    wanted = [key for key in keys.reason_keys() if key.name in recipe.limits]
    yield from (
        f"{render_key(key.name)} = {render_value(reasons[key.name])}"
        if key.name in reasons
        else f'#{render_key(key.name)} = "why"'
        for key in wanted
    )


def _step(choices: Choices) -> Iterator[str]:
    kind = choices.step.kind
    yield from ("", *_comment(summary_line(STEPS[kind])), "[[step]]", f"kind = {render_value(kind)}")
    given = asdict(choices.step) | dict(choices.lists)
    defaults = {key.name: key.default for key in keys.step_keys(kind)}
    yield from _keys(keys.step_keys(kind), _changed(given, defaults))


def _further_steps(used: set[str]) -> Iterator[str]:
    yield ""
    yield from _comment("Other kinds of steps:")
    for kind, step in STEPS.items():
        if kind not in used:
            yield from _comment(f"  {kind}: {summary_line(step)}")


def _changed(given: Mapping[str, Setting], defaults: Mapping[str, Setting | None]) -> dict[str, Setting]:
    return {name: value for name, value in given.items() if value is not None and value != defaults[name]}


def _keys(known: Sequence[keys.Key], given: Mapping[str, Setting | dict[str, float]]) -> Iterator[str]:
    for key in known:
        yield from _comment(f"{key.meaning} {key.expected[:1].upper()}{key.expected[1:]}.")
        value = render_value(given.get(key.name, key.example))
        yield f"{key.name} = {value}" if key.name in given else f"#{key.name} = {value}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
