"""A folder of labelled pictures: labels.csv names them, and what each shows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featherweight.core.arrays import Floats32
from featherweight.core.causes import describe_cause
from featherweight.core.errors import DataError
from featherweight.core.files import is_file
from featherweight.core.terminal import counted

LABELS = "labels.csv"
MAX_PIXELS = 64 << 20
"""Of one picture, before it is decoded."""
MAX_BYTES = 16 << 30
"""Of all pictures, as floats."""
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Pictures:
    """Files that are decoded when it is known which sizes the model takes."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, shape: Sequence[int], name: str) -> Floats32:
        """float32 [N, C, H, W] in 0..1; C is 1 (grey) or 3 (red, green, blue). Raises DataError with one line for each
        kind of fault, and for another shape."""
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise DataError(f"{name}: the model takes {list(shape)} for a case; pictures are [1, H, W] or [3, H, W]")
        if 4 * len(self) * int(np.prod(shape)) > MAX_BYTES:
            raise DataError(
                f"{name}: {counted(len(self), 'pictures')} of {list(shape)} are more than {MAX_BYTES:,} bytes"
            )
        found = np.empty((len(self), *shape), np.float32)
        faults: dict[str, list[str]] = {}
        for place, path in enumerate(self.paths):
            try:
                found[place] = decode_picture(path, shape)
            except DataError as error:
                faults.setdefault(str(error), []).append(path.name)
        if faults:
            lines = [f"{_some(files)}: {kind}" for kind, files in faults.items()]
            raise DataError(f"{name}: {counted(sum(map(len, faults.values())), 'faults')}\n  " + "\n  ".join(lines))
        return found

    def native_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of the first picture, for a network that does not say what it takes."""
        from PIL import Image

        try:
            with Image.open(self.paths[0]) as image:
                return (1 if image.mode in ("1", "L", "I;16", "I", "F") else 3, image.height, image.width)
        except Exception as error:  # Pillow's errors have no common class
            raise DataError(f"{self.paths[0].name}: cannot be read as a picture ({describe_cause(error)})") from error


def _some(files: Sequence[str]) -> str:
    return ", ".join(files[:_NAMED]) + (f" and {len(files) - _NAMED:,} more" if len(files) > _NAMED else "")


def decode_picture(path: Path, shape: Sequence[int]) -> Floats32:
    """One picture as float32 [C, H, W] in 0..1, resized by area averaging where it is larger. Raises DataError, which
    does not name the file."""
    from PIL import Image

    channels, height, width = shape
    if not is_file(path):
        raise DataError("there is no such file")
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error")
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"has more than {MAX_PIXELS:,} pixels")
            if image.mode not in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise DataError(f"has pixels of the kind {image.mode}; expected 8 bits, grey or colour")
            plain = image.convert("L" if channels == 1 else "RGB")
            if plain.size != (width, height):
                plain = plain.resize((width, height), Image.Resampling.BOX if plain.width > width else None)
            levels = np.asarray(plain, np.float32) / 255
    except DataError:
        raise
    except Exception as error:  # Pillow's errors have no common class
        raise DataError(f"cannot be read as a picture ({type(error).__name__})") from error
    return np.asarray(levels[None] if channels == 1 else np.moveaxis(levels, -1, 0))
