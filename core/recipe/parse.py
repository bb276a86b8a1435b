"""A recipe's file to a Recipe; every fault of the file is reported at once, each with its key."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, assert_never

from featherweight.core.backends import registry
from featherweight.core.errors import Fault, RecipeError, UsageError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.metrics import UNSEEN_CASES, Limits
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
from featherweight.core.recipe.objective import EXPECTED, FASTEST, NAMED, Objective
from featherweight.core.recipe.types import (
    SEED,
    VERSION,
    Choices,
    Measure,
    Recalibration,
    Recipe,
    Setting,
    Source,
    Value,
)
from featherweight.core.terminal import counted

MAX_CANDIDATES = 50
_MAX_BYTES = 16_000
_LINES_LOOKED_AT = 100
"""Each is a parse of the whole recipe, a millisecond or so."""
_MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors", ".json", ".ubj", ".pkl", ".joblib", ".tflite", ".npz")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def read_recipe(path: Path, *, tasks: Collection[str] | None = None) -> Recipe:
    """tasks: the names that [source] may give, where they are known. Raises UsageError for a file that cannot be read,
    RecipeError for its faults, a card that cannot be read among them."""
    with read_errors(path, "the recipe cannot be read", "check the path", raises=UsageError), path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if path.suffix.lower() in _MODEL_SUFFIXES or b"\0" in content:
        raise UsageError(
            f"{path}: this is a model or another kind of file, not a recipe. A recipe is a text in TOML that names the "
            "steps and, in [source], the folder of a trained model; begin with: featherweight recipe new"
        )
    if len(content) > _MAX_BYTES:
        raise UsageError(f"{path}: found more than {_MAX_BYTES:,} bytes, which no recipe needs; check the path")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = Fault("file", f"byte {error.start} is not UTF-8; save the file as UTF-8")
        raise RecipeError(str(path), [fault]) from error
    recipe, faults = _parse(text, tasks, reading_card=True)
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
    try:
        table = tomllib.loads(text)
        _check_integers(table)
    except RecursionError:
        return None, [Fault("file", "not TOML: lists or tables are nested too deep")]
    except ValueError as error:  # a number of thousands of digits is a plain ValueError
        return None, [Fault("file", f"not TOML: {error}{_unclosed(text, error)}")]
    reader = _Reader(tasks)
    recipe, card = reader.recipe(table), table.get("card")
    if reading_card and isinstance(card, str):
        try:
            read_card(card)
        except UsageError as error:
            reader.fault("card", str(error).removeprefix("card: "))
    return recipe, reader.faults


def _unclosed(text: str, error: ValueError) -> str:
    """Where something begins that ends nowhere: the parser itself only says that it came to the end of the text."""
    if "end of document" not in str(error):
        return ""
    lines = text.splitlines(keepends=True)
    for count in range(len(lines) - 1, max(-1, len(lines) - _LINES_LOOKED_AT), -1):
        try:
            tomllib.loads("".join(lines[:count]))
        except (ValueError, RecursionError):
            continue
        return f"; what begins in line {count + 1} is not closed"
    return ""


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
            self.fault("version", f"found {_kind(version)}, expected {VERSION}")
        self.known(
            table,
            "",
            ("version", "name", "seed", "card", "objective", "source", "step", "measure", "limits", "decision"),
        )
        name = self.text(table, "name", "")
        if name is not None and not _NAME.fullmatch(name):
            self.fault(
                "name", f"found {name!r}, expected letters, digits, '.', '_' and '-': it becomes a folder's name"
            )
        seed = self.value(table.get("seed", 0), "seed", SEED)
        card = self.text(table, "card", "") if "card" in table else ""
        source = self.source(self.table(table, "source"))
        steps = self.steps(table.get("step", []))
        measure = self.measure(self.table(table, "measure"))
        limits = self.limits(self.table(table, "limits"))
        decision = self.decision(self.table(table, "decision"))
        objective = self.objective(table["objective"]) if "objective" in table else FASTEST
        if self.faults or name is None or source is None:
            return None
        return Recipe(name, source, steps, measure, limits, int(seed), card or "", decision, objective)

    def table(self, parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = parent.get(key, {})
        if not isinstance(found, dict):
            self.fault(key, f"found {_kind(found)}, expected a table [{key}]")
            return {}
        return found

    def known(self, table: Mapping[str, Any], where: str, names: Collection[str]) -> None:
        for key in table:
            if key not in names:
                hint = _near(key, names) or f"; known here: {', '.join(names)}"
                self.fault(f"{where}{key}", f"unknown key{hint}")

    def text(self, table: Mapping[str, Any], key: str, where: str) -> str | None:
        found = table.get(key)
        if found is None:
            self.fault(where + key, "missing; expected a text")
        elif not isinstance(found, str) or not found.strip():
            self.fault(where + key, f"found {_kind(found)}, expected a text")
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
            near = _near(task, self.tasks)
            self.fault("source.task", f"no app is called {task!r}; installed: {', '.join(sorted(self.tasks))}{near}")
        return None if task is None else Source(task, tuple(settings))

    def setting(self, value: Any, key: str) -> Setting | None:
        if isinstance(value, list):
            items = [self.setting(item, f"{key}[{index}]") for index, item in enumerate(value)]
            return tuple(item for item in items if item is not None)
        if isinstance(value, str | int | float | bool):
            return value
        self.fault(key, f"found {_kind(value)}, expected a text, a number, true, false or a list of these")
        return None

    def steps(self, found: Any) -> tuple[Choices, ...]:
        if not isinstance(found, list):
            self.fault("step", f"found {_kind(found)}, expected [[step]] tables")
            return ()
        parsed: list[Choices] = []
        kinds: list[str] = []
        for index, table in enumerate(found):
            key = f"step[{index}]"
            if not isinstance(table, dict):
                self.fault(key, f"found {_kind(table)}, expected a [[step]] table")
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
        found = "missing;" if kind is None else f"found {_kind(kind)},"
        self.fault(f"{key}.kind", f"{found} expected {Choice(tuple(STEPS))}{_near(str(kind), STEPS)}")
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
                    self.fault(key, f"found {_kind(found)}, expected {bound}{_near(str(found), bound.options)}")
                return str(found)
            case Number():
                if isinstance(found, bool) or not isinstance(found, int | float):
                    self.fault(key, f"found {_kind(found)}, expected {bound}")
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
            self.fault("measure.backends", f"found {_kind(backends)}, expected a list of backends' names")
            return Measure()
        for index, name in enumerate(backends):
            if name not in registry.NAMES:
                known = ", ".join(registry.NAMES)
                near = _near(name, registry.NAMES)
                self.fault(f"measure.backends[{index}]", f"no backend is called {name!r}; there are {known}{near}")
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
            self.fault("decision.recalibrate", f"found {_kind(found)}, expected true or false")
            return Recalibration()
        return Recalibration(found)

    def objective(self, found: Any) -> Objective:
        if isinstance(found, str) and found in NAMED:
            return NAMED[found]
        if not isinstance(found, dict):
            self.fault("objective", f"found {_kind(found)}, expected {EXPECTED}")
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
        names = list(metrics.limits())
        self.known(table, "limits.", [*names, "unseen_case"])
        values: dict[str, float] = {}
        for name in names:
            if name in table:
                found = table[name]
                if isinstance(found, bool) or not isinstance(found, int | float):
                    self.fault(f"limits.{name}", f"found {_kind(found)}, expected a number")
                else:
                    values[name] = float(found)
        unseen = table.get("unseen_case", "as-seen")
        if unseen not in UNSEEN_CASES:
            self.fault("limits.unseen_case", f"found {_kind(unseen)}, expected {Choice(UNSEEN_CASES)}")
            unseen = "as-seen"
        limits = Limits(unseen_case=unseen, **values)
        self.faults.extend(limits.faults())
        return limits


def _near(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _check_integers(value: Any) -> None:
    """Raise ValueError for one beyond TOML's 64 bits: Python reads them all, but cannot print or convert them all."""
    match value:
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError("an integer of more than 64 bits")
        case list():
            for item in value:
                _check_integers(item)
        case dict():
            for item in value.values():
                _check_integers(item)


def _kind(value: Any) -> str:
    """A TOML value's type in plain words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value!r}" if value.strip() else "an empty text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
