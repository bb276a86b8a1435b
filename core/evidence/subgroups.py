"""The comparison again within each group of cases: site, device, sex, amount band, subtype of a class.

Many groups are many chances to look bad by accident. The bounds of the whole table hold together with 95% confidence
(Bonferroni), and a loss beyond the margin is called shown where its p-value stands up to Holm's correction
(Scandinavian Journal of Statistics 1979), which is Bonferroni's with more power. Neither needs independent groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools
from featherweight.core.evidence import metrics
from featherweight.core.evidence.metric import Metric, Pair
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, SENSITIVITY, SPECIFICITY, Limits
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics.loss_bounds import OwnLosses, least_bound, loss_upper_bound
from featherweight.core.statistics.loss_bounds import p_value as loss_p_value
from featherweight.core.statistics.paired import at_effective_counts, exact_p_value, paired_share_difference
from featherweight.core.terminal import counted

SMALL_GROUP = 20
"""Minimum cases of a class that a figure needs; with fewer, it is shown but not judged."""
MAX_VALUES = 20
MIN_CASES = 5
"""Minimum cases of a value that is named: the evidence travels with the artifact, and a value of single cases may tell
whose they are (a name, a date of birth)."""
_SAMPLES = 500

SubgroupStatus = Literal["not worse", "no sign of harm", "worse, not shown", "shown worse", "too few cases"]
"""not worse: the bound keeps the margin; no sign of harm: the loss that was seen keeps it, the bound does not, or there
is no margin; worse, not shown: the loss that was seen does not, but chance may have made it; shown worse: chance has
not."""


@dataclass(frozen=True)
class SubgroupFigure:
    """name: of a metric of the table; difference: the candidate's gain, candidate minus baseline where more is better;
    low: its lower bound, with 95% confidence in all bounds of the table together; margin: the recipe's limit on the
    loss, or 0 where it has none (then nothing can be shown to be `not worse`); p_value: of a loss beyond the margin,
    adjusted."""

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


@dataclass(frozen=True)
class Subgroup:
    """The cases of one value of one column. flips: decisions that changed among them."""

    column: str
    value: str
    cases: int
    positives: int
    flips: int
    figures: tuple[SubgroupFigure, ...]

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
    correction in a sentence; notes: what was left out."""

    rows: tuple[Subgroup, ...]
    tests: int
    method: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Margins:
    """What may be lost in the groups of one column."""

    limits: Limits
    column: str

    def of(self, metric: Metric) -> float | None:
        return self.limits.in_group(metric, self.column)


def _always(confidence: float) -> bool:
    return True


@dataclass(frozen=True)
class _Test:
    """One figure of one group before the correction. low: the bound at a confidence, p_value: of a loss beyond the
    margin; both None where there are too few cases; can_show: whether the bound could keep the margin at a confidence,
    if nothing were lost."""

    metric: Metric
    before: float
    after: float
    margin: float
    limited: bool
    low: Callable[[float], float] | None
    p_value: float | None
    can_show: Callable[[float], bool] = _always

    @property
    def gain(self) -> float:
        change = self.after - self.before
        return change if self.metric.direction == "higher" else -change


@lru_cache(maxsize=4)
def compare_subgroups(baseline: Predictions, candidate: Predictions, limits: Limits, *, seed: int) -> Subgroups:
    """Every value of every column of `groups` that has MIN_CASES or more; of a column with more than MAX_VALUES the
    most frequent ones. A group that holds one class only (a subtype of it) is ranked against all cases of the other
    class. seed: of the resamples."""
    groups, notes = [], []
    both = Pair(baseline, candidate, _SAMPLES, seed)
    for column, values in baseline.groups.items():
        names, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shown = [place for place in order[:MAX_VALUES] if counts[place] >= MIN_CASES]
        if len(shown) < len(names):
            rest = len(names) - len(shown)
            verb = "is" if rest == 1 else "are"
            notes.append(f"{column}: {rest:,} of {counted(len(names), 'values')}, the rarest, {verb} left out.")
        for name in names[shown]:
            inside = values == name
            groups.append((column, str(name), inside, list(_tests(both, inside, _Margins(limits, column)))))
    judged = [test for *_, tests in groups for test in tests if test.p_value is not None]
    adjusted = iter(holm([test.p_value for test in judged if test.p_value is not None]))
    confidence = 1 - 0.05 / max(1, len(judged))
    rows = []
    for column, name, inside, tests in groups:
        figures = tuple(_figure(test, None if test.low is None else next(adjusted), confidence) for test in tests)
        flips = int((baseline.outcome_places != candidate.outcome_places)[inside].sum())
        positives = int((baseline.labels[inside] == 1).sum())
        rows.append(Subgroup(column, name, int(inside.sum()), positives, flips, figures))
    method = (
        f"{counted(len(judged), 'comparisons')}: the bounds hold together with 95% confidence (Bonferroni, "
        f"{confidence:.3%} each); "
        f"a loss beyond the limit is shown where its p-value is below 5% after Holm's correction."
    )
    return Subgroups(tuple(rows), len(judged), method, tuple(notes))


def holm(p_values: list[float]) -> list[float]:
    """Adjusted, in the same order: the smallest times their number, the next times one less, never falling."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


def _figure(test: _Test, p_value: float | None, confidence: float) -> SubgroupFigure:
    low = None if test.low is None else test.low(confidence)
    can = low is not None and test.can_show(confidence)
    status: SubgroupStatus
    if low is None or p_value is None:
        status = "too few cases"
    elif p_value <= 0.05:
        status = "shown worse"
    elif test.limited and low >= -test.margin:
        status = "not worse"
    else:
        status = "worse, not shown" if test.limited and -test.gain > test.margin else "no sign of harm"
    return SubgroupFigure(test.metric.name, test.before, test.after, test.gain, low, test.margin, p_value, status, can)


def _tests(both: Pair, inside: Bools, limits: _Margins) -> Iterator[_Test]:
    """AUC unless the recipe limits average precision in its place, sensitivity, specificity, and every other metric
    whose loss it limits."""
    positive = both.baseline.labels == 1
    hits, misses = bool((inside & positive).any()), bool((inside & ~positive).any())
    ranked = inside if hits and misses else inside | (~positive if hits else positive)
    both_classes = 0 < (ranked & positive).sum() < ranked.sum()
    if both_classes and (limits.of(AUC) is not None or limits.of(AVERAGE_PRECISION) is None):
        yield _ranked(AUC, both, ranked, limits)
    if both_classes and limits.of(AVERAGE_PRECISION) is not None:
        yield _ranked(AVERAGE_PRECISION, both, ranked, limits)
    for metric, part in ((SENSITIVITY, inside & positive), (SPECIFICITY, inside & ~positive)):
        if part.any():
            yield _share(metric, both, part, limits)
    of_their_own = (AUC, AVERAGE_PRECISION, SENSITIVITY, SPECIFICITY)
    for metric, _ in metrics.limits().values():
        limited = metric.is_compared and metric.in_groups and limits.of(metric) is not None
        if both_classes and limited and metric not in of_their_own:
            yield (_by_error if metric.own_losses is None else _ranked)(metric, both, ranked, limits)


def _enough(of: Predictions, inside: Bools) -> bool:
    positive = of.labels == 1
    return min(int((inside & positive).sum()), int((inside & ~positive).sum())) >= SMALL_GROUP


def _ranked(metric: Metric, both: Pair, inside: Bools, limits: _Margins) -> _Test:
    part = Pair(both.baseline.among(inside), both.candidate.among(inside), both.samples, both.seed)
    was, now = (
        0.0 if metric.estimate is None else metric.estimate(one) or 0.0 for one in (part.baseline, part.candidate)
    )
    limit, own = limits.of(metric), part.own_losses(metric)
    margin = limit or 0.0
    if own is None or not _enough(both.baseline, inside):
        return _Test(metric, was, now, margin, limit is not None, None, None)

    def low(confidence: float) -> float:
        return max(-1.0, -loss_upper_bound(own, "as-seen", confidence=confidence))

    def can_show(confidence: float) -> bool:
        return least_bound(own, confidence=confidence) <= margin

    return _Test(metric, was, now, margin, limit is not None, low, loss_p_value(own, margin), can_show)


def _by_error(metric: Metric, both: Pair, inside: Bools, limits: _Margins) -> _Test:
    """From the error that the metric's own bound of the difference is made with."""
    part = Pair(both.baseline.among(inside), both.candidate.among(inside), both.samples, both.seed)
    difference, enough = part.difference(metric, "as-seen"), _enough(both.baseline, inside)
    was, now = (
        0.0 if metric.estimate is None else metric.estimate(one) or 0.0 for one in (part.baseline, part.candidate)
    )
    error = 0.0 if difference is None else (difference.estimate - difference.low) / s.Z_ONE_SIDED
    return _normal(metric, was, now, error, enough, limits.of(metric))


def _normal(metric: Metric, was: float, now: float, error: float, enough: bool, limit: float | None) -> _Test:
    margin, normal = limit or 0.0, NormalDist()
    unknown = _Test(metric, was, now, margin, limit is not None, None, None)
    if not enough:
        return unknown

    def low(confidence: float) -> float:
        return max(-1.0, unknown.gain - normal.inv_cdf(confidence) * error)

    beyond = -unknown.gain - margin
    p_value = (1.0 if beyond <= 0 else 0.0) if error == 0 else normal.cdf(-beyond / error)
    return replace(unknown, low=low, p_value=p_value)


def _share(metric: Metric, both: Pair, part: Bools, limits: _Margins) -> _Test:
    before, after, limit = both.baseline, both.candidate, limits.of(metric)
    positive = before.labels == 1
    right_before, right_after = ((one.decisions == positive)[part] for one in (before, after))
    was, now, margin = float(right_before.mean()), float(right_after.mean()), limit or 0.0
    if len(right_before) < SMALL_GROUP:
        return _Test(metric, was, now, margin, limit is not None, None, None)
    kinds = [kind[part] for kind in before.cluster_kinds]

    def low(confidence: float) -> float:
        found = paired_share_difference(right_before, right_after, kinds, confidence=confidence)
        return -1.0 if found is None else found.low

    lost, gained = int((right_before & ~right_after).sum()), int((right_after & ~right_before).sum())
    changes = right_after.astype(np.float64) - right_before
    effect = s.design_effect(changes, kinds[0] if kinds else None)

    def of_losses(trials: int, gains: int, losses: int) -> float:
        return exact_p_value(trials, losses, gains, margin)  # their number plays the part of the gains

    beyond = was - now > margin
    p_value = at_effective_counts(of_losses, len(right_before), gained, lost, effect) if beyond else 1.0
    if kinds and beyond:
        own = OwnLosses(-changes / len(changes), 1 / len(changes), np.ones(len(changes), bool), kinds)
        p_value = max(p_value, loss_p_value(own, margin))

    independent = min([len(np.unique(kind)) for kind in kinds], default=len(changes))

    def can_show(confidence: float) -> bool:  # the rule of three, for any confidence
        return bool(1 - (1 - confidence) ** (1 / independent) <= margin)

    return _Test(metric, was, now, margin, limit is not None, low, p_value, can_show)
