"""The table [limits] of a recipe and its table [limits.groups]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from featherweight.core.errors import Fault
from featherweight.core.evidence import metrics
from featherweight.core.evidence.metrics import GROUPS, UNSEEN_CASES, Limits
from featherweight.core.passes.steps import Choice
from featherweight.core.recipe.wording import as_float, kind_of, near

_COLUMNS = f"{GROUPS}.columns"


def parse_limits(table: Mapping[str, Any]) -> tuple[Limits, tuple[Fault, ...]]:
    """Every fault with its key; what is at fault is left out."""
    faults: list[Fault] = []
    found = dict(_flattened(table, faults))
    names = list(metrics.limits())
    known = [*names, "unseen_case", "prevalence", _COLUMNS]
    listed = f"; known here: {', '.join(known)}"
    unknown = [name for name in found if name not in known]
    faults += [Fault(f"limits.{name}", f"unknown key{near(name, known) or listed}") for name in unknown]
    values: dict[str, float] = {}
    for name in (*names, "prevalence"):
        if name in found:
            value = found[name]
            number = None if isinstance(value, bool) or not isinstance(value, int | float) else as_float(value)
            if number is None:
                faults.append(Fault(f"limits.{name}", f"found {kind_of(value)}, expected a number"))
            else:
                values[name] = number
    unseen = found.get("unseen_case", "as-seen")
    if unseen not in UNSEEN_CASES:
        faults.append(Fault("limits.unseen_case", f"found {kind_of(unseen)}, expected {Choice(UNSEEN_CASES)}"))
        unseen = "as-seen"
    limits = Limits(unseen_case=unseen, group_columns=_columns(found, faults), **values)
    return limits, (*faults, *limits.faults())


def _flattened(table: Mapping[str, Any], faults: list[Fault]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if name != GROUPS:
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((f"{GROUPS}.{inner}", one) for inner, one in value.items())
        else:
            faults.append(Fault(f"limits.{GROUPS}", f"found {kind_of(value)}, expected a table"))


def _columns(found: Mapping[str, Any], faults: list[Fault]) -> tuple[str, ...]:
    columns = found.get(_COLUMNS, [])
    if not isinstance(columns, list) or not all(isinstance(name, str) and name for name in columns):
        faults.append(Fault(f"limits.{_COLUMNS}", f"found {kind_of(columns)}, expected a list of names of columns"))
        return ()
    return tuple(columns)
