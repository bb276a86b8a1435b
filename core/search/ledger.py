"""Ledger: what a search has finished, on disk, so that a killed one goes on and repeats nothing.

Every entry lies under the key of everything that determines it; another model, other code, another version of a library
or another host makes another key, so that an entry is never stale and no entry is ever changed. Limits are in no key:
they are judged anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from featherweight.core.errors import OutputError
from featherweight.core.files import atomic_write
from featherweight.core.tensors import Tensors, digest_tensors


@dataclass(frozen=True)
class Entry:
    """facts: plain values, as JSON has them; arrays: by name."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Tensors = field(default_factory=dict)


class Ledger:
    """Entries as files of `folder`, which may not exist yet: each is there whole or not at all. `written` counts those
    that this process added; made_by: what all of them depend on (core.search.deciding), part of every key."""

    def __init__(self, folder: Path, made_by: Mapping[str, str] | None = None) -> None:
        self._folder, self.made_by = folder, dict(made_by or {})
        self.written = 0

    def find(self, kind: str, key: Mapping[str, Any]) -> Entry | None:
        """None for what is not there, and for a file that cannot be read: then it is done again."""
        path, stated = self._place(kind, key)
        try:
            if not path.is_file():
                return None
            with safetensors.safe_open(path, framework="np") as file:
                found = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                facts = found["facts"]
                if found["key"] != stated or found["sha256"] != digest_tensors(arrays):
                    return None
                if found.get("facts sha256", _digest_text(facts)) != _digest_text(facts):  # older entries have none
                    return None
                return Entry(json.loads(facts), arrays)
        except (OSError, safetensors.SafetensorError, LookupError, RecursionError, TypeError, ValueError):
            return None

    def keep(self, kind: str, key: Mapping[str, Any], entry: Entry) -> None:
        """Raises OutputError when it cannot be written."""
        path, stated = self._place(kind, key)
        arrays = {name: np.ascontiguousarray(array) for name, array in entry.arrays.items()}
        facts = json.dumps(dict(entry.facts), default=_plain)
        digests = {"sha256": digest_tensors(arrays), "facts sha256": _digest_text(facts)}
        metadata = {"key": stated, "facts": facts, **digests}
        try:
            with atomic_write(path, "a finished step cannot be kept", make_folder=True) as partial:
                partial.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
        except OutputError as error:
            if isinstance(error.__cause__, FileNotFoundError) and self.find(kind, key) is not None:
                return  # another process that searches here kept the same just now, and took the partial file with it
            raise
        self.written += 1

    def _place(self, kind: str, key: Mapping[str, Any]) -> tuple[Path, str]:
        stated = json.dumps({"made by": self.made_by, **key}, sort_keys=True, default=_plain)
        return self._folder / f"{kind}-{hashlib.sha256(stated.encode()).hexdigest()[:20]}.safetensors", stated


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """Facts of passes may hold mappings, tuples and numpy's numbers."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be kept")
