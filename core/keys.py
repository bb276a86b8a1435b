"""Objects of JSON that name a key more than once. Which of the values counts is not agreed among readers (RFC 8259,
section 4): msgspec and most others silently take the last one, so writer and reader may mean different
things."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Repeated:
    """key: what stands there more than once; path: the way to its object, by keys and places in lists."""

    key: str
    path: tuple[str | int, ...]


class _Ambiguous(dict[str, Any]):
    key: str


def find_repeated(content: bytes | str) -> Repeated | None:
    """One that repeats a key, of all objects in the text. It takes some ten times as long as msgspec's reading. Raises
    UnicodeDecodeError, RecursionError; what is not JSON is not judged here."""
    found = False

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        whole = dict(pairs)
        if len(whole) == len(pairs):
            return whole
        found = True
        ambiguous, seen = _Ambiguous(whole), set[str]()
        ambiguous.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return ambiguous

    text = content if isinstance(content, str) else content.decode()
    try:
        # Numbers stay texts: no digits are too many, and none is made for nothing.
        value = json.loads(text, object_pairs_hook=collect, parse_int=str, parse_float=str, strict=False)
    except json.JSONDecodeError:
        return None
    return _search(value) if found else None


def _search(value: Any) -> Repeated | None:
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while waiting:
        one, path = waiting.pop()
        if isinstance(one, _Ambiguous):
            return Repeated(one.key, path)
        if isinstance(one, dict):
            waiting += [(inner, (*path, key)) for key, inner in one.items()]
        elif isinstance(one, list):
            waiting += [(inner, (*path, place)) for place, inner in enumerate(one)]
    return None


def decode_unambiguous(content: bytes | str, kind: type[Kind]) -> Kind:
    """JSON that was written to be kept. Raises msgspec.DecodeError, also where an object names a key twice,
    UnicodeDecodeError, RecursionError."""
    decoded = msgspec.json.decode(content, type=kind)
    repeated = find_repeated(content)
    if repeated is not None:
        raise msgspec.ValidationError(f"an object has the key {repeated.key[:100]!r} more than once")
    return decoded
