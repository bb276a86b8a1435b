"""How many cases would show that no more than the margin was lost, in four studies of five: the power of the very bound
that judges, computed for more cases of the kind at hand. `bench/levels.py` simulates how right it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats
from featherweight.core.statistics.cluster_kinds import fewest_clusters
from featherweight.core.statistics.intervals import Z_ONE_SIDED, Difference, design_effect
from featherweight.core.statistics.loss_bounds import LEAST_AS_SEEN, Events, OwnLosses, Unseen, loss_upper_bound
from featherweight.core.statistics.paired import score_statistic

POWER = 0.8
_Z_POWER = NormalDist().inv_cdf(POWER)
_MOST = 1e9
"""Cases beyond which nobody has any: none is said then."""
_PARTS = 256
"""Equally probable parts of the distribution of the number of changed cases, each stood for by its middle."""


@dataclass(frozen=True)
class Needed:
    """least: if nothing changes at all: with fewer no candidate can keep the margin; without_loss: if as much changes
    as in the cases at hand, but nothing is lost; as_seen: if the loss is as large as it was seen, None where that is
    the margin or more. None too where the cases at hand do not tell."""

    least: int | None
    without_loss: int | None
    as_seen: int | None

    def describe(self, kind: str) -> str:
        """kind: what is counted, `positive cases`. The larger number comes first: who plans must know it."""
        if self.as_seen is None:
            return f"about {self.without_loss or 0:,} {kind} would, in four cases of five, if there is no loss"
        if self.without_loss is None or self.as_seen <= self.without_loss:
            return f"about {max(self.as_seen, self.without_loss or 0):,} {kind} would, in four cases of five"
        return (
            f"about {self.as_seen:,} {kind} would, in four cases of five, if the loss is as large as seen; "
            f"{self.without_loss:,} if there is none"
        )


def cases_needed(difference: Difference, cases: int, margin: float) -> Needed:
    """Of a bound that lies 1.64 standard errors below the estimate: as many times the cases at hand as make the error,
    which shrinks with their root, small enough; the mix of the classes stays as it is."""
    error = (difference.estimate - difference.low) / Z_ONE_SIDED

    def needed(loss: float) -> int | None:
        if loss >= margin or error <= 0:
            return None
        times = (Z_ONE_SIDED + _Z_POWER) * error / (margin - loss)
        return None if times > _MOST or cases * times**2 > _MOST else math.ceil(cases * times**2)

    return Needed(None, needed(0.0), needed(max(0.0, -difference.estimate)))


def cases_needed_of_share(changes: Floats, margin: float, clusters: Sequence[Clusters] = ()) -> Needed:
    """For the bound of a share (core.statistics.paired). changes: 1 gained, -1 lost, 0 neither [N]. The share of
    changed cases counts one more than was seen, so that none seen does not mean that none would be."""
    count = len(changes)
    if margin <= 0 or _least_of_share(margin) > _MOST:  # no number of cases shows that nothing at all is lost
        return Needed(None, None, None)
    effect = design_effect(changes, clusters)
    a_cluster = count / max(1, fewest_clusters(clusters, count))
    least = max(effect, a_cluster) * _least_of_share(margin)
    changed, seen = (float(abs(changes).sum()) + 1) / (count + 1), max(0.0, -float(changes.mean()))
    own = OwnLosses(-changes / count, 1 / count, np.ones(count, bool), clusters)

    def needed(loss: float, by_own: Callable[[], int | None]) -> int | None:
        if loss >= margin:
            return None
        found = _least_cases(lambda cases: _power_of_share(cases, margin, changed, loss), 1.0)
        clustered = by_own() if a_cluster > 1 else 0
        if found is None or clustered is None:
            return None
        return max(math.ceil(max(effect * found, least)), clustered)

    ranked = cases_needed_of_own_losses(own, "as-seen", margin)
    return Needed(math.ceil(least), needed(0.0, lambda: ranked.without_loss), needed(seen, lambda: ranked.as_seen))


def _least_of_share(margin: float) -> float:
    """Cases of which none changed whose exact bound is the margin (with the doubt of paired.exact_bound)."""
    if margin >= 1:
        return 1.0
    return math.inf if margin < 1 / _MOST else math.log(0.05 * 0.98) / math.log1p(-margin)


def _power_of_share(trials: int, margin: float, changed: float, loss: float) -> float:
    """The probability that the exact bound keeps the margin, if a share `changed` of the decisions changes and `loss`
    of them on balance are lost."""
    from scipy.special import bdtr, bdtrik

    changed = min(1.0, max(changed, loss))
    middles = (np.arange(_PARTS) + 0.5) / _PARTS
    total = np.ceil(bdtrik(middles, trials, changed))[:, None]
    # Of so many changed cases at most so many may be lost: bisected for all parts at once.
    kept, too_many = np.full_like(total, -1), total + 1
    while (too_many - kept > 1).any():
        lost = np.floor((kept + too_many) / 2)
        passes = _keeps(trials, lost, total - lost, margin)
        kept, too_many = np.where(passes, lost, kept), np.where(passes, too_many, lost)
    share_lost = (changed + loss) / (2 * changed)
    return float(np.where(kept < 0, 0.0, bdtr(np.maximum(kept, 0), total.astype(np.int64), share_lost)).mean())


def _keeps(trials: int, lost: Floats, gained: Floats, margin: float) -> Bools:
    """Whether the exact bound keeps the margin: where Tango's does with so much to spare as the exact one lies beyond
    it (5% of its reach where all changes are losses, .5% where they are balanced; more with few cases)."""
    one_sided = np.maximum(lost - gained, 0) / np.maximum(lost + gained, 1)
    exacter = np.where(lost + gained == 0, 1.056, 1.005 + 0.045 * one_sided) + 0.9 / trials
    return np.asarray(score_statistic(trials, lost, gained, -margin) >= Z_ONE_SIDED * exacter)


def cases_needed_of_own_losses(own: OwnLosses, unseen: Unseen, margin: float) -> Needed:
    """For the bounds of losses that each case has its part in. The mix of the classes stays as it is."""
    count, loss = len(own.parts), max(0.0, own.loss)
    events = max(own.events, key=lambda one: one.reach(unseen))
    reach = events.reach(unseen)
    # Clusters of two kinds reach further than those of either: so much less of the margin is left.
    margin /= 1.0 if reach == 0 else (loss_upper_bound(own, unseen) - own.loss) / reach

    def needed(of: Events) -> int | None:
        return _least_cases(lambda cases: of.of_more(cases / count).chance_within(margin, unseen), count)

    def unchanged(cases: int) -> float:
        return 1.0 if events.unchanged.of_more(cases / count).reach(unseen) <= margin else 0.0

    without = needed(events.balanced)
    as_seen = needed(events) if loss > 0 else without
    return Needed(_least_cases(unchanged, count), without, as_seen if loss < margin else None)


def believed_from(needed: Needed, cases: int, rarer: int) -> Needed:
    """No fewer than hold LEAST_AS_SEEN of the rarer class, below which no bound that takes the unseen case as seen is
    believed: at the least with the mix of the classes as it is; with the power wanted where the mix is drawn. rarer: of
    the rarer class among so many cases, or clusters with such."""
    if not rarer:
        return Needed(None, None, None)

    def enough(count: int) -> float:
        from scipy.special import bdtrc

        return float(bdtrc(LEAST_AS_SEEN - 1, count, rarer / cases))

    least, likely = math.ceil(LEAST_AS_SEEN * cases / rarer), _least_cases(enough, LEAST_AS_SEEN)

    def no_fewer(count: int | None, floor: int | None) -> int | None:
        return None if count is None or floor is None else max(count, floor)

    return Needed(
        no_fewer(needed.least, least), no_fewer(needed.without_loss, likely), no_fewer(needed.as_seen, likely)
    )


def _least_cases(power: Callable[[int], float], start: float) -> int | None:
    """The least number of cases with the wanted power, of a power that rises with it; None where not even very many
    have it."""
    high = max(2, math.ceil(start))
    while power(high) < POWER:
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while low > 1 and power(low) >= POWER:
        high, low = low, low // 2
    while high - low > max(1, high // 500):
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
