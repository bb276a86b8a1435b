"""What a stated prevalence makes of sensitivity and specificity: predictive values, and what is lost of them.

The cases of a study are seldom as frequent as those of the clinic or the shop; a positive predictive value that is
counted on them says nothing about either. At a prevalence p, of a sensitivity a and a specificity b:

    positive: p a / (p a + (1 - p) (1 - b))        negative: (1 - p) b / ((1 - p) b + p (1 - a))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Integers
from featherweight.core.statistics.cluster_kinds import between_clusters, kinds_among
from featherweight.core.statistics.intervals import Z_ONE_SIDED, Difference, share_interval
from featherweight.core.statistics.paired import paired_share_difference

Sign = Literal["positive", "negative"]
_STEP = 1e-6


def predictive_value(sign: Sign, sensitivity: float, specificity: float, prevalence: float) -> float | None:
    """None where no case gets such a decision."""
    if sign == "positive":
        right, wrong = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    else:
        right, wrong = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    return right / (right + wrong) if right + wrong > 0 else None


@dataclass(frozen=True)
class PairedDecisions:
    """positive: bool [N], the truth; before, after: bool [N], what two programs decide; clusters: of each kind."""

    positive: Bools
    before: Bools
    after: Bools
    clusters: Sequence[Clusters] = ()


def predictive_value_difference(sign: Sign, decisions: PairedDecisions, prevalence: float) -> Difference | None:
    """Paired: by how much the candidate's predictive value is the larger one, with its one-sided 95% lower bound; None
    without cases of a class, and where a value does not exist.

    The bound is the lower one of two. One joins the intervals of both values on the logit scale (Mercaldo, Lau and
    Zhou, Statistics in Medicine 2007), whose errors are the delta method's between clusters, by MOVER with their
    correlation (Zou and Donner, Statistics in Medicine 2008); it is too near where hardly a decision changed. The
    other joins, by MOVER too, the exact paired bounds of sensitivity and specificity, which hold there, with Wilson's
    intervals of the baseline's own.
    """
    positive = decisions.positive
    if not 0 < positive.sum() < len(positive):
        return None
    right = [np.asarray(one == positive) for one in (decisions.before, decisions.after)]
    shares = [(float(one[positive].mean()), float(one[~positive].mean())) for one in right]
    values = [predictive_value(sign, *share, prevalence) for share in shares]
    if values[0] is None or values[1] is None:
        return None
    estimate = values[1] - values[0]
    ends = values[0], values[1]
    reach = max(
        _delta_reach(sign, decisions, right, shares, prevalence, ends),
        _mover_reach(sign, decisions, right, shares, prevalence),
    )
    return Difference(estimate, max(-1.0, estimate - reach))


def _slopes(value: Callable[[float, float], float | None], at: tuple[float, float]) -> tuple[float, float]:
    """Partial derivatives by sensitivity and specificity, from inside of 0..1."""
    found = []
    for place in (0, 1):
        low, high = (
            tuple(min(1.0, max(0.0, one + step * (index == place))) for index, one in enumerate(at))
            for step in (-_STEP, _STEP)
        )
        ends = value(*low), value(*high)
        known = ends[0] is not None and ends[1] is not None
        found.append((ends[1] - ends[0]) / (high[place] - low[place]) if known else 0.0)  # type: ignore[operator]
    return found[0], found[1]


def _delta_reach(
    sign: Sign,
    decisions: PairedDecisions,
    right: list[Bools],
    shares: list[tuple[float, float]],
    prevalence: float,
    values: tuple[float, float],
) -> float:
    """From each value's interval on the logit scale, which is as skewed as a predictive value is, and from how they
    vary together."""
    parts = [_own_parts(sign, decisions.positive, *one, prevalence) for one in zip(right, shares, strict=True)]
    kinds = decisions.clusters or (np.arange(len(decisions.positive)),)

    def squared_reach(place: Integers) -> float:
        sums = [np.asarray(np.bincount(place, one), np.float64) for one in parts]
        spread = [math.sqrt(float(one @ one) * len(one) / max(1, len(one) - 1)) for one in sums]
        together = float(sums[0] @ sums[1]) * len(sums[0]) / max(1, len(sums[0]) - 1)
        above = _logit_moved(values[0], spread[0]) - values[0]
        below = values[1] - _logit_moved(values[1], -spread[1])
        correlation = together / (spread[0] * spread[1]) if spread[0] > 0 and spread[1] > 0 else 0.0
        return max(0.0, above**2 + below**2 - 2 * correlation * above * below)

    return math.sqrt(between_clusters(squared_reach, kinds))


def _own_parts(sign: Sign, positive: Bools, right: Bools, share: tuple[float, float], prevalence: float) -> Floats:
    """Each case's part in the error of one predictive value."""

    def value(sensitivity: float, specificity: float) -> float | None:
        return predictive_value(sign, sensitivity, specificity, prevalence)

    slopes, parts = _slopes(value, share), np.zeros(len(positive))
    for inside, slope, mean in ((positive, slopes[0], share[0]), (~positive, slopes[1], share[1])):
        parts[inside] = slope * (right[inside] - mean) / inside.sum()
    return parts


def _logit_moved(value: float, error: float) -> float:
    """The value so many of its standard errors away, on the logit scale, that are one-sided 95%."""
    if not 0 < value < 1:
        return value
    logit = math.log(value / (1 - value)) + Z_ONE_SIDED * error / (value * (1 - value))
    return 1 / (1 + math.exp(-min(700.0, max(-700.0, logit))))


def _mover_reach(
    sign: Sign, decisions: PairedDecisions, right: list[Bools], shares: list[tuple[float, float]], prevalence: float
) -> float:
    """The four parts of the loss, each moved alone to where it is worst: what is lost of either share, and how large
    the baseline's is."""
    before, changes = shares[0], [after - was for was, after in zip(*shares, strict=True)]

    def loss(start: Sequence[float], change: Sequence[float]) -> float:
        ends = [min(1.0, max(0.0, at + by)) for at, by in zip(start, change, strict=True)]
        was = predictive_value(sign, start[0], start[1], prevalence)
        now = predictive_value(sign, ends[0], ends[1], prevalence)
        return (1.0 if was is None else was) - (0.0 if now is None else now)

    seen, reaches = loss(before, changes), []
    for place, inside in enumerate((decisions.positive, ~decisions.positive)):
        kinds = kinds_among(decisions.clusters, inside)
        found = paired_share_difference(right[0][inside], right[1][inside], kinds)
        low = -1.0 if found is None else found.low
        reaches.append(loss(before, _with(changes, place, low)) - seen)
        interval = share_interval(right[0][inside], kinds)
        ends = () if interval is None else (interval.low, interval.high)
        reaches.append(max((loss(_with(before, place, end), changes) - seen for end in ends), default=0.0))
    return math.hypot(*(max(0.0, reach) for reach in reaches))


def _with(values: Sequence[float], place: int, value: float) -> list[float]:
    return [value if index == place else one for index, one in enumerate(values)]
