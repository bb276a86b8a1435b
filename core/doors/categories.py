"""Trees behind an encoding of categories, as trees over the categories' own numbers: a split of an encoded column goes
one way for some of the numbers and the other way for all others, which is a few thresholds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from featherweight.core.arrays import Floats
from featherweight.core.doors.columns import Columns
from featherweight.core.doors.thresholds import thresholds_before, with_thresholds
from featherweight.core.errors import UsageError
from featherweight.core.trees.canonical import Nodes, canonicalize
from featherweight.core.trees.ensemble import LEAF, Ensemble

_MAX_GROWTH: Final = 20
_FREE_NODES: Final = 100_000
_MAX_SECONDS: Final = 60
_LOWEST, _HIGHEST = float(-np.inf), float(np.inf)


def before_columns(ensemble: Ensemble, columns: Columns) -> Ensemble:
    """The same trees over the table's columns, before the steps. Raises UsageError for encodings by which the trees
    would become too large."""
    splits = np.flatnonzero(ensemble.feature != LEAF)
    if not columns.encoded[ensemble.feature[splits]].any():
        return with_thresholds(ensemble, columns.asked, columns.origin, columns.width)
    try:
        return _Rebuilt(ensemble, columns).ensemble()
    except RecursionError as error:
        raise UsageError("the trees are too deep for an encoding of categories before them") from error


class _Range(NamedTuple):
    """What a column's value can still be on the way to a node: from `low` up to but without `high`, or missing."""

    low: float = _LOWEST
    high: float = _HIGHEST
    missing: bool = True


class _Rebuilt:
    def __init__(self, ensemble: Ensemble, columns: Columns) -> None:
        self._old, self._columns, self._until = ensemble, columns, time.monotonic() + _MAX_SECONDS
        plain = np.flatnonzero((ensemble.feature != LEAF) & ~columns.encoded[ensemble.feature])
        self._threshold, self._missing = ensemble.threshold.copy(), ensemble.missing_left.copy()
        self._threshold[plain], self._missing[plain] = thresholds_before(
            ensemble.feature[plain].astype(np.int64),
            ensemble.threshold[plain].astype(np.float32),
            ensemble.missing_left[plain],
            columns.asked,
            columns.origin,
            columns.width,
        )
        self._asked: Mapping[int, Floats] = {column: columns.of_categories(column) for column in columns.categories}
        self._most = _FREE_NODES + _MAX_GROWTH * len(ensemble.feature)
        self._nodes: list[tuple[int, float, int, int, bool, float]] = []

    def ensemble(self) -> Ensemble:
        """All trees anew."""
        roots = [self._build(int(root), {}) for root in self._old.roots]
        feature, threshold, left, right, missing, value = (np.array(one) for one in zip(*self._nodes, strict=True))
        nodes = Nodes(
            roots=np.array(roots),
            feature=feature,
            threshold=threshold,
            left=left,
            right=right,
            missing_left=missing,
            value=value,
        )
        return canonicalize(nodes, self._columns.width, self._old.base, self._old.output)

    def _build(self, node: int, known: Mapping[int, _Range]) -> int:
        """The number of the new node that says what the old one does, where values lie in these ranges."""
        old, feature = self._old, int(self._old.feature[node])
        if feature == LEAF:
            return self._add(LEAF, 0.0, LEAF, LEAF, False, float(old.value[node]))
        children = int(old.left[node]), int(old.right[node])
        column = int(self._columns.origin[feature])
        if not self._columns.encoded[feature]:
            return self._split(
                column, float(self._threshold[node]), bool(self._missing[node]), [(one, known) for one in children]
            )
        starts, goes_left, missing_left = self._sides(node, column, known.get(column, _Range()))
        return self._segments(column, starts, goes_left, missing_left, children, known)

    def _split(
        self, column: int, threshold: float, missing_left: bool, sides: Sequence[tuple[int, Mapping[int, _Range]]]
    ) -> int:
        left, right = (self._build(node, known) for node, known in sides)
        return self._add(column, threshold, left, right, missing_left, 0.0)

    def _sides(self, node: int, column: int, within: _Range) -> tuple[list[float], list[bool], bool]:
        """(where each stretch of numbers begins, whether it goes left, whether a missing value does); neighbours go
        different ways."""
        feature, threshold = self._old.feature[node], self._old.threshold[node]
        if time.monotonic() > self._until:
            raise UsageError(
                f"the trees behind an encoding of so many categories take more than {_MAX_SECONDS} s to rewrite; "
                "encode the categories before the pipeline, and load the model alone"
            )
        after = self._asked[column][:, feature].astype(np.float32)
        left = np.where(np.isnan(after), self._old.missing_left[node], after < threshold).tolist()
        known = self._columns.categories[column]
        stretches = [(_LOWEST, left[-2])]
        for value, side in zip(known, left, strict=False):
            if not np.isnan(value):
                stretches += [(float(value), side), (float(np.nextafter(value, np.float32(_HIGHEST))), left[-2])]
        starts, sides = list[float](), list[bool]()
        for place, (start, side) in enumerate(stretches):
            end = stretches[place + 1][0] if place + 1 < len(stretches) else _HIGHEST
            if end <= within.low or start >= within.high or (end <= start and place + 1 < len(stretches)):
                continue
            if not sides or sides[-1] != side:
                starts.append(max(start, within.low))
                sides.append(side)
        return starts, sides, bool(left[-1])

    def _segments(
        self,
        column: int,
        starts: Sequence[float],
        goes_left: Sequence[bool],
        missing_left: bool,
        children: tuple[int, int],
        known: Mapping[int, _Range],
    ) -> int:
        within = known.get(column, _Range())
        if starts and within.missing and missing_left not in goes_left:  # every number goes the other way
            only = {**known, column: _Range(_HIGHEST, _HIGHEST, True)}
            numbers = {**known, column: within._replace(missing=False)}
            return self._split(
                column,
                _LOWEST,
                True,
                [(children[0 if missing_left else 1], only), (children[0 if goes_left[0] else 1], numbers)],
            )
        if len(starts) <= 1:
            return self._build(children[0 if (goes_left[0] if starts else missing_left) else 1], known)
        middle = len(starts) // 2
        cut = starts[middle]
        missing_below = within.missing and missing_left in goes_left[:middle]
        parts = (
            (starts[:middle], goes_left[:middle], _Range(within.low, cut, missing_below)),
            (starts[middle:], goes_left[middle:], _Range(cut, within.high, within.missing and not missing_below)),
        )
        left, right = (
            self._segments(column, some, ways, missing_left, children, {**known, column: part})
            for some, ways, part in parts
        )
        return self._add(column, cut, left, right, missing_below, 0.0)

    def _add(self, feature: int, threshold: float, left: int, right: int, missing_left: bool, value: float) -> int:
        if len(self._nodes) >= self._most:
            raise UsageError(
                "an encoding of categories before the trees makes them too large; give the library the categories "
                "themselves, or numbers in an order"
            )
        self._nodes.append((feature, threshold, left, right, missing_left, value))
        return len(self._nodes) - 1
