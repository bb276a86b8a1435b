"""manifest.json: what an artifact holds, with the size and digest of every other file in it.

The bytes are treated as hostile: unknown fields, unknown versions, names that leave the folder and anything that is
not the stated type are refused before a field is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.errors import ArtifactError
from featherweight.core.keys import decode_unambiguous
from featherweight.core.program import Kind, Precision
from featherweight.core.tensors import DType, TensorSpec

MANIFEST = "manifest.json"
FORMAT_VERSION = 3
"""Version 1 had no packed programs, version 2 no list of runtimes; both are still read."""
MANIFEST_BYTES = 1 << 20
"""The largest manifest.json that is read."""
FILE_BYTES = 1 << 30
"""The largest file that an artifact may hold."""
TOTAL_BYTES = 2 << 30
"""The most that all files of an artifact may hold together: reading keeps programs and sealed files in memory."""
UNPACKED_BYTES, PACKING = 64 << 20, 100
"""A program that unpacks to more than so many bytes may have been packed to a hundredth at best: zeros pack to a
thousandth, and a file of a megabyte would ask for a gigabyte."""
FILE_COUNT = 256
MAX_REFERENCE_CASES = 256
"""Maximum number of reference inputs that an artifact may hold for the parity check."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,3}", re.ASCII)
_RESERVED = frozenset({"manifest.json", "manifest.sha256"})

Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=FILE_BYTES)]
_FLOAT32 = 3.4028234663852886e38
Score = Annotated[float, msgspec.Meta(ge=-_FLOAT32, le=_FLOAT32)]
"""What a program's output can be: from a threshold beyond, nothing would be positive, or everything."""
Created = Annotated[datetime, msgspec.Meta(tz=True)]


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TensorEntry(_Struct, frozen=True, kw_only=True):
    """A TensorSpec; null in `shape` is the batch."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    dtype: DType
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] | None, ...], msgspec.Meta(max_length=8)]

    def spec(self) -> TensorSpec:
        """The same as the type that the backends take."""
        return TensorSpec(self.name, self.dtype, self.shape)


class FileEntry(_Struct, frozen=True, kw_only=True):
    """A file of the artifact: its name below the folder ('/' between parts), size and SHA-256."""

    file: Annotated[str, msgspec.Meta(max_length=404)]
    sha256: Digest
    bytes: Bytes


class ProgramEntry(FileEntry, frozen=True, kw_only=True):
    """An ONNX file and the precision it runs in. A bf16 entry may name the same file as the fp32 entry.
    unpacked_bytes: of a gzipped file, the size of the ONNX file in it; null for one that stands there as it is."""

    precision: Precision
    kind: Kind = "network"
    unpacked_bytes: Annotated[int, msgspec.Meta(ge=1, le=FILE_BYTES)] | None = None


class Preference(_Struct, frozen=True, kw_only=True):
    """A backend and a precision; the manifest lists first the one that was judged, then others, fastest first.
    threads: with which it was judged, or of the others the number that was fastest of those tried."""

    backend: Annotated[str, msgspec.Meta(max_length=100)]
    precision: Precision
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1


class RuntimeEntry(_Struct, frozen=True, kw_only=True):
    """A runtime that was asked for its figures on the test cases when the artifact was sealed. serves: whether they
    kept the limits, so that it may serve; told: the same in words."""

    backend: Annotated[str, msgspec.Meta(max_length=100)]
    precision: Precision
    serves: bool
    told: Text


class DecisionPoint(_Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a decision is seen in a program's raw outputs: positive from `threshold` on, in one column of one; or,
    `largest`, for the class of the largest column of all."""

    output: Annotated[str, msgspec.Meta(max_length=200)]
    column: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
    threshold: Score
    largest: Literal[True] | None = None

    def decide(self, output: Array) -> Array:
        """The decisions [n] that an output [n, K] makes: truths, or places of classes."""
        if self.largest:
            return np.asarray(output.astype(np.float64).argmax(axis=1))
        return np.asarray(output[:, self.column].astype(np.float64) >= self.threshold)


class ParityEntry(FileEntry, frozen=True, kw_only=True):
    """The reference inputs, and the outputs that the program of this precision gave on this backend;
    tolerances: output -> largest difference that is called the same."""

    cases: Annotated[int, msgspec.Meta(ge=1, le=MAX_REFERENCE_CASES)]
    backend: Annotated[str, msgspec.Meta(max_length=100)]
    precision: Precision
    tolerances: dict[str, Annotated[float, msgspec.Meta(gt=0, le=_FLOAT32)]]
    decision: DecisionPoint | None = None


class Manifest(_Struct, frozen=True, kw_only=True):
    """What an artifact holds, file by file with its digest; `manifest.json`. runtimes: those that may serve it, and
    those that may not; null where nothing is known of them, as in earlier versions: then any may."""

    format_version: Literal[1, 2, 3] = 3
    name: Text
    app: Text
    created: Created
    inputs: Annotated[tuple[TensorEntry, ...], msgspec.Meta(min_length=1, max_length=64)]
    outputs: Annotated[tuple[TensorEntry, ...], msgspec.Meta(min_length=1, max_length=64)]
    labels: tuple[Text, ...]
    programs: Annotated[tuple[ProgramEntry, ...], msgspec.Meta(min_length=1)]
    preferences: tuple[Preference, ...] = ()
    runtimes: Annotated[tuple[RuntimeEntry, ...], msgspec.Meta(max_length=64)] | None = None
    sealed: tuple[FileEntry, ...]
    evidence: tuple[FileEntry, ...]
    documents: tuple[FileEntry, ...] = ()
    parity: ParityEntry | None = None
    recipe_sha256: Digest | None = None
    versions: dict[str, str]
    weights_source: Text
    forced: bool = False
    missed_limits: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()

    def entries(self) -> tuple[FileEntry, ...]:
        """Every entry that names a file; two programs may name one."""
        reference = () if self.parity is None else (self.parity,)
        return (*self.programs, *self.sealed, *self.evidence, *self.documents, *reference)

    def files(self) -> Iterator[FileEntry]:
        """Every file once; programs that share a file give it once."""
        seen: set[str] = set()
        for entry in self.entries():
            if entry.file not in seen:
                seen.add(entry.file)
                yield entry


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of `manifest.json`, which `parse_manifest` reads."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(content: bytes) -> Manifest:
    """Raises ArtifactError for anything but a valid manifest of this version, and for nothing else."""
    try:
        version = msgspec.json.decode(content, type=_Versioned).format_version
        if version not in (1, 2, FORMAT_VERSION):
            raise ArtifactError(
                f"manifest.json: format version {version}; this featherweight reads versions 1 to {FORMAT_VERSION}: "
                "install the featherweight that made the artifact, or make it again"
            )
        manifest = decode_unambiguous(content, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"manifest.json: not a manifest: {error}") from error
    check_manifest(manifest)
    return manifest


class _Versioned(msgspec.Struct, frozen=True):
    """Read first, so that another version is called that and not a list of unknown fields."""

    format_version: int


def check_manifest(manifest: Manifest) -> None:
    """Raise ArtifactError unless the manifest agrees with itself."""
    _check_names(manifest)
    _check_specs(manifest)
    precisions = [entry.precision for entry in manifest.programs]
    if len(set(precisions)) < len(precisions):
        raise ArtifactError(f"manifest.json: a precision has two programs: {', '.join(precisions)}")
    _check_parity(manifest)
    unpacked = sum(program.unpacked_bytes or 0 for program in manifest.programs)
    if sum(entry.bytes for entry in manifest.files()) + unpacked > TOTAL_BYTES:
        raise ArtifactError(f"manifest.json: the files hold more than {TOTAL_BYTES} bytes together")
    for program in manifest.programs:
        if (program.unpacked_bytes or 0) > max(UNPACKED_BYTES, PACKING * program.bytes):
            raise ArtifactError(
                f"manifest.json: {program.file} holds {program.bytes} bytes and says that it unpacks to "
                f"{program.unpacked_bytes}; beyond {UNPACKED_BYTES} bytes at most {PACKING} times its size is believed"
            )
    if manifest.missed_limits and not manifest.forced:
        raise ArtifactError("manifest.json: `missed_limits` has entries, so `forced` must be true")


def _check_names(manifest: Manifest) -> None:
    entries = manifest.entries()
    if len(entries) > FILE_COUNT:
        raise ArtifactError(f"manifest.json: {len(entries)} files; an artifact holds at most {FILE_COUNT}")
    programs: dict[str, ProgramEntry] = {}
    taken: set[str] = set()
    for entry in entries:
        check_name(entry.file)
        shared = isinstance(entry, ProgramEntry) and entry.file in programs and _same_file(programs[entry.file], entry)
        # Compared without case, so that an artifact means the same on a file system that ignores it.
        if entry.file.casefold() in taken and not shared:
            raise ArtifactError(f"manifest.json: the file {entry.file!r} stands twice")
        taken.add(entry.file.casefold())
        if isinstance(entry, ProgramEntry):
            programs[entry.file] = entry


def _same_file(one: ProgramEntry, other: ProgramEntry) -> bool:
    return (one.sha256, one.bytes, one.unpacked_bytes) == (other.sha256, other.bytes, other.unpacked_bytes)


def check_name(name: str) -> None:
    """Raise ArtifactError unless `name` is a plain relative path of letters, digits, '.', '_' and '-'."""
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"manifest.json: {name[:200]!r} is not a plain file name below the artifact's folder")
    if name.casefold() in _RESERVED:
        raise ArtifactError(f"manifest.json: {name!r} may not list itself")


def _check_specs(manifest: Manifest) -> None:
    for entries in (manifest.inputs, manifest.outputs):
        names = [entry.name for entry in entries]
        if len(set(names)) < len(names):
            raise ArtifactError(f"manifest.json: two tensors have one name: {', '.join(names)}")
        for entry in entries:
            if not entry.shape or None in entry.shape[1:]:
                raise ArtifactError(f"manifest.json: {entry.name}: only the first dimension can be the batch (null)")


def _check_parity(manifest: Manifest) -> None:
    entry = manifest.parity
    if entry is None:
        return
    outputs = {output.name: output for output in manifest.outputs}
    if entry.precision not in {program.precision for program in manifest.programs}:
        raise ArtifactError(f"manifest.json: parity: the artifact has no {entry.precision} program")
    if entry.tolerances.keys() != outputs.keys():
        raise ArtifactError(f"manifest.json: parity: tolerances for {sorted(entry.tolerances)}, not {sorted(outputs)}")
    if entry.decision is not None:
        seen = outputs.get(entry.decision.output)
        if seen is None or len(seen.shape) != 2 or entry.decision.column >= (seen.shape[1] or 0):
            raise ArtifactError("manifest.json: parity: the decision is seen in a column that no output has")
