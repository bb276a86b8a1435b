"""Reference inputs and outputs: synthetic inputs with the outputs that the program gave where it was judged, so that
any host can check that its own runtimes reproduce them.

The file `parity/probes.npz` is numpy's own format, packed by LZMA (images of blocks shrink to a thousandth). Its bytes
are treated as hostile: names, types and shapes must be those that the manifest gives, before memory is taken for them.
"""

from __future__ import annotations

import io
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.artifact.manifest import DecisionPoint, Manifest
from featherweight.core.errors import ArtifactError, TensorError
from featherweight.core.program import Precision
from featherweight.core.tensors import Tensors, TensorSpec, check_tensors

REFERENCE_FILE = "parity/probes.npz"
MAX_REFERENCE_BYTES = 64 << 20
"""Maximum size of all reference inputs and outputs of an artifact, unpacked: 32 colour images of 700 x 700."""

ABSURD = 1000
"""A tolerance above this many times the largest output is refused."""

DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TensorError, tokenize.TokenError, TypeError, ValueError,
)  # fmt: skip
"""What zipfile, numpy and Python's parser, which numpy asks to read headers, raise for bytes that are no such archive;
RuntimeError is an encrypted member, MemoryError one that asks for a dictionary of gigabytes."""
_PART = 4096
"""Packed bytes that are unpacked at once."""


@dataclass(frozen=True, eq=False)
class ReferenceCases:
    """inputs, outputs: tensors of [n] cases; tolerances: output -> the largest difference that is called the same, in
    its own unit; decision: where among the outputs the decision is seen, or None where the app makes it of several."""

    inputs: Tensors
    outputs: Tensors
    backend: str
    precision: Precision
    tolerances: Mapping[str, float]
    decision: DecisionPoint | None

    @property
    def count(self) -> int:
        """Number of cases."""
        return len(next(iter(self.inputs.values())))


def encode_reference_cases(reference: ReferenceCases) -> bytes:
    """The same bytes for the same tensors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for kind, tensors in (("input", reference.inputs), ("output", reference.outputs)):
            for index, array in enumerate(tensors.values()):
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{kind}-{index}.npy"), member.getvalue(), zipfile.ZIP_LZMA)
    return buffer.getvalue()


def decode_reference_cases(content: bytes, manifest: Manifest) -> ReferenceCases:
    """Raises ArtifactError for anything but what the manifest says, and for nothing else."""
    entry = manifest.parity
    if entry is None:
        raise ArtifactError("manifest.json: no reference inputs are sealed")
    inputs, outputs = [spec.spec() for spec in manifest.inputs], [spec.spec() for spec in manifest.outputs]
    if sum(_bytes(spec, entry.cases) for spec in (*inputs, *outputs)) > MAX_REFERENCE_BYTES:
        raise ArtifactError(f"{REFERENCE_FILE}: more than {MAX_REFERENCE_BYTES} bytes unpacked")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            given = _read_members(archive, "input", inputs, entry.cases)
            expected = _read_members(archive, "output", outputs, entry.cases)
    except DAMAGED as error:
        raise ArtifactError(
            f"{REFERENCE_FILE}: not the reference inputs and outputs that the manifest describes: {error}"
        ) from error
    if not all(np.isfinite(array).all() for array in expected.values()):
        raise ArtifactError(f"{REFERENCE_FILE}: an expected output is not a number")
    for name, array in expected.items():
        largest = max(1.0, float(np.abs(array.astype(np.float64)).max()))
        if entry.tolerances[name] > ABSURD * largest:
            raise ArtifactError(
                f"manifest.json: parity: {name!r} is {largest:g} at most and may differ by {entry.tolerances[name]:g}: "
                "anything would be the same"
            )
    return ReferenceCases(given, expected, entry.backend, entry.precision, entry.tolerances, entry.decision)


def _read_members(archive: zipfile.ZipFile, kind: str, specs: list[TensorSpec], cases: int) -> Tensors:
    found = {}
    for index, spec in enumerate(specs):
        content = _read_member(archive, f"{kind}-{index}.npy", _bytes(spec, cases) + 4096)
        found[spec.name] = _read_array(io.BytesIO(content), spec, cases)
    check_tensors(found, specs)
    return found


def _read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The first `most` bytes, or a little more. Read in parts: of what zipfile takes in at once, it unpacks everything,
    to 7000 times its size by LZMA and to a million times by bzip2."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_LZMA:
        raise ValueError(f"{name} is not packed by LZMA")
    content = bytearray()
    with archive.open(name) as member:
        while len(content) < most and (part := member.read(_PART)):
            content += part
    return bytes(content)


def _read_array(stream: io.BytesIO, spec: TensorSpec, cases: int) -> Array:
    """Raises ValueError. What the header says is compared before it is believed: numpy's own reader would take as much
    memory as a header asks for."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{spec.name} is of another version of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if (shape, fortran, dtype) != ((cases, *spec.shape[1:]), False, np.dtype(spec.dtype)):
        raise ValueError(f"found {dtype} {shape}, expected {cases} of {spec}")
    return np.frombuffer(stream.read(), dtype).reshape(shape)


def _bytes(spec: TensorSpec, cases: int) -> int:
    """Python's integers: a product of hostile sizes does not overflow."""
    size = cases * np.dtype(spec.dtype).itemsize
    for axis in spec.shape[1:]:
        size *= axis or 1
    return size
