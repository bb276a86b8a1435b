"""The table [limits] of a recipe and its table [limits.groups]."""

from __future__ import annotations

from collections.abc import Mapping
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
    found = flatten_groups(table, "limits", faults)
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


def flatten_groups(table: Mapping[str, Any], where: str, faults: list[Fault]) -> dict[str, Any]:
    """The keys of the table [WHERE.groups] as `groups.NAME`, beside the others. What is set in both ways is a fault:
    which of them counts would depend on their order."""
    groups = table.get(GROUPS, {})
    if not isinstance(groups, Mapping):
        faults.append(Fault(f"{where}.{GROUPS}", f"found {kind_of(groups)}, expected a table"))
        groups = {}
    inner = {f"{GROUPS}.{name}": value for name, value in groups.items()}
    outer = {name: value for name, value in table.items() if name != GROUPS}
    faults += [
        Fault(f"{where}.{name}", f"set here and in [{where}.{GROUPS}]; set it once") for name in inner if name in outer
    ]
    return {**outer, **inner}


def _columns(found: Mapping[str, Any], faults: list[Fault]) -> tuple[str, ...]:
    columns = found.get(_COLUMNS, [])
    if not isinstance(columns, list) or not all(isinstance(name, str) and name for name in columns):
        faults.append(Fault(f"limits.{_COLUMNS}", f"found {kind_of(columns)}, expected a list of names of columns"))
        return ()
    return tuple(columns)
