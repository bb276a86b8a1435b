"""Values of TOML, and how faults of a recipe are worded."""

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
        case int() if as_float(value) is None:
            return "a number of too many digits"
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


def as_float(value: int | float) -> float | None:
    """None for an integer that no float holds: Python keeps those of any length, and a caller may give one."""
    try:
        return float(value)
    except OverflowError:
        return None


def check_integers(value: Any) -> None:
    """Raise ValueError for one beyond TOML's 64 bits: Python reads them all, but cannot print or convert them all."""
    match value:
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError("an integer of more than 64 bits")
        case list():
            for item in value:
                check_integers(item)
        case dict():
            for item in value.values():
                check_integers(item)
