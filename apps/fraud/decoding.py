"""Transactions and labels out of what somebody sent, by one rule for files, Kafka and REST: a field that is not known
is ignored, and its row counted; where a required field is missing, the fields that may be meant for it are named."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from featherweight.core.errors import DataError

Kind = TypeVar("Kind", bound=msgspec.Struct)

NAMES_SHOWN: Final = 3
_NAMES_COMPARED: Final = 50
_NAME_LENGTH: Final = 40
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]*")
"""What looks like the name of a field, and not like somebody's data, which must not come into messages."""


@dataclass
class Unread:
    """What was ignored. rows: those with a field that is not known; names: the first such fields."""

    rows: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str], rows: int = 1) -> None:
        self.rows += rows
        for name in names:
            if len(self.names) > NAMES_SHOWN:
                return
            if name[: _NAME_LENGTH + 1] not in self.names:
                self.names.append(name[: _NAME_LENGTH + 1])

    def __str__(self) -> str:
        return f"{self.rows:,} rows have fields that are not known and not read: {_show(self.names, len(self.names))}"


class Decoder(Generic[Kind]):
    """Of JSON objects. The kind forbids unknown fields, so that an object without any costs no more than decoding it.
    rows: the field whose value is a list of objects by the same rule, and their kind."""

    def __init__(self, kind: type[Kind], rows: tuple[str, type[msgspec.Struct]] | None = None) -> None:
        self._kind, self._rows = kind, rows
        self.decode_known = msgspec.json.Decoder(kind).decode
        """Of an object without unknown fields; any other is for `decode`."""

    def decode(self, content: bytes, unread: Unread) -> Kind:
        """Raises msgspec.DecodeError and its ValidationError, UnicodeDecodeError, RecursionError."""
        try:
            return self.decode_known(content)
        except msgspec.ValidationError:
            pass
        found = Unread()
        value = keep_known(msgspec.json.decode(content), self._kind, found)
        if self._rows is not None and isinstance(value, dict):
            name, kind = self._rows
            if isinstance(value[name], list):
                value[name] = [
                    keep_known(row, kind, found, f" - at `$.{name}[{place}]`") for place, row in enumerate(value[name])
                ]
        decoded = msgspec.convert(value, self._kind)
        unread.add(found.names, found.rows)
        return decoded


def keep_known(value: Any, kind: type[msgspec.Struct], unread: Unread, where: str = "") -> Any:
    """An object without the fields that are not known; anything else as it is. Raises msgspec.ValidationError where a
    required field is missing, or another one looks like an optional field that is missing: to ignore it would be to do
    something else than was asked."""
    if not isinstance(value, dict):
        return value
    known = kind.__struct_fields__
    unknown = [name for name in value if name not in known]
    missing = [name for name in known if name not in value]
    required = [name for name in missing if name in required_fields(kind)]
    if required:
        raise msgspec.ValidationError(_lacks("field", required, unknown) + where)
    for name in missing:
        alike = next((other for other in unknown if _plain(other) == _plain(name)), None)
        if alike is not None:
            raise msgspec.ValidationError(
                f"has a field {_show([alike], 1)}, which is not known; is {name} meant?{where}"
            )
    if unknown:
        unread.add(unknown)
    return {name: value[name] for name in known if name in value}


def check_columns(source: str, found: Sequence[str], known: Sequence[str]) -> list[str]:
    """The columns of a table that are not among those known. Raises DataError where one of these is missing, or is
    there twice."""
    twice = [name for name in known if found.count(name) > 1]
    if twice:
        raise DataError(f"{source}: has more than one column {', '.join(twice)}; one of each is expected")
    unknown = [name for name in found if name not in known]
    missing = [name for name in known if name not in found]
    if missing:
        raise DataError(f"{source}: {_lacks('column', missing, unknown)}; expected {', '.join(known)}")
    return unknown


@functools.lru_cache(16)
def required_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)


def _plain(name: str) -> str:
    return name[: _NAME_LENGTH + 1].lower().rstrip("s")


def _lacks(what: str, missing: Sequence[str], unknown: Sequence[str]) -> str:
    said = f"has no {what} {', '.join(missing)}"
    if not unknown:
        return said
    compared = tuple(name[: _NAME_LENGTH + 1] for name in unknown[:_NAMES_COMPARED])
    return f"{said}; found {_show(_by_likeness(compared, missing[0]), len(unknown))}"


@functools.lru_cache(256)  # of a file's rows all may lack the same
def _by_likeness(names: tuple[str, ...], wanted: str) -> tuple[str, ...]:
    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), wanted).ratio()

    return tuple(sorted(names, key=likeness, reverse=True))


def _show(names: Sequence[str], count: int) -> str:
    """The first few that look like names of fields, and how many more of the `count` there are."""
    shown = [
        name if name == name.strip() else f"'{name}'"  # a space that nobody sees
        for name in names
        if len(name) <= _NAME_LENGTH and _NAME.fullmatch(name.strip())
    ][:NAMES_SHOWN]
    if not shown:
        return f"{count} whose names are not shown"
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
