"""What goes into a program and what comes out: named arrays with a declared type and shape."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.errors import TensorError

DType = Literal["float32", "float64", "int64", "int32", "uint8"]
Tensors = Mapping[str, Array]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, type and shape; None is the batch dimension and may only stand first."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {_text(self.shape)}"


def check_tensors(tensors: Tensors, specs: Sequence[TensorSpec]) -> int:
    """Raise TensorError unless `tensors` are exactly those of `specs`, all of one batch size; return that size.
    tensors: arrays [N, ...] by name."""
    expected = {spec.name for spec in specs}
    if tensors.keys() != expected:
        raise TensorError(f"found tensors {sorted(tensors)}, expected {sorted(expected)}")
    batches: dict[str, int] = {}
    for spec in specs:
        array = tensors[spec.name]
        if not isinstance(array, np.ndarray):
            raise TensorError(f"{spec.name}: found {type(array).__name__}, expected a numpy array")
        if array.dtype != np.dtype(spec.dtype):
            raise TensorError(
                f"{spec.name}: found {array.dtype}, expected {spec.dtype}; convert with .astype({spec.dtype!r})"
            )
        fits = array.ndim == len(spec.shape) and all(
            want is None or want == have for want, have in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise TensorError(f"{spec.name}: found shape {list(array.shape)}, expected {_text(spec.shape)}")
        if spec.shape and spec.shape[0] is None:
            batches[spec.name] = array.shape[0]
    if len(set(batches.values())) > 1:
        raise TensorError(f"batch sizes differ: {batches}")
    size = next(iter(batches.values()), 1)
    if size == 0:
        raise TensorError("the batch is empty; expected at least one row")
    return size


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"


def digest_tensors(tensors: Tensors) -> str:
    """SHA-256 in hex, the same for the same names, types, shapes and values. tensors: arrays of any shape by name."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        whole = np.ascontiguousarray(array)
        digest.update(f"{name} {whole.dtype} {whole.shape}\n".encode())
        digest.update(whole.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
