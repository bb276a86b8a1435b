"""Constants of a program: all of their data is here, and as much as their shape says."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.errors import BackendError
from featherweight.core.inspection.wire import Message

RANK = 16
ELEMENTS = 1 << 31

FLOAT, UINT8, INT32, INT64, BOOL, DOUBLE = 1, 2, 6, 7, 9, 11
BITS: Mapping[int, int] = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 21: 4, 22: 4,
}  # fmt: skip
"""ONNX's number of a type -> bits of an element; texts, complex numbers and the 8-bit floats are not among them."""
_FIELDS: Mapping[str, frozenset[int]] = {
    "float_data": frozenset({1}),
    "int32_data": frozenset({2, 3, 4, 5, 6, 9, 10, 16, 21, 22}),
    "int64_data": frozenset({7}),
    "double_data": frozenset({11}),
    "uint64_data": frozenset({12, 13}),
}
_RANGES: Mapping[int, tuple[int, int]] = {
    2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 6: (-(1 << 31), (1 << 31) - 1), 9: (0, 1),
    10: (0, 65535), 16: (0, 65535), 21: (0, 255), 22: (-128, 255),
}  # fmt: skip
_RAW = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 11: "<f8"}


def check_tensor(tensor: Message, what: str) -> None:
    """Raise BackendError unless the data is here, and as much of it as the shape says."""
    kind, dims = tensor.get("data_type", 0), [int(size) for size in tensor.get("dims", ())]
    if kind not in BITS:
        raise BackendError(f"the program's {what} is of the type {kind}, which no program needs")
    if tensor.get("data_location", 0) != 0:
        raise BackendError(f"the program's {what} takes data from other files; export it with all its weights inside")
    elements = math.prod(dims)
    if len(dims) > RANK or min(dims, default=0) < 0 or elements > ELEMENTS:
        raise BackendError(f"the program's {what} has the shape {dims[:RANK]}")
    there = [name for name in ("raw_data", *_FIELDS) if name in tensor]
    held = [name for name in there if len(tensor[name])]
    if len(there) > 1:  # even an empty one: a runtime may ask which field is there, not what it holds
        raise BackendError(f"the program's {what} holds its data twice")
    if not held:
        found, wanted = 0, elements
    elif held[0] == "raw_data":
        found, wanted = len(tensor["raw_data"]), -(-elements * BITS[kind] // 8)
    else:
        if kind not in _FIELDS[held[0]]:
            raise BackendError(f"the program's {what} holds the type {kind} as {held[0]}")
        # Two of 4 bits stand in one number.
        found, wanted = len(tensor[held[0]]), -(-elements // 2) if BITS[kind] == 4 else elements
        if held[0] == "int32_data":
            least, most = _RANGES[kind]
            if int(tensor[held[0]].min()) < least or int(tensor[held[0]].max()) > most:
                raise BackendError(f"the program's {what} holds a number that its type cannot")
    if found != wanted:
        raise BackendError(f"the program's {what} of the shape {dims} holds {found} of {wanted} values or bytes")


def values_of(tensor: Message) -> Array | None:
    """The values [n] of a checked tensor of one of the usual types; None for other types."""
    kind = tensor.get("data_type", 0)
    if len(tensor.get("raw_data", ())):
        return np.frombuffer(tensor["raw_data"], _RAW[kind]) if kind in _RAW else None
    for name in ("float_data", "int32_data", "int64_data", "double_data"):
        if name in tensor:
            return np.asarray(tensor[name])
    return np.empty(0, np.float32)
