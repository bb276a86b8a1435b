"""How faults of a recipe are worded."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any


def near(name: str, names: Collection[str]) -> str:
    """A guess at what was meant, to be put behind a message; empty without one."""
    close = difflib.get_close_matches(name, names, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def kind_of(value: Any) -> str:
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
