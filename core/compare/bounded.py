"""What is read at most of a file from outside, and of the numbers in it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

from featherweight.core.errors import DataError
from featherweight.core.files import is_file, read_errors

MAX_BYTES = 1 << 30
"""Of a file, and of what the columns that are asked for hold when they are unpacked."""
MAX_ROWS = 2_000_000
MAX_COLUMNS = 4096
MAX_TEXT = 500
"""Characters of an id, a label or a group's name."""
LARGEST: Final = 1e30
"""No score, threshold or cost that means anything is larger; squares and sums of these are finite."""
LARGEST_WHOLE: Final = 2**53
"""Whole numbers up to this one are exact as float64."""


def is_sane(number: float) -> bool:
    """Whether it is finite and not larger than any score, threshold or cost."""
    return math.isfinite(number) and abs(number) <= LARGEST


@contextmanager
def open_bounded(path: Path, most: int = MAX_BYTES) -> Iterator[BufferedReader]:
    """To read. Raises DataError for what is not a regular file of at most so many bytes."""
    with read_errors(path, remedy="check the path"):
        if os.path.exists(path) and not is_file(path):  # noqa: PTH110  (opening a pipe would wait for a writer)
            raise DataError(f"{path}: found a folder, pipe or device; expected a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise DataError(f"{path}: has {size:,} bytes; at most {most:,} are read")
            yield file
