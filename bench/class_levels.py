"""How often limits on several classes pass a candidate that is exactly as bad as they allow, simulated with a truth
that is known. Part of `bench.levels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Clusters, Floats, Labels
from featherweight.core.evidence.class_predictions import ClassPredictions
from featherweight.core.evidence.metric import Pair
from featherweight.core.evidence.metrics import AUC, limits
from featherweight.core.softmax import softmax
from featherweight.core.statistics.loss_bounds import Unseen

Row = tuple[str, ...]
WHOLE = (
    "macro_auc_loss",
    "macro_average_precision_loss",
    "balanced_accuracy_loss",
    "kappa_loss",
    "class_brier_loss",
)
COLUMNS = ("cases", "change", "bound", *WHOLE, "auc_loss")
"""The last holds in each class. Accuracy and what is decided in each class have the exact bound of a share."""
_MANY = 200_000


@dataclass(frozen=True)
class Change:
    """What becomes of the scores [N, K]: noise of all; a share of the cases with noise of three deviations; a share of
    the rarest class whose own score sinks below all others. whole: shares of clusters, not of cases."""

    name: str
    noise: float = 0.0
    strong: float = 0.0
    lost: float = 0.0
    whole: bool = False

    def apply(self, scores: Floats, labels: Labels, owner: Clusters, draw: np.random.Generator) -> Floats:
        chance = draw.random(int(owner.max()) + 1)[owner] if self.whole else draw.random(len(scores))
        after = scores + self.noise * draw.normal(size=scores.shape)
        after = after + np.where(chance < self.strong, 3.0, 0.0)[:, None] * draw.normal(size=scores.shape)
        rarest = scores.shape[1] - 1
        after[(chance < self.lost) & (labels == rarest), rarest] -= 20
        return after


CHANGES = (
    Change("slight, all", noise=0.2),
    Change("2% strongly", strong=0.02),
    Change("5% of the rarest class lost", lost=0.05),
)


def _study(
    units: int, largest: int, shares: Sequence[float], change: Change, draw: np.random.Generator
) -> tuple[ClassPredictions, ClassPredictions]:
    """Cases of one cluster are of one class and have half of their noise in common."""
    owner = np.repeat(np.arange(units), draw.integers(1, largest + 1, units))
    labels = draw.choice(len(shares), units, p=shares)[owner].astype(np.int64)
    noise = draw.normal(size=(len(owner), len(shares)))
    if largest > 1:
        noise = (noise + draw.normal(size=(units, len(shares)))[owner]) / np.sqrt(2)
    scores = 2.5 * np.eye(len(shares))[labels] + noise
    after = change.apply(scores, labels, owner, draw)
    ids, names = tuple(map(str, range(len(owner)))), tuple(f"class {place}" for place in range(len(shares)))
    clusters = owner if largest > 1 else None
    both = [
        ClassPredictions(ids, labels, one, 0.0, softmax(one), clusters=clusters, names=names) for one in (scores, after)
    ]
    return both[0], both[1]


def passes(
    units: int, largest: int, shares: Sequence[float], change: Change, studies: int, seed: int
) -> tuple[Row, Row]:
    """Of each limit the share of studies that pass with the true loss as the margin; that on AUC holds in each class,
    and its margin is the largest of theirs."""
    draw = np.random.default_rng(seed)
    whole = Pair(*_study(_MANY, 1, shares, change, draw), 0, 0, False)
    table = limits("multi-class")
    true = {name: _true(whole, name) for name in (*WHOLE, "auc_loss")}
    passed: dict[Unseen, dict[str, int]] = {"as-seen": dict.fromkeys(true, 0), "lost": dict.fromkeys(true, 0)}
    for _ in range(studies):
        before, after = _study(units, largest, shares, change, draw)
        both = Pair(before, after, 0, 0, False)
        for name in WHOLE:
            for unseen in passed:
                found = both.difference(table[name][0], unseen)
                passed[unseen][name] += found is not None and -found.low <= true[name]
        for unseen in passed:
            found_in = [one.difference(AUC, unseen) for _, one in both.parts]
            passed[unseen]["auc_loss"] += all(one is not None and -one.low <= true["auc_loss"] for one in found_in)
    cases = f"{units:,}" + (f" clusters of 1 to {largest}" if largest > 1 else "")
    rarest = f"{cases}, {shares[-1]:.0%} rarest"
    rows = [
        (rarest, change.name, unseen, *(f"{count / studies:.1%}" for count in found.values()))
        for unseen, found in passed.items()
    ]
    return rows[0], rows[1]


def _true(whole: Pair, name: str) -> float:
    metric = limits("multi-class")[name][0]
    estimate = metric.estimate
    assert estimate is not None
    sign = 1.0 if metric.direction == "higher" else -1.0
    losses = [
        sign * ((estimate(one.baseline) or 0.0) - (estimate(one.candidate) or 0.0)) for one in whole.pairs_of(metric)
    ]
    return max(losses)


def settings() -> Iterator[tuple[int, int, Sequence[float], Change]]:
    for change in CHANGES:
        yield 600, 1, (0.25, 0.25, 0.25, 0.25), change
        yield 1200, 1, (0.4, 0.3, 0.2, 0.1), change
    yield 500, 4, (0.3, 0.3, 0.2, 0.2), CHANGES[0]
    yield 500, 4, (0.3, 0.3, 0.2, 0.2), Change("5% of the rarest class's clusters lost", lost=0.05, whole=True)


Table = tuple[Sequence[str], Sequence[Row]]


def simulate(studies: int, pool: ProcessPoolExecutor) -> dict[str, Table]:
    of: Callable[..., tuple[Row, Row]] = passes
    waiting = [pool.submit(of, *one, studies, seed) for seed, one in enumerate(settings())]
    rows = [row for one in waiting for row in one.result()]
    return {f"several classes: passed at the margin, {studies} studies": (COLUMNS, rows)}
