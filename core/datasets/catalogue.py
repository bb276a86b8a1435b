"""The public data sets of `data/catalogue.toml`, and their copies on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from featherweight.core.bundled import checkout_directory, data_directory
from featherweight.core.datasets.download import Expected, check_file, copy_file, fetch_file
from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import cache_directory as user_cache
from featherweight.core.files import is_file, read_errors, write_errors, writing_alone
from featherweight.core.progress import Progress, silent

VARIABLE = "FEATHERWEIGHT_DATA"
"""The environment variable that names the folder with the data sets."""
_ANOTHER = "another folder with --to"

Text = Annotated[str, msgspec.Meta(min_length=1)]
Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?$")]


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One set of the catalogue. url is empty when only a local copy can serve; md5 when its publisher states none."""

    title: Text
    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    page: Annotated[str, msgspec.Meta(pattern="^https://")]
    bytes: Annotated[int, msgspec.Meta(gt=0, le=1 << 40)]
    sha256: Hex64
    licence: Text
    citation: Text
    purpose: Text
    url: Annotated[str, msgspec.Meta(pattern="^(https://.*)?$")] = ""
    md5: Hex32 = ""
    notes: str = ""

    @property
    def expected(self) -> Expected:
        """What a downloaded file must be."""
        return Expected(self.bytes, self.sha256, self.md5)


@dataclass(frozen=True)
class Fetched:
    """path: where the checked file lies; source: `here` already, `local` copy, or `publisher`."""

    path: Path
    source: Literal["here", "local", "publisher"]


def read_catalogue(path: Path | None = None) -> dict[str, Dataset]:
    """The catalogue that comes with Featherweight, or another file of the same form. Raises DataError."""
    path = data_directory() / "catalogue.toml" if path is None else path
    with read_errors(path, remedy="reinstall featherweight"):
        content = path.read_bytes()
    try:
        return parse_catalogue(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_catalogue(content: bytes) -> dict[str, Dataset]:
    """Name -> set, in the file's order. Raises DataError for anything that is not a catalogue of version 1."""
    try:
        tables = msgspec.toml.decode(content, type=dict[str, Any])
        version = tables.pop("version", None)
        if version != 1:
            raise DataError(f"found version {version!r}, expected 1; update featherweight")
        return msgspec.convert(tables, dict[str, Dataset])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not a valid catalogue: {error}") from error


def dataset(name: str) -> Dataset:
    """The set of that name. Raises UsageError with the names there are."""
    catalogue = read_catalogue()
    if name not in catalogue:
        raise UsageError(f"no data set named {name!r}; there are: {', '.join(catalogue)}")
    return catalogue[name]


def cache_directory() -> Path:
    """Where fetched sets lie: $FEATHERWEIGHT_DATA, else `data/cache` of a checkout, else the platform's own place."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    root = checkout_directory()
    if root is not None:
        return root / "data" / "cache"
    return user_cache() / "data"


def local_copy(name: str) -> Path | None:
    """The fetched file of a set, checked against its digest; None when there is none.

    Raises UsageError for an unknown name and DataError for a damaged copy.
    """
    try:
        entry = dataset(name)
    except UsageError as error:  # who asks has looked for a path of this name
        raise UsageError(f"{name}: there is no such file or folder, and {error}") from None
    path = cache_directory() / entry.file
    if not is_file(path):
        return None
    check_file(path, entry.expected)
    return path


def fetch(entry: Dataset, directory: Path, *, source: Path | None = None, progress: Progress = silent) -> Fetched:
    """Bring a set into `directory`: from the folder (or file) `source` of local copies, or else from its publisher.

    A good copy that is already there is left alone; a damaged one is replaced once the new one has been checked.
    Raises DataError for damaged or missing files, UsageError when the set has no publisher's address or another process
    fetches it into the same folder, OutputError.
    """
    target = directory / entry.file
    if is_file(target) and _is_good(target, entry.expected):
        return Fetched(target, "here")
    with write_errors(directory, "cannot be made", f"choose {_ANOTHER}"):
        directory.mkdir(parents=True, exist_ok=True)
    if source is not None:
        inside = source / entry.file
        found = inside if is_file(inside) else source
        if not is_file(found):
            raise DataError(f"{source}: no such file; it should be or hold {entry.file} (sha256 {entry.sha256})")
        with writing_alone(target, _ANOTHER):
            copy_file(found, target, entry.expected, progress)
        return Fetched(target, "local")
    if not entry.url:
        raise UsageError(
            f"{entry.file} has no direct address at its publisher ({entry.page}); "
            "give a folder that holds a copy: --from DIR"
        )
    with writing_alone(target, _ANOTHER):
        fetch_file(entry.url, target, entry.expected, progress)
    return Fetched(target, "publisher")


def _is_good(path: Path, expected: Expected) -> bool:
    try:
        check_file(path, expected)
    except DataError:
        return False
    return True
