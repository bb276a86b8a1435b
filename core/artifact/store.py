"""Artifacts on disk: writing is atomic, reading verifies every digest before anything is used.

`manifest.sha256` holds the manifest's digest in the form of sha256sum, so that a changed byte is found in every file
and `sha256sum -c` works. Digests find damage and mix-ups; they are no signature. To pin an artifact against somebody
who can rewrite the whole folder, keep `Artifact.sha256` elsewhere and pass it to `read_artifact`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec

from featherweight.core.artifact.manifest import (
    FILE_COUNT,
    MANIFEST,
    MANIFEST_BYTES,
    FileEntry,
    Manifest,
    ProgramEntry,
    decode_manifest,
)
from featherweight.core.artifact.misnamed import why_no_artifact
from featherweight.core.artifact.packed import unpack
from featherweight.core.artifact.reference_cases import ReferenceCases, decode_reference_cases
from featherweight.core.errors import ArtifactError, BackendError, DigestError, WrongModelError
from featherweight.core.files import open_regular, read_errors
from featherweight.core.inspection import check_content
from featherweight.core.program import Precision, Program

MANIFEST_DIGEST = "manifest.sha256"
_DIRECTORY_DEPTH = 5
_REPLACED_S = 5.0
"""How long a reader begins again when the artifact is replaced under it; no artifact is replaced for ever."""
P = ParamSpec("P")
_REMEDY = "copy the artifact again from where it was made, or make it again"


@dataclass(frozen=True)
class Artifact:
    """A verified artifact. Everything here is the bytes that were verified; the folder is not read again.

    sealed, evidence and documents map names ('preprocess.json', 'evidence.html', ...) to bytes; parity is the packed
    reference inputs and outputs, None where none were sealed; sha256 is the manifest's digest, which fixes all other
    bytes.
    """

    directory: Path
    manifest: Manifest
    sha256: str
    sealed: Mapping[str, bytes]
    evidence: Mapping[str, bytes]
    documents: Mapping[str, bytes]
    programs: tuple[Program, ...]
    parity: bytes | None = None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that `program` has, bf16 included when the fp32 file is there."""
        held = tuple(program.precision for program in self.programs)
        return (*held, "bf16") if "fp32" in held and "bf16" not in held else held

    def reference_cases(self) -> ReferenceCases | None:
        """Raises ArtifactError when they are not what the manifest describes."""
        return None if self.parity is None else decode_reference_cases(self.parity, self.manifest)

    def program(self, precision: Precision) -> Program:
        """Raises ArtifactError when the artifact has no such program. bf16 falls back to the fp32 file, which it is."""
        by_precision = {program.precision: program for program in self.programs}
        found = by_precision.get(precision)
        if found is None and precision == "bf16" and "fp32" in by_precision:
            plain = by_precision["fp32"]
            found = replace(plain, precision="bf16")
        if found is None:
            raise ArtifactError(f"{self.directory}: no {precision} program; it has {', '.join(self.precisions)}")
        return found


@dataclass(frozen=True)
class FileCheck:
    """What verifying found about one file; `fault` is empty when nothing is wrong."""

    file: str
    fault: str = ""

    @property
    def passed(self) -> bool:
        """Whether the file is as the manifest says."""
        return not self.fault


def read_artifact(directory: Path | str, *, expected_sha256: str | None = None, app: str | None = None) -> Artifact:
    """Read and verify a whole artifact; app: whose it must be. Raises ArtifactError, DigestError for bytes that are not
    those sealed, WrongModelError where no artifact is or another app's.

    Replacing an artifact is one step, but reading is many: one that is replaced meanwhile is read again.
    """
    deadline = time.monotonic() + _REPLACED_S
    while True:
        folder = _standing(Path(directory))
        with _held(folder) as identity:
            try:
                return _read(folder, expected_sha256, app)
            except ArtifactError:
                if _identity(folder) == identity or time.monotonic() > deadline:
                    raise


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[tuple[int, int] | None]:
    """The folder's identity, which nothing else can get while it is held open, not even once the folder is deleted."""
    try:
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:  # no folder, or a system that opens none: reading says so, or goes on without
        yield _identity(folder)
        return
    try:
        found = os.fstat(handle)
        yield found.st_dev, found.st_ino
    finally:
        os.close(handle)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read(folder: Path, expected_sha256: str | None, app: str | None) -> Artifact:
    manifest, sha256 = _read_manifest(folder, expected_sha256)
    if app is not None and manifest.app != app:
        raise WrongModelError(f"{folder}: is a model of the app {manifest.app!r}, not of {app!r}; name another model")
    _check_extra(folder, manifest)
    contents = {entry.file: _read_unpacked(folder, entry) for entry in manifest.files()}
    inputs = tuple(entry.spec() for entry in manifest.inputs)
    outputs = tuple(entry.spec() for entry in manifest.outputs)
    return Artifact(
        directory=folder,
        manifest=manifest,
        sha256=sha256,
        sealed={entry.file.removeprefix("sealed/"): contents[entry.file] for entry in manifest.sealed},
        evidence={entry.file: contents[entry.file] for entry in manifest.evidence},
        documents={entry.file: contents[entry.file] for entry in manifest.documents},
        programs=tuple(Program(contents[e.file], e.precision, inputs, outputs, e.kind) for e in manifest.programs),
        parity=None if manifest.parity is None else contents[manifest.parity.file],
    )


def _read_unpacked(folder: Path, entry: FileEntry) -> bytes:
    """A program is not only whole, but one that may be given to a runtime."""
    content = _read_entry(folder, entry)
    if not isinstance(entry, ProgramEntry):
        return content
    try:
        content = content if entry.unpacked_bytes is None else unpack(content, entry.unpacked_bytes)
    except ArtifactError as error:
        raise ArtifactError(f"{folder / entry.file} {error}; {_REMEDY}") from error
    try:
        check_content(content)
    except BackendError as error:
        raise ArtifactError(f"{folder / entry.file}: {error}; do not use this artifact") from error
    return content


def verify_artifact(directory: Path | str, *, expected_sha256: str | None = None) -> list[FileCheck]:
    """Check every file and go on after a fault: one FileCheck a file. Raises nothing for a bad artifact, and
    WrongModelError where none is."""
    folder = _standing(Path(directory))
    try:
        manifest, _ = _read_manifest(folder, expected_sha256)
    except WrongModelError:
        raise
    except ArtifactError as error:
        return [FileCheck(MANIFEST, str(error))]
    checks = [FileCheck(entry.file, _fault(_read_unpacked, folder, entry)) for entry in manifest.files()]
    extra = _fault(_check_extra, folder, manifest)
    return [FileCheck(MANIFEST), *checks, *([FileCheck("(other files)", extra)] if extra else [])]


def _fault(check: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> str:
    try:
        check(*args, **kwargs)
    except ArtifactError as error:
        return str(error)
    return ""


def previous_of(directory: Path) -> Path:
    """Where the old artifact stands for the moment between two renames, on systems that cannot swap folders at once."""
    return directory.with_name(f".{directory.name}.previous")


def _standing(directory: Path) -> Path:
    """The folder to read: the named one or, when a replacement was cut short, the old one beside it."""
    # Path.is_dir raises for a name that is too long.
    if os.path.isdir(directory):  # noqa: PTH112
        return directory
    if not os.path.lexists(directory) and os.path.isdir(previous_of(directory)):  # noqa: PTH112
        return previous_of(directory)
    raise WrongModelError(why_no_artifact(directory))


def _read_manifest(folder: Path, expected_sha256: str | None) -> tuple[Manifest, str]:
    # One that lost its manifest is damaged; a folder without any part of an artifact was named by mistake.
    if not any(os.path.lexists(folder / part) for part in (MANIFEST, MANIFEST_DIGEST, "programs")):
        raise WrongModelError(why_no_artifact(folder))
    content = _read_file(folder, MANIFEST, MANIFEST_BYTES)
    sha256 = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise DigestError(f"{folder}: found the artifact {sha256}, expected {expected_sha256}")
    if _read_file(folder, MANIFEST_DIGEST, 200) != render_manifest_digest(sha256):
        raise DigestError(f"{folder / MANIFEST}: its bytes do not fit {MANIFEST_DIGEST}; {_REMEDY}")
    return decode_manifest(content), sha256


def render_manifest_digest(sha256: str) -> bytes:
    """The content of the file beside the manifest that names its digest, as `sha256sum --check` reads it."""
    return f"{sha256}  {MANIFEST}\n".encode()


def _read_entry(folder: Path, entry: FileEntry) -> bytes:
    content = _read_file(folder, entry.file, entry.bytes, exact=True)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DigestError(f"{folder / entry.file}: its bytes are not those that were sealed; {_REMEDY}")
    return content


def _read_file(folder: Path, name: str, limit: int, *, exact: bool = False) -> bytes:
    """At most `limit` bytes of a regular file that no link leads to; with `exact`, precisely so many."""
    path = folder / name
    with read_errors(path, raises=ArtifactError):
        try:
            _check_kinds(folder, name)
            file = open_regular(path)
        except FileNotFoundError as error:
            raise ArtifactError(f"{path} is missing; {_REMEDY}") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            if size > limit or (exact and size != limit):
                wanted = f"{limit} were sealed" if exact else f"at most {limit} are read"
                raise ArtifactError(f"{path}: found {size} bytes, {wanted}; {_REMEDY}")
            return file.read(size)


def _check_kinds(folder: Path, name: str) -> None:
    """Refuse links and special files on the way from the artifact's folder to the file."""
    path = folder
    parts = name.split("/")
    for index, part in enumerate(parts):
        path = path / part
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ArtifactError(f"{path} is a link; an artifact holds its files itself; {_REMEDY}")
        if not (stat.S_ISREG(mode) if index == len(parts) - 1 else stat.S_ISDIR(mode)):
            raise ArtifactError(f"{path} is not a regular {'file' if index == len(parts) - 1 else 'folder'}; {_REMEDY}")


def _check_extra(folder: Path, manifest: Manifest) -> None:
    """Raise ArtifactError when the folder holds anything that the manifest does not name."""
    known = {MANIFEST, MANIFEST_DIGEST, *(entry.file for entry in manifest.files())}
    folders = {name.rsplit("/", count)[0] for name in known for count in range(1, name.count("/") + 1)}
    seen = 0
    with read_errors(folder, "cannot be listed", raises=ArtifactError):
        for path, entries in _scan(folder):
            for entry in entries:
                seen += 1
                name = f"{path}{entry.name}"
                inner = entry.is_dir(follow_symlinks=False)
                if name not in (folders if inner else known) or seen > 4 * FILE_COUNT:
                    raise ArtifactError(f"{folder / name} is not in {MANIFEST}; move it out of the artifact")


def _scan(folder: Path) -> list[tuple[str, list[os.DirEntry[str]]]]:
    found: list[tuple[str, list[os.DirEntry[str]]]] = []
    waiting = [""]
    while waiting and len(found) < 4 * FILE_COUNT:
        path = waiting.pop()
        with os.scandir(folder / path) as listing:
            entries = [entry for _, entry in zip(range(4 * FILE_COUNT + 1), listing, strict=False)]
        found.append((path, entries))
        if path.count("/") < _DIRECTORY_DEPTH:
            waiting += [f"{path}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found
