"""What was named instead of an artifact, in words: another name is what its user needs, not another copy."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from featherweight.core.artifact.manifest import MANIFEST
from featherweight.core.digests import DIGESTS
from featherweight.core.files import describe_error

_KINDS: Mapping[str, str] = {
    DIGESTS: "a trained model; `featherweight optimize RECIPE --out DIR` makes an artifact of it",
    "export.json": "an export for an edge runtime; name the artifact that it was made from",
    "summary.json": "results of a job; name the model that they were made with",
    "store.json": "histories; name the model that goes with them",
}
"""A file that tells what its folder holds -> what that is, and what to do."""
_MAX_ENTRIES = 1000


def why_no_artifact(path: Path) -> str:
    """No file names are in it but those of artifacts: a folder named by mistake may be one of patients."""
    wanted = f"expected an artifact: a folder with {MANIFEST}"
    # os.path's functions answer for a name that is too long, where those of Path raise.
    if not os.path.lexists(path):
        return f"{path}: there is no such folder; {_neighbour(path) or wanted}"
    if not os.path.isdir(path):  # noqa: PTH112
        return f"{path} is not a folder; {wanted}"
    for name, kind in _KINDS.items():
        if os.path.lexists(path / name):
            return f"{path} is not an artifact: it holds {kind}"
    if inside := _artifacts_in(path):
        return f"{path} is not an artifact, but holds some: name {' or '.join(str(path / name) for name in inside[:3])}"
    try:
        empty = next(path.iterdir(), None) is None
    except OSError as error:
        return f"{path} cannot be read: {describe_error(error)}"
    return f"{path} is {'empty' if empty else f'not an artifact: it holds no {MANIFEST}'}; {wanted}"


def _neighbour(path: Path) -> str:
    """The artifact beside it whose name is like the one that was given."""
    near = difflib.get_close_matches(path.name, _artifacts_in(path.parent), n=1)
    return f"did you mean {path.parent / near[0]}?" if near else ""


def _artifacts_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            names = [entry.name for entry in itertools.islice(listing, _MAX_ENTRIES)]
    except OSError:
        return []
    return sorted(name for name in names if os.path.isfile(folder / name / MANIFEST))  # noqa: PTH113
