"""Labelled images to train and judge on, and their split: the types that the readers of every layout fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featherweight.core.arrays import Bools, GreyBytes, Integers, Labels, Texts


@dataclass(frozen=True)
class Cases:
    """Grey images with their truth.

    images: uint8 [N, H, W]; labels: int64 [N], 1 is the positive class; ids and patients: one text each per image;
    groups: what else the data says of each image, column -> str [N], for results by subgroup.
    """

    images: GreyBytes
    labels: Labels
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    groups: Mapping[str, Texts] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Bools | Integers) -> Cases:
        """Some of the cases. index: bool [N], or int64 [M] of places."""
        where = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Cases(
            self.images[where],
            self.labels[where],
            tuple(self.ids[i] for i in where),
            tuple(self.patients[i] for i in where),
            {column: values[where] for column, values in self.groups.items()},
        )


@dataclass(frozen=True)
class Split:
    """Train on the first, choose on the second, report the third once."""

    train: Cases
    validation: Cases
    test: Cases
