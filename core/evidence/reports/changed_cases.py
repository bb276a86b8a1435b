"""The page of cases: what a person looks at to judge what compression did, case by case.

It shows images of patients or transactions of cardholders, so it is written beside the artifact and never into it.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from featherweight.core.arrays import Floats, Indices, Octets
from featherweight.core.evidence.predictions import Predictions, changed_outcomes
from featherweight.core.evidence.report import Comparison, Evidence, shown_threshold, shown_values
from featherweight.core.evidence.reports.templates_env import open_templates
from featherweight.core.evidence.reports.words import purpose_sentence
from featherweight.core.files import atomic_write, write_errors
from featherweight.core.task import CaseView, Task

MAX_CHANGED = 24
"""Cases shown of those whose value changed most while their decision stayed."""
MAX_SORTED_FLIPS = 1000
"""Changed decisions shown each way, the largest change first; evidence.json lists more of them."""
THUMBNAIL = 200
"""Longest side in pixels; smaller images are embedded as they are."""


@dataclass(frozen=True)
class ShownCase:
    """One case as the page shows it. decided: the outcomes before and after; now_right: whether the candidate decides
    as the label says, or nearer to it than the baseline; bars: the values as shares of the scale; image: a data URI, or
    empty."""

    id: str
    label: int
    decided: tuple[str, str]
    now_right: bool
    values: tuple[float, float]
    bars: tuple[float, float]
    columns: Mapping[str, str]
    image: str


@dataclass(frozen=True)
class Scale:
    """Scale of the bars."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies from the low end (0) to the high one (1)."""
        return float(np.clip((value - self.low) / (self.high - self.low), 0, 1))


@dataclass(frozen=True)
class Group:
    """cases: those shown of `total`; thresholds: the baseline's and the candidate's as shares of the bars."""

    title: str
    cases: tuple[ShownCase, ...]
    total: int
    thresholds: tuple[float, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns that a case of the group has."""
        return tuple(dict.fromkeys(name for case in self.cases for name in case.columns))


def write_cases(out: Path, evidence: Evidence, task: Task) -> Path | None:
    """Write `OUT-cases.html` beside the artifact `out`, readable for its owner alone, and return its path: every
    decision that changed, and of the others those whose value changed most, with what `task.show` gives of them.

    None when compression changed no case's value: there is nothing to look at, and a page of an earlier run is removed.
    Raises OutputError when it cannot be written.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100  ("." has no name, and a link keeps its own)
    path = out.with_name(f"{out.name}-cases.html")
    groups = _groups(evidence, task)
    if not groups:
        with write_errors(path, "the page of cases of an earlier run cannot be removed"):
            path.unlink(missing_ok=True)
        return None
    with atomic_write(path, "the page of cases cannot be written", make_folder=True) as partial:
        # What waits there may be open to others, or a link: the page is written into a file of its own.
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_render(evidence, groups))
    return path


def _groups(evidence: Evidence, task: Task) -> list[Group]:
    part = evidence.deciding
    before, after = part.baseline.predictions, part.candidate.predictions
    values = shown_values(before, after)
    change = np.abs(values[1] - values[0])
    if not change.any() and np.array_equal(before.outcome_places, after.outcome_places):
        return []
    flips, flipped = changed_outcomes(before, after), before.outcome_places != after.outcome_places
    risen = np.isin(np.arange(len(change)), flips.to_positive)
    if before.label_kind != "binary":
        masks = {"Decisions that changed": (flipped, MAX_SORTED_FLIPS)}
    else:
        negative, positive = evidence.labels
        several = len(before.all_outcomes.names) > 2
        up, down = ("a higher outcome", "a lower outcome") if several else (positive, negative)
        masks = {
            f"Decisions that changed to {up}": (flipped & risen, MAX_SORTED_FLIPS),
            f"Decisions that changed to {down}": (flipped & ~risen, MAX_SORTED_FLIPS),
        }
    masks["The same decision, but the largest change"] = (~flipped & (change > 0), MAX_CHANGED)
    groups = []
    for title, (mask, most) in masks.items():
        found = np.flatnonzero(mask)
        shown = found[np.argsort(-change[found], kind="stable")][:most]
        scale = _scale(part, shown)
        thresholds = tuple(scale.share(threshold) for threshold in _thresholds(part))
        groups.append(Group(title, _shown(part, task, shown, scale), len(found), thresholds))
    return groups


def _shown(part: Comparison, task: Task, indices: Indices, scale: Scale) -> tuple[ShownCase, ...]:
    before, after = part.baseline.predictions, part.candidate.predictions
    values = shown_values(before, after)
    split = part.split
    if split == "given":
        raise TypeError("given cases are of no task, which could show them")
    was, now, names = before.outcome_places, after.outcome_places, before.outcome_names
    if before.label_kind == "binary":
        right = np.where(was == now, after.decisions, now > was) == (before.labels == 1)
    else:
        right = after.right
    places = indices.tolist() if part.places is None else [part.places[index] for index in indices.tolist()]
    views: Sequence[CaseView] = task.show(split, places) if places else ()
    return tuple(
        ShownCase(
            id=before.ids[i],
            label=int(before.labels[i]),
            decided=(names[was[i]], names[now[i]]),
            now_right=bool(right[i]),
            values=(float(values[0][i]), float(values[1][i])),
            bars=(scale.share(values[0][i]), scale.share(values[1][i])),
            columns=view.columns,
            image="" if view.image is None else encode_thumbnail(view.image),
        )
        for i, view in zip(indices.tolist(), views, strict=True)
    )


def _thresholds(part: Comparison) -> tuple[float, ...]:
    """None of several classes: the largest of all decides."""
    before, after = part.baseline.predictions, part.candidate.predictions
    if before.label_kind != "binary":
        return ()
    values = shown_values(before, after)
    return shown_threshold(before, values[0]), shown_threshold(after, values[1])


def _scale(part: Comparison, indices: Indices) -> Scale:
    """Probabilities from 0 to 1, or to the largest shown where all are small; scores from the smallest on."""
    values = shown_values(part.baseline.predictions, part.candidate.predictions)
    ends = np.concatenate([values[0][indices], values[1][indices], _thresholds(part)])
    if not len(ends):  # of several classes, where no case is shown
        return Scale(0.0, 1.0)
    low, high = float(ends.min()), float(ends.max())
    if _are_probabilities(part.baseline.predictions, values[0]):
        low, high = 0.0, high * 1.1 if high < 0.5 else 1.0
    return Scale(low, high if high > low else low + 1.0)


def _render(evidence: Evidence, groups: Sequence[Group]) -> str:
    part = evidence.deciding
    before, after = part.baseline.predictions, part.candidate.predictions
    return (
        open_templates()
        .get_template("cases.html.j2")
        .render(
            evidence=evidence,
            purpose=purpose_sentence(evidence),
            part=part,
            groups=groups,
            several=len(before.outcome_names) > 2,
            of=evidence.labels[1] if before.label_kind == "binary" else "",
            changed=changed_outcomes(before, after).count,
            noun="probability" if _are_probabilities(before, shown_values(before, after)[0]) else "score",
        )
    )


def _are_probabilities(of: Predictions, values: Floats) -> bool:
    return values is of.probabilities or of.label_kind != "binary"


def encode_thumbnail(image: Octets) -> str:
    """A data URI of the image [H, W] or [H, W, 3]: small ones exactly as PNG, larger ones reduced as JPEG."""
    picture, content = Image.fromarray(image), io.BytesIO()
    if max(picture.size) <= THUMBNAIL // 2:
        picture.save(content, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        picture.save(content, "JPEG", quality=82, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
