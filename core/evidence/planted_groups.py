"""What the planted faults do to one group of cases, and to clusters: patients, cards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featherweight.core.arrays import Bools, Floats, Integers, Scores
from featherweight.core.evidence.planted_changes import (
    Planter,
    above_all,
    below_all,
    labelled,
    rescored,
    some_of,
    spread,
    with_scores,
)
from featherweight.core.evidence.predictions import Predictions

SMALL = 20
"""Cases of a group in which a fault is planted, at least."""
GroupChange = Callable[[Scores, Predictions, Bools], "Floats | float"]
"""(the group's scores, all predictions, who is in the group) -> the group's new scores."""


def _group(of: Predictions, *, rarest: bool) -> Bools | None:
    """The cases of the rarest or of the most frequent value of any column that has enough of both classes."""
    found = []
    for values in of.groups.values():
        for value in np.unique(values):
            inside = np.asarray(values == value)
            positives = int((inside & (of.labels == 1)).sum())
            if SMALL <= int(inside.sum()) < len(inside) and 0 < positives < int(inside.sum()):
                found.append(inside)
    if not found:
        return None
    return (min if rarest else max)(found, key=lambda inside: int(inside.sum()))


def _clusters(of: Predictions) -> Integers | None:
    """Numbered from 0; None where every case is one of its own."""
    if of.clusters is None:
        return None
    names, numbered = np.unique(of.clusters, return_inverse=True)
    return None if len(names) == len(numbered) else np.asarray(numbered, np.int64)


def in_group(change: GroupChange, *, rarest: bool = True) -> Planter:
    """Another score for every case of one group, from its scores."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        inside = _group(of, rarest=rarest)
        return None if inside is None else with_scores(of, inside, change(of.scores[inside], of, inside))

    return plant


def against_label(spreads: float, label: int) -> GroupChange:
    def change(scores: Scores, of: Predictions, inside: Bools) -> Floats:
        hurt = of.labels[inside] == label
        return scores + np.where(hurt, (-1 if label == 1 else 1) * spreads * spread(of), 0.0)

    return change


def turned(scores: Scores, of: Predictions, inside: Bools) -> Floats:
    """The same scores in the reverse order."""
    return np.asarray(np.sort(scores)[::-1][np.argsort(np.argsort(scores, kind="stable"), kind="stable")])


def one_answer(scores: Scores, of: Predictions, inside: Bools) -> float:
    """The middle of all scores."""
    return float(np.median(of.scores))


def too_high(scores: Scores, of: Predictions, inside: Bools) -> Floats:
    """By a standard deviation of all scores."""
    return scores + spread(of)


def clusters_lost(share: float, label: int) -> Planter:
    """Every case of this label in a share of the clusters that have one."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        clusters, inside = _clusters(of), labelled(of, label)
        if clusters is None or not inside.any():
            return None
        having = np.bincount(clusters, inside) > 0
        hit = np.isin(clusters, some_of(having, share, draw)) & inside
        return with_scores(of, hit, below_all(of) if label == 1 else above_all(of))

    return plant


def largest_cluster_lost(of: Predictions, draw: np.random.Generator) -> Predictions | None:
    """The positives of the cluster that has the most of them."""
    clusters, positive = _clusters(of), labelled(of, 1)
    if clusters is None or not positive.any():
        return None
    largest = int(np.bincount(clusters, positive).argmax())
    return with_scores(of, (clusters == largest) & positive, below_all(of))


def first_of_cluster(of: Predictions, draw: np.random.Generator) -> Predictions | None:
    """Every case of a cluster with the score of its first one."""
    clusters = _clusters(of)
    if clusters is None:
        return None
    firsts = np.unique(clusters, return_index=True)[1]
    return rescored(of, of.scores[firsts][clusters])


def one_behind(of: Predictions, draw: np.random.Generator) -> Predictions | None:
    """Every case with the score of the one before it in its cluster; the first with its own."""
    clusters = _clusters(of)
    if clusters is None:
        return None
    order = np.lexsort((np.arange(len(clusters)), clusters))
    before = np.where(np.diff(clusters[order], prepend=-1) == 0, np.roll(order, 1), order)
    scores = of.scores.copy()
    scores[order] = of.scores[before]
    return rescored(of, scores)
