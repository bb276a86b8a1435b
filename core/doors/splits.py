"""A split into training, validation and test cases, drawn where the data does not say it: 60, 20, 20 of a hundred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featherweight.core.arrays import Clusters, Indices, Labels
from featherweight.core.doors.data import SPLITS
from featherweight.core.errors import DataError
from featherweight.core.record.cases import digest_inputs
from featherweight.core.task import SplitName
from featherweight.core.tensors import Tensors
from featherweight.core.terminal import counted

_FOLDS = 5


def draw_split(tensors: Tensors, labels: Labels, clusters: Sequence[str] | None, seed: int) -> dict[SplitName, Indices]:
    """Places [M] of each split's cases. Cases of one cluster, and cases whose inputs are the same byte for byte, stay
    together; all labels [N] are shared out as evenly as that allows. The same seed draws the same split.

    Raises DataError where a split would lack one of the labels.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    together = _together(digest_inputs(tensors), clusters)
    alone = len(np.unique(together)) == len(labels)
    kind = StratifiedKFold if alone else StratifiedGroupKFold
    kinds = max(2, int(labels.max(initial=0)) + 1)
    rarest = int(np.bincount(labels, minlength=kinds).min())
    if rarest < _FOLDS:
        raise DataError(
            f"a split cannot be drawn: one of the labels has {counted(rarest, 'cases')}; at least {_FOLDS} are needed"
        )
    if len(np.unique(together)) < _FOLDS:
        raise DataError(
            f"a split cannot be drawn: the cases belong to fewer than {_FOLDS} clusters, or are copies of each other; "
            "say by a column which cases are for what"
        )
    folds = kind(_FOLDS, shuffle=True, random_state=seed).split(labels, labels, None if alone else together)
    parts = [np.asarray(part, np.intp) for _, part in folds]
    drawn: dict[SplitName, Indices] = {
        "training": np.sort(np.concatenate(parts[2:])),
        "validation": np.sort(parts[1]),
        "test": np.sort(parts[0]),
    }
    lacking = "have one label alone" if kinds == 2 else "lack one of the labels"
    for split in SPLITS:
        if len(np.unique(labels[drawn[split]])) < kinds:
            raise DataError(
                f"a split cannot be drawn: the {split} cases would {lacking}, because the cases belong to "
                "too few clusters or are copies of each other; say by a column which cases are for what"
            )
    return drawn


def _together(inputs: Sequence[bytes], clusters: Sequence[str] | None) -> Clusters:
    """A number for all cases that must not be apart: those that are linked by a cluster or by equal inputs."""
    _, same = np.unique(np.array(inputs), return_inverse=True)
    if clusters is None:
        return np.asarray(same, np.int64)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, owner = np.unique(np.array(clusters), return_inverse=True)
    nodes = int(same.max()) + 1 + int(owner.max()) + 1
    links = coo_array((np.ones(len(same), bool), (same, owner + int(same.max()) + 1)), shape=(nodes, nodes))
    return np.asarray(connected_components(links, directed=False)[1][same], np.int64)
