"""Limits without a recipe: a file with a table [limits], read as recipes are, and single ones beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherweight.core.errors import Fault, RecipeError, UsageError
from featherweight.core.evidence.metrics import Limits
from featherweight.core.recipe.limits import flatten_groups, parse_limits
from featherweight.core.recipe.parse import parse_recipe
from featherweight.core.recipe.text import parse_toml, read_text

_WHAT = "file of limits"


def read_limits(path: Path | None, given: Mapping[str, Any]) -> Limits:
    """The [limits] of a file, which may be a whole recipe, and further ones.

    Raises UsageError for a file that cannot be read and for a limit that is set twice, RecipeError for faults.
    """
    strange = [name for name in given if not isinstance(name, str)]
    if strange:
        raise UsageError(f"limits: found a {type(strange[0]).__name__} as a name; expected texts, such as auc_loss")
    faults: list[Fault] = []
    # Flat, so that `groups.auc_loss` of a command is seen to be the `auc_loss` of the file's [limits.groups].
    of_file = flatten_groups({} if path is None else _read_table(path), "limits", faults)
    alone = flatten_groups(given, "limits", faults)
    twice = sorted(of_file.keys() & alone.keys(), key=str)
    if twice:
        raise UsageError(f"the limit {twice[0]!r} is set in {path} and on its own; set it once")
    limits, found = parse_limits({**of_file, **alone})
    faults += found
    if faults:
        raise RecipeError("limits" if path is None else str(path), faults, "limits")
    return limits


def _read_table(path: Path) -> dict[str, Any]:
    text = read_text(path, _WHAT)
    document, faults = parse_toml(text)
    if document is None:
        raise RecipeError(str(path), faults, _WHAT)
    if "version" in document:  # a recipe, all of which must be right
        parse_recipe(text, str(path))
    else:
        faults = [Fault(key, "unknown key; known here: limits") for key in document if key != "limits"]
    table = document.get("limits", {})
    if not isinstance(table, dict):
        faults = [*faults, Fault("limits", "found something else, expected a table [limits]")]
    if faults:
        raise RecipeError(str(path), faults, _WHAT)
    return dict(table)
