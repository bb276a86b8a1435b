"""Writing an artifact: all of it or nothing, also when the process is killed or the disk is full."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from featherweight.core.artifact.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    ParityEntry,
    Preference,
    ProgramEntry,
    RuntimeEntry,
    TensorEntry,
    check_manifest,
    encode_manifest,
)
from featherweight.core.artifact.packed import pack
from featherweight.core.artifact.reference_cases import REFERENCE_FILE, ReferenceCases, encode_reference_cases
from featherweight.core.artifact.store import (
    MANIFEST_DIGEST,
    Artifact,
    previous_of,
    read_artifact,
    render_manifest_digest,
)
from featherweight.core.errors import ArtifactError, OutputError
from featherweight.core.files import check_folder, write_errors
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec

_LEFTOVER_SECONDS = 3600


@dataclass(frozen=True)
class Contents:
    """What goes into an artifact.

    sealed: the app's files by name, written below `sealed/`; evidence: `evidence.json`, `evidence.html`;
    documents: anything for people (`MODEL_CARD.md`); preferences: (backend, precision), the one judged first; runtimes:
    those that may serve it and those that may not, None where any may;
    versions: package -> version; missed_limits: what a forced artifact did not keep, in words; reference_cases: for the
    parity check on other hosts.
    """

    name: str
    app: str
    labels: Sequence[str]
    programs: Sequence[Program]
    sealed: Mapping[str, bytes]
    evidence: Mapping[str, bytes]
    weights_source: str
    versions: Mapping[str, str]
    recipe_sha256: str | None = None
    preferences: Sequence[Preference] = ()
    runtimes: Sequence[RuntimeEntry] | None = None
    documents: Mapping[str, bytes] = field(default_factory=dict)
    forced: bool = False
    missed_limits: Sequence[str] = ()
    notes: Sequence[str] = ()
    reference_cases: ReferenceCases | None = None


def check_out(out: Path) -> None:
    """Raise OutputError now for a folder that could not be written hours later; makes nothing."""
    check_folder(out.absolute().parent)
    with write_errors(out):
        occupied = out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / MANIFEST).is_file()))
    if occupied:
        raise OutputError(f"{out} is there and is not an artifact that could be replaced; choose another folder")


def write_artifact(directory: Path | str, contents: Contents, *, created: datetime | None = None) -> Artifact:
    """Write the folder `directory` and return it as read back.

    An artifact that stands there is replaced in one step; anything else is left alone. `created` is now, in UTC,
    unless given. Raises OutputError when it cannot be written, ArtifactError when the contents do not fit together.
    """
    target = Path(os.path.abspath(directory))  # noqa: PTH100  (resolve() would follow a link that stands there)
    files, manifest = _laid_out(contents, created or datetime.now(UTC))
    with write_errors(target, "the artifact cannot be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        _settle(target)
        _check_replaceable(target)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            _write_files(partial, files, manifest)
            read_artifact(partial)
            _put(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return read_artifact(target)


def _laid_out(contents: Contents, created: datetime) -> tuple[dict[str, bytes], Manifest]:
    """The files by their names in the folder, and the manifest that describes them."""
    if not contents.programs:
        raise ArtifactError("an artifact needs at least one program")
    first = contents.programs[0]
    if any((program.inputs, program.outputs) != (first.inputs, first.outputs) for program in contents.programs):
        raise ArtifactError("the programs of an artifact must have the same inputs and outputs")
    files: dict[str, bytes] = {}
    programs = [_place_program(program, files) for program in contents.programs]
    manifest = Manifest(
        name=contents.name,
        app=contents.app,
        created=created.astimezone(UTC),
        inputs=tuple(_tensor(spec) for spec in first.inputs),
        outputs=tuple(_tensor(spec) for spec in first.outputs),
        labels=tuple(contents.labels),
        programs=tuple(programs),
        preferences=tuple(contents.preferences),
        runtimes=None if contents.runtimes is None else tuple(contents.runtimes),
        sealed=_place({f"sealed/{name}": content for name, content in contents.sealed.items()}, files),
        evidence=_place(contents.evidence, files),
        documents=_place(contents.documents, files),
        parity=None if contents.reference_cases is None else _place_reference_cases(contents.reference_cases, files),
        recipe_sha256=contents.recipe_sha256,
        versions=dict(contents.versions),
        weights_source=contents.weights_source,
        forced=contents.forced,
        missed_limits=tuple(contents.missed_limits),
        notes=tuple(contents.notes),
    )
    check_manifest(manifest)
    return files, manifest


def _place_program(program: Program, files: dict[str, bytes]) -> ProgramEntry:
    packed = pack(program.content)
    # fp32 and bf16 are one file run in two ways: it is stored once.
    name = f"programs/{program.precision}.onnx.gz"
    name = next((known for known, content in files.items() if content == packed), name)
    files[name] = packed
    return ProgramEntry(
        file=name,
        sha256=hashlib.sha256(packed).hexdigest(),
        bytes=len(packed),
        precision=program.precision,
        kind=program.kind,
        unpacked_bytes=len(program.content),
    )


def _place_reference_cases(reference: ReferenceCases, files: dict[str, bytes]) -> ParityEntry:
    (entry,) = _place({REFERENCE_FILE: encode_reference_cases(reference)}, files)
    return ParityEntry(
        file=entry.file,
        sha256=entry.sha256,
        bytes=entry.bytes,
        cases=reference.count,
        backend=reference.backend,
        precision=reference.precision,
        tolerances=dict(reference.tolerances),
        decision=reference.decision,
    )


def _place(named: Mapping[str, bytes], files: dict[str, bytes]) -> tuple[FileEntry, ...]:
    entries = []
    for name, content in named.items():
        if name in files:
            raise ArtifactError(f"two files of the artifact have the name {name!r}")
        files[name] = content
        entries.append(FileEntry(file=name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)))
    return tuple(entries)


def _tensor(spec: TensorSpec) -> TensorEntry:
    return TensorEntry(name=spec.name, dtype=spec.dtype, shape=spec.shape)


def _write_files(folder: Path, files: Mapping[str, bytes], manifest: Manifest) -> None:
    encoded = encode_manifest(manifest)
    digest = render_manifest_digest(hashlib.sha256(encoded).hexdigest())
    for name, content in {**files, MANIFEST: encoded, MANIFEST_DIGEST: digest}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)
    folder.chmod(0o755)
    for path in (*(inner for inner in folder.rglob("*") if inner.is_dir()), folder):
        _sync_directory(path)


def _sync_directory(path: Path) -> None:
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_replaceable(target: Path) -> None:
    """Raise OutputError when something stands there that is no whole artifact: it may be somebody's only copy."""
    if not os.path.lexists(target) or (target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
        return
    try:
        if target.is_symlink():
            raise ArtifactError("it is a link")
        read_artifact(target)
    except ArtifactError as error:
        raise OutputError(
            f"{target} is not an artifact that can be replaced ({error}); choose another folder"
        ) from error


def _put(partial: Path, target: Path) -> None:
    """Let the new folder take the old one's place; afterwards `partial` is the old one or gone."""
    if not target.exists():
        partial.rename(target)
    elif not _swap(partial, target):
        # No swap on this system: for a moment only the old artifact's second name stands, and readers know it.
        target.rename(previous_of(target))
        partial.rename(target)
        shutil.rmtree(previous_of(target))
    _sync_directory(target.parent)


def _settle(target: Path) -> None:
    """End what a killed writer began: give an old artifact its name back, remove its leftovers."""
    previous = previous_of(target)
    if previous.is_dir():
        if target.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(target)
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        # Another writer may be at work on a young one.
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step by Linux's renameat2(2); False where that does not exist."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
