"""A folder of one's own labelled images: read by the code that classifies them later, so both see the same pixels."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.imaging.cases import Cases, Split
from apps.imaging.frames import Rejected
from apps.imaging.readers import Item, read_frames
from apps.imaging.settings import Preprocess
from core.errors import DataError

LABELS = "labels.csv"
_COLUMNS = ("path", "label", "patient", "split")
_SPLITS = ("train", "validation", "test")
_SHOWN = 20
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


def read_labelled(path: Path, side: int) -> Split:
    """The images that `labels.csv` in the folder `path` lists, each frame a case with the label of its file.

    Columns: path (relative to the folder), label (0 or 1), patient, split (train, validation or test); further ones
    become the cases' groups. Raises DataError, with every fault of the list at once: a missing column, a label or
    split of another name, a file listed twice, a patient in two splits, a split without both labels, a file that
    cannot be read as an image.
    """
    rows, columns = _read_rows(path / LABELS)
    faults: list[str] = []
    parts = {
        name: _read_cases(path, [row for row in rows if row.split == name], columns, side, faults) for name in _SPLITS
    }
    _fail(path / LABELS, faults)
    return Split(parts["train"], parts["validation"], parts["test"])


def _read_rows(path: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """The rows and the names of the further columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            found = reader.fieldnames or ()
            if missing := [name for name in _COLUMNS if name not in found]:
                raise DataError(f"{path}: columns missing: {', '.join(missing)}; expected {', '.join(_COLUMNS)}")
            further = tuple(name for name in found if name and name not in _COLUMNS)
            if len(set(further)) < len(further):
                raise DataError(f"{path}: two columns have one name: {', '.join(further)}")
            records = [{name: (record[name] or "").strip() for name in (*_COLUMNS, *further)} for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    faults = [fault for number, record in enumerate(records, start=2) for fault in _check_record(number, record)]
    _fail(path, faults)
    rows = [
        _Row(r["path"], int(r["label"]), r["patient"], r["split"], tuple(r[name] or UNKNOWN for name in further))
        for r in records
    ]
    _fail(path, _check_rows(rows))
    return rows, further


def _check_record(line: int, record: dict[str, str]) -> list[str]:
    faults = []
    if not record["path"] or not record["patient"]:
        faults.append(f"line {line}: path and patient must not be empty")
    if record["label"] not in ("0", "1"):
        faults.append(f"line {line}: label is {record['label']!r}, expected 0 or 1")
    if record["split"] not in _SPLITS:
        faults.append(f"line {line}: split is {record['split']!r}, expected one of {', '.join(_SPLITS)}")
    faults += [
        f"line {line}: {name} has {len(text)} characters; a further column names a group of cases, in at most "
        f"{_GROUP_LENGTH}; leave free text out of the list"
        for name, text in record.items()
        if name not in _COLUMNS and len(text) > _GROUP_LENGTH
    ]
    return faults


def _check_rows(rows: list[_Row]) -> list[str]:
    faults = []
    paths: set[str] = set()
    splits: dict[str, str] = {}
    for row in rows:
        if row.path in paths:
            faults.append(f"{row.path}: listed twice")
        paths.add(row.path)
        if splits.setdefault(row.patient, row.split) != row.split:
            both = f"{row.split} and {splits[row.patient]}"
            faults.append(f"{row.path}: its patient is in {both}; all images of a patient belong to one split")
    for name in _SPLITS:
        labels = {row.label for row in rows if row.split == name}
        if labels != {0, 1}:
            faults.append(f"split {name}: found the labels {sorted(labels)}, expected cases of both 0 and 1")
    return faults


def _read_cases(folder: Path, rows: list[_Row], columns: tuple[str, ...], side: int, faults: list[str]) -> Cases:
    images, labels, ids, patients, groups = [], [], [], [], []
    for row in rows:
        for frame in read_frames(Item(row.path, folder / row.path), Preprocess(side=side)):
            if isinstance(frame, Rejected):
                faults.append(f"{row.path}: {frame.reason}: {frame.message}")
                continue
            images.append(np.rint(frame.pixels * 255).astype(np.uint8))
            labels.append(row.label)
            ids.append(f"{row.path}#{frame.id.frame}" if frame.id.frame else row.path)
            patients.append(row.patient)
            groups.append(row.groups)
    stacked = np.stack(images) if images else np.empty((0, side, side), dtype=np.uint8)
    named = {name: np.array([values[index] for values in groups]) for index, name in enumerate(columns)}
    return Cases(stacked, np.array(labels, dtype=np.int64), tuple(ids), tuple(patients), named)


def _fail(path: Path, faults: list[str]) -> None:
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        lines = "".join(f"\n  {fault}" for fault in faults[:_SHOWN])
        raise DataError(f"{path}: {len(faults)} faults{lines}{more}")
