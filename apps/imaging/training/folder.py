"""A folder of one's own labelled images: read by the code that classifies them later, so both see the same pixels."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featherweight.apps.imaging.frames import RejectedFrame
from featherweight.apps.imaging.readers import Item, read_frames
from featherweight.apps.imaging.sealed import Preprocess
from featherweight.apps.imaging.sources.files import find_listed
from featherweight.apps.imaging.training.cases import Cases, Split
from featherweight.core.errors import DataError
from featherweight.core.files import is_there, read_errors
from featherweight.core.terminal import counted

LABELS = "labels.csv"
_COLUMNS = ("path", "label", "patient", "split")
_SPLITS = ("train", "validation", "test")
_SHOWN = 20
_PLACES = 5
"""Maximum number of places named for each kind of fault, and of different values that were found there."""
_LABEL_LIKE = re.compile(r"[A-Za-z_-]{0,20}|[0-9.]{1,4}")
_GROUP_LENGTH = 100
"""The most characters of a group's name: it stands in the evidence, where no report or other free text belongs."""
UNKNOWN = "(unknown)"
"""The group of cases for which a further column says nothing."""


@dataclass(frozen=True)
class _Row:
    path: str
    label: int
    patient: str
    split: str
    groups: tuple[str, ...]
    """Values of the further columns, in the file's order."""


@dataclass(frozen=True)
class _Fault:
    """place: a line (its number) or a file; kind: what is wrong, with `{}` where what was found comes in."""

    place: int | str
    kind: str
    found: str = ""


def read_labelled(path: Path, *, seed: int = 0, side: int = 224) -> Split:
    """The images that `labels.csv` in the folder `path` lists, each frame a case with the label of its file.

    Columns: path (relative to the folder), label (0 or 1), patient, split (train, validation or test); further ones
    become the cases' groups (site, device, sex ...), by which results are told apart. seed: not used, since the list
    says who is in which split.

    Raises DataError, with every kind of fault of the list at once: a missing column, a label or split of another name,
    a file listed twice, a patient in two splits, a split without both labels, a file that cannot be read as an image.
    """
    rows, columns = _read_rows(path / LABELS)
    faults: list[_Fault] = []
    parts = {
        name: _read_cases(path, [row for row in rows if row.split == name], columns, side, faults) for name in _SPLITS
    }
    _fail(path / LABELS, faults)
    return Split(parts["train"], parts["validation"], parts["test"])


def _read_rows(path: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """The rows and the names of the further columns."""
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: is not a folder; the reader `folder` takes a folder of images with a {LABELS}")
    if not is_there(path):
        raise DataError(
            f"{path}: there is no such file; it lists the folder's images in the columns {', '.join(_COLUMNS)}"
        )
    with (
        read_errors(path, also=(UnicodeDecodeError, csv.Error)),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.DictReader(file, strict=True)
        found = reader.fieldnames or ()
        if missing := [name for name in _COLUMNS if name not in found]:
            raise DataError(f"{path}: columns missing: {', '.join(missing)}; expected {', '.join(_COLUMNS)}")
        further = tuple(name for name in found if name and name not in _COLUMNS)
        if len(set(further)) < len(further):
            raise DataError(f"{path}: two columns have one name: {', '.join(further)}")
        records = [{name: (record[name] or "").strip() for name in (*_COLUMNS, *further)} for record in reader]
    faults = [
        fault for number, record in enumerate(records, start=2) for fault in _check_record(path.parent, number, record)
    ]
    _fail(path, faults)
    rows = [
        _Row(
            find_listed(path.parent, r["path"]),
            int(r["label"]),
            r["patient"],
            r["split"],
            tuple(r[name] or UNKNOWN for name in further),
        )
        for r in records
    ]
    _fail(path, _check_rows(rows))
    return rows, further


def _check_record(folder: Path, line: int, record: dict[str, str]) -> Iterator[_Fault]:
    if not record["path"] or not record["patient"]:
        yield _Fault(line, "path and patient must not be empty")
    try:
        find_listed(folder, record["path"])
    except DataError:
        kind = "{} is on a drive or share of Windows, which leads to no file here"
        yield _Fault(line, kind, record["path"][:_GROUP_LENGTH])
    if record["label"] not in ("0", "1"):
        yield _Fault(line, "label is {}, expected 0 or 1", _show(record["label"]))
    if record["split"] not in _SPLITS:
        expected = ", ".join(_SPLITS)
        yield _Fault(line, f"split is {{}}, expected one of {expected}", _show(record["split"]))
    for name, text in record.items():
        if name not in _COLUMNS and len(text) > _GROUP_LENGTH:
            most = f"a further column names a group of cases, in at most {_GROUP_LENGTH}"
            column = name.replace("{", "{{").replace("}", "}}")
            kind = f"{column} has {{}} characters; {most}; leave free text out of the list"
            yield _Fault(line, kind, f"{len(text)}")


def _show(value: str) -> str:
    """Where columns are shifted it is a patient's number, or a report: only what looks like a label is shown."""
    return repr(value) if _LABEL_LIKE.fullmatch(value) else f"a text of {len(value)} characters"


def _check_rows(rows: list[_Row]) -> list[_Fault]:
    faults = []
    paths: set[str] = set()
    splits: dict[str, str] = {}
    for row in rows:
        if row.path in paths:
            faults.append(_Fault(row.path, "listed twice"))
        paths.add(row.path)
        if splits.setdefault(row.patient, row.split) != row.split:
            kind = "its patient is in {}; all images of a patient belong to one split"
            faults.append(_Fault(row.path, kind, f"{row.split} and {splits[row.patient]}"))
    for name in _SPLITS:
        labels = {row.label for row in rows if row.split == name}
        if labels != {0, 1}:
            kind = "found the labels {}, expected cases of both 0 and 1"
            faults.append(_Fault(f"split {name}", kind, str(sorted(labels))))
    return faults


def _read_cases(folder: Path, rows: list[_Row], columns: tuple[str, ...], side: int, faults: list[_Fault]) -> Cases:
    images, labels, ids, patients, groups = [], [], [], [], []
    for row in rows:
        for frame in read_frames(Item(row.path, folder / row.path), Preprocess(side=side)):
            if isinstance(frame, RejectedFrame):
                faults.append(_Fault(row.path, f"{frame.reason}: {{}}", frame.message))
                continue
            images.append(np.rint(frame.pixels * 255).astype(np.uint8))
            labels.append(row.label)
            ids.append(f"{row.path}#{frame.id.frame}" if frame.id.frame else row.path)
            patients.append(row.patient)
            groups.append(row.groups)
    stacked = np.stack(images) if images else np.empty((0, side, side), dtype=np.uint8)
    named = {name: np.array([values[index] for values in groups]) for index, name in enumerate(columns)}
    return Cases(stacked, np.array(labels, dtype=np.int64), tuple(ids), tuple(patients), named)


def _fail(path: Path, faults: list[_Fault]) -> None:
    """Raise with one line for each kind of fault, in the order of its first place."""
    if not faults:
        return
    kinds: dict[str, list[_Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    lines = [_describe(same) for same in kinds.values()]
    more = f"\n  and {counted(len(lines) - _SHOWN, 'more kinds')}" if len(lines) > _SHOWN else ""
    count = counted(len(faults), "faults")
    raise DataError(f"{path}: {count}" + "".join(f"\n  {line}" for line in lines[:_SHOWN]) + more)


def _describe(same: list[_Fault]) -> str:
    """Faults of one kind: the first places, how many there are, and some of what was found."""
    lines = isinstance(same[0].place, int)
    noun = ("line " if len(same) == 1 else "lines ") if lines else ""
    more = f" and {len(same) - _PLACES:,} more" if len(same) > _PLACES else ""
    places = ", ".join(str(fault.place) for fault in same[:_PLACES])
    found = list(dict.fromkeys(fault.found for fault in same))
    shown = "; ".join(found[:_PLACES]) + ("; ..." if len(found) > _PLACES else "")
    return f"{noun}{places}{more}: {same[0].kind.format(shown)}"
