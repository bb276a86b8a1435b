"""A recipe's file to a Recipe; every fault of the file is reported at once, each with its key."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, assert_never

from featherweight.core.backends import registry
from featherweight.core.errors import Fault, RecipeError, UsageError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.metrics import Limits
from featherweight.core.files import read_errors
from featherweight.core.passes.steps import (
    STEPS,
    Bound,
    Choice,
    Number,
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
    Step,
)
from featherweight.core.recipe.limits import flatten_groups, parse_limits
from featherweight.core.recipe.objective import EXPECTED, FASTEST, NAMED, Objective
from featherweight.core.recipe.text import parse_toml, read_text
from featherweight.core.recipe.types import (
    SEED,
    VERSION,
    CaseRules,
    Choices,
    Measure,
    Recalibration,
    Recipe,
    Setting,
    Source,
    Value,
)
from featherweight.core.recipe.wording import kind_of, near
from featherweight.core.terminal import counted

MAX_CANDIDATES = 50
_TOP = (
    "version", "name", "seed", "card", "objective", "previous",
    "source", "step", "measure", "limits", "decision", "cases", "reasons",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def read_recipe(path: Path, *, tasks: Collection[str] | None = None) -> Recipe:
    """tasks: the names that [source] may give, where they are known. Raises UsageError for a file that cannot be read,
    RecipeError for its faults, a card that cannot be read among them."""
    recipe, faults = _parse(read_text(path), tasks, reading_card=True)
    if recipe is None or faults:
        raise RecipeError(str(path), faults)
    return recipe


def read_card(path: str) -> str:
    """The words of the model card that a recipe names; read before the work begins, since a name mistyped should not be
    found hours later. Raises UsageError."""
    # A ValueError: it is not text, or the name is not a valid file name.
    with read_errors(f"card: {path!r}", raises=UsageError, also=(ValueError,)):
        return Path(path).read_text(encoding="utf-8") if path else ""


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """Raises RecipeError with every fault of the text; `source` is the name that its message gives the text."""
    recipe, faults = _parse(text, tasks=None)
    if recipe is None or faults:
        raise RecipeError(source, faults)
    return recipe


def _parse(
    text: str, tasks: Collection[str] | None, *, reading_card: bool = False
) -> tuple[Recipe | None, list[Fault]]:
    table, faults = parse_toml(text)
    if table is None:
        return None, faults
    reader = _Reader(tasks)
    recipe, card = reader.recipe(table), table.get("card")
    if reading_card and isinstance(card, str):
        try:
            read_card(card)
        except UsageError as error:
            reader.fault("card", str(error).removeprefix("card: "))
    return recipe, reader.faults


class _Reader:
    """Walks the parsed table and collects faults instead of stopping at the first."""

    def __init__(self, tasks: Collection[str] | None) -> None:
        self.faults: list[Fault] = []
        self.tasks = tasks

    def fault(self, key: str, message: str) -> None:
        self.faults.append(Fault(key, message))

    def recipe(self, table: Mapping[str, Any]) -> Recipe | None:
        version = table.get("version")
        if version is None:
            self.fault("version", f"missing; expected version = {VERSION}")
        elif isinstance(version, bool) or version != VERSION:
            self.fault("version", f"found {kind_of(version)}, expected {VERSION}")
        self.known(table, "", _TOP)
        name = self.text(table, "name", "")
        if name is not None and not _NAME.fullmatch(name):
            self.fault(
                "name", f"found {name!r}, expected letters, digits, '.', '_' and '-': it becomes a folder's name"
            )
        seed = self.value(table.get("seed", 0), "seed", SEED)
        card = self.text(table, "card", "") if "card" in table else ""
        previous = self.text(table, "previous", "") if "previous" in table else ""
        source = self.source(self.table(table, "source"))
        steps = self.steps(table.get("step", []))
        measure = self.measure(self.table(table, "measure"))
        limits = self.limits(self.table(table, "limits"))
        decision = self.decision(self.table(table, "decision"))
        cases = self.cases(self.table(table, "cases"))
        reasons = self.reasons(self.table(table, "reasons"), limits)
        objective = self.objective(table["objective"]) if "objective" in table else FASTEST
        if self.faults or name is None or source is None:
            return None
        rules = int(seed), card or "", decision, objective, cases, previous or "", reasons
        return Recipe(name, source, steps, measure, limits, *rules)

    def table(self, parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = parent.get(key, {})
        if not isinstance(found, dict):
            self.fault(key, f"found {kind_of(found)}, expected a table [{key}]")
            return {}
        return found

    def known(self, table: Mapping[str, Any], where: str, names: Collection[str]) -> None:
        for key in table:
            if key not in names:
                hint = near(key, names) or f"; known here: {', '.join(names)}"
                self.fault(f"{where}{key}", f"unknown key{hint}")

    def text(self, table: Mapping[str, Any], key: str, where: str) -> str | None:
        found = table.get(key)
        if found is None:
            self.fault(where + key, "missing; expected a text")
        elif not isinstance(found, str) or not found.strip():
            self.fault(where + key, f"found {kind_of(found)}, expected a text")
        else:
            return found
        return None

    def source(self, table: Mapping[str, Any]) -> Source | None:
        task = self.text(table, "task", "source.")
        settings = []
        for key in sorted(table.keys() - {"task"}):
            value = self.setting(table[key], f"source.{key}")
            if value is not None:
                settings.append((key, value))
        if task is not None and self.tasks is not None and task not in self.tasks:
            hint = near(task, self.tasks)
            self.fault("source.task", f"no app is called {task!r}; installed: {', '.join(sorted(self.tasks))}{hint}")
        return None if task is None else Source(task, tuple(settings))

    def setting(self, value: Any, key: str) -> Setting | None:
        if isinstance(value, list):
            items = [self.setting(item, f"{key}[{index}]") for index, item in enumerate(value)]
            return tuple(item for item in items if item is not None)
        if isinstance(value, str | int | float | bool):
            return value
        self.fault(key, f"found {kind_of(value)}, expected a text, a number, true, false or a list of these")
        return None

    def steps(self, found: Any) -> tuple[Choices, ...]:
        if not isinstance(found, list):
            self.fault("step", f"found {kind_of(found)}, expected [[step]] tables")
            return ()
        parsed: list[Choices] = []
        kinds: list[str] = []
        for index, table in enumerate(found):
            key = f"step[{index}]"
            if not isinstance(table, dict):
                self.fault(key, f"found {kind_of(table)}, expected a [[step]] table")
                continue
            kind = self.step_kind(table, key)
            if kind is not None:
                kinds.append(kind)
                self.order(kinds, key)
                choices = self.choices(table, STEPS[kind], key)
                if choices is not None:
                    parsed.append(choices)
        count = math.prod(len(choices.steps()) for choices in parsed)
        if count > MAX_CANDIDATES:
            self.fault(
                "step", f"the lists make {counted(count, 'candidates')}, more than {MAX_CANDIDATES}; list fewer values"
            )
        return tuple(parsed)

    def step_kind(self, table: Mapping[str, Any], key: str) -> str | None:
        kind = table.get("kind")
        if isinstance(kind, str) and kind in STEPS:
            return kind
        found = "missing;" if kind is None else f"found {kind_of(kind)},"
        self.fault(f"{key}.kind", f"{found} expected {Choice(tuple(STEPS))}{near(str(kind), STEPS)}")
        return None

    def order(self, kinds: list[str], key: str) -> None:
        """The last of `kinds` is the step at `key`."""
        *earlier, kind = kinds
        if QuantizeStep.kind in earlier:
            wrong = "a second quantize" if kind == QuantizeStep.kind else f"{kind} after quantize"
            self.fault(f"{key}.kind", f"{wrong}; quantize comes once and last")
        of_networks = {PruneChannelsStep.kind, PruneWeightsStep.kind, RecoverStep.kind}
        if PruneTreesStep.kind in kinds and of_networks & set(kinds):
            self.fault(f"{key}.kind", f"{kind} beside {earlier[0]}; a model is a network or trees, never both")
            return
        pruned = {PruneChannelsStep.kind, PruneWeightsStep.kind}
        if kind == RecoverStep.kind and not pruned & set(earlier):
            self.fault(f"{key}.kind", "recover without a prune step before it; there is nothing to recover from")
        if kind == PruneChannelsStep.kind and PruneWeightsStep.kind in earlier:
            self.fault(f"{key}.kind", "prune-channels after prune-weights; remove channels first, then single weights")

    def choices(self, table: Mapping[str, Any], kind: type[Step], key: str) -> Choices | None:
        before = len(self.faults)
        self.known(table, f"{key}.", ["kind", *(item.name for item in fields(kind))])
        first: dict[str, Any] = {}
        lists: list[tuple[str, tuple[Value, ...]]] = []
        for item in fields(kind):
            name = f"{key}.{item.name}"
            bound: Bound = item.metadata["bound"]
            if item.name not in table:
                if item.default is MISSING:
                    self.fault(name, f"missing; expected {bound}")
                continue
            found = table[item.name]
            if isinstance(found, list):
                values = tuple(self.value(value, f"{name}[{index}]", bound) for index, value in enumerate(found))
                if not values:
                    self.fault(name, f"found an empty list, expected {bound}, or a list of several")
                    continue
                if len(set(values)) < len(values):
                    self.fault(name, "the list holds a value twice; the same candidate would be tried twice")
                lists.append((item.name, values))
                first[item.name] = values[0]
            else:
                first[item.name] = self.value(found, name, bound)
        if len(self.faults) > before:
            return None
        return Choices(kind(**first), tuple(lists))

    def value(self, found: Any, key: str, bound: Bound) -> Any:
        match bound:
            case Choice():
                if not isinstance(found, str) or found not in bound.options:
                    self.fault(key, f"found {kind_of(found)}, expected {bound}{near(str(found), bound.options)}")
                return str(found)
            case Number():
                if isinstance(found, bool) or not isinstance(found, int | float):
                    self.fault(key, f"found {kind_of(found)}, expected {bound}")
                    return 0
                if (bound.whole and not isinstance(found, int)) or not bound.low <= found <= bound.high:
                    self.fault(key, f"found {found}, expected {bound}")
                return found if bound.whole else float(found)
            case _:
                assert_never(bound)

    def measure(self, table: Mapping[str, Any]) -> Measure:
        self.known(table, "measure.", [item.name for item in fields(Measure)])
        several = {"threads", "watts_per_core_range"}
        values: dict[str, Any] = {}
        for item in fields(Measure):
            if item.name in table and item.metadata:
                key, found, bound = f"measure.{item.name}", table[item.name], item.metadata["bound"]
                values[item.name] = (
                    self.numbers(found, key, bound) if item.name in several else self.value(found, key, bound)
                )
        self.watts(values)
        backends = table.get("backends", ["onnxruntime"])
        if not isinstance(backends, list) or not backends or not all(isinstance(name, str) for name in backends):
            self.fault("measure.backends", f"found {kind_of(backends)}, expected a list of backends' names")
            return Measure()
        for index, name in enumerate(backends):
            if name not in registry.NAMES:
                known = ", ".join(registry.NAMES)
                hint = near(name, registry.NAMES)
                self.fault(f"measure.backends[{index}]", f"no backend is called {name!r}; there are {known}{hint}")
        if len(set(backends)) < len(backends):
            self.fault("measure.backends", "the list names a backend twice")
        return Measure(backends=tuple(backends), **values)

    def numbers(self, found: Any, key: str, bound: Bound) -> tuple[Any, ...]:
        """One value or a list of several."""
        listed = found if isinstance(found, list) else [found]
        keys = [f"{key}[{index}]" for index in range(len(listed))] if isinstance(found, list) else [key]
        values = tuple(self.value(one, where, bound) for one, where in zip(listed, keys, strict=True))
        if not values:
            self.fault(key, f"found an empty list, expected {bound}, or a list of several")
        if len(set(values)) < len(values):
            self.fault(key, "the list holds a value twice")
        return values

    def watts(self, values: Mapping[str, Any]) -> None:
        key, ends, watts = "measure.watts_per_core_range", values.get("watts_per_core_range"), "watts_per_core"
        if ends is None:
            return
        if watts not in values:
            self.fault(key, "a range without watts_per_core; state both")
        elif len(ends) != 2 or not ends[0] <= values[watts] <= ends[1]:
            self.fault(key, f"found {list(ends)}, expected [low, high] with watts_per_core = {values[watts]} between")

    def decision(self, table: Mapping[str, Any]) -> Recalibration:
        self.known(table, "decision.", [item.name for item in fields(Recalibration)])
        found = table.get("recalibrate", True)
        if not isinstance(found, bool):
            self.fault("decision.recalibrate", f"found {kind_of(found)}, expected true or false")
            return Recalibration()
        return Recalibration(found)

    def cases(self, table: Mapping[str, Any]) -> CaseRules:
        self.known(table, "cases.", [item.name for item in fields(CaseRules)])
        values = {
            item.name: self.value(table[item.name], f"cases.{item.name}", item.metadata["bound"])
            for item in fields(CaseRules)
            if item.name in table and item.metadata
        }
        record = self.text(table, "record", "cases.") if "record" in table else ""
        return CaseRules(record=record or "", **values)

    def reasons(self, table: Mapping[str, Any], limits: Limits) -> tuple[tuple[str, str], ...]:
        """Of limits that are set: a reason for another one is a slip, or its limit is forgotten. Those of limits on
        groups stand in a table of their own, as the limits do, or under quoted keys."""
        table = flatten_groups(table, "reasons", self.faults)
        self.known(table, "reasons.", list(metrics.limits()))
        found = []
        for name in [name for name in table if name in metrics.limits()]:
            if name not in limits:
                self.fault(f"reasons.{name}", f"a reason for a limit that is not set; set limits.{name}")
            text = self.text(table, name, "reasons.")
            found += [(name, text)] if text is not None else []
        return tuple(found)

    def objective(self, found: Any) -> Objective:
        if isinstance(found, str) and found in NAMED:
            return NAMED[found]
        if not isinstance(found, dict):
            self.fault("objective", f"found {kind_of(found)}, expected {EXPECTED}")
            return FASTEST
        self.known(found, "objective.", ("speed", "size"))
        weights = {
            name: self.value(found.get(name, 0.0), f"objective.{name}", Number(0, 1)) for name in ("speed", "size")
        }
        if not any(weights.values()):
            self.fault("objective", f"found no weight above 0, expected {EXPECTED}")
            return FASTEST
        return Objective(**weights) if weights["size"] else FASTEST

    def limits(self, table: Mapping[str, Any]) -> Limits:
        limits, faults = parse_limits(table)
        self.faults.extend(faults)
        return limits
