"""Cases in clusters of no, one or two kinds: of a patient; of a card and of a terminal.

What is computed between clusters (a variance, a design effect) is computed for each kind and, where there are two, for
their intersections: the sum of both without that of the intersections (Cameron, Gelbach and Miller, Journal of Business
& Economic Statistics 2011), and never less than that of either kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Integers

Kinds = Clusters | Sequence[Clusters] | None
"""One kind, several, or none where the cases are independent of each other."""


def kinds_of(clusters: Kinds) -> tuple[Clusters, ...]:
    """Each kind by itself."""
    if clusters is None:
        return ()
    return (clusters,) if isinstance(clusters, np.ndarray) else tuple(clusters)


def kinds_among(clusters: Kinds, inside: Bools) -> tuple[Clusters, ...]:
    """Those of the cases `inside` [N]."""
    return tuple(kind[inside] for kind in kinds_of(clusters))


def numbered_kinds(clusters: Kinds) -> list[Integers]:
    """Each kind's clusters numbered from 0, int64 [N]; of two kinds their intersections last."""
    kinds = [_numbered(kind) for kind in kinds_of(clusters)]
    if len(kinds) > 1:
        kinds.append(_numbered(kinds[0] * (int(kinds[1].max(initial=0)) + 1) + kinds[1]))
    return kinds


def joined(variances: Sequence[float]) -> float:
    """Of each of `numbered_kinds`; at least one."""
    if len(variances) < 3:
        return variances[0]
    first, second, both = variances
    return max(first, second, first + second - both)


def between_clusters(variance: Callable[[Integers], float], clusters: Kinds) -> float:
    """variance: of the figure, between clusters numbered from 0. There must be a kind."""
    return joined([variance(places) for places in numbered_kinds(clusters)])


def fewest_clusters(clusters: Kinds, cases: int) -> int:
    """Of the kind that has the fewest; the cases themselves where there is none."""
    return min([len(np.unique(kind)) for kind in kinds_of(clusters)], default=cases)


def _numbered(clusters: Integers) -> Integers:
    return np.asarray(np.unique(clusters, return_inverse=True)[1], np.int64)
