"""Ensembles on disk, as safetensors: arrays only, nothing that is executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from featherweight.core.arrays import Array
from featherweight.core.errors import DataError
from featherweight.core.files import atomic_write, read_errors
from featherweight.core.trees.canonical import MAX_NODES, Nodes, canonicalize
from featherweight.core.trees.ensemble import Ensemble

_OUTPUTS = ("margin", "probability")
_ARRAYS = {
    "roots": np.int32,
    "feature": np.int32,
    "threshold": np.float32,
    "left": np.int32,
    "right": np.int32,
    "missing_left": np.bool_,
    "value": np.float32,
}
_NUMBERS = {"features": np.int32, "base": np.float32, "output": np.uint8}
_MAX_BYTES = 30 * MAX_NODES


def write_trees(path: Path, ensemble: Ensemble) -> None:
    """Raises OutputError, and DataError as `encode_stored` does."""
    with atomic_write(path, "the trees cannot be written") as partial:
        partial.write_bytes(encode_stored(ensemble))


def encode_stored(ensemble: Ensemble) -> bytes:
    """What `write_trees` writes. Raises DataError for trees with categories, float64 rows or several targets, which
    these files do not hold."""
    if ensemble.wide or ensemble.targets > 1 or len(ensemble.members):
        raise DataError("trees with categories, float64 rows or several targets are not stored as safetensors")
    arrays: dict[str, Array] = {
        name: np.ascontiguousarray(getattr(ensemble, name), kind) for name, kind in _ARRAYS.items()
    }
    arrays["features"] = np.array([ensemble.features], np.int32)
    arrays["base"] = np.array([ensemble.base], np.float32)
    arrays["output"] = np.array([_OUTPUTS.index(ensemble.output)], np.uint8)
    return save(arrays)


def read_trees(path: Path) -> Ensemble:
    """Raises DataError for a file that is not there, or is not one that `write_trees` wrote."""
    with read_errors(path, "the trees cannot be read"):
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: too large for trees")
        content = path.read_bytes()
    try:
        return decode_stored(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def decode_stored(content: bytes) -> Ensemble:
    """Raises DataError for hostile bytes: what is returned are trees, without a cycle or a number out of range."""
    try:
        arrays = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"this is not a safetensors file of trees: {error}") from error
    expected = _ARRAYS | _NUMBERS
    found = {name: array.dtype for name, array in arrays.items()}
    if found != {name: np.dtype(kind) for name, kind in expected.items()}:
        raise DataError(f"found the arrays {sorted(found)}, expected {sorted(expected)} in their types")
    if any(arrays[name].shape != (1,) for name in _NUMBERS) or arrays["output"][0] >= len(_OUTPUTS):
        raise DataError("`features`, `base` or `output` is not one number in its range")
    nodes = Nodes(**{name: arrays[name] for name in _ARRAYS})
    output = _OUTPUTS[int(arrays["output"][0])]
    return canonicalize(nodes, int(arrays["features"][0]), float(arrays["base"][0]), output)  # type: ignore[arg-type]
