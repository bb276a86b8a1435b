"""Transactions and labels out of what somebody sent, by one rule for files, Kafka and REST: a field that is not known
is ignored, and its row counted; where a required field is missing, the fields that may be meant for it are named; an
object that names a field twice is refused, because nothing says which of the values counts."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from featherweight.core.errors import DataError
from featherweight.core.keys import find_repeated
from featherweight.core.terminal import counted

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
        """Names of fields that were ignored, in so many rows; the first ones are kept to be shown."""
        self.rows += rows
        for name in names:
            if len(self.names) > NAMES_SHOWN:
                return
            if name[: _NAME_LENGTH + 1] not in self.names:
                self.names.append(name[: _NAME_LENGTH + 1])

    def __str__(self) -> str:
        names = _show(self.names, len(self.names))
        return f"{counted(self.rows, 'rows')} with fields that are not known and not read: {names}"


COMMA: Final = b","


class Decoder(Generic[Kind]):
    """Decodes JSON objects. The kind forbids unknown fields, so that an object without any costs no more than decoding
    it. rows: the field whose value is a list of objects by the same rule, and their kind.

    An object that was decoded has all required fields. If it has no other ones, has none twice, and no text with a
    comma, it has one COMMA less than fields; whatever else it has can only bring more. So one count, a seventh of the
    time of decoding, says of nearly all that nothing stands twice."""

    def __init__(self, kind: type[Kind], rows: tuple[str, type[msgspec.Struct]] | None = None) -> None:
        self._kind, self._rows = kind, rows
        self.decode_known = msgspec.json.Decoder(kind).decode
        """Decodes an object without unknown fields; any other is for `decode`. So is one with more than `commas`."""
        self.commas = len(required_fields(kind)) - 1
        self._row_commas = len(required_fields(rows[1])) if rows else 0  # with the one behind it

    def decode(self, content: bytes, unread: Unread) -> Kind:
        """Raises msgspec.DecodeError and its ValidationError, UnicodeDecodeError, RecursionError."""
        try:
            decoded = self.decode_known(content)
        except msgspec.ValidationError:
            return self._decode_more(content, unread)
        commas = content.count(COMMA)
        if commas != self.commas and not self._has_as_many(commas, decoded):
            self._refuse_repeated(content, decoded)
        return decoded

    def _decode_more(self, content: bytes, unread: Unread) -> Kind:
        """Decode what has unknown fields, or refuse what is not an object."""
        found = Unread()
        value = msgspec.json.decode(content)
        if not isinstance(value, dict) or content.count(COMMA) != len(value) - 1:
            self._refuse_repeated(content, value)
        value = keep_known(value, self._kind, found)
        if self._rows is not None and isinstance(value, dict):
            name, kind = self._rows
            if isinstance(value[name], list):
                value[name] = [
                    keep_known(row, kind, found, f" - at `$.{name}[{place}]`") for place, row in enumerate(value[name])
                ]
        decoded = msgspec.convert(value, self._kind)
        unread.add(found.names, found.rows)
        return decoded

    def _has_as_many(self, commas: int, decoded: Kind) -> bool:
        """As it must have with its rows, and with the optional fields that are there, which are objects of numbers."""
        if self._rows is None:
            return commas == self.commas + _count_optional(decoded)
        rows = getattr(decoded, self._rows[0])
        commas -= self.commas + len(rows) * self._row_commas - 1
        return commas == 0 or commas == sum(map(_count_optional, rows))

    def _refuse_repeated(self, content: bytes, decoded: Any) -> None:
        """decoded: what the content was read as, with nothing left out. Written again, it has as many quotes unless the
        content repeats a field; that takes a tenth of the time of looking for one. Escapes hide quotes and spell
        them."""
        if b"\\" not in content:
            try:
                if msgspec.json.encode(decoded).count(b'"') == content.count(b'"'):
                    return
            except OverflowError:  # a whole number of more than 64 bits, which is read and cannot be written
                pass
        repeated = find_repeated(content)
        if repeated is None:
            return
        place = repeated.path
        is_row = self._rows is not None and len(place) > 1 and place[0] == self._rows[0]
        where = f" - at `$.{place[0]}[{place[1]}]`" if is_row else ""
        if len(place) > 2 * is_row:
            raise msgspec.ValidationError("an object inside of it names a field more than once")
        if not _is_shown(repeated.key):
            raise msgspec.ValidationError(f"names a field more than once, whose name is not shown{where}")
        raise msgspec.ValidationError(f"has a field {_show([repeated.key], 1)}, and that more than once{where}")


def _count_optional(decoded: msgspec.Struct) -> int:
    count = 0
    for name in _optional_fields(type(decoded)):
        value = getattr(decoded, name)
        if isinstance(value, dict):
            count += max(len(value), 1)
    return count


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
    """The names of a type's fields without a default."""
    return frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)


@functools.lru_cache(16)
def _optional_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind) if not field.required)


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


def _is_shown(name: str) -> bool:
    return len(name) <= _NAME_LENGTH and _NAME.fullmatch(name.strip()) is not None


def _show(names: Sequence[str], count: int) -> str:
    """The first few that look like names of fields, and how many more of the `count` there are."""
    shown = [
        name if name == name.strip() else f"'{name}'"  # a space that is not visible
        for name in names
        if _is_shown(name)
    ][:NAMES_SHOWN]
    if not shown:
        return f"{count} whose names are not shown"
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
