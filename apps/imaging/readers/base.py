"""What every reader of a format shares: the bounds, the refusal, and the shape of a reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from apps.imaging.frames import FrameId, Rejected
from apps.imaging.settings import Preprocess
from core.errors import DataError
from core.terminal import counted


@dataclass(frozen=True)
class Limits:
    """Checked before anything of that size is decoded.

    file_bytes also bounds what a deflated file may grow to; samples: rows x columns x samples per pixel x frames of a
    file, for the time that it takes; frames: of a file, and result_bytes what they are together, `side` x `side`
    float32 each; memory_bytes: all that a worker holds of one file at the worst moment, its bytes included. elements:
    of a DICOM file, those in sequences too, or entries of a TIFF's directories.
    """

    file_bytes: int = 512 << 20
    samples: int = 1 << 28
    frames: int = 1024
    result_bytes: int = 64 << 20
    memory_bytes: int = 1152 << 20
    elements: int = 100_000


LONGEST_SIDE = 65_535
"""What DICOM and JPEG can name."""

DEFAULT_LIMITS = Limits()


class RefusedError(DataError):
    """A file or frame that cannot be classified; becomes a Rejected row. reason: a code of `apps.imaging.readers`."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Pixels:
    """A frame before it is timed: float32 [side, side] in 0..1. notes: how it was understood where the file deviates
    from its format's rules, and what of the file is not applied; no patient data."""

    id: FrameId
    pixels: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """Decodes the bytes of one file to its frames, in order. Raises RefusedError when nothing in it can be
    classified."""

    def __call__(
        self, content: bytes, source: str, preprocess: Preprocess, limits: Limits
    ) -> Iterator[Pixels | Rejected]: ...


def check_size(rows: int, columns: int, samples: int, frames: int, limits: Limits) -> None:
    """Raise RefusedError unless the header's numbers are positive and within `limits`."""
    if min(rows, columns, samples, frames) < 1:
        raise RefusedError(
            "bad-header",
            f"found {counted(rows, 'rows')}, {counted(columns, 'columns')}, "
            f"{counted(samples, 'samples')} per pixel, {counted(frames, 'frames')}; all must be positive",
        )
    if max(rows, columns) > LONGEST_SIDE:
        raise RefusedError(
            "too-large",
            f"found {counted(rows, 'rows')}, {counted(columns, 'columns')}; at most {LONGEST_SIDE} are read",
        )
    if frames > limits.frames:
        raise RefusedError("too-large", f"found {frames} frames, at most {limits.frames} are read; split the file")
    total = rows * columns * samples * frames
    if total > limits.samples:
        raise RefusedError(
            "too-large",
            f"found {rows} x {columns} x {samples} x {frames} = {total} samples, at most {limits.samples} are read",
        )


def check_memory(needed_bytes: int, limits: Limits) -> None:
    """Raise RefusedError when decoding would take a worker more memory than it may have."""
    if needed_bytes > limits.memory_bytes:
        found, most = (-(-size >> 20) for size in (needed_bytes, limits.memory_bytes))
        raise RefusedError("too-large", f"decoding it would take {found} MiB of memory, a worker has {most}")


def check_results(frames: int, side: int, limits: Limits) -> None:
    """Raise RefusedError when a file has more frames than a worker may hand over at once."""
    most = min(limits.frames, max(1, limits.result_bytes // (4 * side * side)))
    if frames > most:
        raise RefusedError("too-large", f"found {frames} frames, at most {most} are read; split the file")
