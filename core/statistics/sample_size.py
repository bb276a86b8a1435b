"""How many cases would show that nothing worse than the margin was lost: the sample size of a paired non-inferiority
comparison with 80% power at a one-sided 5% (Liu et al., Statistics in Medicine 2002, for shares), from the variance in
the cases at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from featherweight.core.arrays import Clusters, Floats
from featherweight.core.statistics.intervals import Z_ONE_SIDED, Difference, design_effect

POWER = 0.8
_REACH = Z_ONE_SIDED + NormalDist().inv_cdf(POWER)


@dataclass(frozen=True)
class Needed:
    """without_loss: if there is none; as_seen: if the loss is as large as in the cases at hand, None where that is the
    margin or more; both None where the cases at hand do not tell."""

    without_loss: int | None
    as_seen: int | None

    def describe(self, kind: str) -> str:
        """kind: what is counted, `positive cases`."""
        more = f"; {self.as_seen:,} if it is as large as seen" if self.as_seen else "; none if it is as large as seen"
        more = "" if self.as_seen == self.without_loss else more
        return f"about {self.without_loss:,} {kind} would, in four cases of five, if there is no loss{more}"


def cases_needed(difference: Difference, cases: int, margin: float) -> Needed:
    """As many times the cases at hand as makes the error, which shrinks with their root, small enough; the mix of the
    classes stays as it is."""
    error = (difference.estimate - difference.low) / Z_ONE_SIDED

    def needed(loss: float) -> int | None:
        if loss >= margin or error <= 0:
            return None
        return math.ceil(cases * (_REACH * error / (margin - loss)) ** 2)

    return Needed(needed(0.0), needed(max(0.0, -difference.estimate)))


def cases_needed_of_share(changes: Floats, margin: float, clusters: Clusters | None = None) -> Needed:
    """For a share. changes: 1 gained, -1 lost, 0 neither [N]. The share of changed cases counts one more than was seen,
    so that none seen does not mean that none would be; and fewer than the rule of three asks for (of clusters, where
    cases come in them) never do."""
    effect = design_effect(changes, clusters)
    a_cluster = 1.0 if clusters is None else len(clusters) / max(1, len(np.unique(clusters)))
    changed = (float(abs(changes).sum()) + 1) / (len(changes) + 1)

    def needed(loss: float) -> int | None:
        if loss >= margin:
            return None
        by_variance = _REACH**2 * (changed - loss**2) / (margin - loss) ** 2
        none_lost = math.log(0.05) / math.log1p(-margin) if margin < 1 else 1.0
        return math.ceil(max(effect * by_variance, max(effect, a_cluster) * none_lost))

    return Needed(needed(0.0), needed(max(0.0, -float(changes.mean()))))
