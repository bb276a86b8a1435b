"""The comparison again within each group of cases: site, device, sex, amount band, subtype of a class.

Many groups are many chances to look bad by accident. The bounds hold together with 95% confidence (Bonferroni), and a
loss beyond the margin is called shown where its p-value stands up to Holm's correction (Scandinavian Journal of
Statistics 1979), which is Bonferroni's with more power. Neither needs independent groups. What limits of groups hold is
corrected by itself: what the page tells besides of other columns and figures makes no limit easier to keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools, Texts
from featherweight.core.evidence.group_tests import GroupMargins, GroupTest, tests_in_group
from featherweight.core.evidence.metric import Pair
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.terminal import counted

MAX_VALUES = 20
MAX_HELD_VALUES = 500
"""Values of a column in which a limit of groups holds: each that has MIN_CASES is judged by itself. In a column of more
(cards, patients) no limit of groups can be judged."""
MIN_CASES = 5
"""Minimum cases of a value that is named: the evidence travels with the artifact, and a value of single cases may tell
whose they are (a name, a date of birth)."""
OTHER_VALUES = "other values"
"""The group of all values that are not named."""
_SAMPLES = 500

SubgroupStatus = Literal["not worse", "no sign of harm", "worse, not shown", "shown worse", "too few cases"]
"""not worse: the bound keeps the margin; no sign of harm: the loss that was seen keeps it, the bound does not, or there
is no margin; worse, not shown: the loss that was seen does not, but chance may have made it; shown worse: chance has
not; too few cases: fewer than SMALL_GROUP, with no loss seen beyond the margin."""


@dataclass(frozen=True)
class SubgroupFigure:
    """name: of a metric of the table; difference: the candidate's gain, candidate minus baseline where more is better;
    low: its lower bound, with 95% confidence in all bounds together, or in a group that can show so much by itself
    alone with as much more as it can; margin: the recipe's limit on the loss, or 0 where it has none (then nothing can
    be shown to be `not worse`); p_value: of a loss beyond the margin, adjusted."""

    name: str
    baseline: float | None
    candidate: float | None
    difference: float | None
    low: float | None
    margin: float
    p_value: float | None
    status: SubgroupStatus
    can_show: bool = True
    """Whether so many cases could show that the margin is kept, if nothing were lost."""
    threshold: str = ""
    """The outcome that begins at the threshold, of a figure at another threshold than the decision's."""

    @property
    def loss(self) -> float:
        """What these cases lost; a gain is below 0."""
        return 0.0 - (self.difference or 0.0)


@dataclass(frozen=True)
class Subgroup:
    """The cases of one value of one column. positives: None where there is no such class; flips: decisions that changed
    among them; vanished: outcomes that the baseline leads some of them to and the candidate none, with how many."""

    column: str
    value: str
    cases: int
    positives: int | None
    flips: int
    figures: tuple[SubgroupFigure, ...]
    vanished: Mapping[str, int]

    @property
    def status(self) -> SubgroupStatus:
        """The worst of the figures'."""
        order: tuple[SubgroupStatus, ...] = (
            "shown worse", "worse, not shown", "no sign of harm", "not worse", "too few cases"
        )  # fmt: skip
        found = {figure.status for figure in self.figures}
        return next((status for status in order if status in found), "too few cases")


@dataclass(frozen=True)
class Subgroups:
    """rows: column by column, the largest group first; tests: comparisons that were corrected for; method: the
    correction in a sentence; notes: which values are not named."""

    rows: tuple[Subgroup, ...]
    tests: int
    method: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    column: str
    value: str
    inside: Bools
    tests: tuple[GroupTest, ...]


@lru_cache(maxsize=4)
def compare_subgroups(baseline: Predictions, candidate: Predictions, limits: Limits, *, seed: int) -> Subgroups:
    """Every value of every column of `groups` that has MIN_CASES or more by name, of a column in which no limit of
    groups holds the MAX_VALUES most frequent ones; the rarest together. seed: of the resamples."""
    groups: list[_Group] = []
    notes: list[str] = []
    both = Pair(baseline, candidate, _SAMPLES, seed)
    for column, values in baseline.groups.items():
        margins = GroupMargins(limits, column)
        named = named_values(values, held=margins.any_holds)
        for value, inside in _values(values, named):
            groups.append(_Group(column, value, inside, tuple(tests_in_group(both, inside, margins))))
        notes += unnamed_values(column, values, named)
    families = [_Family.of(groups, held) for held in (True, False)]
    changed = baseline.outcome_places != candidate.outcome_places
    rows = tuple(
        Subgroup(
            group.column,
            group.value,
            int(group.inside.sum()),
            int((baseline.labels[group.inside] == 1).sum()) if baseline.label_kind == "binary" else None,
            int(changed[group.inside].sum()),
            tuple(families[0 if test.held else 1].figure(test) for test in group.tests),
            dict(_vanished(baseline, candidate, group.inside)),
        )
        for group in groups
    )
    return Subgroups(rows, sum(family.size for family in families), _method(families), tuple(notes))


def _vanished(baseline: Predictions, candidate: Predictions, inside: Bools) -> Iterator[tuple[str, int]]:
    names = baseline.outcome_names
    before, after = (np.bincount(of.outcome_places[inside], minlength=len(names)) for of in (baseline, candidate))
    for name, was, now in zip(names, before, after, strict=True):
        if was and not now:
            yield name, int(was)


def named_values(values: Texts, *, held: bool) -> Texts:
    """Those that are groups of their own, the most frequent first. held: whether a limit of groups holds among them;
    of more than MAX_HELD_VALUES the limit is not judged, and as many are named as without it."""
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    large = order[counts[order] >= MIN_CASES]
    return np.asarray(names[large if held and len(large) <= MAX_HELD_VALUES else large[:MAX_VALUES]])


def _values(values: Texts, named: Texts) -> Iterator[tuple[str, Bools]]:
    """Each named value with its cases, and at last all but the MAX_VALUES most frequent ones together: many small ones
    that lose a little each show it only so."""
    for name in named:
        yield str(name), np.asarray(values == name)
    others = ~np.isin(values, named[:MAX_VALUES])
    if others.any():
        yield (OTHER_VALUES if OTHER_VALUES not in named else f"all {OTHER_VALUES}"), others


def unnamed_values(column: str, values: Texts, named: Texts) -> Iterator[str]:
    """A sentence on those that are judged together, where there are any."""
    count, cases = len(np.unique(values)), int((~np.isin(values, named[:MAX_VALUES])).sum())
    rest, together = count - len(named), count - len(named[:MAX_VALUES])
    if together > rest:
        fewer = f", of which {rest:,} with fewer than {MIN_CASES} cases are not named" if rest else ""
        yield (
            f"{column}: {together:,} of {counted(count, 'values')}, the rarest{fewer}, are also judged together, as "
            f"{OTHER_VALUES} ({counted(cases, 'cases')})."
        )
    elif rest:
        verb = "is not named but" if rest == 1 else "are not named but, together,"
        yield (
            f"{column}: {rest:,} of {counted(count, 'values')}, the rarest, {verb} judged as {OTHER_VALUES} "
            f"({counted(cases, 'cases')})."
        )


@dataclass(frozen=True)
class _Family:
    """Tests that are corrected for each other. confidence: of each bound; adjusted: test (its id) -> p-value."""

    confidence: float
    adjusted: dict[int, float]

    @classmethod
    def of(cls, groups: Sequence[_Group], held: bool) -> _Family:
        """held: those that a limit of groups holds, or all others."""
        tests = [test for group in groups for test in group.tests if test.held is held]
        known = [(id(test), test.p_value) for test in tests if test.p_value is not None]
        adjusted = holm([p_value for _, p_value in known])
        return cls(1 - 0.05 / max(1, len(known)), dict(zip((key for key, _ in known), adjusted, strict=True)))

    @property
    def size(self) -> int:
        return len(self.adjusted)

    def figure(self, test: GroupTest) -> SubgroupFigure:
        confidence, p_value = test.confidence(self.confidence), self.adjusted.get(id(test))
        low = None if test.low is None else test.low(confidence or self.confidence)
        return SubgroupFigure(
            test.metric.name,
            test.before,
            test.after,
            test.gain,
            low,
            test.margin,
            p_value,
            _status(test, low, p_value, confidence is not None),
            low is not None and confidence is not None,
            test.threshold,
        )


def _status(test: GroupTest, low: float | None, p_value: float | None, can_show: bool) -> SubgroupStatus:
    if p_value is not None and p_value <= 0.05:
        return "shown worse"
    if test.limited and can_show and low is not None and low >= -test.margin:
        return "not worse"
    if test.limited and -test.gain > test.margin:
        return "worse, not shown"
    return "too few cases" if test.few or low is None else "no sign of harm"


def _method(families: Sequence[_Family]) -> str:
    held, others = families
    if not (held.size and others.size):
        one = held if held.size else others
        return (
            f"{counted(one.size, 'comparisons')}: the bounds hold together with 95% confidence (Bonferroni, "
            f"{one.confidence:.3%} each); {_SHOWN}"
        )
    return (
        f"{counted(held.size, 'comparisons')} by limits of groups and {others.size:,} others: the bounds of either "
        f"hold together with 95% confidence (Bonferroni, {held.confidence:.3%} and {others.confidence:.3%} each); "
        f"{_SHOWN}"
    )


_SHOWN = (
    "a loss beyond the limit is shown where its p-value is below 5% after Holm's correction. A group that could keep a "
    "limit by itself, but not with so much confidence, is judged with as much as it can."
)


def holm(p_values: list[float]) -> list[float]:
    """Adjusted, in the same order: the smallest times their number, the next times one less, never falling."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted
