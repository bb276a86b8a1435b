"""Every key that a recipe may have, read off the types that parse it: for the reference and for `recipe new`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

import msgspec

from featherweight.core.backends import registry
from featherweight.core.evidence import metrics
from featherweight.core.fields import field_meanings
from featherweight.core.passes.steps import STEPS, Choice, Step
from featherweight.core.recipe.objective import EXPECTED
from featherweight.core.recipe.types import VERSION, CaseRules, Measure, Recalibration, Recipe, Setting, Source


@dataclass(frozen=True)
class Key:
    """One key of a table of a recipe."""

    name: str
    expected: str
    """What it may be, in words."""
    meaning: str
    required: bool = False
    default: Setting | None = None
    """None where the key is required, and where its absence is a value of its own."""
    shown: Setting | None = None
    """An example, where neither the default nor a usual one is."""
    several: bool = False
    """Whether a list of values may stand in its place, each of which is tried."""

    @property
    def example(self) -> Setting:
        """A value that it may have: the default where there is one."""
        if self.default is not None and self.default != "":
            return self.default
        if self.shown is not None:
            return self.shown
        return _EXAMPLES.get(self.name, 1.0 if "above" in self.expected else 0.01)


_EXAMPLES: dict[str, Setting] = {
    "card": "card.md",
    "previous": "models/before",
    "record": "test-uses.jsonl",
    "watts_per_core": 5.0,
    "watts_per_core_range": (3.0, 10.0),
    "price_per_hour": 0.1,
    "prevalence": 0.02,
    f"{metrics.GROUPS}.columns": ("site", "sex"),
}
"""Examples of keys without a default."""


def top_keys() -> tuple[Key, ...]:
    """The keys above all tables."""
    meanings = field_meanings(Recipe)
    bounds: dict[str, Any] = {item.name: item.metadata.get("bound") for item in fields(Recipe)}
    return (
        Key("version", str(VERSION), "Version of the form of recipes.", required=True),
        Key("name", "a text", meanings["name"], required=True),
        Key("seed", str(bounds["seed"]), meanings["seed"], default=0),
        Key("card", "a text", meanings["card"], default=""),
        Key("previous", "a text", meanings["previous"], default=""),
        Key("objective", EXPECTED, meanings["objective"], default="fastest"),
    )


def source_keys(kind: type[msgspec.Struct] | None = None) -> tuple[Key, ...]:
    """The keys of [source]: `task`, and those of an app, which are the fields of `kind`."""
    task = Key("task", "a text", field_meanings(Source)["task"], required=True)
    return (task, *(() if kind is None else _struct_keys(kind)))


def step_keys(kind: str) -> tuple[Key, ...]:
    """The keys of a [[step]] of this kind; `kind` itself is not among them."""
    return tuple(_bounded_keys(STEPS[kind]))


def measure_keys() -> tuple[Key, ...]:
    """The keys of [measure]."""
    backends = f"a list of {Choice(registry.NAMES).__str__().removeprefix('one of ')}"
    meaning = field_meanings(Measure)["backends"]
    return (Key("backends", backends, meaning, default=Measure().backends), *_bounded_keys(Measure))


def limit_keys() -> tuple[Key, ...]:
    """The keys of [limits]; a limit that is absent asks nothing."""
    known = metrics.limits().items()
    return (
        *(
            Key(name, limit.expected, limit.meaning or f"{limit.title}.", shown=limit.example)
            for name, (_, limit) in known
        ),
        Key(
            "unseen_case",
            str(Choice(metrics.UNSEEN_CASES)),
            "How bad the case is taken to be that the cases do not hold, in the bounds of AUC and average precision: "
            "no worse than the worst that was seen, or lost altogether, which no margin allows below about 3 over the "
            "cases of the rarer class.",
            default="as-seen",
        ),
        Key(
            "prevalence",
            "a number between 0 and 1",
            "Share of positive cases where the model is used, at which ppv_loss and npv_loss are judged.",
        ),
        Key(
            f"{metrics.GROUPS}.columns",
            "a list of texts",
            "Columns of the data whose groups the limits in groups hold in; all columns where it is absent.",
        ),
    )


def decision_keys() -> tuple[Key, ...]:
    """The keys of [decision]."""
    meanings = field_meanings(Recalibration)
    return tuple(
        Key(item.name, "true or false", meanings[item.name], default=getattr(Recalibration(), item.name))
        for item in fields(Recalibration)
    )


def case_keys() -> tuple[Key, ...]:
    """The keys of [cases]."""
    meaning = field_meanings(CaseRules)["record"]
    return (Key("record", "a text", meaning, default=""), *_bounded_keys(CaseRules))


def reason_keys() -> tuple[Key, ...]:
    """The keys of [reasons]: one for each limit."""
    return tuple(
        Key(name, "a text", f"Why the margin of {limit.title[:1].lower()}{limit.title[1:]} is what it is.")
        for name, (_, limit) in metrics.limits().items()
    )


def _bounded_keys(kind: type[Step] | type[Measure] | type[CaseRules]) -> Iterator[Key]:
    meanings, is_step = field_meanings(kind), kind not in (Measure, CaseRules)
    for item in fields(kind):
        if (bound := item.metadata.get("bound")) is None:
            continue
        listed, text = item.name in {"threads", "watts_per_core_range"}, str(bound)
        if item.name == "watts_per_core_range":
            text = f"two of {text.replace('a number', 'the numbers')}"
        required = item.default is MISSING
        default: Any = None if required else item.default
        if isinstance(default, tuple) and len(default) == 1:
            [default] = default  # threads = 1 is threads = [1]
        several = is_step or (listed and item.name != "watts_per_core_range")
        yield Key(item.name, text, meanings.get(item.name, ""), required, default, several=several)


def _struct_keys(kind: type[msgspec.Struct]) -> Iterator[Key]:
    info, meanings = msgspec.inspect.type_info(kind), field_meanings(kind)
    if not isinstance(info, msgspec.inspect.StructType):
        raise TypeError(f"{kind}: the settings of a source are a msgspec.Struct")
    for field in info.fields:
        default = None if field.required else field.default
        yield Key(field.encode_name, _expected(field.type), meanings.get(field.name, ""), field.required, default)


def _expected(found: msgspec.inspect.Type) -> str:
    """A type of a field, in words."""
    match found:
        case msgspec.inspect.StrType():
            return "a text"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            noun = "a whole number" if isinstance(found, msgspec.inspect.IntType) else "a number"
            low = "" if found.ge is None else f" from {found.ge:g}" + ("" if found.le is not None else " on")
            return noun + low + ("" if found.le is None else f" to {found.le:,}")
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return f"a list, each item {_expected(found.item_type)}"
        case msgspec.inspect.TupleType():
            return f"[{', '.join(_expected(item) for item in found.item_types)}]"
        case _:
            raise TypeError(f"{found}: a key of a recipe cannot be of this type")
