"""What stays of cases when their inputs are prepared otherwise: their names, and what they look like.

Another size of the image, another name of a tensor or a difference of 1e-7 makes other inputs of the same cases, but no
new cases."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from featherweight.core.arrays import Floats, Hashes
from featherweight.core.record.pictures import hash_inputs, picture_input
from featherweight.core.tensors import Tensors, TensorSpec

MAX_VALUES = 4096
"""Values of a case that is not a picture and is looked at so; of larger ones only bytes and names are known."""
_DIGITS = 2
"""Decimals that are kept of a value's first digit and those after it."""
_LEAST_BITS = 12
"""A band of a picture's hash with fewer bits that are set, or that are not, is flat, and so that of many pictures."""
_ROWS = 4096
_NUMBERED = re.compile(r"([^0-9]*)([0-9]{1,18})")


def digest_names(names: Sequence[str]) -> list[bytes]:
    """Of each name; none where they are only numbers that count the cases from the first to the last: these stand for a
    place in a list, and are the same for the cases of any other list."""
    found = [_NUMBERED.fullmatch(name) for name in names]
    if all(found):
        heads = {one[1] for one in found if one}
        numbers = {int(one[2]) for one in found if one}
        if len(heads) == 1 and any(numbers == set(range(start, start + len(names))) for start in (0, 1)):
            return []
    return [hashlib.sha256(b"name " + name.encode("utf-8", "surrogatepass")).digest() for name in names]


def digest_looks(tensors: Tensors, hashes: Hashes | None = None) -> Iterator[bytes]:
    """Of pictures four digests each, of the four bands of their difference hash: another size or compression changes
    some bits, but rarely those of all bands. Of other inputs one, of their values to three digits, whatever the tensors
    are called. hashes: of the pictures, where they are known already. On 5,840 chest x-rays those of different patients
    share at most 5% of the bands, the same ones at 128 in place of 224 pixels 44%, as JPEGs of quality 40 66%."""
    specs = tuple(TensorSpec(name, "float32", (None, *array.shape[1:])) for name, array in tensors.items())
    picture = picture_input(specs)
    if picture:
        yield from _bands(hash_inputs(tensors, picture) if hashes is None else hashes)
    elif tensors and sum(int(np.prod(array.shape[1:])) for array in tensors.values()) <= MAX_VALUES:
        yield from _rounded(tensors)


def _bands(hashes: Hashes) -> Iterator[bytes]:
    set_bits = np.bitwise_count(hashes)
    for band in range(hashes.shape[1]):
        told = hashes[(set_bits[:, band] >= _LEAST_BITS) & (set_bits[:, band] <= 64 - _LEAST_BITS), band]
        for one in np.unique(told).tolist():
            yield hashlib.sha256(f"band {band} {one}".encode()).digest()


def _rounded(tensors: Tensors) -> Iterator[bytes]:
    arrays = [tensors[name].reshape(len(tensors[name]), -1) for name in sorted(tensors)]
    for start in range(0, len(arrays[0]), _ROWS):
        rows: Floats = np.concatenate([np.asarray(one[start : start + _ROWS], np.float64) for one in arrays], axis=1)
        size = np.where(np.isfinite(rows) & (rows != 0), np.abs(rows), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            unit = 10.0 ** (np.floor(np.log10(size)) - _DIGITS)
            whole = np.where(np.isfinite(rows), np.rint(rows / unit) * unit, np.nan) + 0.0
        whole[np.isnan(whole)] = np.nan  # all with the same bytes
        for row in whole.astype(np.float32):
            yield hashlib.sha256(b"values " + row.tobytes()).digest()
