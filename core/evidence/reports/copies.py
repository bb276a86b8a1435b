"""The page of cases that are in two splits, or look it, with both pictures: for a person to see which of them are.

It shows images of patients or says which transactions are meant, so it is written beside the work and never into an
artifact.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featherweight.core.arrays import Octets
from featherweight.core.evidence.reports.changed_cases import encode_thumbnail
from featherweight.core.evidence.reports.templates_env import open_templates
from featherweight.core.files import atomic_write, write_errors
from featherweight.core.record.pictures import as_pictures, picture_input
from featherweight.core.record.splits import Pair, SplitsFound, split_notes, training_inputs
from featherweight.core.task import HeldOut, SplitName, Task
from featherweight.core.tensors import Tensors

FILE = "copies.html"


@dataclass(frozen=True)
class _Side:
    split: SplitName
    id: str
    label: str
    image: str


def write_copies(
    folder: Path, name: str, found: SplitsFound, task: Task, validation: HeldOut, test: HeldOut
) -> Path | None:
    """Write `copies.html` into the folder, readable for its owner alone. None where there is nothing to show; a page of
    an earlier run is removed. Raises OutputError."""
    path = folder / FILE
    if not found.pairs:
        with write_errors(path, "the page of copies of an earlier run cannot be removed"):
            path.unlink(missing_ok=True)
        return None
    picture = picture_input(tuple(task.baseline.inputs))
    held_out: dict[SplitName, HeldOut] = {"validation": validation, "test": test}
    wanted = sorted(
        {place for pair in found.pairs for split, place in (pair.first, pair.second) if split == "training"}
    )
    training = _take(training_inputs(task), wanted, picture) if picture else {}

    def side(split: SplitName, place: int) -> _Side:
        cases = held_out.get(split)
        if cases is None:
            return _Side(split, f"training input {place}", "", training.get(place, ""))
        image = _picture(cases.tensors, picture, place) if picture else ""
        return _Side(split, cases.ids[place], str(int(cases.labels[place])), image)

    pairs = [(pair, side(*pair.first), side(*pair.second)) for pair in found.pairs]
    with atomic_write(path, "the page of copies cannot be written", make_folder=True) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_render(name, found, pairs))
    return path


def _render(name: str, found: SplitsFound, pairs: Sequence[tuple[Pair, _Side, _Side]]) -> str:
    return open_templates().get_template("copies.html.j2").render(name=name, pairs=pairs, notes=split_notes(found))


def _take(batches: Iterable[Tensors], wanted: Sequence[int], name: str) -> Mapping[int, str]:
    """Pictures of the inputs at these places, by their place."""
    found, start, left = dict[int, str](), 0, list(wanted)
    for batch in batches:
        size = len(batch[name])
        while left and left[0] < start + size:
            place = left.pop(0)
            found[place] = _picture(batch, name, place - start)
        if not left:
            return found
        start += size
    return found


def _picture(tensors: Tensors, name: str, place: int) -> str:
    grey = as_pictures(tensors[name][place : place + 1])[0]
    low, high = float(grey.min()), float(grey.max())
    image: Octets = np.rint((grey - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    return encode_thumbnail(image)
