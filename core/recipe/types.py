"""The types of a recipe, its candidates, and its text."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import assert_never

from core.evidence.judge import Limits
from core.passes.steps import (
    Number,
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
    Step,
    bounded,
)
from core.terminal import counted

VERSION = 1

Setting = str | int | float | bool | tuple["Setting", ...]
Value = float | str


@dataclass(frozen=True)
class Choices:
    """One [[step]]: the step with the first value of every list, and the lists. Lists are tried in all combinations."""

    step: Step
    lists: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def steps(self) -> tuple[Step, ...]:
        names = [name for name, _ in self.lists]
        rows = itertools.product(*(values for _, values in self.lists))
        given = {item.name: getattr(self.step, item.name) for item in fields(self.step)}
        return tuple(type(self.step)(**given | dict(zip(names, row, strict=True))) for row in rows)


@dataclass(frozen=True)
class Source:
    task: str
    settings: tuple[tuple[str, Setting], ...] = ()
    """The app's own keys, sorted by name; core does not understand them."""


@dataclass(frozen=True)
class Measure:
    """Candidates run interleaved with the baseline on every backend named here that the host has."""

    backends: tuple[str, ...] = ("onnxruntime",)
    threads: tuple[int, ...] = bounded(Number(1, 1024, whole=True), default=(1,))
    """Each is tried; a candidate is compared with the baseline on as many."""
    batch: int = bounded(Number(1, 4096, whole=True), default=1)
    repetitions: int = bounded(Number(3, 1_000_000, whole=True), default=100)
    watts_per_core: float | None = bounded(Number(0.01, 1000), default=None)
    """Of one busy core: where no counter of energy can be read, an estimate is made from it."""
    watts_per_core_range: tuple[float, float] | None = bounded(Number(0.01, 1000), default=None)
    """The lowest and the highest that it may be."""
    price_per_hour: float | None = bounded(Number(0, 1e6), default=None)
    """Of the host, in any currency: for the cost of a million decisions."""


@dataclass(frozen=True)
class Decision:
    """recalibrate: calibration and threshold are fitted anew on each candidate's scores; otherwise the baseline's stay
    as they are."""

    recalibrate: bool = True


@dataclass(frozen=True)
class Recipe:
    name: str
    source: Source
    steps: tuple[Choices, ...]
    measure: Measure = field(default_factory=Measure)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    card: str = ""
    """A Markdown file (relative to the current folder, as the paths in [source] are): what MODEL_CARD.md says above the
    measured figures. Empty: the artifact gets no model card."""
    decision: Decision = field(default_factory=Decision)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(render_recipe(self).encode()).hexdigest()


@dataclass(frozen=True)
class Candidate:
    """One concrete chain of steps."""

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return " > ".join(describe(step) for step in self.steps) or "as it is"


def candidates(recipe: Recipe) -> tuple[Candidate, ...]:
    """Every combination of the values that the steps list, in the file's order."""
    return tuple(Candidate(chain) for chain in itertools.product(*(choices.steps() for choices in recipe.steps)))


def describe(step: Step) -> str:
    """A step in a few words, for tables. Steps that differ have descriptions that differ."""
    match step:
        case PruneChannelsStep():
            said, text = {"ratio"}, f"prune channels {step.ratio!r}"
        case PruneWeightsStep():
            said, text = {"sparsity"}, f"prune weights {step.sparsity!r}"
        case PruneTreesStep():
            said, text = {"ratio"}, f"prune trees {step.ratio!r}"
        case RecoverStep():
            said, text = {"epochs"}, f"recover {counted(step.epochs, 'epochs')}"
        case QuantizeStep():
            said, text = {"precision"}, step.precision
        case _:
            assert_never(step)
    others = [(item, getattr(step, item.name)) for item in fields(step) if item.name not in said]
    unusual = [f"{item.name} {value}" for item, value in others if value != item.default]
    return text + (f" ({', '.join(unusual)})" if unusual else "")


def render_recipe(recipe: Recipe) -> str:
    """TOML that parses to the same recipe; every value is written, defaults too."""
    lines = [f"version = {VERSION}", f"name = {_toml(recipe.name)}", f"seed = {recipe.seed}"]
    lines += [f"card = {_toml(recipe.card)}"] if recipe.card else []
    lines += ["", "[source]"]
    lines.append(f"task = {_toml(recipe.source.task)}")
    lines += [f"{_key(name)} = {_toml(value)}" for name, value in recipe.source.settings]
    for choices in recipe.steps:
        lists = dict(choices.lists)
        lines += ["", "[[step]]", f"kind = {_toml(choices.step.kind)}"]
        lines += [f"{name} = {_toml(lists.get(name, value))}" for name, value in asdict(choices.step).items()]
    for name, table in (("measure", recipe.measure), ("limits", recipe.limits), ("decision", recipe.decision)):
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in asdict(table).items() if value is not None]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Setting | list[Setting]) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)  # the shortest text that reads back as the same number; inf and nan are TOML too
        case str():
            # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple() | list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case _:
            assert_never(value)
