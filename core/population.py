"""What a data set is, in numbers and in its own words: for the population table of the evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from featherweight.core.arrays import Clusters, Labels, Texts
from featherweight.core.tensors import Tensors

MAX_VALUES = 12
"""Values of a column that are told, the most frequent ones."""


@dataclass(frozen=True)
class SplitPopulation:
    """The cases of one split, in numbers.

    clusters: patients, cards ...; None where every case is one of its own. incomplete: cases of which an input value is
    missing (not a number); None where that is not known. positives: None where there are several classes. groups:
    column -> value -> cases, of the most frequent values; others: column -> values beyond those.
    """

    cases: int
    positives: int | None
    clusters: int | None = None
    incomplete: int | None = None
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    inputs_sha256: str = ""
    """Digest of the inputs in the order in which they were run; empty where it is not known."""
    labels_sha256: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Of several classes each with its cases; else empty."""


@dataclass(frozen=True)
class DataStatement:
    """What a task says of its model and its data, for those who read the evidence. An empty text says nothing."""

    purpose: str = ""
    """What the model is for, in one line."""
    reference_standard: str = ""
    """Who or what decided which label a case has."""
    reference_source: str = ""
    """Where that is stated: a publication, a page, a protocol."""
    training: SplitPopulation | None = None
    """The cases that the weights were fitted on."""


def describe_split(
    labels: Labels,
    clusters: Clusters | None,
    groups: Mapping[str, Texts],
    tensors: Tensors | None = None,
    names: Sequence[str] = (),
) -> SplitPopulation:
    """labels: int64 [N]; clusters: int64 [N]; groups: column -> str [N]; tensors: the inputs [N, ...], where known;
    names: of several classes, whose places the labels are."""
    told, others = dict[str, Mapping[str, int]](), dict[str, int]()
    for column, values in groups.items():
        found, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        told[column] = {str(found[place]) or "(missing)": int(counts[place]) for place in order[:MAX_VALUES]}
        if len(found) > MAX_VALUES:
            others[column] = len(found) - MAX_VALUES
    truth = np.ascontiguousarray(labels, np.int64)
    return SplitPopulation(
        cases=len(truth),
        positives=None if names else int((truth == 1).sum()),
        clusters=None if clusters is None else len(np.unique(clusters)),
        incomplete=None if tensors is None else _count_incomplete(tensors, len(truth)),
        groups=told,
        others=others,
        inputs_sha256="" if tensors is None else _digest(tensors),
        labels_sha256=hashlib.sha256(truth.data).hexdigest(),
        classes={name: int((truth == place).sum()) for place, name in enumerate(names)},
    )


def _count_incomplete(tensors: Tensors, count: int) -> int:
    """Cases of which a value is NaN. In pieces, so that a large set is not doubled in memory."""
    missing = np.zeros(count, bool)
    for array in tensors.values():
        if array.dtype.kind != "f":
            continue
        flat = array.reshape(count, -1)
        for start in range(0, count, 4096):
            missing[start : start + 4096] |= np.isnan(flat[start : start + 4096]).any(axis=1)
    return int(missing.sum())


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
