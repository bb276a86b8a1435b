"""The layouts of labelled data: names of the functions that read them, each imported when it is asked for."""

from __future__ import annotations

import importlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from featherweight.apps.imaging.training.cases import Split
from featherweight.core.datasets.catalogue import local_copy
from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import is_there


class SplitReader(Protocol):
    """Reads a data set's cases at `side` x `side` pixels. seed: of the split, where the data do not say it themselves.
    Raises DataError, and what zipfile, numpy and Pillow raise for files that are not what they should be."""

    def __call__(self, path: Path, *, seed: int, side: int) -> Split: ...


@dataclass(frozen=True)
class Layout:
    """Where the reader of a layout stands."""

    module: str
    function: str

    def load(self) -> SplitReader:
        """Import it: the codecs that a folder of one's own needs take a second, and the public sets do without."""
        return cast(SplitReader, getattr(importlib.import_module(self.module), self.function))


_ROOM = "featherweight.apps.imaging.training"
LAYOUTS = {
    "kermany": Layout(f"{_ROOM}.public_sets", "read_kermany"),
    "medmnist": Layout(f"{_ROOM}.public_sets", "read_medmnist"),
    "folder": Layout(f"{_ROOM}.folder", "read_labelled"),
}
"""Names of `imaging train --format` and of a recipe's key `reader`."""

_DAMAGED = (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What zipfile, numpy and Pillow raise for a data set that is not what it should be."""


def find_data(data: str, reader: str) -> Path:
    """Where they are. Raises UsageError for an unknown reader, DataError when there is no such data."""
    if reader not in LAYOUTS:
        raise UsageError(f"data format {reader!r} is not one of {', '.join(LAYOUTS)}")
    path = Path(data) if is_there(Path(data)) else local_copy(data)
    if path is None:
        raise DataError(f"{data}: neither a path nor a fetched data set; see: featherweight data list")
    return path


def read_split(data: str, reader: str, *, side: int, seed: int) -> Split:
    """The split of a data set: `data` is a path or the catalogue's name of a fetched set.

    Raises UsageError for an unknown reader, DataError when there is no such data or it is not what it should be.
    """
    path = find_data(data, reader)
    try:
        return LAYOUTS[reader].load()(path, seed=seed, side=side)
    except _DAMAGED as error:
        raise DataError(
            f"{path}: cannot be read as {reader} ({type(error).__name__}: {error}); is it damaged, or another layout?"
        ) from error
