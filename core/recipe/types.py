"""The types of a recipe, its candidates, and its text."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import assert_never

from featherweight.core.evidence.metrics import Limits
from featherweight.core.passes.steps import (
    Number,
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
    Step,
    bounded,
)
from featherweight.core.recipe.objective import FASTEST, Objective
from featherweight.core.terminal import counted

VERSION = 1
SEED = Number(0, 2**63 - 1, whole=True)

Setting = str | int | float | bool | tuple["Setting", ...]
Value = float | str


@dataclass(frozen=True)
class Choices:
    """One [[step]]: the step with the first value of every list, and the lists. Lists are tried in all combinations."""

    step: Step
    lists: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def steps(self) -> tuple[Step, ...]:
        """Every combination of the listed values, as steps."""
        names = [name for name, _ in self.lists]
        rows = itertools.product(*(values for _, values in self.lists))
        given = {item.name: getattr(self.step, item.name) for item in fields(self.step)}
        return tuple(type(self.step)(**given | dict(zip(names, row, strict=True))) for row in rows)


@dataclass(frozen=True)
class Source:
    """The app and its settings, from which the baseline comes."""

    task: str
    """The app whose model this is: a name of the entry point group featherweight.tasks, such as imaging or fraud."""
    settings: tuple[tuple[str, Setting], ...] = ()
    """The app's own keys, sorted by name; core does not understand them."""


@dataclass(frozen=True)
class Measure:
    """Candidates run interleaved with the baseline on every backend named here that the host has."""

    backends: tuple[str, ...] = ("onnxruntime",)
    """The runtimes to measure on; those that this host does not have are left out."""
    threads: tuple[int, ...] = bounded(Number(1, 1024, whole=True), default=(1,))
    """Threads of a session. Each number is tried; a candidate is compared with the baseline on as many threads."""
    batch: int = bounded(Number(1, 4096, whole=True), default=1)
    """Cases in one run of the model."""
    repetitions: int = bounded(Number(3, 1_000_000, whole=True), default=100)
    """Timed runs of each program, interleaved with the baseline's."""
    watts_per_core: float | None = bounded(Number(0.01, 1000), default=None)
    """Power of one busy core in watts. Where no energy counter can be read, energy is estimated from it."""
    watts_per_core_range: tuple[float, float] | None = bounded(Number(0.01, 1000), default=None)
    """The lowest and the highest value that watts_per_core may have, as [low, high]."""
    price_per_hour: float | None = bounded(Number(0, 1e6), default=None)
    """Price of the host for one hour, in any currency: the cost of a million decisions is computed from it."""


@dataclass(frozen=True)
class Recalibration:
    """How a candidate's scores become decisions."""

    recalibrate: bool = True
    """Whether calibration and threshold are fitted anew on each candidate's scores. With false, the baseline's stay as
    they are."""


@dataclass(frozen=True)
class CaseRules:
    """The record of the uses of the test cases, and what is known of cases that are in two splits."""

    record: str = ""
    """The file in which every use of the test cases is written down (JSON lines, only ever added to). Its path alone is
    relative to the recipe's own folder: a record that depended on where a command is run from would be forgotten.
    Empty: test-uses.jsonl beside the recipe, or, where nothing may be written there and for a recipe of the installed
    package, in runs/NAME."""
    known_copies: int = bounded(Number(0, 10**9, whole=True), default=0)
    """So many inputs are known to be in two of training, validation and test cases; more are refused."""
    known_shared_clusters: int = bounded(Number(0, 10**9, whole=True), default=0)
    """So many patients, say, are known to have cases in two splits; more are refused."""


@dataclass(frozen=True)
class Recipe:
    """All that a recipe's file says, checked."""

    name: str
    """Name of the artifact and of the working folder runs/NAME/work: letters, digits, '.', '_' and '-'."""
    source: Source
    steps: tuple[Choices, ...]
    measure: Measure = field(default_factory=Measure)
    limits: Limits = field(default_factory=Limits)
    seed: int = bounded(SEED, default=0)
    """Random seed of the whole run: training, calibration samples and resampling."""
    card: str = ""
    """A Markdown file (relative to the current folder, as the paths in [source] are): what MODEL_CARD.md says above the
    measured figures. Empty: the artifact gets no model card."""
    decision: Recalibration = field(default_factory=Recalibration)
    objective: Objective = FASTEST
    """Which of the candidates that keep all limits is sealed: the fastest, the smallest, or the one with the best
    weighted geometric mean of speed and size against the baseline. Differences within the noise of the times go to the
    smaller."""
    cases: CaseRules = field(default_factory=CaseRules)
    previous: str = ""
    """The artifact (a folder) whose program the baseline is, where a change follows a change: losses are then stated
    against the first model of the chain too."""
    reasons: tuple[tuple[str, str], ...] = ()
    """Limit -> why its margin is what it is, in words, in the order of the file."""

    @property
    def sha256(self) -> str:
        """The digest of the recipe as it is rendered, so of what it says and not of how it is laid out."""
        return hashlib.sha256(render_recipe(self).encode()).hexdigest()


@dataclass(frozen=True)
class Candidate:
    """One concrete chain of steps."""

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Its steps in a line."""
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
    lines = [f"version = {VERSION}", f"name = {render_value(recipe.name)}", f"seed = {recipe.seed}"]
    lines += [f"card = {render_value(recipe.card)}"] if recipe.card else []
    lines += [f"previous = {render_value(recipe.previous)}"] if recipe.previous else []
    lines += [f"objective = {render_value(recipe.objective.setting)}"] if recipe.objective != FASTEST else []
    lines += ["", "[source]"]
    lines.append(f"task = {render_value(recipe.source.task)}")
    lines += [f"{render_key(name)} = {render_value(value)}" for name, value in recipe.source.settings]
    for choices in recipe.steps:
        lists = dict(choices.lists)
        lines += ["", "[[step]]", f"kind = {render_value(choices.step.kind)}"]
        for item in fields(choices.step):
            value = lists.get(item.name, getattr(choices.step, item.name))
            if not item.metadata["added"] or value != item.default:
                lines.append(f"{item.name} = {render_value(value)}")
    tables = {
        "measure": asdict(recipe.measure),
        "limits": recipe.limits.settings(),
        "decision": asdict(recipe.decision),
    }
    for name, table in tables.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {render_value(value)}" for key, value in table.items() if value is not None]
    # Only where they say something: recipes that do not have them keep their digests.
    changed = {key: value for key, value in asdict(recipe.cases).items() if value != getattr(CaseRules(), key)}
    # A reason's key is one name, `groups.auc_loss` too, and no table in a table.
    for name, added in {"cases": changed, "reasons": dict(recipe.reasons)}.items():
        lines += ["", f"[{name}]"] if added else []
        lines += [f"{render_key(key)} = {render_value(value)}" for key, value in added.items()]
    return "\n".join(lines) + "\n"


def render_key(name: str) -> str:
    """A key of TOML: bare where it may be, else quoted."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else render_value(name)


def render_value(value: Setting | list[Setting] | dict[str, float]) -> str:
    """A value in TOML."""
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
        case dict():
            return "{" + ", ".join(f"{name} = {render_value(item)}" for name, item in value.items()) + "}"
        case tuple() | list():
            return "[" + ", ".join(render_value(item) for item in value) + "]"
        case _:
            assert_never(value)
