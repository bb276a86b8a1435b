"""Arrays in numpy's own archive (.npz), treated as hostile: sizes and headers are compared before they are believed."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.artifact.reference_cases import DAMAGED
from featherweight.core.compare.bounded import open_bounded
from featherweight.core.errors import DataError

MAX_BYTES = 4 << 30
"""Of all arrays of an archive, unpacked."""
MAX_ARRAYS = 1000
_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes."""


def read_arrays(path: Path) -> dict[str, Array]:
    """Name -> array of numbers or texts. Raises DataError for anything else."""
    with open_bounded(path, MAX_BYTES) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                if len(members) > MAX_ARRAYS or sum(member.file_size for member in members) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_ARRAYS} arrays or {MAX_BYTES:,} bytes unpacked")
                return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
        except DAMAGED as error:
            raise DataError(
                f"{path}: is no archive of arrays that is read here ({type(error).__name__}); write it with "
                "numpy.savez, arrays of numbers or texts"
            ) from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    if member.compress_type not in _PACKING:
        raise ValueError("packed in another way")
    with archive.open(member) as stream:
        content = stream.read(member.file_size)
    header = io.BytesIO(content)
    version = np.lib.format.read_magic(header)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read_header(header)
    start = header.tell()
    if dtype.kind not in "biufU" or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("other data than the header says")
    found = np.frombuffer(content, dtype, offset=start)
    return np.asarray(found.reshape(shape, order="F" if fortran else "C"))
