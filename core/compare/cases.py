"""The labelled cases that two models are compared on, and predictions put into their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Clusters, Indices, Labels, Texts
from featherweight.core.compare.tables import Table, some_rows
from featherweight.core.errors import DataError
from featherweight.core.terminal import counted, plural_of

MAX_CLUSTERS = 2
"""Kinds of clusters that bounds are made for (cards, and terminals across them)."""
UNKNOWN = "(unknown)"
"""The group of cases whose column is empty."""
_TRUTHS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}


@dataclass(frozen=True)
class Columns:
    """What the columns of the table of cases mean. clusters: of each kind; positive: the label of the positive class,
    where labels are not 0 and 1."""

    label: str
    id: str = "id"
    clusters: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    positive: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns that are read."""
        return (self.id, self.label, *self.clusters, *self.groups)


@dataclass(frozen=True, eq=False)
class Cases:
    """names: of the negative and the positive class; clusters: int64 [N] of each kind; cluster_nouns: what a reader
    calls those of each."""

    ids: tuple[str, ...]
    labels: Labels
    names: tuple[str, str]
    clusters: tuple[Clusters, ...]
    groups: Mapping[str, Texts]
    cluster_nouns: tuple[str, ...] = ()

    def take(self, places: Indices) -> Cases:
        """Some of them, in the order of `places`."""
        return replace(
            self,
            ids=tuple(self.ids[place] for place in places),
            labels=self.labels[places],
            clusters=tuple(kind[places] for kind in self.clusters),
            groups={name: values[places] for name, values in self.groups.items()},
        )

    def place(self, ids: Sequence[str], source: str) -> Indices:
        """For each case its place among `ids`, which must be the ids of the cases, each once, in any order. Raises
        DataError."""
        places = _places(ids, source)
        missing = [row for row, one in enumerate(self.ids, 1) if one not in places]
        if missing:
            raise DataError(
                f"{source}: lacks {counted(len(missing), 'cases')} of the {len(self.ids):,} ({some_rows(missing)} of "
                "the cases); every case needs a prediction of both models"
            )
        if len(places) > len(self.ids):
            known = set(self.ids)
            extra = [row for row, one in enumerate(ids, 1) if one not in known]
            raise DataError(
                f"{source}: has {counted(len(extra), 'ids')} that the cases do not have ({some_rows(extra)}); compare "
                "on all cases, or leave those rows out on purpose"
            )
        return np.array([places[one] for one in self.ids], np.intp)


def read_cases(table: Table, columns: Columns) -> Cases:
    """Raises DataError for ids that are missing or doubled, labels that are not two classes, and missing clusters."""
    ids = tuple(table.texts(columns.id))
    _places(ids, table.name)
    labels, names = _labels(table, columns)
    for label, kind in enumerate(("negative", "positive")):
        if not (labels == label).any():
            raise DataError(
                f"{table.name}: column {columns.label!r} holds no {kind} case ({names[label]}); both classes are needed"
            )
    clusters = tuple(
        np.asarray(np.unique(table.texts(name), return_inverse=True)[1], np.int64) for name in columns.clusters
    )
    groups = {name: np.array(table.texts(name, missing=UNKNOWN)) for name in columns.groups}
    return Cases(ids, labels, names, clusters, groups, tuple(map(plural_of, columns.clusters)))


def _labels(table: Table, columns: Columns) -> tuple[Labels, tuple[str, str]]:
    import pyarrow as pa

    found = table.columns.get(columns.label)
    if found is not None and pa.types.is_floating(found.type) and columns.positive is None:
        values = [f"{value:g}" for value in table.numbers(columns.label).tolist()]
    else:
        values = table.texts(columns.label)
    distinct = sorted(set(values))
    held = counted(len(distinct), "different values")  # which are not told: it may be the column of names
    if columns.positive is not None:
        if columns.positive not in distinct:
            raise DataError(
                f"{table.name}: column {columns.label!r} never holds {columns.positive!r}, the positive class; it "
                f"holds {held}"
            )
        others = [value for value in distinct if value != columns.positive]
        negative = others[0] if len(others) == 1 else f"not {columns.positive}"
        return np.array([value == columns.positive for value in values], np.int64), (negative, columns.positive)
    if any(value.lower() not in _TRUTHS for value in distinct):
        raise DataError(
            f"{table.name}: column {columns.label!r} holds {held}, others than 0 and 1; give the name of the "
            "positive class (--positive NAME), or another column"
        )
    return np.array([_TRUTHS[value.lower()] for value in values], np.int64), ("negative", "positive")


def _places(ids: Sequence[str], source: str) -> dict[str, int]:
    places = {one: place for place, one in enumerate(ids)}
    if len(places) < len(ids):
        doubled = [place + 1 for place, one in enumerate(ids) if places[one] != place]
        raise DataError(
            f"{source}: has {counted(len(doubled), 'rows')} whose id a later row has too ({some_rows(doubled)}); every "
            "case must stand there once"
        )
    return places
